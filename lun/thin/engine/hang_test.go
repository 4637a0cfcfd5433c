package engine

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"ripstop/internal/reconcile"
	"ripstop/lun"
	"ripstop/lun/thin/store"
)

// hung is a pool file that hangs while its gate is held.
type hung struct {
	File
	gate *gate
}

// gate holds what passes it, from shut to open.
type gate struct {
	mu     sync.Mutex
	opened chan struct{} // nil while it is open
	held   chan struct{} // closed when something is held
}

func (g *gate) shut() (held <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.opened, g.held = make(chan struct{}), make(chan struct{})
	return g.held
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		close(g.opened)
	}
	g.opened = nil
}

func (g *gate) pass() {
	g.mu.Lock()
	opened := g.opened
	if opened != nil {
		select {
		case <-g.held:
		default:
			close(g.held)
		}
	}
	g.mu.Unlock()
	if opened != nil {
		<-opened
	}
}

func (h hung) ReadAt(p []byte, off int64) (int, error) {
	h.gate.pass()
	return h.File.ReadAt(p, off)
}

func (h hung) WriteAt(p []byte, off int64) (int, error) {
	h.gate.pass()
	return h.File.WriteAt(p, off)
}

func (h hung) Sync() error {
	h.gate.pass()
	return h.File.Sync()
}

func (h hung) Grow(size int64) error {
	h.gate.pass()
	return h.File.Grow(size)
}

// hospital is an engine with a pool whose disk hangs on demand, and one beside it.
// Both have a LUN in service with a snapshot, and one out of service.
type hospital struct {
	*Engine
	t     *testing.T
	gate  gate
	want  lun.State
	ended chan string
}

func newHospital(t *testing.T) *hospital {
	t.Helper()
	h := &hospital{t: t, ended: make(chan string, 100)}
	dir := t.TempDir()
	h.Engine = newEngine(t, Options{
		OnEnded: func(pool string) { h.ended <- pool },
		Open: func(path string, direct bool) (File, error) {
			if filepath.Base(path) != "sick" {
				return store.Open(path, store.Options{Direct: direct})
			}
			h.gate.pass()
			f, err := store.Open(path, store.Options{Direct: direct})
			if err != nil {
				return nil, err
			}
			return hung{f, &h.gate}, nil
		},
	})
	t.Cleanup(h.gate.open) // before the engine is closed
	h.want = lun.State{Pools: map[string]lun.Pool{}, LUNs: map[string]lun.LUN{}}
	for _, pool := range []string{"sick", "well"} {
		h.want.Pools[pool] = main(filepath.Join(dir, pool), 64<<20)
		for _, name := range []string{pool + "-lun", pool + "-kept"} {
			h.want.LUNs[name] = lun.LUN{Pool: pool, Size: 8 << 20, Block: 4096}
		}
	}
	become(t, h.Engine, h.want)
	for _, pool := range []string{"sick", "well"} {
		must(t, volumeOf(t, h.Engine, pool+"-lun").WriteAt(t.Context(), pattern(64<<10, 1), 0, true))
		must(t, h.Snapshot(t.Context(), "s", pool+"-lun"))
		delete(h.want.LUNs, pool+"-kept")
	}
	become(t, h.Engine, h.want)
	h.patience = 20 * time.Millisecond
	return h
}

// finally does something to a pool whose disk answers, however slowly.
func (h *hospital) finally(a act, pool string) {
	h.t.Helper()
	err := a.do(h.t.Context(), h, pool)
	for errors.Is(err, lun.ErrHangs) {
		for <-h.ended != pool {
		}
		err = a.do(h.t.Context(), h, pool)
	}
	if err != nil {
		h.t.Errorf("%s of pool %s: %v", a.name, pool, err)
	}
}

// soon fails when something does not end.
func soon(t *testing.T, what string, do func()) {
	t.Helper()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		do()
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatalf("%s hangs, too", what)
	}
}

// act is something that is done to a pool.
type act struct {
	name string
	do   func(ctx context.Context, h *hospital, pool string) error
}

// acts are all that may wait for a disk, in an order in which each can be done.
var acts = []act{
	{"open LUN", func(ctx context.Context, h *hospital, pool string) error {
		return h.Do(ctx, lun.OpenLUN{Name: pool + "-new", LUN: lun.LUN{Pool: pool, Size: 1 << 20, Block: 4096}})
	}},
	{"grow LUN", func(ctx context.Context, h *hospital, pool string) error {
		return h.Do(ctx, lun.GrowLUN{Name: pool + "-lun", To: 16 << 20})
	}},
	{"reserve room", func(ctx context.Context, h *hospital, pool string) error {
		return h.Do(ctx, lun.ReserveLUN{Name: pool + "-lun", Thick: true})
	}},
	{"snapshot", func(ctx context.Context, h *hospital, pool string) error { return h.Snapshot(ctx, "t", pool+"-lun") }},
	{"clone", func(ctx context.Context, h *hospital, pool string) error {
		_, err := h.Clone(ctx, pool+"-lun@s", pool+"-clone")
		return err
	}},
	{"restore", func(ctx context.Context, h *hospital, pool string) error {
		return h.Restore(ctx, pool+"-lun", "s", "kept")
	}},
	{"delete snapshot", func(ctx context.Context, h *hospital, pool string) error {
		_, err := h.DeleteSnapshot(ctx, pool+"-lun@s")
		return err
	}},
	{"delete LUN", func(ctx context.Context, h *hospital, pool string) error {
		_, err := h.Delete(ctx, pool+"-kept")
		return err
	}},
	{"reopen pool", func(ctx context.Context, h *hospital, pool string) error { return h.Reopen(ctx, pool, false) }},
	{"close LUN", func(ctx context.Context, h *hospital, pool string) error {
		return errors.Join(h.Do(ctx, lun.CloseLUN{Name: pool + "-new"}), h.Do(ctx, lun.CloseLUN{Name: pool + "-lun"}))
	}},
	{"close pool", func(ctx context.Context, h *hospital, pool string) error { return h.Do(ctx, lun.ClosePool{Name: pool}) }},
	{"check pool", func(ctx context.Context, h *hospital, pool string) error {
		faults, err := h.CheckPool(ctx, pool, h.want.Pools[pool], func(int64) {})
		if err == nil && len(faults[""]) > 0 {
			err = errors.New(faults[""][0])
		}
		return err
	}},
	{"open pool", func(ctx context.Context, h *hospital, pool string) error {
		return h.Do(ctx, lun.OpenPool{Name: pool, Pool: h.want.Pools[pool]})
	}},
}

// TestADiskThatHangs: whatever waits for a disk that hangs, what needs none answers,
// everything can be done to another pool, what is asked of this one says what is
// waited for, and when the disk answers all is done.
func TestADiskThatHangs(t *testing.T) {
	for i, a := range acts {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			h, ctx := newHospital(t), t.Context()
			closed := a.name == "check pool" || a.name == "open pool"
			h.patience = time.Minute // the disk answers, however slowly
			if a.name == "close pool" || closed {
				must(t, h.Do(ctx, lun.CloseLUN{Name: "sick-lun"}))
			}
			if closed {
				must(t, h.Do(ctx, lun.ClosePool{Name: "sick"}))
			}
			h.patience = 20 * time.Millisecond
			if a.name == "close LUN" { // with something to put on the disk
				must(t, volumeOf(t, h.Engine, "sick-lun").WriteAt(ctx, pattern(4096, 9), 0, false))
			}
			held := h.gate.shut()
			done := make(chan error, 1)
			go func() { done <- a.do(ctx, h, "sick") }()
			<-held

			soon(t, "looking", func() {
				_, err := h.Observe(ctx)
				must(t, err)
				h.Stats()
				h.Fill()
				h.Bad()
				h.Retained()
				h.Snapshots()
				h.HasPool("sick")
				h.Keeps("sick-lun")
			})
			soon(t, "another pool", func() {
				for _, b := range acts {
					h.finally(b, "well")
				}
			})
			var first string
			for range 2 {
				step := lun.OpenLUN{Name: "sick-other", LUN: lun.LUN{Pool: "sick", Size: 1 << 20, Block: 4096}}
				failed := map[string]error{}
				soon(t, "a pass", func() { reconcile.Run(ctx, h.Engine, []lun.Step{step}, failed) })
				err := failed["lun/sick-other"]
				if !errors.Is(err, lun.ErrHangs) || !strings.Contains(err.Error(), "open LUN sick-other: pool sick: ") || !strings.Contains(err.Error(), "look at the disk of the pool") {
					t.Fatalf("a step of the pool: %v", err)
				}
				if first != "" && first != err.Error() {
					t.Errorf("it says another thing each time: %v, then %v", first, err)
				}
				first = err.Error()
			}
			if h.HasPool("sick") {
				soon(t, "a verb", func() {
					var err error
					for wait := time.Millisecond; err == nil || err.Error() == "reopen pool sick: context deadline exceeded"; wait *= 2 { // over before it waited
						some, cancel := context.WithTimeout(ctx, wait)
						err = h.Reopen(some, "sick", false)
						cancel()
					}
					if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "reopen pool sick: pool sick: ") || !strings.Contains(err.Error(), "is under way since") {
						t.Errorf("a verb of the pool: %v", err)
					}
				})
			}

			h.gate.open()
			switch err := <-done; {
			case errors.Is(err, lun.ErrHangs):
				for <-h.ended != "sick" {
				}
				h.finally(a, "sick")
			case err != nil:
				t.Errorf("when the disk answers: %v", err)
			}
			for _, b := range acts[i+1:] {
				h.finally(b, "sick")
			}
		})
	}
}

// TestStopOnADiskThatHangs: a stop ends while I/O hangs, says which pool does and
// stops all others, and nothing flushed is lost.
func TestStopOnADiskThatHangs(t *testing.T) {
	h, ctx := newHospital(t), t.Context()
	served, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	ready := make(chan struct{})
	go func() { ended <- h.Serve(served, func() { close(ready) }) }()
	<-ready
	well := volumeOf(t, h.Engine, "well-lun")
	must(t, well.WriteAt(ctx, pattern(4096, 5), 0, false))
	held := h.gate.shut()
	v := volumeOf(t, h.Engine, "sick-lun")
	wrote := make(chan error, 1)
	go func() { wrote <- v.WriteAt(ctx, pattern(64<<10, 2), 1<<20, true) }()
	<-held
	soon(t, "what tends the pools", func() {
		end()
		must(t, <-ended)
	})
	soon(t, "the stop", func() {
		for _, h.farewell = range []time.Duration{3 * time.Second, 200 * time.Millisecond} {
			err := h.Close()
			if !errors.Is(err, lun.ErrHangs) {
				t.Fatalf("stop: %v", err)
			}
			wants(t, err, "close pool sick: pool sick: the disk does not answer")
			if strings.Contains(err.Error(), "well") {
				t.Errorf("stop: %v", err)
			}
		}
	})
	if err := well.ReadAt(ctx, make([]byte, 4096), 0); !errors.Is(err, lun.ErrClosed) {
		t.Errorf("the other pool is in service: %v", err)
	}
	h.gate.open()
	must(t, <-wrote)
	<-h.ended
	other := newEngine(t, Options{})
	become(t, other, h.want)
	for name, at := range map[string]int64{"sick-lun": 1 << 20, "well-lun": 0} {
		got := make([]byte, 4096)
		must(t, volumeOf(t, other, name).ReadAt(ctx, got, at))
		if got[1] != got[0]+1 {
			t.Errorf("%s is not what was written", name)
		}
	}
}

// TestOneNameAtATime: while a pool that hangs makes a LUN, no other makes one of
// its name.
func TestOneNameAtATime(t *testing.T) {
	h, ctx := newHospital(t), t.Context()
	h.patience = time.Minute
	held := h.gate.shut()
	done := make(chan error, 1)
	go func() { done <- acts[0].do(ctx, h, "sick") }()
	<-held
	soon(t, "another pool", func() {
		err := h.Do(ctx, lun.OpenLUN{Name: "sick-new", LUN: lun.LUN{Pool: "well", Size: 1 << 20, Block: 4096}})
		wants(t, err, "open LUN sick-new: LUN sick-new: pool sick is about to make it")
		_, err = h.Clone(ctx, "well-lun@s", "sick-new")
		wants(t, err, "pool sick is about to make it")
	})
	h.gate.open()
	must(t, <-done)
	if pool, ok := h.Keeps("sick-new"); !ok || pool != "sick" {
		t.Errorf("it is in pool %q", pool)
	}
}

// TestChecksOnADiskThatHangs: what reads all data ends with its context.
func TestChecksOnADiskThatHangs(t *testing.T) {
	h := newHospital(t)
	for what, check := range map[string]func(ctx context.Context) error{
		"check LUN sick-lun": func(ctx context.Context) error {
			_, err := h.Check(ctx, "sick-lun", func(int64) {})
			return err
		},
		"check pool sick": func(ctx context.Context) error {
			_, err := h.CheckPool(ctx, "sick", h.want.Pools["sick"], func(int64) {})
			return err
		},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		held := h.gate.shut()
		done := make(chan error, 1)
		go func() { done <- check(ctx) }()
		<-held
		cancel()
		soon(t, what, func() {
			err := <-done
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", what, err)
			}
			wants(t, err, what+": context canceled: if it took long, look at the disk")
		})
		h.gate.open()
		if err := check(t.Context()); err != nil {
			t.Errorf("%s when the disk answers: %v", what, err)
		}
	}
}
