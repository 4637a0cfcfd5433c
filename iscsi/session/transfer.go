package session

import (
	"errors"
	"fmt"

	"ripstop/iscsi/pdu"
)

// Limits are what the login settled for data-out. Lengths are bytes.
type Limits struct {
	MaxBurst      int
	FirstBurst    int
	MaxR2T        int
	InitialR2T    bool
	ImmediateData bool
}

// Faults of data-out. Each ends its command, not the session.
var (
	ErrUnsolicited = errors.New("unexpected unsolicited data")
	ErrSequence    = errors.New("data out of sequence")
	ErrAmount      = errors.New("wrong amount of data")
)

// burst is data that was asked for with one R2T.
type burst struct {
	ttt uint32
	end int // buffer offset after its last byte
}

// Transfer follows the data-out of one command.
//
//	unsolicited ─F─► R2T… ─► bursts, each ending with F ─► complete
//	     └──────────────── fault ──► the rest is swallowed
type Transfer struct {
	limits      Limits
	edtl        int // bytes that the initiator has
	want        int // bytes that the command takes, at most edtl
	got         int // bytes that came, in order
	asked       int // bytes that came unsolicited or were asked for
	unsolicited bool
	open        []burst // asked for and not complete, in order
	dataSN      uint32
	r2tSN       uint32
}

// Start makes t the transfer of a command that takes need bytes, and counts the
// immediate data that came with it. A fault leaves a transfer whose rest can be
// swallowed. Whatever t was before is over.
func (t *Transfer) Start(cmd *pdu.SCSICommand, need int, l Limits) error {
	*t = Transfer{limits: l, open: t.open[:0]}
	if cmd.Write {
		t.edtl = int(cmd.EDTL)
	}
	t.want = min(need, t.edtl)
	t.unsolicited = !cmd.Final
	t.got, t.asked = cmd.DataLen, cmd.DataLen
	switch {
	case cmd.DataLen > 0 && !l.ImmediateData:
		return fmt.Errorf("%d bytes of immediate data: %w", cmd.DataLen, ErrUnsolicited)
	case cmd.DataLen > min(t.edtl, l.FirstBurst):
		return fmt.Errorf("%d bytes of immediate data: %w", cmd.DataLen, ErrAmount)
	case t.unsolicited && (l.InitialR2T || !cmd.Write):
		return fmt.Errorf("unsolicited data announced: %w", ErrUnsolicited)
	}
	return nil
}

// Want is the bytes that the command will be given.
func (t *Transfer) Want() int { return t.want }

// Got is the bytes that came so far: more than Want where the initiator sent
// unsolicited what the command has no use for.
func (t *Transfer) Got() int { return t.got }

// Unsolicited is how many bytes the initiator may send unasked, those that
// came with the command among them.
func (t *Transfer) Unsolicited() int {
	if t.unsolicited {
		return min(t.edtl, t.limits.FirstBurst)
	}
	return t.got
}

// Complete tells whether everything that was announced and asked for came.
func (t *Transfer) Complete() bool {
	return !t.unsolicited && len(t.open) == 0 && t.asked >= t.want
}

// R2T is the next request for data, with offset, length and R2TSN filled in;
// false when there is none to send now.
func (t *Transfer) R2T(ttt uint32) (pdu.R2T, bool) {
	if t.unsolicited || t.asked >= t.want || len(t.open) == t.limits.MaxR2T {
		return pdu.R2T{}, false
	}
	n := min(t.limits.MaxBurst, t.want-t.asked)
	r := pdu.R2T{TTT: ttt, R2TSN: t.r2tSN, Offset: uint32(t.asked), Length: uint32(n)}
	t.asked += n
	t.r2tSN++
	t.open = append(t.open, burst{ttt, t.asked})
	return r, true
}

// R2Ts is how many requests for data were made.
func (t *Transfer) R2Ts() uint32 { return t.r2tSN }

// Data takes one Data-Out, which must be exactly the next. Its data stand at
// d.Offset of the buffer; what lies beyond Want is not needed.
func (t *Transfer) Data(d *pdu.DataOut) error {
	ttt, end := pdu.Reserved, min(t.edtl, t.limits.FirstBurst)
	switch {
	case t.unsolicited:
	case len(t.open) > 0:
		ttt, end = t.open[0].ttt, t.open[0].end
	default:
		return fmt.Errorf("data that nobody asked for: %w", ErrUnsolicited)
	}
	next := t.got + d.DataLen
	switch {
	case d.TTT != ttt:
		return fmt.Errorf("target transfer tag %#x: %w", d.TTT, ErrSequence)
	case d.DataSN != t.dataSN:
		return fmt.Errorf("DataSN %d, expected %d: %w", d.DataSN, t.dataSN, ErrSequence)
	case int64(d.Offset) != int64(t.got):
		return fmt.Errorf("buffer offset %d, expected %d: %w", d.Offset, t.got, ErrSequence)
	case next > end:
		return fmt.Errorf("data to byte %d, allowed to %d: %w", next, end, ErrAmount)
	case !t.unsolicited && d.Final != (next == end):
		return fmt.Errorf("sequence at byte %d, it ends at %d: %w", next, end, ErrAmount)
	}
	t.got = next
	t.dataSN++
	if d.Final {
		t.endSequence()
	}
	return nil
}

func (t *Transfer) endSequence() {
	t.dataSN = 0
	if t.unsolicited {
		t.unsolicited = false
		t.asked = t.got
	} else if len(t.open) > 0 {
		t.open = append(t.open[:0], t.open[1:]...) // in place, for the next transfer
	}
}

// Swallow takes a Data-Out of a command that will not run any more, and tells
// whether nothing further is due.
func (t *Transfer) Swallow(d *pdu.DataOut) bool {
	if d.Final {
		t.endSequence()
	}
	return t.Idle()
}

// Idle tells whether no Data-Out is due.
func (t *Transfer) Idle() bool { return !t.unsolicited && len(t.open) == 0 }
