package target

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"ripstop/iscsi"
	"ripstop/iscsi/scsi"
)

func TestKinds(t *testing.T) {
	want := map[byte]kind{}
	for _, op := range []byte{0x08, 0x28, 0xa8, 0x88} {
		want[op] = reading
	}
	for _, op := range []byte{0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e, 0x89, 0x8b, 0x9c} {
		want[op] = writing
	}
	for op := range 256 {
		if got := kindOf(byte(op)); got != want[byte(op)] {
			t.Errorf("%02xh is of kind %d", op, got)
		}
	}
}

func TestSenseKeys(t *testing.T) {
	for _, tt := range []struct {
		sense string
		want  byte
	}{
		{"", 0}, {"\x70\x00", 0}, {"\x70\x00\x06", 6}, {"\xf0\x00\x26", 6}, {"\x72\x06\x00", 6}, {"\x72\x05\x06", 5},
	} {
		if got := senseKey([]byte(tt.sense)); got != tt.want {
			t.Errorf("%x has key %d", tt.sense, got)
		}
	}
}

// TestMeterCounts enters one command of each outcome.
func TestMeterCounts(t *testing.T) {
	var m meter
	attention := []byte{0x70, 0, 6}
	for _, a := range []answer{
		{op: 0x28, in: 512, took: time.Millisecond},
		{op: 0x2a, out: 1024, r2ts: 2, took: 2 * time.Millisecond},
		{op: 0x12, in: 96, took: time.Hour}, // INQUIRY: its time is nobody's
		{op: 0x28, status: scsi.StatusCheckCondition, sense: attention, took: time.Microsecond},
		{op: 0x28, status: scsi.StatusCheckCondition, sense: []byte{0x70, 0, 3}, took: time.Microsecond},
		{op: 0x8a, status: scsi.StatusReservationConflict, took: time.Microsecond},
		{op: 0x8a, status: scsi.StatusTaskAborted, took: time.Microsecond},
		{op: 0x8a, status: statusTaskSetFull, took: time.Microsecond},
		{op: 0x8a, status: statusBusy, took: time.Microsecond},
	} {
		m.count(a)
	}
	var s iscsi.Stats
	m.addTo(&s)
	if s.Reads != 3 || s.Writes != 5 || s.Others != 1 || s.Commands() != 9 || s.ReadBytes != 608 || s.WrittenBytes != 1024 || s.R2Ts != 2 {
		t.Errorf("%+v", s)
	}
	if s.CheckConditions != 2 || s.UnitAttentions != 1 || s.Conflicts != 1 || s.Aborted != 1 || s.Full != 1 || s.Busy != 1 {
		t.Errorf("%+v", s)
	}
	if s.ReadLatency.Count() != 3 || s.ReadLatency.Max != time.Millisecond || s.WriteLatency.Max != 2*time.Millisecond {
		t.Errorf("latencies of %d reads up to %v, of writes up to %v", s.ReadLatency.Count(), s.ReadLatency.Max, s.WriteLatency.Max)
	}
}

// TestNoCountIsLost runs commands in sessions whose LUN maps change all the
// while. In the end every command is counted once in its session, and once at the
// LUN that it was for, unless that was not to be seen then.
func TestNoCountIsLost(t *testing.T) {
	const sessions, each = 4, 20000
	var mu sync.Mutex // as the server's lock
	units := []*unit{{name: "a"}, {name: "b"}, {name: "c"}}
	accounts := make([]*account, sessions)
	var running sync.WaitGroup
	stop := make(chan struct{})
	for i := range accounts {
		a := newAccount()
		accounts[i] = a
		running.Go(func() {
			r := rand.New(rand.NewPCG(7, uint64(i)))
			for range each {
				m := a.begin(uint64(r.IntN(4)) << 48)
				a.end(m, answer{op: 0x28, in: 1})
			}
		})
	}
	changed := make(chan struct{})
	go func() {
		defer close(changed)
		r := rand.New(rand.NewPCG(8, 8))
		for {
			select {
			case <-stop:
				return
			default:
			}
			seen := map[uint16]*unit{}
			for n := range uint16(4) {
				if k := r.IntN(len(units) + 1); k < len(units) {
					seen[n] = units[k]
				}
			}
			mu.Lock()
			accounts[r.IntN(sessions)].revise(seen)
			mu.Unlock()
		}
	}()
	running.Wait()
	close(stop)
	<-changed
	var all, atUnits, stray iscsi.Stats
	for _, a := range accounts {
		a.revise(nil)
		s := a.stats()
		if s.Commands() != each || s.ReadBytes != each || s.ReadLatency.Count() != each || s.Depth != 0 || s.MaxDepth != 1 {
			t.Errorf("a session of %d commands, %d bytes, %d latencies, depth %d, %d", s.Commands(), s.ReadBytes, s.ReadLatency.Count(), s.Depth, s.MaxDepth)
		}
		all.Merge(&s)
		a.stray.addTo(&stray)
	}
	for _, u := range units {
		u.past.addTo(&atUnits)
	}
	if atUnits.Commands() == 0 || stray.Commands() == 0 || atUnits.Commands()+stray.Commands() != all.Commands() {
		t.Errorf("%d at LUNs and %d stray of %d", atUnits.Commands(), stray.Commands(), all.Commands())
	}
}

// TestAccountKeepsUnits leaves counts alone where a session goes on seeing a LUN.
func TestAccountKeepsUnits(t *testing.T) {
	a, u, v := newAccount(), &unit{name: "u"}, &unit{name: "v"}
	a.revise(map[uint16]*unit{0: u, 1: v})
	m := a.begin(0)
	if a.begin(1) == m || a.begin(2) != &a.stray || a.begin(1<<62|1<<48) != a.begin(1<<48) {
		t.Error("the wrong meter")
	}
	a.revise(map[uint16]*unit{0: u, 5: v})
	if a.begin(0) != m || a.begin(1<<48) != &a.stray || len(a.past.recent) != 1 {
		t.Error("a LUN that stayed lost its meter, or one that went kept it")
	}
	if !slices.Contains(a.meters(), m) {
		t.Error("the meter is not among the session's")
	}
	if s := a.stats(); s.Depth != 7 || s.MaxDepth != 7 {
		t.Errorf("depth %d, %d", s.Depth, s.MaxDepth)
	}
}

func TestAccountAllocatesNothing(t *testing.T) {
	a := newAccount()
	a.revise(map[uint16]*unit{0: {}})
	a.begin(0)
	sense := []byte{0x70, 0, 6}
	if n := testing.AllocsPerRun(1000, func() {
		a.end(a.begin(0), answer{op: 0x28, in: 4096, took: 10 * time.Microsecond})
		a.end(a.begin(0), answer{op: 0x2a, out: 4096, status: scsi.StatusCheckCondition, sense: sense})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkAccount(b *testing.B) {
	a := newAccount()
	a.revise(map[uint16]*unit{0: {}})
	for b.Loop() {
		a.end(a.begin(0), answer{op: 0x28, in: 4096, took: 10 * time.Microsecond})
	}
}
