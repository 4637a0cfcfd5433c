package scsi

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// gate is a device whose reads wait, each for its own release.
type gate struct {
	*memory
	mu      sync.Mutex
	waiting map[int64]chan struct{}
	begun   chan int64
}

func newGate(t *testing.T) *gate {
	return &gate{memory: newMemory(t, 256, 512), waiting: map[int64]chan struct{}{}, begun: make(chan int64, 256)}
}

func (g *gate) ReadAt(ctx context.Context, p []byte, off int64) error {
	g.mu.Lock()
	ch := make(chan struct{})
	g.waiting[off/512] = ch
	g.mu.Unlock()
	g.begun <- off / 512
	select {
	case <-ch:
		return g.memory.ReadAt(ctx, p, off)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) release(lba int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.waiting[lba])
}

// startRead begins and starts a read of one block; ended gets the answer.
func startRead(t *testing.T, s *Session, lba byte, attr byte, ended chan<- string) *Task {
	task := &Task{CDB: unhex("28 00 000000 00 00 0001 00 000000000000"), Attr: attr, InLimit: 512}
	task.CDB[5] = lba
	task.Done = func() { ended <- string('a'+rune(lba)) + " " + task.answer() }
	if s.Begin(context.Background(), task) {
		t.Fatalf("read %d did not wait: %s", lba, task.answer())
	}
	task.Start()
	return task
}

// TestTaskAttributes runs simple, ordered and head of queue commands together.
func TestTaskAttributes(t *testing.T) {
	g := newGate(t)
	u := NewUnit(g)
	s := open(t, "a", map[uint16]*Unit{0: u})
	ended := make(chan string, 8)
	running := func(lbas ...int64) {
		t.Helper()
		var got []int64
		for range lbas {
			got = append(got, <-g.begun)
		}
		sum := func(a []int64) (n int64) {
			for _, x := range a {
				n += 1 << x
			}
			return n
		}
		want(t, "running", sum(got), sum(lbas))
		select {
		case lba := <-g.begun:
			t.Errorf("%d runs too", lba)
		default:
		}
	}
	startRead(t, s, 0, 1, ended)
	startRead(t, s, 1, 0, ended)
	running(0, 1)
	startRead(t, s, 2, attrOrdered, ended)
	startRead(t, s, 3, 1, ended)
	startRead(t, s, 4, attrHeadOfQueue, ended)
	running(4)
	now, most := u.Depth()
	want(t, "depth", []int{now, most}, []int{5, 5})
	g.release(0)
	want(t, "simple", <-ended, "a good")
	g.release(4)
	want(t, "head of queue", <-ended, "e good")
	running()
	g.release(1)
	want(t, "simple", <-ended, "b good")
	running(2)
	startRead(t, s, 5, 1, ended)
	g.release(2)
	want(t, "ordered", <-ended, "c good")
	running(3, 5)
	g.release(3)
	g.release(5)
	<-ended
	<-ended
	now, most = u.Depth()
	want(t, "depth in the end", []int{now, most}, []int{0, 5})
	want(t, "ACA", run(s, 0, unhex(tur), nil, 0).answer(), "good")
	task := &Task{CDB: make([]byte, 16), Attr: attrACA}
	want(t, "ACA ends", s.Begin(context.Background(), task), true)
	want(t, "ACA", task.answer(), "b 49/00")
}

// TestAbortDormant aborts a command that waits for its turn.
func TestAbortDormant(t *testing.T) {
	g := newGate(t)
	s := open(t, "a", map[uint16]*Unit{0: NewUnit(g)})
	ended := make(chan string, 8)
	startRead(t, s, 0, 1, ended)
	<-g.begun
	ordered := startRead(t, s, 1, attrOrdered, ended)
	startRead(t, s, 2, 1, ended)
	ordered.Abort()
	want(t, "dormant", <-ended, "b aborted")
	want(t, "no longer in the way", <-g.begun, 2)
	s.LUNReset(0)()
	for range 2 {
		if answer := <-ended; !strings.HasSuffix(answer, "aborted") {
			t.Error(answer)
		}
	}
}

// TestLane starts more commands than may wait for the medium at once.
func TestLane(t *testing.T) {
	g := newGate(t)
	u := NewUnit(g)
	s := open(t, "a", map[uint16]*Unit{0: u})
	ended := make(chan string, 256)
	for lba := range laneDepth + 10 {
		startRead(t, s, byte(lba), 1, ended)
	}
	for range laneDepth {
		<-g.begun
	}
	select {
	case lba := <-g.begun:
		t.Errorf("%d runs beyond the lane's depth", lba)
	default:
	}
	for lba := range int64(10) {
		g.release(lba)
		<-ended
		want(t, "next", <-g.begun, laneDepth+lba)
	}
	s.AbortTaskSet(0)()
	for range laneDepth {
		<-ended
	}
	for running := 1; running > 0; runtime.Gosched() {
		u.lane.mu.Lock()
		running = u.lane.running
		u.lane.mu.Unlock()
	}
}

// quick is a device that has everything at hand.
type quick struct{ *memory }

func (q quick) TryReadAt(p []byte, off int64) (bool, error) {
	return true, q.memory.ReadAt(context.Background(), p, off)
}

func (q quick) TryWriteAt(p []byte, off int64) (bool, error) {
	return true, q.memory.WriteAt(context.Background(), p, off, false)
}

// TestPrompt tells what ends at once on a device that never waits.
func TestPrompt(t *testing.T) {
	m := newMemory(t, 8, 512)
	u := NewUnit(quick{m})
	s := open(t, "a", map[uint16]*Unit{0: u})
	tests := []struct {
		name, cdb string
		out       []byte
		limit     int
		ended     bool
	}{
		{"inquiry", "12 00 00 00ff 00", nil, 255, true},
		{"read", "28 00 00000000 00 0001 00", nil, 512, true},
		{"read of nothing", "28 00 00000000 00 0000 00", nil, 512, true},
		{"read beyond the end", "28 00 00000008 00 0001 00", nil, 512, true},
		{"read of a part", "28 00 00000000 00 0001 00", nil, 511, false},
		{"read with FUA", "28 08 00000000 00 0001 00", nil, 512, false},
		{"write", "2a 00 00000000 00 0001 00", make([]byte, 512), 0, true},
		{"write with FUA", "2a 08 00000000 00 0001 00", make([]byte, 512), 0, false},
		{"flush", "35 00 00000000 00 0000 00", nil, 0, false},
	}
	for _, tt := range tests {
		task := &Task{CDB: make([]byte, 16), Out: tt.out, InLimit: tt.limit}
		copy(task.CDB, unhex(tt.cdb))
		ended := make(chan struct{}, 1)
		task.Done = func() { ended <- struct{}{} }
		if got := s.Begin(context.Background(), task); got != tt.ended {
			t.Errorf("%s: ended %v", tt.name, got)
		} else if !got {
			task.Start()
			<-ended
		}
		if a := task.answer(); a != "good" && a != "5 21/00" {
			t.Errorf("%s: %s", tt.name, a)
		}
	}
	want(t, "FUA reads flush", m.flushes > 1, true)
}

// broken is a device whose reads panic, at once or in the lane.
type broken struct {
	*memory
	prompt bool
}

func (b *broken) ReadAt(context.Context, []byte, int64) error { panic("a device that breaks") }

func (b *broken) TryReadAt([]byte, int64) (bool, error) {
	if b.prompt {
		panic("a device that breaks")
	}
	return false, nil
}

func (b *broken) TryWriteAt([]byte, int64) (bool, error) { return false, nil }

// TestCrash has a device panic: its command says so and leaves the task set.
func TestCrash(t *testing.T) {
	for _, prompt := range []bool{false, true} {
		u := NewUnit(&broken{newMemory(t, 8, 512), prompt})
		s := open(t, "a", map[uint16]*Unit{0: u})
		task := &Task{CDB: unhex("28 00 00000000 00 0001 00 000000000000"), InLimit: 512}
		s.Execute(context.Background(), task)
		want(t, "answer", task.answer(), "4 44/00")
		if task.Crash == nil || !strings.Contains(task.Crash.Error(), "a device that breaks") || !strings.Contains(string(task.Crash.Stack), "taskset_test.go") {
			t.Errorf("crash: %v", task.Crash)
		}
		s.LUNReset(0)()
		task.CDB = make([]byte, 16)
		s.Execute(context.Background(), task)
		want(t, "afterwards", task.Crash == nil && task.answer() == "6 29/03", true)
	}
}
