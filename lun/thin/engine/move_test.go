package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"ripstop/lun"
	"ripstop/lun/thin/thintest"
)

// removal is a LUN with snapshots that moves between two pools whose power is cut.
type removal struct {
	rand   *rand.Rand
	disks  map[string]*memory
	left   atomic.Int64 // changes of either disk until the power is cut
	engine *Engine
	mux    *lun.Mux

	at, to string // pools
	done   bool   // it is recorded that the LUN is in to
	id     [16]byte
	oracle *thintest.Oracle
	past   []kept
	stamp  uint64
}

// kept is what a snapshot must be.
type kept struct {
	lun.SnapshotStats
	oracle *thintest.Oracle
}

const removalSize = 1 << 20

func newRemoval(ctx context.Context, seed uint64) (*removal, error) {
	w := &removal{rand: rand.New(rand.NewPCG(seed, 1)), disks: map[string]*memory{}, at: "p", to: "q", oracle: thintest.NewOracle(removalSize)}
	for i, name := range []string{"p", "q"} {
		w.disks[name] = &memory{Disk: thintest.New(seed<<1|uint64(i), 0)}
	}
	if err := w.boot(ctx); err != nil {
		return nil, err
	}
	v, err := w.mux.Volume("data")
	if err != nil {
		return nil, err
	}
	w.id = v.Info().ID
	for i := range 1 + w.rand.IntN(4) {
		for range 12 {
			if err := w.step(ctx); err != nil {
				return nil, err
			}
		}
		if w.rand.IntN(3) == 0 {
			size := w.oracle.Size()
			if err := w.mux.Do(ctx, lun.GrowLUN{Name: "data", From: size, To: size + 256<<10}); err != nil {
				return nil, err
			}
			w.oracle.Grow(size + 256<<10)
		}
		if err := w.mux.Snapshot(ctx, fmt.Sprintf("s%d", i), "data"); err != nil {
			return nil, err
		}
		all := w.mux.Snapshots()
		w.past = append(w.past, kept{all[len(all)-1], w.oracle.Clone()})
	}
	return w, v.Flush(ctx)
}

// boot is a process that begins, after a cut of the power or for the first time.
func (w *removal) boot(ctx context.Context) error {
	w.left.Store(math.MaxInt64)
	for name, d := range w.disks {
		next := d.Disk
		if d.used {
			next = d.Crash()
		}
		next.Inject(func(op thintest.Op, _, _ int64) error {
			if op != thintest.Read && w.left.Add(-1) < 0 || w.left.Load() < 0 {
				return thintest.ErrCut
			}
			return nil
		})
		w.disks[name] = &memory{Disk: next, used: d.used}
	}
	w.engine = New(slog.New(slog.DiscardHandler), Options{Open: func(path string, _ bool) (File, error) { return w.disks[path[1:]], nil }})
	w.mux = lun.NewMux(map[lun.Kind]lun.Engine{lun.Thin: w.engine})
	if w.done {
		w.mux.Expect("data", lun.Moved{From: w.at, To: w.to, ID: w.id})
	}
	for _, name := range []string{"p", "q"} {
		if err := w.mux.Do(ctx, lun.OpenPool{Name: name, Pool: main("/"+name, 64<<20)}); err != nil {
			return err
		}
		w.disks[name].used = true
	}
	return w.mux.Do(ctx, lun.OpenLUN{Name: "data", LUN: lun.LUN{Pool: w.in(), Size: w.oracle.Size(), Block: 4096}})
}

// in is the pool in which the LUN is.
func (w *removal) in() string {
	if w.done {
		return w.to
	}
	return w.at
}

// step changes the LUN.
func (w *removal) step(ctx context.Context) error {
	v, err := w.mux.Volume("data")
	if err != nil {
		return err
	}
	n := 4096 * (1 + w.rand.Int64N(24))
	off := 4096 * w.rand.Int64N((w.oracle.Size()-n)/4096+1)
	switch w.rand.IntN(6) {
	case 0:
		if err := v.Flush(ctx); err != nil {
			return err
		}
		w.oracle.Flush()
		return nil
	case 1:
		w.oracle.Write(off, n, 0)
		return v.Unmap(ctx, off, n)
	}
	w.stamp++
	w.oracle.Write(off, n, w.stamp)
	b := make([]byte, n)
	thintest.Fill(b, off, w.stamp)
	return v.WriteAt(ctx, b, off, false)
}

// verify compares the LUN and its snapshots with what they must be.
func (w *removal) verify(ctx context.Context) error {
	read := func(name string, size int64) ([]byte, error) {
		v, err := w.mux.Volume(name)
		if err != nil {
			return nil, err
		}
		if n := v.Info().Size; n != size {
			return nil, fmt.Errorf("%s has %d bytes, and had %d", name, n, size)
		}
		b := make([]byte, size)
		return b, v.ReadAt(ctx, b, 0)
	}
	b, err := read("data", w.oracle.Size())
	if err == nil {
		err = w.oracle.Found(b, 0)
	}
	if err != nil {
		return fmt.Errorf("the LUN: %w", err)
	}
	all := w.mux.Snapshots()
	if len(all) != len(w.past) {
		return fmt.Errorf("there are %d snapshots of %d: %v", len(all), len(w.past), all)
	}
	for i, want := range w.past {
		is := all[i]
		if is.Name != want.Name || is.ID != want.ID || !is.Created.Equal(want.Created) || is.Pool != w.in() {
			return fmt.Errorf("snapshot %d is %+v, and was %+v", i, is, want.SnapshotStats)
		}
		b, err := read(want.Name, want.Size)
		if err == nil {
			err = want.oracle.Exact(b, 0)
		}
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", want.Name, err)
		}
	}
	return nil
}

// move has the LUN be in the other pool, from whatever is there of that. It tells what
// it was about when it failed.
func (w *removal) move(ctx context.Context) (stage string, err error) {
	if !w.done {
		m, err := w.mux.BeginMove(ctx, "data", w.to, false)
		if err != nil {
			return "begin", err
		}
		copied := m.Size()
		err = m.Run(ctx, func(done int64) {
			if copied = m.Size(); w.rand.IntN(3) == 0 {
				_ = w.step(ctx) // who writes to disks without power hears of it at the next
			}
		})
		if err != nil {
			if copied > w.oracle.Size() {
				return "snapshots", err
			}
			return "copy", err
		}
		if err := w.mux.CommitMove(ctx, "data"); err != nil {
			return "commit", err
		}
		w.done = true
		w.mux.Moved("data")
		if err := w.mux.Do(ctx, lun.SwitchLUN{Name: "data", From: w.at, To: w.to}); err != nil {
			return "switch", err
		}
	}
	if over, err := w.mux.TidyMoved(ctx, "data", nil); !over || err != nil {
		return "tidy", fmt.Errorf("over is %v: %w", over, err)
	}
	w.at, w.to, w.done = w.to, w.at, false
	return "", nil
}

// empty tells what is in the pool that the LUN is not in.
func (w *removal) empty() error {
	for _, s := range w.engine.Snapshots() {
		if s.Pool == w.to {
			return fmt.Errorf("snapshot %s is left in pool %s", s.Name, s.Pool)
		}
	}
	for _, l := range append(w.engine.Retained(), w.engine.Stats().LUNs...) {
		if l.Pool == w.to {
			return fmt.Errorf("LUN %s is left in pool %s", l.Name, l.Pool)
		}
	}
	return nil
}

// TestMoveWithSnapshots: a LUN with snapshots moves while it is written to, and the power
// is cut again and again. After each cut the LUN has what was flushed, every snapshot is
// bit for bit what it was, with its identifier and time, and the move goes on or is ended.
func TestMoveWithSnapshots(t *testing.T) {
	cut := map[string]int{}
	for seed := range uint64(60) {
		if err := removalLife(t.Context(), seed, cut); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	t.Logf("cuts: %v", cut)
	for _, stage := range []string{"snapshots", "copy", "switch", "tidy"} {
		if cut[stage] == 0 {
			t.Errorf("no cut in the stage %s", stage)
		}
	}
}

func removalLife(ctx context.Context, seed uint64, cut map[string]int) error {
	w, err := newRemoval(ctx, seed)
	if err != nil {
		return err
	}
	for moves := 0; moves < 2; {
		most := 300
		if w.rand.IntN(2) == 0 {
			most = 30
		}
		w.left.Store(1 + w.rand.Int64N(int64(most)))
		if w.rand.IntN(8) == 0 {
			w.left.Store(math.MaxInt64)
		}
		stage, err := w.move(ctx)
		if err == nil {
			moves++
		} else if w.left.Load() >= 0 {
			return fmt.Errorf("%s: %w", stage, err)
		} else {
			cut[stage]++
		}
		_ = w.mux.Close()
		if err := w.boot(ctx); err != nil {
			return fmt.Errorf("after a cut in the stage %q: %w", stage, err)
		}
		if err := w.verify(ctx); err != nil {
			return fmt.Errorf("after a cut in the stage %q: %w", stage, err)
		}
		if !w.done && (err == nil || w.rand.IntN(4) == 0) { // cancelled
			if over, err := w.mux.EndMove(ctx, "data", w.to); !over || err != nil {
				return fmt.Errorf("end the move: %v, %w", over, err)
			}
			if err := errors.Join(w.empty(), w.verify(ctx)); err != nil {
				return fmt.Errorf("after the end of a move: %w", err)
			}
		}
	}
	return w.mux.Close()
}

// TestMoveKeepsWhatSnapshotsShare: what snapshots have in common takes space once in the
// other pool, too, and the one that the LUN left has all of its space back. Until then
// its snapshots neither change nor grow.
func TestMoveKeepsWhatSnapshotsShare(t *testing.T) {
	ctx := t.Context()
	const size = 8 << 20
	e := newEngine(t, Options{StateDir: t.TempDir()})
	mux := lun.NewMux(map[lun.Kind]lun.Engine{lun.Thin: e})
	dir := t.TempDir()
	for _, name := range []string{"p", "q"} {
		must(t, mux.Do(ctx, lun.OpenPool{Name: name, Pool: main(dir+"/"+name, 64<<20)}))
	}
	used := func(pool string) int64 {
		for _, p := range mux.Stats().Pools {
			if p.Name == pool {
				return p.Used
			}
		}
		return -1
	}
	before := used("p")
	must(t, mux.Do(ctx, lun.OpenLUN{Name: "data", LUN: lun.LUN{Pool: "p", Size: size, Block: 512}}))
	v, err := mux.Volume("data")
	must(t, err)
	var want [][]byte
	now := pattern(size, 1)
	must(t, v.WriteAt(ctx, now, 0, true))
	for i := range 6 {
		must(t, mux.Snapshot(ctx, fmt.Sprintf("s%d", i), "data"))
		want = append(want, bytes.Clone(now))
		b := pattern(512, byte(i+9))
		copy(now[i<<20:], b)
		must(t, v.WriteAt(ctx, b, int64(i)<<20, true))
		clear(now[i<<20+64<<10 : i<<20+128<<10])
		must(t, v.Unmap(ctx, int64(i)<<20+64<<10, 64<<10))
	}
	_, err = mux.Clone(ctx, "data@s2", "twin")
	must(t, err)
	m, err := mux.BeginMove(ctx, "data", "q", false)
	must(t, err)
	refuses := func(err error) {
		t.Helper()
		if !errors.Is(err, lun.ErrMoves) {
			t.Errorf("while it moves: %v", err)
		}
	}
	_, err = mux.DeleteSnapshot(ctx, "data@s1")
	refuses(err)
	refuses(mux.Restore(ctx, "data", "s1", "k"))
	refuses(mux.Snapshot(ctx, "more", "data"))
	refuses(mux.Do(ctx, lun.GrowLUN{Name: "data", From: size, To: 2 * size}))
	if n, want := m.Size(), int64(7*size); n != want {
		t.Errorf("there are %d bytes to go through, want %d", n, want)
	}
	last := int64(-1)
	must(t, m.Run(ctx, func(done int64) {
		if done < last {
			t.Errorf("it was at %d and is at %d", last, done)
		}
		last = done
	}))
	if last != 7*size {
		t.Errorf("it ends at %d", last)
	}
	must(t, mux.CommitMove(ctx, "data"))
	mux.Moved("data")
	must(t, mux.Do(ctx, lun.SwitchLUN{Name: "data", From: "p", To: "q"}))
	over, err := mux.TidyMoved(ctx, "data", nil)
	if !over || err != nil {
		t.Fatalf("%v, %v", over, err)
	}
	for i, s := range mux.Snapshots() {
		got := make([]byte, size)
		v, err := mux.Volume(s.Name)
		must(t, err)
		must(t, v.ReadAt(ctx, got, 0))
		if s.Pool != "q" || s.Name != fmt.Sprintf("data@s%d", i) || !bytes.Equal(got, want[i]) {
			t.Errorf("snapshot %s in pool %s is another", s.Name, s.Pool)
		}
	}
	if n := used("q"); n > size+3<<20 {
		t.Errorf("%d bytes are used there, for %d and six times 68 KiB", n, size)
	}
	// A clone is a LUN of its own, and stays with what it has.
	_, err = mux.Delete(ctx, "twin")
	must(t, err)
	if n := used("p"); n > before {
		t.Errorf("%d bytes are left where it was, and %d before it was made", n, before)
	}
	must(t, mux.Do(ctx, lun.CloseLUN{Name: "data"}))
	if all := mux.Snapshots(); len(all) != 6 || !strings.HasPrefix(all[0].Name, "data@") {
		t.Errorf("out of service it has %v", all)
	}
}
