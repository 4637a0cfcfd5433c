package lun

import (
	"bytes"
	"errors"
	"sync"
	"testing"
	"time"
)

// hang has what is done to a disk of this kind wait until the end of the test or until
// release is called. began is closed when something does.
func (p *pair) hang(what string) (began <-chan struct{}, release func()) {
	there, open := make(chan struct{}), make(chan struct{})
	var once, end sync.Once
	p.fail(func(is string) error {
		if is == what {
			once.Do(func() { close(there) })
			<-open
		}
		return nil
	})
	release = func() {
		end.Do(func() {
			p.fail(func(string) error { return nil })
			close(open)
		})
	}
	p.t.Cleanup(release)
	return there, release
}

// within has something done that shall not wait for a disk that hangs.
func (p *pair) within(what string, do func() error) {
	p.t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- do() }()
	select {
	case err := <-ended:
		if err != nil {
			p.t.Fatalf("%s: %v", what, err)
		}
	case <-time.After(10 * time.Second):
		p.t.Fatalf("%s waits for a disk that hangs", what)
	}
}

// TestMirrorWaitsForNoOtherDisk: what is recorded on a disk that hangs holds up what
// depends on it and nothing else. Writes to regions that no record has yet go on, and
// reads.
func TestMirrorWaitsForNoOtherDisk(t *testing.T) {
	for name, c := range map[string]struct {
		before func(p *pair)
		hangs  string
		do     func(p *pair) // what waits
	}{
		"a leg comes back": {
			before: func(p *pair) { p.reboot([]string{"a", "b"}, "b"); p.out = map[string]bool{} },
			hangs:  "record b",
			do:     func(p *pair) { p.pass(); p.again(); p.pass() },
		},
		"a leg is in sync": {
			before: func(p *pair) { p.reboot([]string{"a", "b"}, "b"); p.out = map[string]bool{} },
			hangs:  "witness",
			do:     func(p *pair) { p.pass(); p.again(); p.pass() },
		},
		"a leg is taken away": {
			before: func(p *pair) { p.pools("a") },
			hangs:  "witness",
			do:     func(p *pair) { p.pass() },
		},
		"what a leg left is deleted": {
			before: func(p *pair) {
				p.reboot([]string{"a", "b"}, "b")
				p.reboot([]string{"a", "c"}, "b")
				p.out = map[string]bool{}
				for m := p.mux.mirrorOf("data"); len(m.view.Load().in(inSync)) < 2; {
					time.Sleep(time.Millisecond)
				}
				p.mux.mirrorOf("data").clear(true) // no record has any region
			},
			hangs: "witness",
			do:    func(p *pair) { p.pass() },
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPairWith(t, time.Minute, time.Hour)
			p.settle()
			c.before(p)
			v := p.volume()
			began, release := p.hang(c.hangs)
			over := make(chan struct{})
			go func() { defer close(over); c.do(p) }()
			p.within("what shall hang", func() error { <-began; return nil })
			for i := range int64(8) {
				at := i << 20
				p.within("a write to a new region", func() error {
					return errors.Join(v.WriteAt(t.Context(), block(uint64(i+1)), at, false), v.Flush(t.Context()))
				})
				p.within("a read", func() error {
					b := block(0)
					err := v.ReadAt(t.Context(), b, at)
					if err == nil && !bytes.Equal(b, block(uint64(i+1))) {
						err = errors.New("it is of another time")
					}
					return err
				})
			}
			release()
			<-over
			p.settle()
			if in := p.want.LUNs["data"]; in.Mirror != "" {
				p.sameIn(in.Pool, in.Mirror)
			}
			p.reboot([]string{p.want.LUNs["data"].Pool})
			b := block(0)
			if err := p.volume().ReadAt(t.Context(), b, 7<<20); err != nil || !bytes.Equal(b, block(8)) {
				t.Fatalf("block %d is read at the end: %v", b[0], err)
			}
		})
	}
}

// TestMirrorReadsDoNotWaitForARecord: a leg that cannot be read is given up, and that
// cannot be recorded, for the state directory hangs. Reads go on from the other one; a
// write is acknowledged when it is recorded, and not before.
func TestMirrorReadsDoNotWaitForARecord(t *testing.T) {
	p := newPairWith(t, time.Minute, time.Hour)
	p.settle()
	v := p.volume()
	if err := v.WriteAt(t.Context(), block(5), 0, true); err != nil {
		t.Fatal(err)
	}
	began, open := make(chan struct{}), make(chan struct{})
	var once sync.Once
	p.fail(func(what string) error {
		switch what {
		case "read a", "write a":
			return errors.New("i/o error")
		case "witness":
			once.Do(func() { close(began) })
			<-open
		}
		return nil
	})
	for range 4 {
		p.within("a read", func() error {
			b := block(0)
			err := v.ReadAt(t.Context(), b, 0)
			if err == nil && !bytes.Equal(b, block(5)) {
				err = errors.New("it is of another time")
			}
			return err
		})
	}
	p.within("recording it", func() error { <-began; return nil })
	wrote := make(chan error, 1)
	go func() { wrote <- v.WriteAt(t.Context(), block(6), 0, true) }()
	select {
	case err := <-wrote:
		t.Fatalf("a write is acknowledged before it is recorded who has it: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(open)
	p.within("the write", func() error { return <-wrote })
	if b, _ := p.load("data"); !bytes.Contains(b, []byte(`"whole":["b"]`)) {
		t.Fatalf("it is acknowledged, and recorded is %s", b)
	}
	p.fail(func(string) error { return nil })
	p.again()
	p.settle()
	p.same()
}

// TestMirrorOlderWitnessStaysBehind: of two that are saved the one that was wanted later is
// there in the end, whichever the disk takes first.
func TestMirrorOlderWitnessStaysBehind(t *testing.T) {
	p := newPairWith(t, time.Minute, time.Hour)
	p.settle()
	m := p.mux.mirrorOf("data")
	m.state.Lock()
	m.saves += 2
	older, newer := m.now(), m.now()
	n := m.saves
	m.state.Unlock()
	newer.Whole = []string{"b"}
	if err := errors.Join(m.saveAs(newer, n), m.saveAs(older, n-1)); err != nil {
		t.Fatal(err)
	}
	if b, _ := p.load("data"); !bytes.Equal(b, newer.encode()) {
		t.Fatalf("%s is there", b)
	}
}
