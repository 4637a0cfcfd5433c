package thin

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/lun"
	"ripstop/lun/thin/thintest"
)

func only(what thintest.Op, err error) func(thintest.Op, int64, int64) error {
	return func(op thintest.Op, off, _ int64) error {
		if op == what && (op == thintest.Sync || op == thintest.Grow || off > 17*chunkSize) {
			return err
		}
		return nil
	}
}

func TestBadMediumIsOneBlocksMatter(t *testing.T) {
	p, d := startPool(t, 1, 128, rules{})
	v := create(t, p, "v", 1<<20)
	b := filled(0, 65536, 1)
	var medium *lun.MediumError
	d.Inject(only(thintest.Write, unix.EIO))
	if err := v.WriteAt(t.Context(), b, 0, false); !errors.As(err, &medium) || !errors.Is(err, unix.EIO) {
		t.Errorf("write: %v", err)
	}
	d.Inject(nil)
	must(t, v.ReadAt(t.Context(), b, 0))
	must(t, thintest.NewOracle(1<<20).Exact(b, 0)) // nothing became visible
	must(t, v.WriteAt(t.Context(), filled(0, 65536, 2), 0, true))
	d.Inject(only(thintest.Read, unix.EIO))
	if err := v.ReadAt(t.Context(), b[:8192], 4096); !errors.As(err, &medium) || medium.Offset != 4096 {
		t.Errorf("read: %v", err)
	}
	d.Inject(nil)
	d.Flip(blockAt(v.leaf(0).data.chunk[3], 3)+7, 0)
	if err := v.ReadAt(t.Context(), b, 0); !errors.As(err, &medium) || medium.Offset != 3*4096 {
		t.Errorf("a flipped bit is read: %v", err)
	}
	must(t, v.WriteAt(t.Context(), filled(3*4096, 4096, 3), 3*4096, true))
	must(t, v.ReadAt(t.Context(), b, 0))
}

// TestFailStop: after a failed sync nothing is written or tried again until the
// pool is opened anew; reads go on.
func TestFailStop(t *testing.T) {
	ctx := t.Context()
	p, d := startPool(t, 1, 128, rules{})
	v := create(t, p, "v", 1<<20)
	old, b := filled(0, 4096, 1), filled(0, 4096, 2)
	must(t, v.WriteAt(ctx, old, 0, true))
	must(t, v.WriteAt(ctx, filled(4096, 4096, 2), 4096, false))
	d.Inject(only(thintest.Sync, unix.EIO))
	if err := v.Flush(ctx); !errors.Is(err, unix.EIO) {
		t.Errorf("flush: %v", err)
	}
	d.Inject(nil)
	_, cerr := p.Create(ctx, "w", 4096, 4096)
	for i, err := range []error{
		v.Flush(ctx), v.WriteAt(ctx, b, 0, false), v.WriteAt(ctx, b, 0, true), v.Unmap(ctx, 0, 4096), v.WriteZeroes(ctx, 0, 4096),
		v.CompareAndWrite(ctx, old, b, 0), p.Snapshot(ctx, "s", "v"), p.Delete(ctx, "v"), cerr, p.Grow(ctx, "v", 2<<20), p.checkpoint(false),
	} {
		if !errors.Is(err, lun.ErrReadOnly) || !errors.Is(err, unix.EIO) {
			t.Errorf("operation %d after a failed flush: %v", i, err)
		}
	}
	if !v.Info().ReadOnly {
		t.Error("the volume does not say that it is read-only")
	}
	got := make([]byte, 4096)
	must(t, v.ReadAt(ctx, got, 0))
	if err := p.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("close hides the failure: %v", err)
	}
	p = openPool(t, d.Crash(), 128, rules{})
	v, err := p.Volume("v")
	must(t, err)
	must(t, v.ReadAt(ctx, got, 0))
	if string(got) != string(old) {
		t.Error("what was flushed is lost")
	}
	must(t, v.WriteAt(ctx, b, 0, true))
}

// fill writes until the pool has no room, and is how far it came.
func fill(t *testing.T, v *Volume) (n int64) {
	t.Helper()
	for ; n < v.Info().Size; n += 65536 {
		err := v.WriteAt(t.Context(), filled(n, 65536, 7), n, n%(1<<20) == 0)
		if errors.Is(err, lun.ErrNoSpace) {
			return n
		}
		must(t, err)
	}
	t.Fatal("the pool is never full")
	return 0
}

func TestFullPool(t *testing.T) {
	ctx := t.Context()
	for _, tt := range []struct {
		name  string
		limit int64
		disk  error
	}{{"limit", 128, nil}, {"file system", 1024, unix.ENOSPC}} {
		t.Run(tt.name, func(t *testing.T) {
			p, d := startPool(t, 1, tt.limit, rules{})
			v, w := create(t, p, "v", 64<<20), create(t, p, "w", 1<<20)
			must(t, w.WriteAt(ctx, filled(0, 65536, 1), 0, true))
			if tt.disk != nil { // it becomes full when the pool has grown a little
				for range 3 {
					p.expand()
				}
				d.Inject(only(thintest.Grow, tt.disk))
			}
			n := fill(t, v)
			used := p.Usage().Used
			b := make([]byte, 65536)
			if err := v.WriteAt(ctx, b, 32<<20, false); !errors.Is(err, lun.ErrNoSpace) {
				t.Errorf("write: %v", err)
			}
			must(t, v.WriteAt(ctx, filled(0, 4096, 8), 0, true)) // what is there can be overwritten
			must(t, w.ReadAt(ctx, b, 0))
			must(t, p.Snapshot(ctx, "s", "w"))
			must(t, p.checkpoint(false))
			must(t, p.Delete(ctx, "w@s"))
			must(t, v.Unmap(ctx, 0, n/2)) // and given back
			must(t, v.Flush(ctx))
			must(t, w.WriteAt(ctx, filled(65536, 65536, 2), 65536, true))
			n += fill(t, v)
			must(t, p.Delete(ctx, "v"))
			if got := p.Usage().Used; got > used/4 {
				t.Errorf("%d bytes are used after the delete of nearly all", got)
			}
			must(t, w.WriteAt(ctx, filled(0, 1<<20, 3), 0, true))
			must(t, p.Close())
			r, err := Check(ctx, d)
			if err != nil || len(r.Faults) > 0 {
				t.Errorf("check: %+v, %v", r, err)
			}
		})
	}
}

func TestBadRequests(t *testing.T) {
	ctx := t.Context()
	p, _ := startPool(t, 1, 128, rules{})
	v := create(t, p, "v", 1<<20)
	must(t, p.Snapshot(ctx, "s", "v"))
	s, err := p.Volume("v@s")
	must(t, err)
	b := make([]byte, 4096)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	second := func(_ any, err error) error { return err }
	for i, tt := range []struct{ got, want error }{
		{second(p.Create(ctx, "v", 4096, 4096)), ErrExists},
		{second(p.Clone(ctx, "v@s", "v")), ErrExists},
		{p.Snapshot(ctx, "s", "v"), ErrExists},
		{p.Snapshot(ctx, "t", "none"), ErrNotFound},
		{second(p.Clone(ctx, "v@none", "c")), ErrNotFound},
		{second(p.Clone(ctx, "v", "c")), ErrNotFound},
		{p.Restore(ctx, "v", "none", "k"), ErrNotFound},
		{p.Restore(ctx, "v", "s", "s"), ErrExists},
		{p.Delete(ctx, "none"), ErrNotFound},
		{p.Delete(ctx, "v"), ErrHasSnapshots},
		{p.Rename(ctx, "none", "n", [16]byte{1}), ErrNotFound},
		{p.Rename(ctx, "v@s", "n", [16]byte{1}), lun.ErrReadOnly},
		{p.Grow(ctx, "none", 4096), ErrNotFound},
		{s.WriteAt(ctx, b, 0, false), lun.ErrReadOnly},
		{s.Unmap(ctx, 0, 4096), lun.ErrReadOnly},
		{p.Grow(ctx, "v@s", 2<<20), lun.ErrReadOnly},
		{v.WriteAt(ctx, b, 1<<20, false), lun.ErrRange},
		{v.WriteAt(ctx, b, 512, false), lun.ErrRange},
		{v.ReadAt(ctx, b, -4096), lun.ErrRange},
		{v.CompareAndWrite(ctx, b, b[:512], 0), lun.ErrRange},
		{v.WriteAt(ended, b, 0, false), context.Canceled},
		{v.ReadAt(ended, b, 0), context.Canceled},
		{p.Snapshot(ended, "x", "v"), context.Canceled},
	} {
		if !errors.Is(tt.got, tt.want) {
			t.Errorf("request %d: %v, want %v", i, tt.got, tt.want)
		}
	}
	for i, err := range []error{
		second(p.Create(ctx, "", 4096, 4096)), second(p.Create(ctx, "a@b", 4096, 4096)), second(p.Create(ctx, "a", 4095, 4096)),
		second(p.Create(ctx, "a", 4096, 1024)), second(p.Create(ctx, "a", 0, 512)), p.Grow(ctx, "v", 4096), p.Snapshot(ctx, "t", "v", "v"),
		p.Snapshot(ctx, "t"), p.Snapshot(ctx, "t@u", "v"), p.Snapshot(ctx, strings.Repeat("s", 254), "v"), Format(thintest.New(1, 0), 1000),
	} {
		if err == nil {
			t.Errorf("bad request %d succeeds", i)
		}
	}
	must(t, p.Delete(ctx, "v@s"))
	must(t, p.Delete(ctx, "v"))
	if err := v.ReadAt(ctx, b, 0); !errors.Is(err, lun.ErrClosed) {
		t.Errorf("read of a deleted volume: %v", err)
	}
}

func TestExtentsAndChanges(t *testing.T) {
	ctx := t.Context()
	p, _ := startPool(t, 1, 256, rules{})
	v := create(t, p, "v", 9<<20)
	must(t, v.WriteAt(ctx, filled(0, 8192, 1), 0, false))
	must(t, v.WriteAt(ctx, filled(4<<20-4096, 8192, 1), 4<<20-4096, false))
	must(t, p.Snapshot(ctx, "s", "v"))
	must(t, v.WriteAt(ctx, filled(4096, 4096, 2), 4096, false))
	must(t, v.Unmap(ctx, 4<<20, 4096))
	s, err := p.Volume("v@s")
	must(t, err)
	type run struct {
		off, n int64
		is     bool
	}
	for i, tt := range []struct {
		list func(yield func(off, n int64, is bool) bool) error
		want []run
	}{
		{func(y func(int64, int64, bool) bool) error { return v.Extents(ctx, 0, 9<<20, y) },
			[]run{{0, 8192, true}, {8192, 4<<20 - 12288, false}, {4<<20 - 4096, 4096, true}, {4 << 20, 5 << 20, false}}},
		{func(y func(int64, int64, bool) bool) error { return s.Extents(ctx, 4096, 8192, y) }, []run{{4096, 4096, true}, {8192, 4096, false}}},
		{func(y func(int64, int64, bool) bool) error { return v.Changed(ctx, s, 0, 9<<20, y) },
			[]run{{0, 4096, false}, {4096, 4096, true}, {8192, 4<<20 - 8192, false}, {4 << 20, 4096, true}, {4<<20 + 4096, 5<<20 - 4096, false}}},
		{func(y func(int64, int64, bool) bool) error { return v.ChangedSince(ctx, s, 0, 8192, y) }, []run{{0, 4096, false}, {4096, 4096, true}}},
		{func(y func(int64, int64, bool) bool) error { return s.Changed(ctx, s, 0, 9<<20, y) }, []run{{0, 9 << 20, false}}},
	} {
		var got []run
		must(t, tt.list(func(off, n int64, is bool) bool { got = append(got, run{off, n, is}); return true }))
		if len(got) != len(tt.want) {
			t.Fatalf("list %d: %v, want %v", i, got, tt.want)
		}
		for k := range got {
			if got[k] != tt.want[k] {
				t.Errorf("list %d: %v, want %v", i, got[k], tt.want[k])
			}
		}
	}
}

// TestChangesAreOfOnePool: blocks of two pools say nothing of each other.
func TestChangesAreOfOnePool(t *testing.T) {
	ctx := t.Context()
	p, _ := startPool(t, 1, 64, rules{})
	other, _ := startPool(t, 2, 64, rules{})
	v, w := create(t, p, "v", 1<<20), create(t, other, "w", 1<<20)
	none := func(int64, int64, bool) bool { t.Error("a run of two pools"); return true }
	if err := v.ChangedSince(ctx, w, 0, 1<<20, none); err == nil {
		t.Error("two pools are compared")
	}
	if err := v.ChangedSince(ctx, struct{ lun.Volume }{v}, 0, 1<<20, none); err == nil {
		t.Error("what is no volume of the pool is compared")
	}
}

// TestLogGoesRound: flushes alone fill the log several times over.
func TestLogGoesRound(t *testing.T) {
	p, d := startPool(t, 1, 256, rules{})
	v, o := create(t, p, "v", 1<<20), thintest.NewOracle(1<<20)
	first := p.wal.tailSeq()
	for i := range int64(700) {
		off := i * 7 % 256 * blockSize
		must(t, v.WriteAt(t.Context(), filled(off, 4096, uint64(i+1)), off, true))
		o.Write(off, 4096, uint64(i+1))
	}
	if p.wal.tailSeq() == first || p.wal.used() > p.wal.size {
		t.Error("no checkpoint has moved the start of the log")
	}
	p = openPool(t, d.Crash(), 256, rules{})
	v, err := p.Volume("v")
	must(t, err)
	exact(t, v, o)
	if v.Created().IsZero() || v.Usage().Used != 1<<20 || v.Usage().PoolUsed < 1<<20 {
		t.Errorf("usage: %+v", v.Usage())
	}
}

// TestFailedWritesAreNotReadAgain: a cache that still has what could not be
// written is not taken for the disk.
func TestFailedWritesAreNotReadAgain(t *testing.T) {
	ctx := t.Context()
	p, d := startPool(t, 1, 128, rules{})
	v := create(t, p, "v", 1<<20)
	o := thintest.NewOracle(1 << 20)
	for stamp := range uint64(2) { // the second has the intent that an overwrite takes
		must(t, v.WriteAt(ctx, filled(0, 65536, stamp+1), 0, true))
		o.Write(0, 65536, stamp+1)
	}
	d.Inject(only(thintest.Sync, unix.EIO))
	must(t, v.WriteAt(ctx, filled(0, 65536, 3), 0, false))
	if err := v.Flush(ctx); !errors.Is(err, unix.EIO) {
		t.Fatalf("flush: %v", err)
	}
	d.Lose()
	d.Inject(nil)
	_ = p.Close()
	p = openPool(t, d, 128, rules{})
	for range 2 {
		v, err := p.Volume("v")
		must(t, err)
		exact(t, v, o)
		must(t, d.Forget()) // the cache is short of memory
	}
	if n := p.Usage().Accepted; n != 0 {
		t.Errorf("%d blocks were accepted as they were found, and all are well", n)
	}
}

// TestLyingDisk: what a disk said was stable and has not is told of, when the
// process is killed.
func TestLyingDisk(t *testing.T) {
	ctx := t.Context()
	mem := aligned(minShadow)
	start := func(d *thintest.Disk) (*Pool, error) {
		return Open(ctx, d, Options{Limit: 128 * chunkSize, Shadow: mem})
	}
	d := thintest.New(1, 0)
	must(t, Format(d, 16*chunkSize))
	p, err := start(d)
	must(t, err)
	v := create(t, p, "v", 1<<20)
	must(t, v.WriteAt(ctx, filled(0, 65536, 1), 0, true))
	d = d.Revive() // killed, and all is there
	p, err = start(d)
	must(t, err)
	v, err = p.Volume("v")
	must(t, err)
	must(t, v.WriteAt(ctx, filled(0, 65536, 2), 0, true))
	before := d.Clone()
	before.Remember(d)
	must(t, v.WriteAt(ctx, filled(0, 65536, 3), 0, true))
	if _, err := start(before); !errors.Is(err, ErrStale) {
		t.Errorf("open of a disk that lost a flush: %v", err)
	}
	clear(mem) // somebody says that it is so
	p, err = start(before)
	must(t, err)
	v, err = p.Volume("v")
	must(t, err)
	o := thintest.NewOracle(1 << 20)
	o.Write(0, 65536, 2)
	exact(t, v, o)
}

// TestKilledWhileOpening: what was acknowledged and not flushed outlives a process
// that is killed while it opens the pool, too.
func TestKilledWhileOpening(t *testing.T) {
	ctx := t.Context()
	for flushes := range uint64(2) { // the records are in the one half of the shadow or in the other
		mem := aligned(minShadow)
		start := func(d *thintest.Disk, r rules) (*Pool, error) {
			return Open(ctx, d, Options{Limit: 128 * chunkSize, Shadow: mem, rules: r})
		}
		d := thintest.New(1, 0)
		must(t, Format(d, 16*chunkSize))
		p, err := start(d, rules{})
		must(t, err)
		v := create(t, p, "v", 1<<20)
		o := thintest.NewOracle(1 << 20)
		for stamp := range flushes + 2 {
			must(t, v.WriteAt(ctx, filled(0, 65536, stamp+1), 0, stamp <= flushes))
			o.Write(0, 65536, stamp+1)
		}
		d = d.Revive()
		var left []byte
		_, err = start(d, rules{at: func(point string) {
			if point == "checkpoint: log is durable" {
				left = slices.Clone(mem)
				d.CutNow()
			}
		}})
		if !errors.Is(err, thintest.ErrCut) || left == nil {
			t.Fatalf("open: %v", err)
		}
		copy(mem, left)
		p, err = start(d.Revive(), rules{})
		must(t, err)
		v, err = p.Volume("v")
		must(t, err)
		exact(t, v, o)
	}
}
