package lun

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMoveWithoutADiskThatHangs: the LUN goes on after a moment, and the move is over; who
// cancels it need not wait for that.
func TestMoveWithoutADiskThatHangs(t *testing.T) {
	for _, cancels := range []bool{false, true} {
		s := newShip(t)
		v := s.volume()
		if err := v.WriteAt(t.Context(), bytes.Repeat([]byte{1}, 4096), 0, false); err != nil {
			t.Fatal(err)
		}
		hang := make(chan struct{})
		s.thin.fail(func(what string) error {
			if strings.HasPrefix(what, "write ") {
				<-hang
			}
			return nil
		})
		m, err := s.mux.BeginMove(t.Context(), "data", "new", false)
		if err != nil {
			t.Fatal(err)
		}
		m.patience = 50 * time.Millisecond
		ctx, cancel := context.WithCancelCause(t.Context())
		why := ErrHangs
		if cancels {
			m.patience = time.Hour
			why = errors.New("cancelled")
			time.AfterFunc(10*time.Millisecond, func() { cancel(why) })
		}
		ended := make(chan error, 1)
		go func() { ended <- m.Run(ctx, func(int64) {}) }()
		p := bytes.Repeat([]byte{2}, 4096)
		if err := v.WriteAt(t.Context(), p, 0, false); err != nil {
			t.Errorf("a write: %v", err)
		}
		clear(p) // is the caller's again
		if err := <-ended; !errors.Is(err, why) {
			t.Errorf("the move ends with %v", err)
		}
		close(hang)
		got := make([]byte, 4096)
		if err := v.ReadAt(t.Context(), got, 0); err != nil || got[0] != 2 {
			t.Errorf("it reads %d, %v", got[0], err)
		}
		if over, err := s.mux.EndMove(t.Context(), "data", "new"); !over || err != nil {
			t.Errorf("end: %t, %v", over, err)
		}
		cancel(nil)
	}
}

// TestMovedFromADiskThatHangs: deciding does not wait for what the former disk keeps, the
// world says that the LUN is there, and it is switched when that has ended.
func TestMovedFromADiskThatHangs(t *testing.T) {
	s := newShip(t)
	v := s.volume()
	if err := v.WriteAt(t.Context(), bytes.Repeat([]byte{1}, 4096), 0, false); err != nil {
		t.Fatal(err)
	}
	m, err := s.mux.BeginMove(t.Context(), "data", "new", false)
	if err == nil {
		err = m.Run(t.Context(), func(int64) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	hang, hangs, read := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	s.raw.fail(func(what string) error {
		if strings.HasPrefix(what, "read ") {
			close(hangs)
			<-hang
		}
		return nil
	})
	go func() { read <- v.ReadAt(context.Background(), make([]byte, 4096), 0) }()
	<-hangs
	if err := s.mux.CommitMove(t.Context(), "data"); err != nil {
		t.Fatal(err)
	}
	s.mux.Decided("data")
	have, err := s.mux.Observe(t.Context())
	if l := have.LUNs["data"]; err != nil || l.Ready != "new" {
		t.Errorf("observed %+v, %v", l, err)
	}
	if err := s.mux.Do(t.Context(), SwitchLUN{"data", "old", "new"}); !errors.Is(err, ErrHangs) {
		t.Errorf("it is switched: %v", err)
	}
	moved := make(chan struct{})
	go func() { s.mux.Moved("data"); close(moved) }()
	close(hang)
	<-moved
	if err := <-read; err != nil {
		t.Errorf("the read: %v", err)
	}
	s.do(SwitchLUN{"data", "old", "new"})
}

// TestFlushDuringAMove: a flush of the LUN, and a write that is on stable storage, do not
// wait until all that was copied is.
func TestFlushDuringAMove(t *testing.T) {
	s := newShip(t)
	v := s.volume()
	if err := v.WriteAt(t.Context(), bytes.Repeat([]byte{1}, 4096), 0, false); err != nil {
		t.Fatal(err)
	}
	flushes, goOn := make(chan struct{}, 16), make(chan struct{})
	s.thin.fail(func(what string) error {
		if strings.HasPrefix(what, "flush ") {
			flushes <- struct{}{}
			<-goOn
		}
		return nil
	})
	m := s.begin("new")
	m.patience = time.Hour
	ended := make(chan error, 1)
	go func() { ended <- m.Run(t.Context(), func(int64) {}) }()
	<-flushes // it is on its way to stable storage
	if err := errors.Join(v.Flush(t.Context()), v.WriteAt(t.Context(), bytes.Repeat([]byte{2}, 4096), 8192, true)); err != nil {
		t.Error(err)
	}
	if n := len(flushes); n > 0 {
		t.Errorf("the copy was flushed %d times for the LUN", n)
	}
	close(goOn)
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// TestMoveIsDurable: when a move is committed, all of the LUN that was said to be on stable
// storage is so in the copy, and stays so, whenever it was written.
func TestMoveIsDurable(t *testing.T) {
	for seed := range int64(40) {
		s := newShip(t)
		v := s.volume()
		if err := v.WriteAt(t.Context(), bytes.Repeat([]byte{1}, moveSize/2), 0, true); err != nil {
			t.Fatal(err)
		}
		m := s.begin("new")
		copied := m.to.(*ram)
		copied.mu.Lock()
		copied.torn = map[int64][]byte{}
		copied.mu.Unlock()
		var mu sync.Mutex
		safe := map[int64]bool{} // blocks of 4 KiB, each written once
		check := func() {
			mu.Lock()
			was := maps.Clone(safe)
			mu.Unlock()
			copied.mu.Lock()
			defer copied.mu.Unlock()
			for i := range was {
				if _, torn := copied.torn[i]; torn {
					t.Fatalf("seed %d: block %d is not on stable storage", seed, i)
				}
			}
		}
		over := make(chan struct{})
		var crew sync.WaitGroup
		const writers = 4
		for w := range int64(writers) {
			crew.Go(func() {
				for i := w; i < moveSize/4096; i += writers {
					select {
					case <-over:
						return
					default:
					}
					fua := (i+seed)%3 > 0
					err := v.WriteAt(t.Context(), bytes.Repeat([]byte{byte(i)}, 4096), i*4096, fua)
					if err == nil && !fua {
						err = v.Flush(t.Context())
					}
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					safe[i] = true
					mu.Unlock()
				}
			})
		}
		if err := errors.Join(m.Run(t.Context(), func(int64) {}), s.mux.CommitMove(t.Context(), "data")); err != nil {
			t.Fatal(err)
		}
		check()
		s.mux.Moved("data")
		check()
		close(over)
		crew.Wait()
		check()
	}
}
