package thin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"ripstop/lun"
	"ripstop/lun/thin/thintest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// startPool is an empty pool on a simulated disk.
func startPool(t *testing.T, seed uint64, chunks int64, r rules) (*Pool, *thintest.Disk) {
	t.Helper()
	d := thintest.New(seed, 0)
	must(t, Format(d, 16*chunkSize))
	return openPool(t, d, chunks, r), d
}

func openPool(t *testing.T, d *thintest.Disk, chunks int64, r rules) *Pool {
	t.Helper()
	p, err := Open(t.Context(), d, Options{Limit: chunks * chunkSize, Slab: 32 * chunkSize, Memory: 12 * leafMemory, rules: r})
	must(t, err)
	return p
}

func create(t *testing.T, p *Pool, name string, size int64) *Volume {
	t.Helper()
	v, err := p.Create(t.Context(), name, size, 4096)
	must(t, err)
	return v
}

func filled(off, n int64, stamp uint64) []byte {
	p := make([]byte, n)
	thintest.Fill(p, off, stamp)
	return p
}

func exact(t *testing.T, v *Volume, o *thintest.Oracle) {
	t.Helper()
	p := make([]byte, o.Size())
	must(t, v.ReadAt(t.Context(), p, 0))
	must(t, o.Exact(p, 0))
}

// worker writes to a volume of its own and knows what must be there.
type worker struct {
	name  string
	rand  *rand.Rand
	have  *thintest.Oracle
	snaps map[string]*thintest.Oracle
	stamp uint64
}

func (w *worker) step(ctx context.Context, p *Pool) error {
	v, err := p.Volume(w.name)
	if err != nil {
		return err
	}
	off := w.rand.Int64N(w.have.Size()/blockSize) * blockSize
	n := min(w.have.Size()-off, (1+w.rand.Int64N(24))*blockSize)
	switch k := w.rand.IntN(20); {
	case k < 12:
		w.stamp++
		if err = w.write(ctx, v, filled(off, n, w.stamp), off, k == 0); err == nil || cut(err) {
			w.have.Write(off, n, w.stamp)
		}
	case k < 15:
		if err = v.Unmap(ctx, off, n); err == nil || cut(err) {
			w.have.Write(off, n, 0)
		}
	case k < 18:
		b := make([]byte, n)
		if err = v.ReadAt(ctx, b, off); err == nil {
			err = w.have.Exact(b, off)
		}
	case k < 19:
		if err = v.Flush(ctx); err == nil {
			w.have.Flush()
		}
	case len(w.snaps) < 3:
		w.stamp++
		s := fmt.Sprint("s", w.stamp)
		if err = p.Snapshot(ctx, s, w.name); err == nil {
			w.have.Flush()
			w.snaps[w.name+"@"+s] = w.have.Clone()
		}
	default:
		for s := range w.snaps {
			delete(w.snaps, s)
			return p.Delete(ctx, s)
		}
	}
	if errors.Is(err, lun.ErrNoSpace) && !cut(err) {
		return errors.New("the pool should have room")
	}
	return err
}

// write flushes and tries again where a pool is full of chunks that were given
// up and not flushed yet (R3).
func (w *worker) write(ctx context.Context, v *Volume, p []byte, off int64, fua bool) error {
	for tries := 0; ; tries++ {
		err := v.WriteAt(ctx, p, off, fua)
		if tries == 4 || !errors.Is(err, lun.ErrNoSpace) || cut(err) {
			return err
		}
		if err := v.Flush(ctx); err != nil {
			return err
		}
		w.have.Flush()
	}
}

// check demands everything that the worker knows of.
func (w *worker) check(t *testing.T, p *Pool) {
	t.Helper()
	v, err := p.Volume(w.name)
	must(t, err)
	b := make([]byte, w.have.Size())
	must(t, v.ReadAt(t.Context(), b, 0))
	must(t, w.have.After(b, 0))
	for name, o := range w.snaps {
		s, err := p.Volume(name)
		must(t, err)
		exact(t, s, o)
	}
}

// TestConcurrentCuts lets workers, checkpoints and readers run at the same time
// until the power fails.
func TestConcurrentCuts(t *testing.T) {
	for seed := range uint64(4) {
		p, d := startPool(t, seed, 640, rules{})
		workers := crew(t, p, seed)
		for range 2 {
			d.Cut(150 + int(seed)*40)
			together(t, p, workers)
			d.CutNow()
			d = d.Crash()
			p = openPool(t, d, 640, rules{})
			for _, w := range workers {
				w.check(t, p)
			}
		}
		must(t, p.Close())
	}
}

// crew is workers with a volume each.
func crew(t *testing.T, p *Pool, seed uint64) (workers []*worker) {
	for i := range 3 {
		w := &worker{
			name: fmt.Sprint("v", i), rand: rand.New(rand.NewPCG(seed, uint64(i))),
			have: thintest.NewOracle([]int64{5 << 20, 512 << 10, 512 << 10}[i]), snaps: map[string]*thintest.Oracle{},
		}
		create(t, p, w.name, w.have.Size())
		workers = append(workers, w)
	}
	return workers
}

// together runs the workers, and a stranger who reads and makes checkpoints.
func together(t *testing.T, p *Pool, workers []*worker) {
	var group sync.WaitGroup
	ended := make(chan struct{})
	for _, w := range workers {
		group.Go(func() {
			for range 150 {
				err := w.step(t.Context(), p)
				if cut(err) {
					return
				}
				if err != nil {
					t.Error(w.name, err)
					return
				}
			}
		})
	}
	var stranger sync.WaitGroup
	stranger.Go(func() {
		b := make([]byte, 64<<10)
		for i := int64(0); ; i++ {
			select {
			case <-ended:
				return
			default:
			}
			v, err := p.Volume(workers[i%3].name)
			if err == nil {
				err = v.ReadAt(t.Context(), b, i*blockSize%(256<<10))
			}
			if i%8 == 0 && err == nil {
				err = p.checkpoint(false)
			}
			if err != nil && !cut(err) {
				t.Error("stranger:", err)
				return
			}
		}
	})
	work, cancel := context.WithCancel(t.Context())
	stranger.Go(func() { must(t, p.Maintain(work)) })
	group.Wait()
	close(ended)
	cancel()
	stranger.Wait()
}

// TestIntentsOutliveTheirCheckpoint has a write on its way while a checkpoint
// is made: the cut that tears it must find its intent.
func TestIntentsOutliveTheirCheckpoint(t *testing.T) {
	torn := func(r rules) (accepted int64, errs int) {
		for seed := range uint64(10) {
			p, d := startPool(t, seed, 128, r)
			v := create(t, p, "v", 1<<20)
			must(t, v.WriteAt(t.Context(), filled(0, 4096, 1), 0, true))
			must(t, v.WriteAt(t.Context(), filled(0, 4096, 2), 0, true)) // has the intent from here on
			must(t, p.checkpoint(false))
			p.wal.solo.Store(0) // a checkpoint waits for a write that goes with its frame
			asked, goOn := make(chan struct{}), make(chan struct{})
			var once sync.Once
			d.Inject(func(op thintest.Op, off, n int64) error {
				if op == thintest.Write && off > 17*chunkSize && n == blockSize {
					once.Do(func() { close(asked); <-goOn })
				}
				return nil
			})
			done := make(chan error)
			go func() { done <- v.WriteAt(t.Context(), filled(0, 4096, 3), 0, false) }()
			<-asked
			d.Inject(nil)
			for range 3 {
				must(t, p.checkpoint(false))
			}
			close(goOn)
			must(t, <-done)
			p = openPool(t, d.Crash(), 128, r)
			v, err := p.Volume("v")
			must(t, err)
			if v.ReadAt(t.Context(), make([]byte, 4096), 0) != nil {
				errs++
			}
			accepted += p.accepted.Load()
		}
		return accepted, errs
	}
	if accepted, errs := torn(rules{}); accepted == 0 || errs > 0 {
		t.Errorf("%d torn blocks accepted, %d errors", accepted, errs)
	}
	if _, errs := torn(rules{noCarry: true}); errs == 0 {
		t.Error("without the rule nothing is seen")
	}
}
