package scsi

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

const (
	tur = "00 00 00 00 00 00"
)

func TestAttentionPriority(t *testing.T) {
	m := newMemory(t, 8, 512)
	u := NewUnit(m)
	s := NewSession(nexusOf("a"), map[uint16]*Unit{0: u})
	defer s.Close()
	u.Resized()
	u.Resized()
	want(t, "inquiry", do(s, "12 00 00 00ff 00", nil).answer(), "good")
	want(t, "report LUNs", do(s, "a0 00 00 000000 00000010 00 00", nil).answer(), "good")
	want(t, "bad CDB", do(s, "28 20 00000000 00 0001 00", nil).answer(), "5 24/00")
	want(t, "first", do(s, tur, nil).answer(), "6 29/00")
	task := do(s, "03 00 00 00 ff 00", nil)
	want(t, "as data", task.answer(), "good")
	want(t, "second", []byte{task.In[2] & 0xf, task.In[12], task.In[13]}, []byte{6, 0x2a, 0x09})
	want(t, "none", do(s, tur, nil).answer(), "good")
	task = do(s, "03 01 00 00 ff 00", nil)
	want(t, "none as data", task.In, unhex("7200000000000000"))
}

// TestLUNFormats addresses the unit at LUN 0 and the one at 300.
func TestLUNFormats(t *testing.T) {
	u := NewUnit(newMemory(t, 8, 512))
	s := open(t, "a", map[uint16]*Unit{0: u, 300: u})
	tests := []struct {
		name string
		lun  uint64
		want string
	}{
		{"peripheral 0", 0, "good"},
		{"flat 0", 0x4000 << 48, "good"},
		{"flat 300", 0x412c << 48, "good"},
		{"peripheral 1", 1 << 48, "5 25/00"},
		{"bus 1", 0x012c << 48, "5 25/00"},
		{"second level", 1 << 32, "5 25/00"},
		{"logical unit addressing", 0x8000 << 48, "5 25/00"},
		{"well known", 0xc101 << 48, "5 25/00"},
	}
	for _, tt := range tests {
		want(t, tt.name, run(s, tt.lun, unhex(tur), nil, 0).answer(), tt.want)
	}
	want(t, "list", do(s, "a0 00 00 000000 00000100 00 00", nil).In, unhex("00000010 00000000 0000000000000000 412c000000000000"))
	want(t, "well known ones", do(s, "a0 00 01 000000 00000100 00 00", nil).In, make([]byte, 8))
	want(t, "no such report", do(s, "a0 00 10 000000 00000100 00 00", nil).answer(), "5 24/00")
	want(t, "short", do(s, "a0 00 00 000000 0000000f 00 00", nil).answer(), "5 24/00")
}

func TestAbsent(t *testing.T) {
	s := NewSession(nexusOf("a"), nil)
	defer s.Close()
	want(t, "inquiry", do(s, "12 00 00 00ff 00", nil).In[0], 0x7f)
	want(t, "report LUNs", do(s, "a0 00 00 000000 00000010 00 00", nil).In, make([]byte, 8))
	want(t, "report LUNs elsewhere", run(s, 1<<48, unhex("a000000000000000001000000"+"0"), nil, 64).answer(), "5 25/00")
	task := do(s, "03 00 00 00 ff 00", nil)
	want(t, "request sense", []byte{task.In[2], task.In[12]}, []byte{5, 0x25})
	want(t, "read", do(s, "28", nil).answer(), "5 25/00")
	want(t, "page", do(s, "12 01 00 00ff 00", nil).answer(), "5 25/00")
	want(t, "no CDB", func() string { t := &Task{}; s.Execute(context.Background(), t); return t.answer() }(), "5 25/00")
	want(t, "resets", []bool{s.LUNReset(0) == nil, s.AbortTaskSet(0) == nil, s.ClearTaskSet(0) == nil}, []bool{true, true, true})
}

func TestSetUnits(t *testing.T) {
	another := newMemory(t, 8, 512)
	another.info.ID[0]++
	a, b, c := NewUnit(newMemory(t, 8, 512)), NewUnit(newMemory(t, 8, 512)), NewUnit(another)
	s := open(t, "a", map[uint16]*Unit{0: a, 1: b})
	at := func(lun uint16) string { return run(s, lunField(lun), unhex(tur), nil, 0).answer() }
	s.SetUnits(map[uint16]*Unit{0: a, 1: b})
	want(t, "nothing changed", at(0), "good")
	s.SetUnits(map[uint16]*Unit{0: a, 2: c})
	want(t, "stays", at(0), "6 3f/0e")
	want(t, "removed", at(1), "5 25/00")
	want(t, "added", at(2), "6 29/00")
	s.SetUnits(map[uint16]*Unit{0: a, 2: b})
	want(t, "list", len(do(s, "a0 00 00 000000 00000100 00 00", nil).In), 24)
	want(t, "the list ended it", at(0), "good")
	want(t, "replaced", at(2), "6 29/00")
	want(t, "by another unit", at(2), "6 3f/03")
	want(t, "detached", len(c.attached), 0)
	s.SetUnits(map[uint16]*Unit{0: a})
	s.SetUnits(map[uint16]*Unit{0: a, 2: b})
	want(t, "the same unit again", []string{at(2), at(2)}, []string{"6 29/00", "good"})
	s.SetUnits(map[uint16]*Unit{0: a})
	s.SetUnits(map[uint16]*Unit{0: a, 2: c})
	want(t, "another unit after a while", []string{at(2), at(2), at(2)}, []string{"6 29/00", "6 3f/03", "good"})
	s.Close()
	s.SetUnits(map[uint16]*Unit{0: a})
	want(t, "closed", at(0), "5 25/00")
	want(t, "all detached", len(a.attached)+len(b.attached), 0)
}

// TestRemovalEndsCommands takes a LUN away under commands of two sessions: those
// of the one that lost it end, running or not, the others go on.
func TestRemovalEndsCommands(t *testing.T) {
	g := newGate(t)
	u := NewUnit(g)
	a, b := open(t, "a", map[uint16]*Unit{0: u}), open(t, "b", map[uint16]*Unit{0: u})
	ofA, ofB := make(chan string, 8), make(chan string, 8)
	startRead(t, a, 0, 1, ofA)
	startRead(t, b, 1, 1, ofB)
	<-g.begun
	<-g.begun
	startRead(t, a, 2, attrOrdered, ofA)
	a.SetUnits(nil)
	for range 2 {
		if answer := <-ofA; !strings.HasSuffix(answer, "aborted") {
			t.Error(answer)
		}
	}
	g.release(1)
	want(t, "the other session", <-ofB, "b good")
	want(t, "removed", run(a, 0, unhex(tur), nil, 0).answer(), "5 25/00")
}

func TestResets(t *testing.T) {
	m := newMemory(t, 8, 512)
	u := NewUnit(m)
	a, b := open(t, "a", map[uint16]*Unit{0: u}), open(t, "b", map[uint16]*Unit{0: u})
	u.mode.set(0)
	want(t, "reserve", do(a, "16", nil).answer(), "good")
	b.LUNReset(0)()
	want(t, "a", do(a, tur, nil).answer(), "6 29/03")
	want(t, "b", do(b, tur, nil).answer(), "6 29/03")
	want(t, "not reserved", do(b, tur, nil).answer(), "good")
	want(t, "mode pages", u.mode.writeCache(), true)
	a.TargetWarmReset()()
	want(t, "a", do(a, tur, nil).answer(), "6 29/02")
	want(t, "b", do(b, tur, nil).answer(), "6 29/02")
}

// blocked starts a read of block 0 that waits for its context, or for go on.
func blocked(t *testing.T, m *memory, s *Session, goOn chan struct{}) <-chan string {
	started := make(chan struct{})
	slow := &slowDevice{memory: m, started: started, goOn: goOn}
	for _, a := range *s.luns.Load() {
		a.unit.dev = slow
	}
	answer := make(chan string, 1)
	go func() { answer <- do(s, "28 00 00000000 00 0001 00", nil).answer() }()
	<-started
	return answer
}

// slowDevice reads when it is let, or its context ends.
type slowDevice struct {
	*memory
	started, goOn chan struct{}
}

func (d *slowDevice) ReadAt(ctx context.Context, p []byte, off int64) error {
	close(d.started)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-d.goOn:
		return d.memory.ReadAt(ctx, p, off)
	}
}

func TestAbort(t *testing.T) {
	tests := []struct {
		name string
		do   func(a, b *Session)
		want string // of a's running command
		a, b string // unit attentions afterwards
	}{
		{"own set", func(a, b *Session) { a.AbortTaskSet(0)() }, "aborted", "good", "good"},
		{"the other's set", func(a, b *Session) { b.AbortTaskSet(0)() }, "good", "good", "good"},
		{"clear by the other", func(a, b *Session) { b.ClearTaskSet(0)() }, "aborted", "6 2f/00", "good"},
		{"clear by itself", func(a, b *Session) { a.ClearTaskSet(0)() }, "aborted", "good", "good"},
		{"LUN reset", func(a, b *Session) { b.LUNReset(0)() }, "aborted", "6 29/03", "6 29/03"},
		{"preempt and abort", func(a, b *Session) { prOutDo(b, 5, 2, 1, 1) }, "aborted", "6 2a/05", "good"},
		{"preempt", func(a, b *Session) { prOutDo(b, 4, 2, 1, 1) }, "good", "6 2a/05", "good"},
	}
	for _, tt := range tests {
		m := newMemory(t, 8, 512)
		u := NewUnit(m)
		a, b := open(t, "a", map[uint16]*Unit{0: u}), open(t, "b", map[uint16]*Unit{0: u})
		want(t, "register", prOutDo(a, 0, 0, 1, 0)+prOutDo(b, 0, 0, 2, 0), "goodgood")
		goOn := make(chan struct{})
		answer := blocked(t, m, a, goOn)
		tt.do(a, b)
		close(goOn)
		want(t, tt.name, <-answer, tt.want)
		want(t, tt.name+", a", do(a, tur, nil).answer(), tt.a)
		want(t, tt.name+", b", do(b, tur, nil).answer(), tt.b)
	}
}

// TestCancel ends a running command by the transport's context.
func TestCancel(t *testing.T) {
	m := newMemory(t, 8, 512)
	u := NewUnit(m)
	s := open(t, "a", map[uint16]*Unit{0: u})
	started := make(chan struct{})
	u.dev = &slowDevice{memory: m, started: started}
	ctx, cancel := context.WithCancel(context.Background())
	task := &Task{CDB: unhex("28 00 00000000 00 0001 00 000000000000"), InLimit: 512}
	done := make(chan struct{})
	go func() { s.Execute(ctx, task); close(done) }()
	<-started
	cancel()
	<-done
	want(t, "canceled", task.answer(), "b 00/00")
	u.dev = m
	s.Execute(context.Background(), task)
	want(t, "the task again", task.answer(), "good")
	want(t, "data", bytes.Equal(task.In, m.data[:512]), true)
}
