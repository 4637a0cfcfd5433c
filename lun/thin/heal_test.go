package thin

import (
	"errors"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/lun"
	"ripstop/lun/thin/thintest"
)

// pieces is how many reads the first n bytes of a volume take.
func pieces(t *testing.T, d *thintest.Disk, v *Volume, n int64) (reads int) {
	t.Helper()
	d.Inject(func(op thintest.Op, _, _ int64) error {
		if op == thintest.Read {
			reads++
		}
		return nil
	})
	defer d.Inject(nil)
	must(t, v.ReadAt(t.Context(), make([]byte, n), 0))
	return reads
}

// whole heals until a pass is over.
func whole(t *testing.T, p *Pool, work int64) (calls int) {
	t.Helper()
	for {
		calls++
		pr, err := p.Heal(t.Context(), work)
		must(t, err)
		if pr.Done > work+leafSize*2 {
			t.Fatalf("a call for %d bytes did %d", work, pr.Done)
		}
		if pr.Left == 0 {
			return calls
		}
	}
}

// TestHealMakesRegionsWhole: a volume that was overwritten here and there behind
// a snapshot is read as fast as before, and takes no more space.
func TestHealMakesRegionsWhole(t *testing.T) {
	ctx := t.Context()
	d := thintest.New(1, 0)
	must(t, Format(d, 64*chunkSize))
	p, err := Open(ctx, d, Options{Limit: 2048 * chunkSize})
	must(t, err)
	const size = 8 << 20
	v, o := create(t, p, "v", size), thintest.NewOracle(size)
	put := func(off, n int64, stamp uint64) {
		t.Helper()
		must(t, v.WriteAt(ctx, filled(off, n, stamp), off, false))
		o.Write(off, n, stamp)
	}
	put(0, size, 1)
	must(t, p.Snapshot(ctx, "s", "v"))
	kept := o.Clone()
	for i := range int64(512) {
		put((i*3*2654435761%2048)*blockSize, blockSize, 2+uint64(i))
	}
	must(t, v.Flush(ctx))
	before, used := pieces(t, d, v, size), p.Usage().Data
	if calls := whole(t, p, 512<<10); calls < 3 {
		t.Errorf("a pass over %d bytes takes %d calls", size, calls)
	}
	s, err := p.Volume("v@s")
	must(t, err)
	exact(t, v, o)
	exact(t, s, kept)
	if u := p.Usage().Data; u > used {
		t.Errorf("healing takes %d bytes", u-used)
	}
	after := pieces(t, d, v, size)
	t.Logf("%d reads before, %d after", before, after)
	if after > before/4 {
		t.Errorf("%d reads for what took %d before", after, before)
	}
	whole(t, p, 1<<30)
	if pr, err := p.Heal(ctx, 1<<30); err != nil || pr.Done > 64<<10 {
		t.Errorf("a healed pool is healed: %+v, %v", pr, err)
	}
	must(t, p.Delete(ctx, "v@s")) // leaves chunks that are v's alone, with few blocks each
	whole(t, p, 1<<30)
	exact(t, v, o)
	if u := p.Usage().Data; u > size+size/8 {
		t.Errorf("%d bytes of data take %d", size, u)
	}
	p, err = Open(ctx, d.Crash(), Options{Limit: 2048 * chunkSize})
	must(t, err)
	v, err = p.Volume("v")
	must(t, err)
	exact(t, v, o)
}

// TestScrubFindsWhatIsBad: bad blocks are named for every volume that has them,
// the rest goes on, and what is written over is good again.
func TestScrubFindsWhatIsBad(t *testing.T) {
	ctx := t.Context()
	p, d := startPool(t, 1, 512, rules{})
	v := create(t, p, "v", 9<<20)
	must(t, v.WriteAt(ctx, filled(0, 6<<20, 1), 0, true))
	must(t, p.Snapshot(ctx, "s", "v"))
	for _, b := range []int{3, 4, 700} {
		d.Flip(blockAt(v.leaf(0).data.chunk[b], b)+9, 1)
	}
	scrub := func() (bad []Damage, read int64) {
		t.Helper()
		for {
			pr, err := p.Scrub(ctx, 1<<20)
			must(t, err)
			bad, read = append(bad, pr.Bad...), read+pr.Done
			if pr.Left == 0 {
				return bad, read
			}
		}
	}
	if _, err := p.Scrub(ctx, 1); err != nil { // ScrubAll begins where everything begins
		t.Fatal(err)
	}
	var once int64
	all, err := p.ScrubAll(ctx, func(n int64) { once += n })
	if err != nil || len(all) != 4 || once < 6<<20 || once > 8<<20 {
		t.Errorf("all at once: %v in %d bytes, %v", all, once, err)
	}
	scrub()
	bad, read := scrub()
	if read < 6<<20 || read > 8<<20 {
		t.Errorf("6 MiB that two volumes share took %d bytes of reading", read)
	}
	found := map[Damage]bool{}
	for _, b := range bad {
		b.Err = nil
		found[b] = true
	}
	for _, name := range []string{"v", "v@s"} {
		if !found[Damage{name, 3 * blockSize, 2 * blockSize, nil}] || !found[Damage{name, 700 * blockSize, blockSize, nil}] || len(found) != 4 {
			t.Errorf("found: %+v", bad)
		}
	}
	must(t, v.WriteAt(ctx, filled(0, 4<<20, 2), 0, true))
	if bad, _ := scrub(); len(bad) != 2 || bad[0].Volume != "v@s" {
		t.Errorf("after the volume was written anew: %+v", bad)
	}
	must(t, p.Delete(ctx, "v@s"))
	if bad, _ := scrub(); len(bad) != 0 {
		t.Errorf("after the snapshot has gone: %+v", bad)
	}
}

// TestTrimGivesSpaceBack: what is free is punched, apart from what the map and
// promises need, and a full file system is met before anything is lost.
func TestTrimGivesSpaceBack(t *testing.T) {
	ctx := t.Context()
	p, d := startPool(t, 1, 1024, rules{})
	v := create(t, p, "v", 64<<20)
	must(t, v.WriteAt(ctx, filled(0, 40<<20, 1), 0, true))
	must(t, v.Unmap(ctx, 2<<20, 38<<20))
	must(t, v.Flush(ctx))
	must(t, p.checkpoint(false))
	var punched int64
	d.Inject(func(op thintest.Op, off, n int64) error {
		if op == thintest.Punch {
			punched += n
		}
		return nil
	})
	before := p.Usage()
	for {
		pr, err := p.Trim(ctx, 4<<20)
		must(t, err)
		if pr.Done > 4<<20 {
			t.Errorf("%d bytes in a piece of 4 MiB", pr.Done)
		}
		if pr.Done == 0 {
			break
		}
	}
	if punched < 24<<20 || punched > 38<<20 || p.Usage() != before {
		t.Errorf("%d bytes are punched, usage %+v, before %+v", punched, p.Usage(), before)
	}
	d.Inject(only(thintest.Grow, unix.ENOSPC)) // nothing is filled again
	n := fill(t, v)
	must(t, v.Unmap(ctx, 0, n))
	must(t, p.Snapshot(ctx, "s", "v"))
	must(t, p.checkpoint(false))
	d.Inject(nil)
	must(t, v.WriteAt(ctx, filled(0, 40<<20, 2), 0, true))
	same(t, v, 0, 40<<20, 2)
	must(t, p.Close())
}

// TestOpensOnAFullFileSystem: after trimming, free space is in part holes that
// cannot be filled; what still has its room is found wherever it is.
func TestOpensOnAFullFileSystem(t *testing.T) {
	ctx := t.Context()
	for seed := range uint64(3) {
		p, d := startPool(t, seed, 1024, rules{})
		v := create(t, p, "v", 64<<20)
		must(t, v.WriteAt(ctx, filled(0, 16<<20, 1), 0, true))
		must(t, v.Unmap(ctx, int64(seed)<<20, 12<<20))
		must(t, v.Flush(ctx))
		for pr := (Progress{Done: 1}); pr.Done > 0; {
			var err error
			pr, err = p.Trim(ctx, 64<<20)
			must(t, err)
		}
		full := only(thintest.Grow, unix.ENOSPC)
		d.Inject(full)
		n := fill(t, v) // takes what has room, and leaves the reserve
		must(t, v.Flush(ctx))
		d.CutNow()
		d = d.Crash()
		for range 2 {
			d.Inject(full)
			p = openPool(t, d, 1024, rules{})
			v, err := p.Volume("v")
			must(t, err)
			same(t, v, 0, n, 7)
			must(t, p.Snapshot(ctx, "s", "v"))
			must(t, p.Delete(ctx, "v@s"))
			must(t, v.Unmap(ctx, n/2, n/2))
			must(t, v.Flush(ctx))
			n = n / 3 &^ (chunkSize - 1) // more than that is not promised: the map may have become larger
			must(t, v.WriteAt(ctx, filled(n, n, 7), n, true))
			must(t, p.Close())
		}
	}
}

// TestNoRoomForTheMap: a copy with holes on a full file system has not even its
// reserve; what is there can be read, and nothing is lost.
func TestNoRoomForTheMap(t *testing.T) {
	ctx := t.Context()
	p, d := startPool(t, 1, 128, rules{})
	v := create(t, p, "v", 4<<20)
	must(t, v.WriteAt(ctx, filled(0, 1<<20, 1), 0, true))
	must(t, p.Close())
	for c := range p.space.size() {
		if p.space.state(c).Load() == 0 {
			must(t, d.Punch(int64(c)*chunkSize, chunkSize))
		}
	}
	d.Inject(only(thintest.Grow, unix.ENOSPC))
	for range 2 {
		p = openPool(t, d, 128, rules{})
		v, err := p.Volume("v")
		must(t, err)
		same(t, v, 0, 1<<20, 1)
		if err := v.WriteAt(ctx, filled(0, 4096, 2), 0, true); !errors.Is(err, lun.ErrReadOnly) || !errors.Is(err, lun.ErrNoSpace) {
			t.Errorf("write: %v", err)
		}
		if err := p.Close(); !errors.Is(err, lun.ErrNoSpace) {
			t.Errorf("close: %v", err)
		}
	}
	d.Inject(nil)
	p = openPool(t, d, 128, rules{})
	v, err := p.Volume("v")
	must(t, err)
	must(t, v.WriteAt(ctx, filled(0, 4096, 2), 0, true))
	same(t, v, 4096, 1<<20-4096, 1)
	must(t, p.Close())
}

// TestBackgroundTogether lets heal, scrub and trim run with writers, snapshots
// and deletes until the power fails.
func TestBackgroundTogether(t *testing.T) {
	for seed := range uint64(2) {
		p, d := startPool(t, seed, 640, rules{})
		workers := crew(t, p, seed)
		for range 2 {
			d.Cut(400 + int(seed)*100)
			stop := make(chan struct{})
			var group sync.WaitGroup
			for _, do := range []func() error{
				func() error { _, err := p.Heal(t.Context(), 256<<10); return err },
				func() error {
					pr, err := p.Scrub(t.Context(), 256<<10)
					for _, b := range pr.Bad {
						err = errors.Join(err, b.Err)
					}
					return err
				},
				func() error { // as `lun check` does, which finds nothing in a healthy pool whatever goes on
					bad, err := p.ScrubAll(t.Context(), func(int64) {})
					for _, b := range bad {
						err = errors.Join(err, b.Err)
					}
					return err
				},
				func() error { _, err := p.Trim(t.Context(), 1<<20); return err },
				func() error { p.List(); return nil },
			} {
				group.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if err := do(); err != nil && !cut(err) && !errors.Is(err, lun.ErrNoSpace) {
							t.Error(err)
							return
						}
					}
				})
			}
			together(t, p, workers)
			close(stop)
			group.Wait()
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
