package thin

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"ripstop/lun"
	"ripstop/lun/thin/thintest"
)

// TestExclusiveIsWhatDeletingGivesBack deletes volumes and snapshots of random
// histories in a random order, and sees the space come back that List tells.
func TestExclusiveIsWhatDeletingGivesBack(t *testing.T) {
	ctx := t.Context()
	for seed := range uint64(12) {
		w, err := newWorld(seed, rules{})
		must(t, err)
		for range 250 {
			must(t, w.step(ctx))
		}
		if seed%3 == 0 { // counted from the disk
			must(t, w.pool.Close())
			must(t, w.open(ctx))
		}
		for len(w.volumes) > 0 {
			must(t, w.pool.commit())
			list := w.pool.List()
			if len(list) != len(w.volumes) || !slices.IsSortedFunc(list, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) }) {
				t.Fatalf("seed %d: %v", seed, list)
			}
			e := list[w.rand.IntN(len(list))]
			if e.Snapshot && e.Of != e.Name[:strings.Index(e.Name, "@")] || e.Mapped > e.Exclusive+e.Shared {
				t.Errorf("seed %d: %+v", seed, e)
			}
			before := w.pool.Usage().Data
			if err := w.pool.Delete(ctx, e.Name); errors.Is(err, ErrHasSnapshots) {
				continue
			} else if err != nil {
				t.Fatal(err)
			}
			delete(w.volumes, e.Name)
			if got := before - w.pool.Usage().Data; got != e.Exclusive {
				t.Errorf("seed %d: the delete of %s gave back %d bytes, and %d were said", seed, e.Name, got, e.Exclusive)
			}
		}
		if u := w.pool.Usage(); u.Data != 0 || u.Promised != 0 {
			t.Errorf("seed %d: an empty pool has %+v", seed, u)
		}
	}
}

// TestReservedVolumeNeverMeetsAFullPool fills the pool around it in every way.
func TestReservedVolumeNeverMeetsAFullPool(t *testing.T) {
	ctx := t.Context()
	p, d := startPool(t, 1, 256, rules{})
	const size = 4<<20 + 64<<10
	v, err := p.CreateReserved(ctx, "thick", size, 4096)
	must(t, err)
	w := create(t, p, "thin", 64<<20)
	if _, err := p.CreateReserved(ctx, "more", 64<<20, 4096); !errors.Is(err, lun.ErrNoSpace) {
		t.Errorf("more than the pool has is promised: %v", err)
	}
	all := func(stamp uint64) {
		t.Helper()
		for off := int64(0); off < size; off += chunkSize {
			must(t, v.WriteAt(ctx, filled(off, chunkSize, stamp), off, false))
		}
		must(t, v.Flush(ctx))
	}
	fill(t, w)
	all(1)
	must(t, v.Unmap(ctx, 0, size)) // what it gives back stays promised
	fill(t, w)
	all(2)
	if err := p.Snapshot(ctx, "s", "thick"); !errors.Is(err, lun.ErrNoSpace) {
		t.Errorf("a snapshot that has no room for its volume: %v", err)
	}
	all(3)
	must(t, w.Unmap(ctx, 0, 8<<20))
	must(t, w.Flush(ctx))
	must(t, p.Snapshot(ctx, "s", "thick"))
	fill(t, w)
	p = openPool(t, d.Crash(), 256, rules{}) // a promise outlives a cut
	v, err = p.Volume("thick")
	must(t, err)
	w, err = p.Volume("thin")
	must(t, err)
	fill(t, w)
	all(4)
	must(t, p.Delete(ctx, "thick@s"))
	if e := v.Entry(); !e.Reserved || e.Promised > 3*chunkSize {
		t.Errorf("it is full and is promised more: %+v", e)
	}
	must(t, p.Reserve(ctx, "thick", false))
	if u := p.Usage(); u.Promised != 0 {
		t.Errorf("%d bytes are promised to nobody", u.Promised)
	}
	must(t, v.Unmap(ctx, 0, size))
	must(t, v.Flush(ctx))
	fill(t, w)
	if err := p.Reserve(ctx, "thick", true); !errors.Is(err, lun.ErrNoSpace) {
		t.Errorf("a full pool promises: %v", err)
	}
}

// TestReservedAsLargeAsThePool: the map of a reserved volume takes none of the
// room that data may have.
func TestReservedAsLargeAsThePool(t *testing.T) {
	f := thintest.New(1, 0)
	must(t, Format(f, 4*chunkSize))
	p, err := Open(t.Context(), f, Options{Limit: 64 << 20, Data: 8 << 20, Slab: 1 << 20})
	must(t, err)
	v, err := p.CreateReserved(t.Context(), "v", 8<<20, 4096)
	must(t, err)
	must(t, v.WriteAt(t.Context(), filled(0, 8<<20, 1), 0, true))
	if _, err := p.CreateReserved(t.Context(), "w", 4096, 4096); !errors.Is(err, lun.ErrNoSpace) {
		t.Errorf("more: %v", err)
	}
}
