package target

import (
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"ripstop/iscsi/pdu"
)

// TestNoAllocation counts what reads and writes of 4 KiB allocate in the whole
// process, of those that end at once and of those that wait for the medium.
func TestNoAllocation(t *testing.T) {
	for _, tt := range []struct {
		name       string
		op         byte
		slow, late bool // late data come after an R2T
	}{
		{"read at once", 0x28, false, false}, {"write at once", 0x2a, false, false},
		{"read in a lane", 0x28, true, false}, {"write in a lane", 0x2a, true, false},
		{"write after R2T", 0x2a, false, true}, {"write after R2T in a lane", 0x2a, true, true},
	} {
		for _, threads := range []int32{0, 1} {
			t.Run(fmt.Sprintf("%s/%d threads", tt.name, threads), func(t *testing.T) {
				w := newWorld(t, Options{})
				w.threads.most, w.threads.brisk = threads, time.Minute
				w.devices["data"].(*memory).slow = tt.slow
				w.become(twoTargets())
				i := enter(t, webName, openIQN)
				i.ready(0)
				turn := oneCommand(i, tt.op, tt.late)
				for range 300 { // pools and tables have their size then
					turn()
				}
				if n := allocations(500, turn); n >= 1 {
					t.Errorf("%v allocations for each command", n)
				}
				w.Close()
			})
		}
	}
}

// allocations is testing.AllocsPerRun without taking processors away.
func allocations(runs int, f func()) float64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / float64(runs)
}

// oneCommand gives what sends one command of 8 blocks and reads its answer,
// without an allocation.
func oneCommand(i *initiator, op byte, late bool) func() {
	m := i.command(rw10(op, 8, 8), 4096)
	i.cmdSN--
	m.Read, m.Write = op == 0x28, op == 0x2a
	body, answer := 0, pdu.BHSLen
	switch {
	case m.Read:
		answer += 4096
	case !late:
		body = 4096
	}
	m.DataLen = body
	request := make([]byte, pdu.BHSLen+body)
	pdu.Encode(request, m)
	d := &pdu.DataOut{Final: true}
	d.ITT, d.DataLen = m.ITT, 4096
	data := make([]byte, pdu.BHSLen+4096)
	pdu.Encode(data, d)
	got := make([]byte, pdu.BHSLen+4096)
	exchange := func(out, in []byte) {
		if _, err := i.nc.Write(out); err != nil {
			i.t.Fatal(err)
		}
		if _, err := io.ReadFull(i.nc, in); err != nil {
			i.t.Fatal(err)
		}
	}
	return func() {
		binary.BigEndian.PutUint32(request[24:], i.cmdSN)
		i.cmdSN++
		if late {
			exchange(request, got[:pdu.BHSLen])
			copy(data[20:24], got[20:24]) // the target transfer tag
			exchange(data, got[:pdu.BHSLen])
		} else {
			exchange(request, got[:answer])
		}
		if op := pdu.Opcode(got[0] & 0x3f); op != pdu.OpSCSIResponse && op != pdu.OpDataIn || got[3] != 0 {
			i.t.Fatalf("answer %x", got[:pdu.BHSLen])
		}
	}
}
