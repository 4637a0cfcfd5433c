package session

import (
	"errors"
	"math/rand/v2"
	"testing"

	"ripstop/iscsi/pdu"
)

func TestWindow(t *testing.T) {
	tests := []struct {
		name      string
		exp, sn   uint32
		immediate bool
		want      Verdict
		next      uint32
	}{
		{"next", 5, 5, false, Take, 6},
		{"immediate", 5, 5, true, Take, 5},
		{"old", 5, 4, false, Ignore, 5},
		{"beyond", 5, 133, false, Ignore, 5},
		{"last of the window", 5, 132, false, Gap, 5},
		{"gap", 5, 6, false, Gap, 5},
		{"wrap", 0xffffffff, 0xffffffff, false, Take, 0},
		{"old before the wrap", 0, 0xffffffff, false, Ignore, 0},
		{"half a circle away", 0, 1 << 31, false, Ignore, 0},
	}
	for _, tt := range tests {
		w := Window{ExpCmdSN: tt.exp}
		if got := w.Admit(tt.sn, tt.immediate); got != tt.want || w.ExpCmdSN != tt.next || w.Max() != tt.next+127 {
			t.Errorf("%s: %v, then %d to %d; want %v, %d", tt.name, got, w.ExpCmdSN, w.Max(), tt.want, tt.next)
		}
	}
}

func write(edtl, immediate int, final bool) *pdu.SCSICommand {
	c := &pdu.SCSICommand{Write: true, Final: final, EDTL: uint32(edtl)}
	c.DataLen = immediate
	return c
}

func out(ttt, sn uint32, off, n int, final bool) *pdu.DataOut {
	d := &pdu.DataOut{TTT: ttt, DataSN: sn, Offset: uint32(off), Final: final}
	d.DataLen = n
	return d
}

func newTransfer(cmd *pdu.SCSICommand, need int, l Limits) (*Transfer, error) {
	tr := &Transfer{}
	return tr, tr.Start(cmd, need, l)
}

var limits = Limits{MaxBurst: 4096, FirstBurst: 2048, MaxR2T: 2, ImmediateData: true}

// TestTransferRefuses has each way of sending the wrong thing.
func TestTransferRefuses(t *testing.T) {
	tests := []struct {
		name  string
		cmd   *pdu.SCSICommand
		limit func(*Limits)
		data  []*pdu.DataOut // after the R2Ts 1 and 2 were made
		want  error
	}{
		{"immediate data switched off", write(4096, 512, true), func(l *Limits) { l.ImmediateData = false }, nil, ErrUnsolicited},
		{"immediate data beyond FirstBurst", write(8192, 2049, true), nil, nil, ErrAmount},
		{"immediate data beyond EDTL", write(100, 101, true), nil, nil, ErrAmount},
		{"immediate data of a read", &pdu.SCSICommand{Head: pdu.Head{DataLen: 1}, Final: true, EDTL: 9}, nil, nil, ErrAmount},
		{"no F with InitialR2T", write(4096, 0, false), func(l *Limits) { l.InitialR2T = true }, nil, ErrUnsolicited},
		{"unsolicited beyond FirstBurst", write(8192, 2000, false), nil, []*pdu.DataOut{out(pdu.Reserved, 0, 2000, 49, true)}, ErrAmount},
		{"unsolicited beyond EDTL", write(600, 512, false), nil, []*pdu.DataOut{out(pdu.Reserved, 0, 512, 89, true)}, ErrAmount},
		{"unsolicited with a tag", write(8192, 0, false), nil, []*pdu.DataOut{out(1, 0, 0, 512, true)}, ErrSequence},
		{"unsolicited after F", write(8192, 0, true), nil, []*pdu.DataOut{out(pdu.Reserved, 0, 0, 512, true)}, ErrSequence},
		{"nobody asked", write(512, 512, true), nil, []*pdu.DataOut{out(1, 0, 512, 512, true)}, ErrUnsolicited},
		{"DataSN repeats", write(8192, 0, true), nil, []*pdu.DataOut{out(1, 0, 0, 512, false), out(1, 0, 512, 512, false)}, ErrSequence},
		{"DataSN jumps", write(8192, 0, true), nil, []*pdu.DataOut{out(1, 27, 0, 4096, true)}, ErrSequence},
		{"offset jumps", write(8192, 0, true), nil, []*pdu.DataOut{out(1, 0, 512, 512, false)}, ErrSequence},
		{"offset of 4 GiB", write(8192, 0, true), nil, []*pdu.DataOut{out(1, 0, 1<<32-512, 512, false)}, ErrSequence},
		{"second R2T first", write(8192, 0, true), nil, []*pdu.DataOut{out(2, 0, 4096, 512, false)}, ErrSequence},
		{"burst too long", write(8192, 0, true), nil, []*pdu.DataOut{out(1, 0, 0, 4097, true)}, ErrAmount},
		{"F too early", write(8192, 0, true), nil, []*pdu.DataOut{out(1, 0, 0, 512, true)}, ErrAmount},
		{"F too late", write(8192, 0, true), nil, []*pdu.DataOut{out(1, 0, 0, 4096, false)}, ErrAmount},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := limits
			if tt.limit != nil {
				tt.limit(&l)
			}
			tr, err := newTransfer(tt.cmd, int(tt.cmd.EDTL), l)
			for ttt := uint32(1); err == nil; ttt++ {
				if _, ok := tr.R2T(ttt); !ok {
					break
				}
			}
			for _, d := range tt.data {
				if err != nil {
					t.Fatalf("before the last: %v", err)
				}
				err = tr.Data(d)
			}
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// TestTransferDelivers plays a lawful initiator against random limits: every
// transfer completes, asks for each byte once, and never breaks a limit.
func TestTransferDelivers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		l := Limits{MaxBurst: 512 + rnd.IntN(4096), FirstBurst: 512 + rnd.IntN(4096), MaxR2T: 1 + rnd.IntN(4),
			InitialR2T: rnd.IntN(2) == 0, ImmediateData: rnd.IntN(2) == 0}
		edtl, need := rnd.IntN(20000), rnd.IntN(20000)
		first := min(edtl, l.FirstBurst)
		cmd := write(edtl, 0, true)
		if l.ImmediateData {
			cmd.DataLen = rnd.IntN(first + 1)
		}
		cmd.Final = l.InitialR2T || cmd.DataLen == first || rnd.IntN(2) == 0
		tr, err := newTransfer(cmd, need, l)
		if err != nil {
			t.Fatal(err)
		}
		sent := cmd.DataLen
		if n := tr.Unsolicited(); cmd.Final && n != sent || !cmd.Final && n != first {
			t.Fatalf("%d bytes may come unasked, of %d", n, first)
		}
		if !cmd.Final {
			sent = send(t, rnd, tr, pdu.Reserved, sent, first)
		}
		solicit(t, rnd, tr, sent, l)
		if !tr.Complete() || !tr.Idle() || tr.Want() != min(edtl, need) || tr.Got() < tr.Want() || tr.Got() > max(tr.Want(), first) {
			t.Fatalf("%+v: not complete after %d of %d", l, tr.got, tr.Want())
		}
	}
}

// send cuts the bytes from off to end into Data-Outs of any size.
func send(t *testing.T, rnd *rand.Rand, tr *Transfer, ttt uint32, off, end int) int {
	for sn := uint32(0); off < end; sn++ {
		if tr.Complete() {
			t.Fatal("complete before its data came")
		}
		n := min(end-off, 1+rnd.IntN(2048))
		if err := tr.Data(out(ttt, sn, off, n, off+n == end)); err != nil {
			t.Fatal(err)
		}
		off += n
	}
	return off
}

func solicit(t *testing.T, rnd *rand.Rand, tr *Transfer, sent int, l Limits) {
	var queue []pdu.R2T
	for ttt := uint32(100); ; {
		for {
			r, ok := tr.R2T(ttt)
			if !ok {
				break
			}
			if int(r.Length) > l.MaxBurst || r.Length == 0 || r.R2TSN != ttt-100 {
				t.Fatalf("R2T %v breaks its limits", &r)
			}
			queue = append(queue, r)
			ttt++
		}
		if len(queue) > l.MaxR2T {
			t.Fatalf("%d R2Ts outstanding", len(queue))
		}
		if len(queue) == 0 {
			return
		}
		r := queue[0]
		queue = queue[1:]
		if int(r.Offset) != sent {
			t.Fatalf("R2T for byte %d, %d were sent", r.Offset, sent)
		}
		sent = send(t, rnd, tr, r.TTT, sent, sent+int(r.Length))
	}
}

func TestSwallow(t *testing.T) {
	tr, err := newTransfer(write(8192, 0, true), 8192, limits)
	if err != nil {
		t.Fatal(err)
	}
	tr.R2T(1)
	tr.R2T(2)
	if tr.R2Ts() != 2 || tr.Swallow(out(1, 9, 9, 512, false)) || tr.Swallow(out(1, 9, 9, 512, true)) || !tr.Swallow(out(2, 0, 0, 1, true)) {
		t.Error("two sequences are over after the second F and not before")
	}
}

// TestSegments checks that the pieces cover everything in order within the limits.
func TestSegments(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		n, recv, burst := rnd.IntN(100000), 512+rnd.IntN(20000), 512+rnd.IntN(40000)
		next, inBurst, last := 0, 0, n == 0
		for s := range Segments(n, recv, burst) {
			inBurst += s.Len
			if last || s.Offset != next || s.Len <= 0 || s.Len > recv || inBurst > burst || s.Last && !s.Final {
				t.Fatalf("%d bytes, %d, %d: segment %+v at %d", n, recv, burst, s, next)
			}
			if s.Final {
				inBurst = 0
			}
			next, last = next+s.Len, s.Last
		}
		if next != n || !last {
			t.Fatalf("%d of %d bytes", next, n)
		}
	}
	for range Segments(10000, 512, 512) {
		break // a consumer may stop
	}
}

func TestResidual(t *testing.T) {
	tests := []struct {
		expected, actual int
		bytes            uint32
		over, under      bool
	}{
		{0, 0, 0, false, false}, {512, 512, 0, false, false}, {512, 0, 512, false, true},
		{0, 512, 512, true, false}, {1<<32 - 1, 0, 1<<32 - 1, false, true}, {0, 1 << 40, 1<<32 - 1, true, false},
	}
	for _, tt := range tests {
		if n, o, u := Residual(tt.expected, tt.actual); n != tt.bytes || o != tt.over || u != tt.under {
			t.Errorf("%d expected, %d moved: %d %v %v", tt.expected, tt.actual, n, o, u)
		}
	}
}

// TestSkip has commands count as received that have not come.
func TestSkip(t *testing.T) {
	w := Window{ExpCmdSN: 0xfffffffe}
	if w.Skip(0xfffffffd) || w.Skip(0x7e) || !w.Skip(0x7d) || !w.Skip(0) || !w.Skip(0) {
		t.Error("only what is in the window can be skipped")
	}
	if v := w.Judge(0, false); v != Ignore || w.ExpCmdSN != 0xfffffffe {
		t.Errorf("a skipped command that comes: %v", v)
	}
	if v := w.Admit(0xffffffff, false); v != Gap {
		t.Errorf("one before it: %v", v)
	}
	if !w.Skip(0xfffffffe) || w.ExpCmdSN != 0xffffffff {
		t.Errorf("then %d is expected", w.ExpCmdSN)
	}
	if v := w.Admit(0xffffffff, false); v != Take || w.ExpCmdSN != 1 {
		t.Errorf("%v, then %d is expected", v, w.ExpCmdSN)
	}
	for sn := uint32(1); sn != 0x7d; sn++ {
		if w.Admit(sn, false) != Take {
			t.Fatalf("command %d", sn)
		}
	}
	if w.ExpCmdSN != 0x7e || w.skipped != [2]uint64{} {
		t.Errorf("%d is expected, %x is left", w.ExpCmdSN, w.skipped)
	}
}

func TestMemory(t *testing.T) {
	m := NewMemory(1000)
	if !m.Room(1000) || m.Room(1001) {
		t.Error("the limit is not the limit")
	}
	m.Wait(400)
	m.Run(500)
	if m.Room(101) || !m.Room(100) || !m.Running() || m.Used() != 900 {
		t.Errorf("%+v", m)
	}
	m.Begin(400)
	m.Free(500)
	m.Free(400)
	m.Wait(10)
	if m.Running() || m.Used() != 10 {
		t.Errorf("%+v", m)
	}
	m.Forget(10)
	if m.Used() != 0 {
		t.Errorf("%+v", m)
	}
}
