package target

import (
	"testing"

	"ripstop/iscsi/pdu"
)

// text sends one text request; TTT Reserved begins a negotiation.
func (i *initiator) text(ttt uint32, final bool, keys string) {
	m := &pdu.Text{Final: final, TTT: ttt, CmdSN: i.cmdSN}
	m.ITT, m.Immediate = 8, true
	i.send(m, []byte(keys))
}

// pieces counts the Data-In PDUs of a read of 4096 bytes.
func (i *initiator) pieces() int {
	m := i.command(rw10(0x28, 0, 8), 4096)
	m.Read = true
	i.send(m, nil)
	for n := 1; ; n++ {
		if r, _ := get[*pdu.DataIn](i); r.Final {
			i.count(r.StatSN)
			return n
		}
	}
}

// TestRenegotiation declares MaxRecvDataSegmentLength in full feature phase: it
// holds when the negotiation is through, and not when it is given up.
func TestRenegotiation(t *testing.T) {
	w := newWorld(t, Options{})
	w.become(twoTargets())
	i := enter(t, webName, openIQN, "MaxRecvDataSegmentLength=512")
	i.ready(0)
	if n := i.pieces(); n != 8 {
		t.Errorf("%d pieces before", n)
	}
	i.text(pdu.Reserved, false, "MaxRecvDataSegmentLength=1024\x00MaxBurstLength=512\x00")
	r, data := get[*pdu.TextResponse](i)
	if r.Final || string(data) != "MaxBurstLength=Reject\x00" {
		t.Errorf("first half: %v %q", r, data)
	}
	i.count(r.StatSN)
	if n := i.pieces(); n != 8 {
		t.Errorf("%d pieces in the middle", n)
	}
	i.text(r.TTT, true, "X-odd=1\x00")
	r, data = get[*pdu.TextResponse](i)
	if !r.Final || string(data) != "X-odd=NotUnderstood\x00" {
		t.Errorf("second half: %v %q", r, data)
	}
	i.count(r.StatSN)
	if n := i.pieces(); n != 4 {
		t.Errorf("%d pieces after", n)
	}
	i.text(pdu.Reserved, false, "MaxRecvDataSegmentLength=4096\x00")
	r, _ = get[*pdu.TextResponse](i)
	i.count(r.StatSN)
	i.text(r.TTT, true, "MaxRecvDataSegmentLength=4096\x00")
	if r, _ := get[*pdu.Reject](i); r.Reason != rejectProtocol {
		t.Errorf("a key that came twice: %v", r)
	} else {
		i.count(r.StatSN)
	}
	i.text(pdu.Reserved, true, "")
	r, _ = get[*pdu.TextResponse](i)
	i.count(r.StatSN)
	if n := i.pieces(); n != 4 {
		t.Errorf("%d pieces after a negotiation that failed", n)
	}
	for _, ttt := range []uint32{0, r.TTT + 1} {
		i.text(ttt, true, "X-odd=1\x00")
		if r, _ := get[*pdu.Reject](i); r.Reason != rejectField {
			t.Errorf("going on under tag %d: %v", ttt, r)
		} else {
			i.count(r.StatSN)
		}
	}
}
