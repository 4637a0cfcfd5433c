package scsi

import (
	"bytes"
	"context"
	"errors"
	"testing"
)

// queued is a device that carries accesses out when the test says so. Nothing
// is at hand.
type queued struct {
	*memory
	begun  chan func(ok bool) // what ends an access
	refuse bool
	breaks bool
}

func (q *queued) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	return q.start(func() error { return q.memory.ReadAt(context.Background(), p, off) }, done)
}

func (q *queued) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	return q.start(func() error { return q.memory.WriteAt(context.Background(), p, off, false) }, done)
}

func (q *queued) start(do func() error, done func(ok bool)) bool {
	if q.breaks {
		panic("a device that breaks")
	}
	if !q.refuse {
		q.begun <- func(ok bool) { done(ok && do() == nil) }
	}
	return !q.refuse
}

func newQueued(t testing.TB) (*Session, *queued, *Unit) {
	q := &queued{memory: newMemory(t, 8, 512), begun: make(chan func(bool), 8)}
	u := NewUnit(q)
	return open(t, "a", map[uint16]*Unit{0: u}), q, u
}

// begin starts a command that does not end at once.
func begin(t *testing.T, s *Session, cdb string, out []byte, limit int) (*Task, <-chan struct{}) {
	t.Helper()
	ended := make(chan struct{}, 1)
	task := &Task{CDB: make([]byte, 16), Out: out, InLimit: limit, Done: func() { ended <- struct{}{} }}
	copy(task.CDB, unhex(cdb))
	if s.Begin(context.Background(), task) {
		t.Fatalf("%s ended at once: %s", cdb, task.answer())
	}
	task.Start()
	return task, ended
}

// TestQueue: the device carries out what it can, and all else goes to the lane.
func TestQueue(t *testing.T) {
	s, q, u := newQueued(t)
	data := bytes.Repeat([]byte{7}, 512)
	const write, read = "2a 00 00000001 00 0001 00", "28 00 00000001 00 0001 00"
	_, wrote := begin(t, s, write, data, 0)
	end := <-q.begun
	want(t, "not yet written", q.lastCall(), "")
	end(true)
	<-wrote
	first, ended := begin(t, s, read, nil, 512)
	second, ended2 := begin(t, s, read, nil, 512)
	end, end2 := <-q.begun, <-q.begun
	now, _ := u.Depth()
	want(t, "depth", now, 2)
	end2(true) // in any order
	<-ended2
	end(true)
	<-ended
	for _, task := range []*Task{first, second} {
		if task.answer() != "good" || !bytes.Equal(task.In, data) || task.ActualIn != 512 {
			t.Errorf("%s, %x", task.answer(), task.In)
		}
	}
	for _, tt := range []struct {
		cdb   string
		out   []byte
		limit int
	}{
		{"28 08 00000001 00 0001 00", nil, 512}, // FUA
		{"2a 08 00000001 00 0001 00", data, 0},
		{"28 00 00000001 00 0001 00", nil, 100}, // a part of a block
		{"35 00 00000000 00 0000 00", nil, 0},   // flush
		{"28 00 00000008 00 0001 00", nil, 512}, // beyond the end
		{"2a 00 00000008 00 0001 00", data, 0},
	} {
		_, ended := begin(t, s, tt.cdb, tt.out, tt.limit)
		<-ended
		want(t, tt.cdb, len(q.begun), 0)
	}
}

// TestQueueFails: what the device does not carry out ends in the lane, which
// has the sense data.
func TestQueueFails(t *testing.T) {
	s, q, u := newQueued(t)
	const read = "28 00 00000001 00 0001 00"
	task, ended := begin(t, s, read, nil, 512)
	(<-q.begun)(false)
	<-ended
	want(t, "read again", task.answer(), "good")
	q.fault = func(string, int64) error { return &MediumError{Offset: 512, Err: errors.New("scratch")} }
	task, ended = begin(t, s, read, nil, 512)
	(<-q.begun)(true)
	<-ended
	want(t, "medium error", task.answer(), "3 11/00")
	q.fault = nil
	for _, set := range []func(){func() { q.refuse = true }, func() { q.breaks = true }} {
		set()
		task, ended = begin(t, s, read, nil, 512)
		<-ended
		want(t, "by the lane", task.answer(), "good")
	}
	now, _ := u.Depth()
	want(t, "depth", now, 0)
}

// TestQueueOrder: an ordered command waits for what the device has, and is then
// checked before it runs.
func TestQueueOrder(t *testing.T) {
	s, q, _ := newQueued(t)
	const read = "28 00 00000001 00 0001 00"
	_, ended := begin(t, s, read, nil, 512)
	end := <-q.begun
	ordered := &Task{CDB: make([]byte, 16), InLimit: 512, Attr: attrOrdered}
	copy(ordered.CDB, unhex("28 00 00000008 00 0001 00")) // beyond the end
	last := make(chan struct{}, 1)
	ordered.Done = func() { last <- struct{}{} }
	want(t, "ordered", s.Begin(context.Background(), ordered), false)
	ordered.Start()
	select {
	case <-last:
		t.Error("did not wait")
	default:
	}
	end(true)
	<-ended
	<-last
	want(t, "ordered", ordered.answer(), "5 21/00")
}

// TestQueueAbort: what the device has is waited for, and ends as it ended.
func TestQueueAbort(t *testing.T) {
	s, q, _ := newQueued(t)
	task, ended := begin(t, s, "28 00 00000001 00 0001 00", nil, 512)
	end := <-q.begun
	task.Abort()
	end(false) // the lane sees the abort
	<-ended
	want(t, "aborted", task.answer(), "aborted")
}

// nullQueue carries everything out at once.
type nullQueue struct{ nullDevice }

func (q nullQueue) StartReadAt(_ []byte, _ int64, done func(ok bool)) bool  { done(true); return true }
func (q nullQueue) StartWriteAt(_ []byte, _ int64, done func(ok bool)) bool { done(true); return true }

// TestQueueAllocatesNothing for a command that a device carries out.
func TestQueueAllocatesNothing(t *testing.T) {
	u := NewUnit(nullQueue{nullDevice{memory: newMemory(t, 8, 512), info: Info{Size: 1 << 30, BlockSize: 512}}})
	s := open(t, "a", map[uint16]*Unit{0: u})
	buf := make([]byte, 4096)
	task := &Task{CDB: unhex("28 00 00000008 00 0008 00 000000000000"), InLimit: 4096, Buffer: func(n int) []byte { return buf[:n] }}
	ended := 0
	task.Done = func() { ended++ }
	ctx := context.Background()
	want(t, "allocations", testing.AllocsPerRun(100, func() {
		s.Begin(ctx, task)
		task.Start()
	}), 0)
	want(t, "ended", ended, 101)
}
