package pdu

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// kinds has one empty message of every kind.
func kinds() []Message {
	return []Message{
		&NOPOut{}, &SCSICommand{}, &TaskRequest{}, &Login{}, &Text{}, &DataOut{}, &Logout{}, &SNACK{},
		&NOPIn{}, &SCSIResponse{}, &TaskResponse{}, &LoginResponse{}, &TextResponse{}, &DataIn{},
		&LogoutResponse{}, &R2T{}, &Async{}, &Reject{},
	}
}

func kindOf(op Opcode) Message {
	for _, m := range kinds() {
		if m.Op() == op {
			return m
		}
	}
	return nil
}

// TestBytes pins the bytes of what the kinds look like on the wire.
func TestBytes(t *testing.T) {
	tests := []struct {
		name string
		m    Message
		want string // offset: hex, for the bytes that are not zero
		text string
	}{
		{"command", &SCSICommand{Head: Head{ITT: 0x01020304, DataLen: 0x010203, AHSLen: 8}, Final: true, Write: true, Attr: 1,
			LUN: 0x0005 << 48, EDTL: 0x1000, CmdSN: 7, ExpStatSN: 8, CDB: [16]byte{0x2a, 15: 0xff}},
			"\x01\xa1\x00\x00\x02\x01\x02\x03" + "\x00\x05\x00\x00\x00\x00\x00\x00" + "\x01\x02\x03\x04\x00\x00\x10\x00" +
				"\x00\x00\x00\x07\x00\x00\x00\x08" + "\x2a\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff",
			"SCSI-Command itt=16909060 F W attr=1 lun=0x5000000000000 edtl=4096 cmdsn=7 expstatsn=8 cdb=2a0000000000000000000000000000ff ahs=8 data=66051"},
		{"login response", &LoginResponse{Head: Head{ITT: 1}, Transit: true, CSG: 1, NSG: 3, ISID: [6]byte{0x40, 1, 2, 3, 4, 5}, TSIH: 0x1122,
			StatSN: 1, ExpCmdSN: 2, MaxCmdSN: 3, Status: 0x0201},
			"\x23\x87\x00\x00\x00\x00\x00\x00" + "\x40\x01\x02\x03\x04\x05\x11\x22" + "\x00\x00\x00\x01\x00\x00\x00\x00" +
				"\x00\x00\x00\x01\x00\x00\x00\x02" + "\x00\x00\x00\x03\x02\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
			"Login-Response itt=1 T csg=1 nsg=3 vmax=0 vactive=0 isid=400102030405 tsih=4386 statsn=1 expcmdsn=2 maxcmdsn=3 status=513"},
		{"nop-in", &NOPIn{Head: Head{ITT: Reserved}, TTT: 9},
			"\x20\x80\x00\x00\x00\x00\x00\x00" + strings.Repeat("\x00", 8) + "\xff\xff\xff\xff\x00\x00\x00\x09" + strings.Repeat("\x00", 24),
			"NOP-In itt=none lun=0x0 ttt=9 statsn=0 expcmdsn=0 maxcmdsn=0"},
		{"immediate data-in", &DataIn{Head: Head{Immediate: true}, Final: true, HasStatus: true, Underflow: true, Status: 2, Residual: 5, Offset: 6, DataSN: 7},
			"\x65\x83\x00\x02" + strings.Repeat("\x00", 32) + "\x00\x00\x00\x07\x00\x00\x00\x06\x00\x00\x00\x05",
			"Data-In I itt=0 F U S status=2 lun=0x0 ttt=0 statsn=0 expcmdsn=0 maxcmdsn=0 datasn=7 offset=6 residual=5"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := bytes.Repeat([]byte{0xee}, BHSLen)
			Encode(got, tt.m)
			if string(got) != tt.want {
				t.Errorf("bytes\n got %x\nwant %x", got, tt.want)
			}
			if s := Format(tt.m); s != tt.text {
				t.Errorf("text\n got %s\nwant %s", s, tt.text)
			}
		})
	}
}

// TestFieldsDoNotOverlap sets all bits of a header, so that a field that hides
// another would lose some of them.
func TestFieldsDoNotOverlap(t *testing.T) {
	for _, m := range kinds() {
		for bit := range BHSLen * 8 {
			in := make([]byte, BHSLen)
			in[bit/8] |= 0x80 >> (bit % 8)
			in[0] = in[0]&0x40 | byte(m.Op())
			checkIdentity(t, in)
		}
	}
}

// checkIdentity demands that what was decoded is encoded to something that
// decodes to the same, and that this is its only encoding.
func checkIdentity(t *testing.T, in []byte) {
	t.Helper()
	op, _ := Peek(in)
	m := kindOf(op)
	if m == nil {
		return
	}
	if err := Decode(in, m); err != nil {
		t.Fatalf("%x: %v", in, err)
	}
	out := make([]byte, BHSLen)
	Encode(out, m)
	for i, b := range out { // what is encoded was in the input, but for the bit that is always one
		if i == 1 {
			b &^= 0x80
		}
		if b&^in[i] != 0 {
			t.Fatalf("%s: byte %d is %#x of %#x", op, i, out[i], in[i])
		}
	}
	again := kindOf(op)
	if err := Decode(out, again); err != nil || !reflect.DeepEqual(m, again) {
		t.Fatalf("%s: decoded %v, then %v, %v", op, m, again, err)
	}
	if m.Common().Padded()%4 != 0 || !strings.HasPrefix(Format(m), op.String()) {
		t.Fatalf("%s: padded to %d, prints %q", op, m.Common().Padded(), Format(m))
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range kinds() {
		p := make([]byte, BHSLen)
		Encode(p, m)
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) >= BHSLen {
			checkIdentity(t, in[:BHSLen])
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	if err := Decode(make([]byte, 47), &NOPOut{}); !errors.Is(err, ErrShort) {
		t.Errorf("47 bytes: %v", err)
	}
	if err := Decode(make([]byte, 48), &Login{}); err == nil || !strings.Contains(err.Error(), "NOP-Out") {
		t.Errorf("a NOP-Out as Login: %v", err)
	}
	w := walker{p: make([]byte, 8)}
	var v uint32
	w.u32(6, "v", &v)
	w.u32(0, "v", &v)
	if !errors.Is(w.err, ErrShort) {
		t.Errorf("a field beyond the end: %v", w.err)
	}
	if Opcode(0x3e).String() != "opcode-0x3e" {
		t.Errorf("unknown opcode prints %s", Opcode(0x3e))
	}
}

func TestExtendedCDB(t *testing.T) {
	tail := []byte("sixteen and more")
	tests := []struct {
		name, ahs, want, err string
	}{
		{"none", "", "", ""},
		{"good", string(AppendExtendedCDB(nil, tail)), string(tail), ""},
		{"padded", string(AppendExtendedCDB(nil, tail[:13])), string(tail[:13]), ""},
		{"bidirectional", "\x00\x05\x02\x00\x00\x00\x10\x00", "", "bidirectional"},
		{"twice", strings.Repeat(string(AppendExtendedCDB(nil, tail)), 2), "", "not expected"},
		{"zero length", "\x00\x00\x01\x00", "", "too short"},
		{"beyond the end", "\x00\x20\x01\x00", "", "too short"},
		{"stub", "\x00\x01", "", "too short"},
		{"too long", string(AppendExtendedCDB(nil, make([]byte, 245))), "", "245 bytes is not expected"},
		{"unknown type", "\x00\x01\x07\x00", "", "type 7"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ExtendedCDB([]byte(tt.ahs))
			if string(got) != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %q, %v; want %q, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func FuzzAHS(f *testing.F) {
	f.Add(AHS{CDB: []byte("abc"), Bidirectional: true, ReadLength: 4096}.Append(nil))
	f.Add([]byte("\x00\x05\x02\x00\x00\x00\x10\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		a, err := ParseAHS(p)
		if err != nil {
			return
		}
		again, err := ParseAHS(a.Append(nil))
		if err != nil || !reflect.DeepEqual(a, again) {
			t.Fatalf("%x: %+v then %+v, %v", p, a, again, err)
		}
	})
}

// TestDigest uses the examples of RFC 7143 appendix A.4.
func TestDigest(t *testing.T) {
	up := make([]byte, 32)
	for i := range up {
		up[i] = byte(i)
	}
	tests := []struct {
		name string
		data []byte
		want uint32
	}{
		{"zeros", make([]byte, 32), 0x8a9136aa},
		{"ones", bytes.Repeat([]byte{0xff}, 32), 0x62a8ab43},
		{"incrementing", up, 0x46dd794e},
	}
	for _, tt := range tests {
		if got := NewDigest().Sum(tt.data[:5], tt.data[5:]); got != tt.want {
			t.Errorf("%s: %#x, want %#x", tt.name, got, tt.want)
		}
	}
}

func TestParseText(t *testing.T) {
	tests := []struct {
		name, in, err string
		want          []Pair
	}{
		{"two", "a=1\x00b=\x00", "", []Pair{{"a", "1"}, {"b", ""}}},
		{"equals in the value", "a=b=c\x00", "", []Pair{{"a", "b=c"}}},
		{"no zero at the end, padding", "a=1\x00\x00\x00b=2", "", []Pair{{"a", "1"}, {"b", "2"}}},
		{"no value", "a\x00", "without a value", nil},
		{"empty key", "=1\x00", "bad key", nil},
		{"long key", strings.Repeat("k", 64) + "=1\x00", "bad key", nil},
		{"odd key", "a b=1\x00", "bad key", nil},
		{"not UTF-8", "a=\xff\x00", "bad value", nil},
		{"too many", strings.Repeat("a=1\x00", 65), "more than 64", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseText([]byte(tt.in))
			if !slices.Equal(got, tt.want) || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
				t.Errorf("got %q, %v; want %q, %q", got, err, tt.want, tt.err)
			}
		})
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.2026-11.org.example:a\x00SessionType=Discovery\x00"))
	f.Fuzz(func(t *testing.T, p []byte) {
		pairs, err := ParseText(p)
		if err != nil {
			return
		}
		var out []byte
		for _, kv := range pairs {
			out = AppendText(out, kv.Key, kv.Value)
		}
		again, err := ParseText(out)
		if err != nil || !slices.Equal(pairs, again) {
			t.Fatalf("%q, then %q, %v", pairs, again, err)
		}
	})
}

func TestValues(t *testing.T) {
	numbers := map[string]uint64{"0": 0, "262144": 262144, "0x10": 16, "0XfF": 255}
	for s, want := range numbers {
		if got, err := Number(s); err != nil || got != want {
			t.Errorf("Number(%q) = %d, %v; want %d", s, got, err, want)
		}
	}
	for _, s := range []string{"", "0x", "-1", "+1", "1 ", "99999999999999999999", "0xg"} {
		if got, err := Number(s); err == nil {
			t.Errorf("Number(%q) = %d", s, got)
		}
	}
	binaries := map[string]string{"0x0aFf": "\x0a\xff", "0xabc": "\x0a\xbc", "0bYWI=": "ab", "0x": ""}
	for s, want := range binaries {
		if got, err := Binary(s); err != nil || string(got) != want {
			t.Errorf("Binary(%q) = %x, %v; want %x", s, got, err, want)
		}
	}
	for _, s := range []string{"", "12", "0xzz", "0b!", "0"} {
		if got, err := Binary(s); err == nil {
			t.Errorf("Binary(%q) = %x", s, got)
		}
	}
	if Hex([]byte{1, 0xab}) != "0x01ab" {
		t.Error("Hex")
	}
}
