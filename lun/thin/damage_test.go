package thin

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/lun"
	"ripstop/lun/thin/thintest"
)

// hurt is a pool with volumes v (12 MiB and a page over 2 GiB), its snapshot and
// a volume w, and where a node of v lies on the disk.
func hurt(t *testing.T) (d *thintest.Disk, leafAt, pageAt int64) {
	t.Helper()
	ctx := t.Context()
	p, d := startPool(t, 5, 512, rules{})
	v := create(t, p, "v", 3<<30)
	w := create(t, p, "w", 8<<20)
	must(t, v.WriteAt(ctx, filled(0, 12<<20, 1), 0, false))
	must(t, v.WriteAt(ctx, filled(2<<30, 64<<10, 1), 2<<30, false))
	must(t, w.WriteAt(ctx, filled(0, 1<<20, 2), 0, true))
	must(t, p.Snapshot(ctx, "s", "v"))
	must(t, v.WriteAt(ctx, filled(5<<20, 64<<10, 3), 5<<20, true)) // its own leaf 1
	must(t, p.Close())
	return d, int64(v.leaf(1).ref.loc) * nodeSize, int64(v.pages[0].Load().ref.loc) * nodeSize
}

// medium0 demands a medium error at off.
func medium0(t *testing.T, err error, off int64) {
	t.Helper()
	var m *lun.MediumError
	if !errors.As(err, &m) || m.Offset != off {
		t.Errorf("want a medium error at %d: %v", off, err)
	}
}

func same(t *testing.T, v *Volume, off, n int64, stamp uint64) {
	t.Helper()
	b := make([]byte, n)
	must(t, v.ReadAt(t.Context(), b, off))
	if !bytes.Equal(b, filled(off, n, stamp)) {
		t.Errorf("%s: %d bytes at %d are not of stamp %d", v.shape().name, n, off, stamp)
	}
}

// TestOneDamagedLeaf: the region is a medium error, and all else goes on.
func TestOneDamagedLeaf(t *testing.T) {
	ctx := t.Context()
	for _, how := range []string{"flip", "EIO"} {
		d, at, _ := hurt(t)
		if how == "flip" {
			d.Flip(at+77, 3)
		} else {
			d.Inject(func(op thintest.Op, off, n int64) error {
				if op == thintest.Read && off <= at && at < off+n {
					return unix.EIO
				}
				return nil
			})
		}
		r, err := Check(ctx, d)
		must(t, err)
		if len(r.Faults) == 0 {
			t.Error("check finds nothing")
		}
		p := openPool(t, d, 700, rules{})
		if got := p.Damaged(); len(got) != 1 || got[0].Volume != "v" || got[0].Offset != leafSize || got[0].Size != leafSize {
			t.Errorf("damaged: %+v", got)
		}
		v, err := p.Volume("v")
		must(t, err)
		s, err := p.Volume("v@s")
		must(t, err)
		w, err := p.Volume("w")
		must(t, err)
		b := make([]byte, 8192)
		medium0(t, v.ReadAt(ctx, b, 5<<20), 5<<20)
		same(t, v, 0, 4<<20, 1)
		same(t, s, 0, 12<<20, 1)
		must(t, w.WriteAt(ctx, filled(0, 2<<20, 4), 0, true)) // takes what is new
		same(t, s, 4<<20, 4<<20, 1)                           // which v may share
		medium0(t, v.CompareAndWrite(ctx, b, b, 5<<20), 5<<20)
		must(t, v.WriteAt(ctx, filled(5<<20, 4096, 5), 5<<20, true))
		same(t, v, 5<<20, 4096, 5)
		medium0(t, v.ReadAt(ctx, b, 5<<20), 5<<20+4096)
		must(t, v.Extents(ctx, 0, 12<<20, func(_, _ int64, _ bool) bool { return true }))
		must(t, p.checkpoint(false))
		must(t, v.WriteAt(ctx, filled(6<<20, 4096, 6), 6<<20, true))
		p = openPool(t, d.Crash(), 700, rules{}) // the loss is final, what was written stays
		if got := p.Damaged(); len(got) != 0 {
			t.Errorf("damaged: %+v", got)
		}
		v, err = p.Volume("v")
		must(t, err)
		same(t, v, 5<<20, 4096, 5)
		same(t, v, 6<<20, 4096, 6)
		medium0(t, v.ReadAt(ctx, b, 7<<20), 7<<20)
		must(t, v.Unmap(ctx, 7<<20, 1<<20))
		must(t, v.WriteZeroes(ctx, 4<<20, 1<<20))
		must(t, v.ReadAt(ctx, b, 7<<20))
		must(t, v.ReadAt(ctx, b, 4<<20))
		must(t, v.Unmap(ctx, 4<<20, 4<<20))
		must(t, v.ReadAt(ctx, make([]byte, 4<<20), 4<<20))
		must(t, p.Close())
	}
}

// TestDamagedLeafUnderTheLog: a leaf cannot be read and the log goes on from it:
// what the log has is there, and the rest of it is lost.
func TestDamagedLeafUnderTheLog(t *testing.T) {
	ctx := t.Context()
	p, d := startPool(t, 5, 256, rules{})
	v := create(t, p, "v", 8<<20)
	must(t, v.WriteAt(ctx, filled(0, 8<<20, 1), 0, true))
	must(t, p.checkpoint(false))
	at := int64(v.leaf(0).ref.loc) * nodeSize
	must(t, v.WriteAt(ctx, filled(64<<10, 4096, 2), 64<<10, true))
	must(t, v.Unmap(ctx, 128<<10, 64<<10))
	must(t, v.Flush(ctx))
	d.CutNow()
	d = d.Crash()
	d.Flip(at+100, 1)
	p = openPool(t, d, 700, rules{})
	v, err := p.Volume("v")
	must(t, err)
	same(t, v, 64<<10, 4096, 2)
	same(t, v, 128<<10, 64<<10, 0)
	same(t, v, 4<<20, 4<<20, 1)
	medium0(t, v.ReadAt(ctx, make([]byte, 4096), 0), 0)
	must(t, p.Close())
}

// TestOneDamagedPage: 2 GiB of a volume are gone, its snapshot, which has the
// same leaves by another page, and the rest go on.
func TestOneDamagedPage(t *testing.T) {
	ctx := t.Context()
	d, _, at := hurt(t)
	d.Flip(at+8, 0)
	p := openPool(t, d, 700, rules{})
	if got := p.Damaged(); len(got) != 1 || got[0].Size != 2<<30 {
		t.Errorf("damaged: %+v", got)
	}
	v, err := p.Volume("v")
	must(t, err)
	s, err := p.Volume("v@s")
	must(t, err)
	b := make([]byte, 8192)
	medium0(t, v.ReadAt(ctx, b, 0), 0)
	same(t, v, 2<<30, 64<<10, 1)
	same(t, s, 0, 12<<20, 1)
	must(t, v.WriteAt(ctx, filled(8<<20, 8192, 5), 8<<20, true))
	must(t, p.Delete(ctx, "v@s"))
	must(t, p.checkpoint(false))
	p = openPool(t, d.Crash(), 800, rules{})
	v, err = p.Volume("v")
	must(t, err)
	same(t, v, 8<<20, 8192, 5)
	medium0(t, v.ReadAt(ctx, b, 0), 0)
	must(t, v.Unmap(ctx, 0, 3<<30))
	must(t, v.ReadAt(ctx, b, 0))
	must(t, p.Close())
	r, err := Check(ctx, d)
	must(t, err)
	if len(p.Damaged()) != 0 {
		t.Errorf("after all was unmapped: %v", r.Faults)
	}
}

// TestDamagedPoolThatCannotGrow is read-only until what is lost is given up.
func TestDamagedPoolThatCannotGrow(t *testing.T) {
	ctx := t.Context()
	d, at, _ := hurt(t)
	d.Flip(at+77, 3)
	size, err := d.Size()
	must(t, err)
	o := Options{Limit: size}
	p, err := Open(ctx, d, o)
	must(t, err)
	v, err := p.Volume("v")
	must(t, err)
	same(t, v, 0, 4<<20, 1)
	if err := v.WriteAt(ctx, filled(0, 4096, 5), 0, true); !errors.Is(err, lun.ErrReadOnly) || !strings.Contains(err.Error(), "give the damaged parts up") {
		t.Errorf("write: %v", err)
	}
	_ = p.Close()
	o.GiveUp = true
	p, err = Open(ctx, d, o)
	must(t, err)
	v, err = p.Volume("v")
	must(t, err)
	must(t, p.Delete(ctx, "w")) // for room: the file has little more than what lives in it
	must(t, v.WriteAt(ctx, filled(0, 4096, 5), 0, true))
	medium0(t, v.ReadAt(ctx, make([]byte, 4096), 5<<20), 5<<20)
	must(t, p.Delete(ctx, "v@s"))
	must(t, p.Delete(ctx, "v"))
	must(t, p.Close())
	r, err := Check(ctx, d)
	must(t, err)
	if len(r.Faults) > 0 {
		t.Errorf("after all that was lost is deleted: %v", r.Faults)
	}
}
