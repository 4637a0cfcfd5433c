package thin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
)

// bruised tells whether an operation ended because of the damage.
func (w *world) bruised(err error) bool {
	return w.hurt != nil && err != nil && !cut(err) && isMedium(err)
}

// inherit lets a volume have the damage of another, too.
func (w *world) inherit(to, from string) {
	if w.hurt == nil {
		return
	}
	all := maps.Clone(w.hurt[from])
	if all == nil {
		all = map[int64]bool{}
	}
	maps.Copy(all, w.hurt[to])
	w.hurt[to] = all
}

// blocks reads a range block by block: each is right, or one that is hurt.
func (w *world) blocks(ctx context.Context, name string, off, n int64, check func(p []byte, off int64) error) error {
	v, size := w.get(name), w.volumes[name].Size()
	p := make([]byte, blockSize)
	for at := off &^ (blockSize - 1); at < off+n; at += blockSize {
		part := p[:min(blockSize, size-at)]
		err := v.ReadAt(ctx, part, at)
		if w.bruised(err) {
			if !w.hurt[name][at/blockSize] {
				return fmt.Errorf("a healthy block is lost: %w", err)
			}
			w.seen["medium error"]++
			continue
		}
		if err == nil {
			if err = check(part, at); err != nil && w.hurt[name][at/blockSize] && w.accepts() {
				w.seen["rot that an intent hides"]++ // R4
				continue
			}
		}
		if err != nil {
			return fmt.Errorf("%s at %d: %w", name, at, err)
		}
	}
	return nil
}

// accepts tells whether some block was taken as it was found, in this life or an
// earlier one.
func (w *world) accepts() bool { return w.accepted+w.pool.accepted.Load() > 0 }

func (w *world) found(ctx context.Context, name string, off, n int64) error {
	return w.blocks(ctx, name, off, n, w.volumes[name].Found)
}

// partly notes a write that ended at a damaged block.
func (w *world) partly(ctx context.Context, name string, off, n int64, stamp uint64) error {
	w.volumes[name].Write(off, n, stamp)
	return w.found(ctx, name, off, n)
}

// bruise is a place that may be damaged, and what that may cost.
type bruise struct {
	what   string
	off, n int64
	costs  func(hurt func(name string, from, to int64)) // blocks; nil is all or nothing
}

// bruises is every place of the pool that opening would find.
func (w *world) bruises(ctx context.Context) (all map[string][]bruise, err error) {
	p := newPool(w.disk, Options{Shadow: slices.Clone(w.shadow)})
	if err := p.recover(ctx); err != nil {
		return nil, err
	}
	all = map[string][]bruise{}
	add := func(b bruise) { all[b.what] = append(all[b.what], b) }
	add(bruise{what: "super", off: int64(w.rand.IntN(2)) * superGap, n: sectorSize, costs: func(func(string, int64, int64)) {}})
	add(bruise{what: "log", off: p.wal.start, n: p.wal.size})
	add(bruise{what: "table", off: int64(p.tables[0]) * chunkSize, n: tableHead + int64(p.super.table.size)})
	// The log may have made other leaves of those on disk, and other volumes share
	// them: then all at that place may suffer.
	place := func(what string, ref nodeRef, index, leaves int, has func(v *Volume) bool) {
		if ref.loc == 0 {
			return
		}
		add(bruise{what, int64(ref.loc) * nodeSize, nodeSize, func(hurt func(string, int64, int64)) {
			for _, v := range p.list() {
				if !p.super.clean || has(v) {
					hurt(v.shape().name, int64(index)*leafBlocks, int64(index+leaves)*leafBlocks)
				}
			}
		}})
	}
	for _, v := range p.list() {
		for i := range v.pages {
			pg := v.pages[i].Load()
			if pg == nil {
				continue
			}
			place("page", pg.ref, i*pageLeaves, pageLeaves, func(o *Volume) bool { return i < len(o.pages) && o.pages[i].Load() == pg })
			for k := range pg.leaves {
				l := pg.leaves[k].Load()
				if l == nil {
					continue
				}
				index := i*pageLeaves + k
				place("leaf", l.ref, index, 1, func(o *Volume) bool { return o.sharedLeaf(index) == l })
				if l.suspect || p.lock(l) != nil { // R4: there it cannot be told
					continue
				}
				for b, c := range l.data.chunk {
					if c == 0 || c == lostChunk {
						continue
					}
					add(bruise{"data", blockAt(c, b), blockSize, func(hurt func(string, int64, int64)) {
						for _, o := range p.list() {
							if ol := o.sharedLeaf(index); ol != nil && p.lock(ol) == nil {
								if ol.data.chunk[b] == c {
									hurt(o.shape().name, int64(index)*leafBlocks+int64(b), int64(index)*leafBlocks+int64(b)+1)
								}
								ol.mu.Unlock()
							}
						}
					}})
				}
				l.mu.Unlock()
			}
		}
	}
	return all, nil
}

// bruise flips bits, and tells whether the pool may stay closed for that.
func (w *world) bruise(ctx context.Context) (fatal bool, err error) {
	all, err := w.bruises(ctx)
	if err != nil {
		return false, err
	}
	if w.hurt == nil {
		w.hurt = map[string]map[int64]bool{}
	}
	for range 1 + w.rand.IntN(3) {
		what := []string{"super", "log", "table", "page", "leaf", "leaf", "data", "data"}[w.rand.IntN(8)]
		if len(all[what]) == 0 {
			continue
		}
		b := all[what][w.rand.IntN(len(all[what]))]
		w.seen["damage to "+what]++
		w.disk.Flip(b.off+w.rand.Int64N(b.n), uint(w.rand.IntN(8)))
		if b.costs == nil {
			fatal = true
			continue
		}
		b.costs(func(name string, from, to int64) {
			if w.hurt[name] == nil {
				w.hurt[name] = map[int64]bool{}
			}
			for k := from; k < min(to, 8<<20/blockSize); k++ {
				w.hurt[name][k] = true
			}
		})
	}
	return fatal || w.seen["damage to super"] > 1, nil
}

// enter opens the pool, with cuts of the power meanwhile. What is damaged for good
// stays closed, which is true each time.
func (w *world) enter(ctx context.Context, giveUp bool) error {
	for try := 0; ; try++ {
		cuts := try < 3 && w.rand.IntN(2) == 0
		if cuts {
			w.disk.Cut(1 + w.rand.IntN(14))
		}
		var err error
		w.pool, err = Open(ctx, w.disk, Options{
			Limit: w.chunks * chunkSize, Slab: 16 * chunkSize, Memory: 8 * leafMemory, Shadow: w.shadow, GiveUp: giveUp, rules: w.rules,
		})
		if err == nil && cuts {
			w.disk.CutNow() // wherever it was by then
		}
		if err != nil && !cut(err) {
			return err
		}
		if !cuts {
			return err
		}
		w.seen["cut in opening what is damaged"]++
		w.crash()
	}
}

// suffer is lives of a pool that is damaged between them.
func suffer(ctx context.Context, seed uint64) (*world, error) {
	w, err := newWorld(seed, rules{})
	if err != nil {
		return w, err
	}
	if err := w.live(ctx, 120); err != nil {
		return w, err
	}
	fatal := false // a dead place of the log that was hit is where a later one ends
	for range 3 {
		if w.rand.IntN(3) == 0 {
			if err := w.pool.Close(); err == nil {
				w.flushed()
			} else if w.pool.Failed() == nil || w.hurt == nil {
				return w, err
			}
		} else {
			w.disk.Cut(1 + w.rand.IntN(40))
			if err := w.live(ctx, 60); err != nil {
				return w, err
			}
		}
		w.accepted += w.pool.accepted.Load()
		w.crash()
		worse, err := w.bruise(ctx)
		if fatal && errors.Is(err, ErrDamaged) { // the log ends now where it was hit before
			w.seen["stays closed"]++
			return w, nil
		}
		if err != nil {
			return w, err
		}
		fatal = fatal || worse
		for again := range 2 {
			giveUp := again > 0 || w.rand.IntN(2) == 0
			if err := w.enter(ctx, giveUp); err != nil {
				if fatal && (errors.Is(err, ErrDamaged) || strings.Contains(err.Error(), "super")) {
					w.seen["stays closed"]++
					return w, nil
				}
				return w, fmt.Errorf("open: %w", err)
			}
			if w.doubt != nil {
				if err := w.doubt(); err != nil {
					return w, err
				}
				w.doubt = nil
			}
			if err := w.verify(ctx, true); err != nil {
				return w, err
			}
			if w.pool.Failed() == nil {
				break
			}
			w.seen["read-only"]++
			w.accepted += w.pool.accepted.Load()
			w.crash()
		}
		if err := w.live(ctx, 40); err != nil {
			return w, err
		}
	}
	return w, nil
}

// live is operations until the power fails, if it does.
func (w *world) live(ctx context.Context, n int) error {
	for range n {
		w.ops++
		err := w.step(ctx)
		if cut(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("operation %d: %w", w.ops, err)
		}
	}
	return nil
}

// TestPowerCutsOverDamage: bits flip in super, log, table, map and data while the
// pool is out of service, and the power fails while it is opened, with and without
// giving up, and in what follows. Each block is what it must be or, where it or its
// map was hit, a medium error.
func TestPowerCutsOverDamage(t *testing.T) {
	from, to := seeds(t)
	seen := map[string]int{}
	var mu sync.Mutex
	to = from + (to-from)/4
	err := eachSeed(from, to, func(seed uint64) error {
		w, err := suffer(t.Context(), seed)
		if err != nil {
			return fmt.Errorf("seed %d: %w", seed, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for k, n := range w.seen {
			seen[k] += n
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{
		"damage to super", "damage to log", "damage to table", "damage to page", "damage to leaf", "damage to data",
		"medium error", "stays closed", "cut in opening what is damaged",
	} {
		if to-from >= 75 && seen[name] == 0 {
			t.Errorf("no %s in all seeds", name)
		}
	}
	t.Logf("%d seeds: %v", to-from, seen)
}
