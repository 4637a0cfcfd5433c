package target

import (
	"fmt"
	"strings"
	"testing"

	"ripstop/iscsi/pdu"
	"ripstop/iscsi/session"
)

// malformed is one thing that an initiator gets wrong in full feature phase, and
// all that the target says to it. An answer is written as by said; "hang up" is
// the end of the connection, which otherwise goes on. The sections are those of
// RFC 7143 that ask for the answer.
type malformed struct {
	section, name, want string
	send                func(i *initiator)
}

// said writes an answer: its kind and what tells it from others of the kind.
func said(r received) string {
	switch m := r.Message.(type) {
	case *pdu.Reject:
		return fmt.Sprintf("reject %#02x", m.Reason)
	case *pdu.TaskResponse:
		return fmt.Sprintf("function %d", m.Response)
	case *pdu.LogoutResponse:
		return fmt.Sprintf("logout %d", m.Response)
	case *pdu.TextResponse:
		return fmt.Sprintf("text %q", r.data)
	case *pdu.NOPIn:
		return fmt.Sprintf("ping %d", len(r.data))
	case *pdu.R2T:
		return fmt.Sprintf("r2t %d+%d", m.Offset, m.Length)
	case *pdu.DataIn:
		if m.HasStatus {
			return fmt.Sprintf("data %d%s", m.Offset+uint32(m.DataLen), residual(m.Residual, m.Overflow, m.Underflow))
		}
		return "part"
	case *pdu.SCSIResponse:
		s := fmt.Sprintf("status %#02x", m.Status)
		if a := (result{sense: r.data[min(2, len(r.data)):]}).asc(); a != 0 {
			return fmt.Sprintf("%s %04x", s, a)
		}
		return s + residual(m.Residual, m.Overflow, m.Underflow)
	}
	return r.Message.(fmt.Stringer).String()
}

func residual(n uint32, over, under bool) string {
	if over {
		return fmt.Sprint(" over ", n)
	}
	if under {
		return fmt.Sprint(" under ", n)
	}
	return ""
}

// hears collects what the target says until a ping behind it is answered, and
// as many answers came as are expected.
func (i *initiator) hears(n int) string {
	i.t.Helper()
	const tag = 0x77777777
	i.send(&pdu.NOPOut{Head: pdu.Head{ITT: tag, Immediate: true}, TTT: pdu.Reserved, CmdSN: i.cmdSN}, nil)
	var all []string
	for pinged := false; !pinged || len(all) < n; {
		r, ok := i.receive()
		if !ok {
			return strings.Join(append(all, "hang up"), ", ")
		}
		if m, ok := r.Message.(*pdu.NOPIn); ok && m.ITT == tag {
			pinged = true
			continue
		}
		all = append(all, said(r))
	}
	return strings.Join(all, ", ")
}

// try runs the rows of a table, each in a session of its own.
func try(t *testing.T, table []malformed, target string, keys ...string) {
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			i := dial(t, webName)
			i.open(target, keys...)
			if target != "" && !i.digest {
				i.ready(0)
			}
			tt.send(i)
			n := len(strings.Split(tt.want, ", "))
			if tt.want == "" {
				n = 0
			}
			if got := i.hears(n); got != tt.want {
				t.Errorf("section %s: %q, want %q", tt.section, got, tt.want)
			}
			i.nc.Close()
		})
	}
}

// put sends m with a tag and the next number, counted or immediate.
func put(m pdu.Message, tag uint32, immediate bool, data string) func(i *initiator) {
	return func(i *initiator) {
		p := bhs(m)
		p[27], p[26] = byte(i.cmdSN), byte(i.cmdSN>>8) // CmdSN stands at byte 24 of every request
		if immediate {
			p[0] |= 0x40
		} else {
			i.cmdSN++
		}
		p[16], p[17], p[18], p[19] = byte(tag>>24), byte(tag>>16), byte(tag>>8), byte(tag)
		p[6], p[7] = byte(len(data)>>8), byte(len(data))
		i.raw(i.frame(p, []byte(data)))
	}
}

// write sends a WRITE(10) of 8 blocks with changes, and data with it.
func write(change func(m *pdu.SCSICommand), data int) func(i *initiator) {
	return func(i *initiator) {
		m := i.command(rw10(0x2a, 0, 8), 4096)
		m.Write = true
		if change != nil {
			change(m)
		}
		i.send(m, make([]byte, data))
	}
}

// out answers the R2T of a write with changed Data-Outs.
func out(pieces ...func(d *pdu.DataOut) int) func(i *initiator) {
	return func(i *initiator) {
		write(nil, 0)(i)
		r, _ := get[*pdu.R2T](i)
		for _, change := range pieces {
			d := &pdu.DataOut{Final: true, TTT: r.TTT}
			d.ITT = r.ITT
			i.send(d, make([]byte, change(d)))
		}
	}
}

func TestMalformedRequests(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	var rows []malformed
	for op := range uint8(0x40) {
		if name := pdu.Opcode(op).String(); op > 0x10 || strings.HasPrefix(name, "opcode") {
			rows = append(rows, malformed{"11.2.1.2", name + " from an initiator", "reject 0x05", func(i *initiator) {
				i.raw(append([]byte{op | 0x40}, make([]byte, 47)...))
			}})
		}
	}
	for kind := range uint8(5) {
		rows = append(rows, malformed{"11.16", fmt.Sprint("SNACK ", kind), "reject 0x03", put(&pdu.SNACK{Type: kind, RunLength: 1}, 5, false, "")})
	}
	for f := range uint8(128) {
		want := map[uint8]string{
			uint8(session.AbortTask): "function 1", uint8(session.AbortTaskSet): "function 0", uint8(session.ClearTaskSet): "function 0",
			uint8(session.LUNReset): "function 0", uint8(session.TargetWarmReset): "function 0", uint8(session.TaskReassign): "function 4",
		}[f]
		if want == "" {
			want = "function 5"
		}
		if f < 10 || f > 125 {
			rows = append(rows, malformed{"11.5.1, 11.6.1", fmt.Sprint("function ", f), want, put(&pdu.TaskRequest{Function: f, RTT: 4711}, 5, true, "")})
		}
	}
	for _, f := range []session.Function{session.AbortTaskSet, session.ClearTaskSet, session.LUNReset} {
		rows = append(rows, malformed{"11.6.1", fmt.Sprint("function ", f, " at no LUN"), "function 2", put(&pdu.TaskRequest{Function: uint8(f), LUN: 9 << 48}, 5, true, "")})
	}
	text := func(m *pdu.Text, data string) func(*initiator) {
		if m.TTT == 0 {
			m.TTT = pdu.Reserved
		}
		return put(m, 5, true, data)
	}
	rows = append(rows, []malformed{
		{"11.5", "function with the reserved tag", "reject 0x09", put(&pdu.TaskRequest{Function: 1}, pdu.Reserved, true, "")},
		{"4.2.2.1", "function that is no longer in the window", "", func(i *initiator) {
			i.cmdSN--
			put(&pdu.TaskRequest{Function: 5}, 5, false, "")(i)
		}},
		{"11.14", "logout with the reserved tag", "reject 0x09", put(&pdu.Logout{}, pdu.Reserved, true, "")},
		{"11.15.1", "logout of another connection", "logout 1", put(&pdu.Logout{Reason: 1, CID: 99}, 5, true, "")},
		{"11.15.1", "logout for recovery", "logout 2", put(&pdu.Logout{Reason: 2}, 5, true, "")},
		{"11.14.1", "logout for no reason", "logout 3", put(&pdu.Logout{Reason: 3}, 5, true, "")},
		{"11.14", "logout with data", "logout 0, hang up", put(&pdu.Logout{}, 5, true, "data")},
		{"11.14", "logout and more", "logout 0, hang up", func(i *initiator) {
			put(&pdu.Logout{Reason: 1}, 5, true, "")(i)
			put(&pdu.NOPOut{TTT: pdu.Reserved}, 6, true, "late")(i)
		}},
		{"11.18", "ping", "ping 5", put(&pdu.NOPOut{TTT: pdu.Reserved}, 5, true, "hello")},
		{"11.18", "ping that asks for no answer", "", put(&pdu.NOPOut{TTT: pdu.Reserved}, pdu.Reserved, true, "hello")},
		{"11.18", "answer to a ping that was not sent", "", put(&pdu.NOPOut{TTT: 99}, pdu.Reserved, true, "")},
		{"11.19", "ping of more than the initiator takes", "ping 8192", put(&pdu.NOPOut{TTT: pdu.Reserved}, 5, true, strings.Repeat("x", 10000))},
		{"11.10.4", "text that was not begun", "reject 0x09", text(&pdu.Text{Final: true, TTT: 99}, "X-a=b\x00")},
		{"11.10", "text with the reserved tag", "reject 0x09", put(&pdu.Text{Final: true, TTT: pdu.Reserved}, pdu.Reserved, true, "X-a=b\x00")},
		{"11.10.2", "text that ends and goes on", "reject 0x04", text(&pdu.Text{Final: true, Continue: true}, "X-a=b\x00")},
		{"6.1", "text without =", "reject 0x04", text(&pdu.Text{Final: true}, "SendTargets\x00")},
		{"6.1", "text without a key", "reject 0x04", text(&pdu.Text{Final: true}, "=All\x00")},
		{"6.1", "key of 64 bytes", "reject 0x04", text(&pdu.Text{Final: true}, strings.Repeat("k", 64)+"=1\x00")},
		{"6.1", "text that is not UTF-8", "reject 0x04", text(&pdu.Text{Final: true}, "X-a=\xff\x00")},
		{"6.2", "key that comes twice", "reject 0x04", text(&pdu.Text{Final: true}, "X-a=1\x00X-a=1\x00")},
		{"6.2", "text of more than 8192 bytes", "reject 0x04", text(&pdu.Text{Final: true}, strings.Repeat("X=1\x00", 2100))},
		{"6.2", "unknown key", `text "X-a=NotUnderstood\x00"`, text(&pdu.Text{Final: true}, "X-a=1\x00")},
		{"13", "key of the login", `text "HeaderDigest=Reject\x00"`, text(&pdu.Text{Final: true}, "HeaderDigest=None\x00")},
		{"Appendix C", "SendTargets=All in a normal session", "reject 0x04", text(&pdu.Text{Final: true}, "SendTargets=All\x00")},
		{"6.3", "login after the login", "hang up", put(&pdu.Login{Transit: true, NSG: 3}, 5, true, "")},
		{"13.12", "data segment longer than agreed", "hang up", func(i *initiator) {
			m := &pdu.NOPOut{}
			m.DataLen = pdu.MaxDataLen
			i.raw(bhs(m))
		}},
	}...)
	try(t, rows, openIQN)
	enter(t, webName, openIQN).ready(0)
}

func TestMalformedCommands(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	numbered := func(off uint32) func(i *initiator) {
		return func(i *initiator) {
			m := i.command([]byte{0}, 0)
			i.cmdSN--
			m.CmdSN += off
			i.send(m, nil)
		}
	}
	read := func(cdb []byte, edtl uint32, change func(m *pdu.SCSICommand)) func(i *initiator) {
		return func(i *initiator) {
			m := i.command(cdb, 0)
			m.EDTL, m.Read = edtl, true
			if change != nil {
				change(m)
			}
			i.send(m, nil)
		}
	}
	ahs := func(cdb, segments []byte) func(i *initiator) {
		return func(i *initiator) { i.sendAHS(i.command(cdb, 0), segments, nil) }
	}
	at := func(lun uint64) func(m *pdu.SCSICommand) { return func(m *pdu.SCSICommand) { m.LUN = lun } }
	one := rw10(0x28, 0, 1)
	try(t, []malformed{
		{"4.2.2.1", "number before the window", "", numbered(1<<32 - 1)},
		{"4.2.2.1", "number behind the window", "", numbered(session.WindowSize)},
		{"4.2.2.1", "number half around", "", numbered(1 << 31)},
		{"7.1.5", "number with a gap before it", "hang up", numbered(1)},
		{"11.2.1.8", "reserved tag", "reject 0x09", func(i *initiator) {
			m := i.command([]byte{0}, 0)
			m.ITT = pdu.Reserved
			i.send(m, nil)
		}},
		{"11.17.1", "tag in use", "r2t 0+4096, reject 0x07", func(i *initiator) {
			write(nil, 0)(i)
			i.itt--
			write(nil, 0)(i)
		}},
		{"11.3.1", "read and write", "status 0x02 2400", read(one, 512, func(m *pdu.SCSICommand) { m.Write = true })},
		{"11.3.1", "read without a direction", "status 0x00 over 512", read(one, 0, func(m *pdu.SCSICommand) { m.Read = false })},
		{"11.4.5.1", "read that expects nothing", "status 0x00 over 512", read(one, 0, nil)},
		{"11.4.5.1", "read that expects one byte", "data 1 over 511", read(one, 1, nil)},
		{"11.4.5.1", "read that expects 511 bytes", "data 511 over 1", read(one, 511, nil)},
		{"11.4.5.1", "read that expects 4 GiB", "data 512 under 4294966783", read(one, 0xffffffff, nil)},
		{"11.4.5.1", "no data where 4 GiB are expected", "status 0x00 under 4294967292", read([]byte{0}, 0xfffffffc, nil)},
		{"SAM-5 4.7", "LUN that is not there", "status 0x02 2500", read(one, 512, at(9<<48))},
		{"SAM-5 4.7", "LUN of another form", "status 0x02 2500", read(one, 512, at(0xc1<<56))},
		{"SAM-5 4.7", "LUN of all ones", "status 0x02 2500", read(one, 512, at(1<<64-1))},
		{"SPC-4 4.3", "operation that is not there", "status 0x02 2000", read([]byte{0xff}, 512, nil)},
		{"11.2.2", "AHS longer than all of them", "reject 0x09", ahs([]byte{0}, []byte{0xff, 0xff, 1, 0})},
		{"11.2.2", "AHS of no bytes", "reject 0x09", ahs([]byte{0}, []byte{0, 0, 1, 0})},
		{"11.2.2.1", "AHS of an unknown type", "reject 0x09", ahs([]byte{0}, []byte{0, 1, 9, 0})},
		{"11.2.2.3", "extended CDB twice", "reject 0x09", ahs([]byte{0x7f}, pdu.AppendExtendedCDB(pdu.AppendExtendedCDB(nil, []byte{1}), []byte{1}))},
		{"11.2.2.3", "extended CDB of more than 260 bytes", "reject 0x09", ahs([]byte{0x7f}, pdu.AppendExtendedCDB(nil, make([]byte, 245)))},
		{"11.2.2.4", "bidirectional", "status 0x02 2400", ahs([]byte{0}, []byte{0, 5, 2, 0, 0, 0, 16, 0})},
		{"11.17.1", "AHS before a ping", "ping 0", func(i *initiator) {
			m := &pdu.NOPOut{Head: pdu.Head{ITT: 5, Immediate: true}, TTT: pdu.Reserved, CmdSN: i.cmdSN}
			i.sendAHS(m, make([]byte, 1020), nil)
		}},
	}, openIQN)
	enter(t, webName, openIQN).ready(0)
}

// TestMalformedData has what can be wrong with data to the target. A command
// whose data are wrong fails; its session goes on (RFC 7143 section 7.8 lets a
// target end the task).
func TestMalformedData(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	try(t, []malformed{
		{"11.7", "data for nobody", "reject 0x09", put(&pdu.DataOut{Final: true, TTT: 1}, 4711, false, "data")},
		{"11.7", "data with the reserved tag", "reject 0x09", put(&pdu.DataOut{Final: true, TTT: 1}, pdu.Reserved, false, "data")},
		{"11.7.4", "wrong transfer tag", "status 0x02 4705", out(func(d *pdu.DataOut) int { d.TTT++; return 4096 })},
		{"11.7.4", "unsolicited instead of what was asked for", "status 0x02 4705", out(func(d *pdu.DataOut) int { d.TTT = pdu.Reserved; return 4096 })},
		{"11.7.5", "DataSN that begins with 1", "status 0x02 4705", out(func(d *pdu.DataOut) int { d.DataSN = 1; return 4096 })},
		{"11.7.5", "DataSN that stands still", "status 0x02 4705", out(
			func(d *pdu.DataOut) int { d.Final = false; return 2048 },
			func(d *pdu.DataOut) int { d.Offset = 2048; return 2048 })},
		{"11.7.6", "offset with a hole before it", "status 0x02 4705", out(func(d *pdu.DataOut) int { d.Offset = 512; return 3584 })},
		{"11.7.6", "offset beyond the buffer", "status 0x02 4705", out(func(d *pdu.DataOut) int { d.Offset = 8192; return 512 })},
		{"11.7.6", "offset at the end of 4 GiB", "status 0x02 4705", out(func(d *pdu.DataOut) int { d.Offset = 0xfffffe00; return 512 })},
		{"11.7.6", "the same again", "status 0x02 4705", out(
			func(d *pdu.DataOut) int { d.Final = false; return 2048 },
			func(d *pdu.DataOut) int { d.DataSN = 1; return 2048 })},
		{"11.8.4", "more than was asked for", "status 0x02 0c0d", out(func(*pdu.DataOut) int { return 8192 })},
		{"11.8.4", "end before all came", "status 0x02 0c0d", out(func(*pdu.DataOut) int { return 512 })},
		{"11.8.4", "no end where all came", "status 0x02 0c0d", out(
			func(d *pdu.DataOut) int { d.Final = false; return 4096 },
			func(d *pdu.DataOut) int { d.DataSN, d.Offset = 1, 4096; return 0 })},
		{"11.7.1", "data after the end", "status 0x00, reject 0x09", out(
			func(*pdu.DataOut) int { return 4096 },
			func(d *pdu.DataOut) int { d.DataSN = 1; return 512 })},
		{"11.3.4", "more with the command than it expects", "status 0x02 0c0d", write(func(m *pdu.SCSICommand) { m.EDTL = 512 }, 4096)},
		{"13.10", "unsolicited data that were switched off", "status 0x02 0c0c", func(i *initiator) {
			write(func(m *pdu.SCSICommand) { m.Final = false }, 0)(i)
			d := &pdu.DataOut{Final: true, TTT: pdu.Reserved}
			d.ITT = i.itt
			i.send(d, make([]byte, 4096))
		}},
	}, openIQN, "InitialR2T=Yes")
	try(t, []malformed{
		{"13.11", "data with the command that were switched off", "status 0x02 0c0c", write(nil, 4096)},
	}, openIQN, "ImmediateData=No")
	try(t, []malformed{
		{"13.14", "more with the command than the first burst", "status 0x02 0c0d", write(nil, 1024)},
		{"13.14", "more unsolicited than the first burst", "status 0x02 0c0d", func(i *initiator) {
			write(func(m *pdu.SCSICommand) { m.Final = false }, 0)(i)
			d := &pdu.DataOut{Final: true, TTT: pdu.Reserved}
			d.ITT = i.itt
			i.send(d, make([]byte, 1024))
		}},
	}, openIQN, "InitialR2T=No", "FirstBurstLength=512")
	enter(t, webName, openIQN).ready(0)
}

// TestMalformedDigests has wrong digests. At error recovery level 0 a connection
// ends with the first, for what it destroyed will not be sent again.
func TestMalformedDigests(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	flip := func(at int) func(i *initiator) {
		return func(i *initiator) {
			m := &pdu.NOPOut{Head: pdu.Head{ITT: 5, Immediate: true, DataLen: 6}, TTT: pdu.Reserved, CmdSN: i.cmdSN}
			p := i.frame(bhs(m), []byte("abcdef"))
			p[at] ^= 1
			i.raw(p)
		}
	}
	try(t, []malformed{
		{"7.8", "one bit of a header", "hang up", flip(30)},
		{"7.8", "one bit of the header digest", "hang up", flip(pdu.BHSLen)},
		{"7.8", "one bit of the data", "reject 0x02, hang up", flip(pdu.BHSLen + 4)},
		{"7.8", "one bit of the padding", "reject 0x02, hang up", flip(pdu.BHSLen + 4 + 7)},
		{"7.8", "one bit of the data digest", "reject 0x02, hang up", flip(pdu.BHSLen + 4 + 8)},
	}, openIQN, "HeaderDigest=CRC32C", "DataDigest=CRC32C")
	enter(t, webName, openIQN).ready(0)
}

// TestMalformedDiscovery has what a discovery session does not carry.
func TestMalformedDiscovery(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	var rows []malformed
	for _, m := range []pdu.Message{&pdu.SCSICommand{Final: true}, &pdu.DataOut{Final: true}, &pdu.TaskRequest{Function: 5}, &pdu.SNACK{}} {
		rows = append(rows, malformed{"4.3", m.Op().String(), "reject 0x04", put(m, 5, true, "")})
	}
	rows = append(rows, malformed{"Appendix C", "a target that is not there", `text ""`,
		put(&pdu.Text{Final: true, TTT: pdu.Reserved}, 5, true, "SendTargets=iqn.2026-11.org.example:none\x00")})
	try(t, rows, "")
}
