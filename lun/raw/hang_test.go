package raw

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ripstop/lun"
)

// stuck is a file whose growth waits until the gate is opened.
type stuck struct {
	file
	gate, held chan struct{}
}

func (f *stuck) Resize(size int64) error {
	f.held <- struct{}{}
	<-f.gate
	return f.file.Resize(size)
}

// TestADiskThatHangs: a step on a pool whose disk hangs is given up after a while and
// at once then, everything else goes on, and what was begun ends when it answers.
func TestADiskThatHangs(t *testing.T) {
	bad, good := t.TempDir(), t.TempDir()
	ended := make(chan string, 1)
	resized := make(chan string, 1)
	e := newEngine(t, Options{OnEnded: func(pool string) { ended <- pool }, OnResize: func(name string) { resized <- name }})
	e.patience = 20 * time.Millisecond
	gate, held := make(chan struct{}), make(chan struct{}, 1)
	e.open = func(path string, flag int) (file, error) {
		f, err := e.openDisk(path, flag)
		if strings.HasPrefix(path, bad) && err == nil && flag == os.O_RDWR {
			return &stuck{f, gate, held}, nil
		}
		return f, err
	}
	pool := func(name, dir string) lun.Step {
		return lun.OpenPool{Name: name, Pool: lun.Pool{Kind: lun.Raw, Path: dir, Size: 1 << 30, Overcommit: 4}}
	}
	on := func(name, pool string) lun.Step {
		return lun.OpenLUN{Name: name, LUN: lun.LUN{Pool: pool, Size: 1 << 20, Block: 4096}}
	}
	e.patience = time.Minute
	do(t, e, pool("bad", bad), pool("good", good), on("a", "bad"), on("b", "good"))

	e.patience = 20 * time.Millisecond
	err := e.Do(t.Context(), lun.GrowLUN{Name: "a", To: 2 << 20})
	if !errors.Is(err, lun.ErrHangs) {
		t.Fatalf("grow: %v", err)
	}
	<-held
	e.patience = time.Minute // what hangs for long is known, and is not waited for again
	for _, step := range []lun.Step{lun.CloseLUN{Name: "a"}, lun.ClosePool{Name: "bad"}, on("c", "bad")} {
		began, ctx := time.Now(), t.Context()
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
		err := e.Do(ctx, step)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "`grow LUN a` is under way") || time.Since(began) > 30*time.Second {
			t.Errorf("%v: %v", step, err)
		}
	}
	do(t, e, on("d", "good"), lun.GrowLUN{Name: "b", To: 2 << 20}, lun.CloseLUN{Name: "d"})
	if got := <-resized; got != "b" {
		t.Errorf("%s has grown", got)
	}
	if _, err := e.Delete(t.Context(), "d"); err != nil {
		t.Error(err)
	}
	s, err := e.Observe(t.Context())
	must(t, err)
	if s.LUNs["a"].Size != 1<<20 || s.LUNs["b"].Size != 2<<20 || len(e.Stats().Pools) != 2 || len(e.Retained()) != 0 {
		t.Errorf("observed %+v", s)
	}
	must(t, vol(t, e, "a").WriteAt(t.Context(), make([]byte, 4096), 0, true))
	if pool, ok := e.Keeps("a"); !ok || pool != "bad" {
		t.Errorf("a is kept by %q", pool)
	}

	close(gate)
	if pool := <-ended; pool != "bad" {
		t.Errorf("something of pool %s ended", pool)
	}
	if got := <-resized; got != "a" {
		t.Errorf("%s has grown", got)
	}
	do(t, e, lun.CloseLUN{Name: "a"})
	if _, err := os.Stat(filepath.Join(bad, "a.lun")); err != nil {
		t.Error(err)
	}
}

// TestCloseLeavesADiskThatHangs: the error names it, and other pools are closed.
func TestCloseLeavesADiskThatHangs(t *testing.T) {
	dir := t.TempDir() // first, so that the engine is closed before it is removed
	e := newEngine(t, Options{})
	gate, held := make(chan struct{}), make(chan struct{}, 1)
	e.open = func(path string, flag int) (file, error) {
		f, err := e.openDisk(path, flag)
		if err == nil && flag == os.O_RDWR {
			return &stuck{f, gate, held}, nil
		}
		return f, err
	}
	do(t, e, openPool(dir, 1<<30), openLUN("a", 1<<20, 4096))
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-held; cancel(errors.New("enough")) }()
	if err := e.Do(ctx, lun.GrowLUN{Name: "a", To: 2 << 20}); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Fatalf("grow: %v", err)
	}
	e.farewell = 20 * time.Millisecond
	if err := e.Close(); !errors.Is(err, lun.ErrHangs) || !strings.Contains(err.Error(), "pool main") {
		t.Errorf("close: %v", err)
	}
	close(gate)
	e.farewell = time.Minute
}

// slow is a file whose way to stable storage waits until the gate is opened.
type slow struct {
	file
	gate, held chan struct{}
}

func (f *slow) Datasync() error {
	f.held <- struct{}{}
	<-f.gate
	return f.file.Datasync()
}

// TestDataAreKnownWhileTheyClose: a LUN that hangs on its way out of service is one
// that its pool has: no other pool makes one of its name.
func TestDataAreKnownWhileTheyClose(t *testing.T) {
	e := newEngine(t, Options{})
	e.patience = time.Minute
	do(t, e, openPool(t.TempDir(), 1<<30), openLUN("a", 1<<20, 4096),
		lun.OpenPool{Name: "other", Pool: lun.Pool{Kind: lun.Raw, Path: t.TempDir(), Size: 1 << 30, Overcommit: 4}})
	v := vol(t, e, "a")
	must(t, v.WriteAt(t.Context(), make([]byte, 8192), 0, false))
	f := &slow{v.file, make(chan struct{}), make(chan struct{}, 1)}
	v.file = f
	closed := make(chan error, 1)
	go func() { closed <- e.Do(t.Context(), lun.CloseLUN{Name: "a"}) }()
	<-f.held
	if pool, ok := e.Keeps("a"); !ok || pool != "main" {
		t.Errorf("it is kept by %q", pool)
	}
	wants(t, e.Do(t.Context(), lun.OpenLUN{Name: "a", LUN: lun.LUN{Pool: "other", Size: 1 << 20, Block: 4096}}), "its data are in pool main and not in other")
	close(f.gate)
	must(t, <-closed)
	if r := e.Retained(); len(r) != 1 || r[0].Name != "a" || r[0].Pool != "main" || r[0].Used != 8192 {
		t.Errorf("retained %+v", r)
	}
	if s := e.Stats().Pools[0]; s.Used != 8192 || s.Retained != 8192 {
		t.Errorf("the pool has %+v", s)
	}
}

// TestRecordOfAPoolElsewhere: who waited for a pool that was opened elsewhere meanwhile keeps
// the record there, and who waited for one that closed says so.
func TestRecordOfAPoolElsewhere(t *testing.T) {
	was, is := t.TempDir(), t.TempDir()
	e := newEngine(t, Options{})
	do(t, e, openPool(was, 1<<30))
	held, gate := make(chan struct{}), make(chan struct{})
	go func() {
		_ = e.step(context.Background(), "main", "hold", func() error { close(held); <-gate; return nil })
	}()
	<-held
	set := make(chan error, 1)
	go func() { set <- e.SetRecord(t.Context(), "main", "a", []byte("record")) }()
	// The pool is elsewhere when its turn comes.
	e.mu.Lock()
	p := e.pools["main"]
	path := p.path
	p.path = is
	e.mu.Unlock()
	close(gate)
	must(t, <-set)
	e.mu.Lock()
	p.path = path
	e.mu.Unlock()
	if _, err := os.Stat(filepath.Join(is, "a"+recordSuffix)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(was, "a"+recordSuffix)); err == nil {
		t.Error("the record is where the pool was")
	}
	if err := e.SetRecord(t.Context(), "none", "a", nil); err == nil || !strings.Contains(err.Error(), "pool none is not in service") {
		t.Error(err)
	}
}
