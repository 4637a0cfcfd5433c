package pdu

import (
	"encoding/hex"
	"reflect"
	"strings"
	"testing"
)

// figures has one PDU of each kind as the figures of RFC 7143 section 11 lay it
// out, a line for every 16 bytes, with every field that the figure names.
var figures = []struct {
	section, bytes string
	want           Message
}{
	{"11.3 SCSI Command", `
		41e2 0000 02000800 0001000000000000
		00000010 00000400 0000000b 0000000c
		7f000000 00000018 00880000 00000000`,
		&SCSICommand{Head: Head{Immediate: true, AHSLen: 8, DataLen: 2048, ITT: 0x10}, Final: true, Read: true, Write: true, Attr: 2,
			LUN: 1 << 48, EDTL: 1024, CmdSN: 11, ExpStatSN: 12, CDB: [16]byte{0x7f, 7: 0x18, 9: 0x88}}},
	{"11.4 SCSI Response", `
		2192 0102 00000014 0000000000000000
		00000010 00000077 00000015 00000016
		00000017 00000003 00000200 00000100`,
		&SCSIResponse{Head: Head{DataLen: 20, ITT: 0x10}, ReadOverflow: true, Underflow: true, Response: 1, Status: 2, SNACKTag: 0x77,
			StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, ExpDataSN: 3, ReadResidual: 0x200, Residual: 0x100}},
	{"11.4 SCSI Response, the other flags", `
		218c 0000 00000000 0000000000000000
		00000010 00000000 00000015 00000016
		00000017 00000000 00000001 00000002`,
		&SCSIResponse{Head: Head{ITT: 0x10}, ReadUnderflow: true, Overflow: true,
			StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, ReadResidual: 1, Residual: 2}},
	{"11.5 Task Management Function Request", `
		4281 0000 00000000 0005000000000000
		00000010 00000009 0000000b 0000000c
		0000000a 00000002 00000000 00000000`,
		&TaskRequest{Head: Head{Immediate: true, ITT: 0x10}, Function: 1, LUN: 5 << 48, RTT: 9, CmdSN: 11, ExpStatSN: 12, RefCmdSN: 10, ExpDataSN: 2}},
	{"11.6 Task Management Function Response", `
		2280 0500 00000000 0000000000000000
		00000010 00000000 00000015 00000016
		00000017 00000000 00000000 00000000`,
		&TaskResponse{Head: Head{ITT: 0x10}, Response: 5, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17}},
	{"11.7 SCSI Data-Out", `
		0580 0000 00000400 0001000000000000
		00000010 00000009 00000000 0000000c
		00000000 00000003 00000c00 00000000`,
		&DataOut{Head: Head{DataLen: 1024, ITT: 0x10}, Final: true, LUN: 1 << 48, TTT: 9, ExpStatSN: 12, DataSN: 3, Offset: 0xc00}},
	{"11.7 SCSI Data-In", `
		25c7 0008 00000400 0001000000000000
		00000010 ffffffff 00000015 00000016
		00000017 00000003 00000c00 00000020`,
		&DataIn{Head: Head{DataLen: 1024, ITT: 0x10}, Final: true, Acknowledge: true, Overflow: true, Underflow: true, HasStatus: true, Status: 8,
			LUN: 1 << 48, TTT: Reserved, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, DataSN: 3, Offset: 0xc00, Residual: 32}},
	{"11.8 Ready To Transfer", `
		3180 0000 00000000 0001000000000000
		00000010 00000009 00000015 00000016
		00000017 00000002 00000c00 00000400`,
		&R2T{Head: Head{ITT: 0x10}, LUN: 1 << 48, TTT: 9, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, R2TSN: 2, Offset: 0xc00, Length: 1024}},
	{"11.9 Asynchronous Message: sense data", `
		3280 0000 00000014 0001000000000000
		ffffffff 00000000 00000015 00000016
		00000017 00000000 00000000 00000000`,
		&Async{Head: Head{DataLen: 20, ITT: Reserved}, LUN: 1 << 48, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, Event: EventSCSI}},
	{"11.9 Asynchronous Message: logout", `
		3280 0000 00000000 0000000000000000
		ffffffff 00000000 00000015 00000016
		00000017 01000000 0000001e 00000000`,
		&Async{Head: Head{ITT: Reserved}, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, Event: EventLogout, Param3: 30}},
	{"11.9 Asynchronous Message: drops a connection", `
		3280 0000 00000000 0000000000000000
		ffffffff 00000000 00000015 00000016
		00000017 02000003 00020014 00000000`,
		&Async{Head: Head{ITT: Reserved}, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, Event: EventDrop, Param1: 3, Param2: 2, Param3: 20}},
	{"11.9 Asynchronous Message: drops all", `
		3280 0000 00000000 0000000000000000
		ffffffff 00000000 00000015 00000016
		00000017 03000000 00020014 00000000`,
		&Async{Head: Head{ITT: Reserved}, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, Event: EventDropAll, Param2: 2, Param3: 20}},
	{"11.9 Asynchronous Message: negotiate", `
		3280 0000 00000000 0000000000000000
		ffffffff 00000000 00000015 00000016
		00000017 04000000 00000003 00000000`,
		&Async{Head: Head{ITT: Reserved}, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, Event: EventRenegotiate, Param3: 3}},
	{"11.9 Asynchronous Message: tasks end", `
		3280 0000 00000000 0001000000000000
		ffffffff 00000000 00000015 00000016
		00000017 05000000 00000000 00000000`,
		&Async{Head: Head{ITT: Reserved}, LUN: 1 << 48, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, Event: EventTasksEnd}},
	{"11.9 Asynchronous Message: vendor's", `
		3280 0000 00000000 0000000000000000
		ffffffff 00000000 00000015 00000016
		00000017 ff7f0001 00020003 00000000`,
		&Async{Head: Head{ITT: Reserved}, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, Event: 255, VCode: 0x7f, Param1: 1, Param2: 2, Param3: 3}},
	{"11.10 Text Request", `
		4440 0000 00000100 0000000000000000
		00000010 ffffffff 0000000b 0000000c
		00000000 00000000 00000000 00000000`,
		&Text{Head: Head{Immediate: true, DataLen: 256, ITT: 0x10}, Continue: true, TTT: Reserved, CmdSN: 11, ExpStatSN: 12}},
	{"11.11 Text Response", `
		2480 0000 00000100 0000000000000000
		00000010 00000009 00000015 00000016
		00000017 00000000 00000000 00000000`,
		&TextResponse{Head: Head{DataLen: 256, ITT: 0x10}, Final: true, TTT: 9, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17}},
	{"11.12 Login Request", `
		4387 0100 00000100 800102030405 004d
		00000010 00020000 0000000b 0000000c
		00000000 00000000 00000000 00000000`,
		&Login{Head: Head{Immediate: true, DataLen: 256, ITT: 0x10}, Transit: true, CSG: 1, NSG: 3, VersionMax: 1,
			ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, TSIH: 77, CID: 2, CmdSN: 11, ExpStatSN: 12}},
	{"11.13 Login Response", `
		2344 0100 00000100 800102030405 004d
		00000010 00000000 00000015 00000016
		00000017 020a0000 00000000 00000000`,
		&LoginResponse{Head: Head{DataLen: 256, ITT: 0x10}, Continue: true, CSG: 1, VersionMax: 1,
			ISID: [6]byte{0x80, 1, 2, 3, 4, 5}, TSIH: 77, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, Status: 0x020a}},
	{"11.14 Logout Request", `
		4681 0000 00000000 0000000000000000
		00000010 00030000 0000000b 0000000c
		00000000 00000000 00000000 00000000`,
		&Logout{Head: Head{Immediate: true, ITT: 0x10}, Reason: LogoutConnection, CID: 3, CmdSN: 11, ExpStatSN: 12}},
	{"11.15 Logout Response", `
		2680 0200 00000000 0000000000000000
		00000010 00000000 00000015 00000016
		00000017 00000000 00020014 00000000`,
		&LogoutResponse{Head: Head{ITT: 0x10}, Response: LogoutNoRecovery, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, Time2Wait: 2, Time2Retain: 20}},
	{"11.16 SNACK Request", `
		1083 0000 00000000 0001000000000000
		00000010 00000009 00000000 0000000c
		00000000 00000000 00000005 00000006`,
		&SNACK{Head: Head{ITT: 0x10}, Type: SNACKRData, LUN: 1 << 48, TTT: 9, ExpStatSN: 12, BegRun: 5, RunLength: 6}},
	{"11.17 Reject", `
		3f80 0900 00000030 0000000000000000
		ffffffff 00000000 00000015 00000016
		00000017 00000004 00000000 00000000`,
		&Reject{Head: Head{DataLen: 48, ITT: Reserved}, Reason: RejectField, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17, DataSN: 4}},
	{"11.18 NOP-Out", `
		4080 0000 00000004 0001000000000000
		00000010 ffffffff 0000000b 0000000c
		00000000 00000000 00000000 00000000`,
		&NOPOut{Head: Head{Immediate: true, DataLen: 4, ITT: 0x10}, LUN: 1 << 48, TTT: Reserved, CmdSN: 11, ExpStatSN: 12}},
	{"11.19 NOP-In", `
		2080 0000 00000004 0001000000000000
		ffffffff 00000009 00000015 00000016
		00000017 00000000 00000000 00000000`,
		&NOPIn{Head: Head{DataLen: 4, ITT: Reserved}, LUN: 1 << 48, TTT: 9, StatSN: 0x15, ExpCmdSN: 0x16, MaxCmdSN: 0x17}},
}

func TestFigures(t *testing.T) {
	drawn := map[Opcode]bool{}
	for _, f := range figures {
		t.Run(f.section, func(t *testing.T) {
			raw, err := hex.DecodeString(strings.Join(strings.Fields(f.bytes), ""))
			if err != nil || len(raw) != BHSLen {
				t.Fatalf("%d bytes, %v", len(raw), err)
			}
			op, _ := Peek(raw)
			drawn[op] = true
			got := kindOf(op)
			if err := Decode(raw, got); err != nil || !reflect.DeepEqual(got, f.want) {
				t.Errorf("decodes to\n%+v, %v, want\n%+v", got, err, f.want)
			}
			out := make([]byte, BHSLen)
			if Encode(out, f.want); string(out) != string(raw) {
				t.Errorf("encodes to\n%x, want\n%x", out, raw)
			}
		})
	}
	for _, m := range kinds() {
		if !drawn[m.Op()] {
			t.Errorf("no figure of %s", m.Op())
		}
	}
}

// TestAHSFigures checks both additional header segments of section 11.2.2, alone
// and together in either order.
func TestAHSFigures(t *testing.T) {
	cdb, read := "0011 01 00 101112131415161718191a1b1c1d1e1f", "0005 02 00 00001000"
	tail := []byte{0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x1b, 0x1c, 0x1d, 0x1e, 0x1f}
	tests := map[string]AHS{
		cdb:        {CDB: tail},
		read:       {Bidirectional: true, ReadLength: 4096},
		cdb + read: {CDB: tail, Bidirectional: true, ReadLength: 4096},
		read + cdb: {CDB: tail, Bidirectional: true, ReadLength: 4096},
	}
	for text, want := range tests {
		raw, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseAHS(raw)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
		if out := want.Append(nil); text != read+cdb && string(out) != string(raw) {
			t.Errorf("%+v: %x", want, out)
		}
	}
	for _, text := range []string{"0005020000001000" + "0005020000001000", "0004020000001000", "0006020000001000" + "00000000", "0005020000"} {
		raw, _ := hex.DecodeString(text)
		if got, err := ParseAHS(raw); err == nil {
			t.Errorf("%s: %+v", text, got)
		}
	}
}
