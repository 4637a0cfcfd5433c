package thin

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"ripstop/lun/thin/thintest"
)

// span is bytes of the file that something lives in.
type span struct {
	what   string
	off, n int64
}

// spans is everything that lives in the file of a pool.
func spans(p *Pool) []span {
	out := []span{{"super", 0, sectorSize}, {"super", superGap, sectorSize}, {"log", p.wal.start, p.wal.size}}
	for _, c := range p.tables {
		out = append(out, span{"table", int64(c) * chunkSize, tableHead})
	}
	out = append(out, span{"table", int64(p.tables[0])*chunkSize + tableHead, int64(p.super.table.size)})
	for _, v := range p.list() {
		for i := range v.pages {
			pg := v.pages[i].Load()
			if pg == nil {
				continue
			}
			out = append(out, span{"page", int64(pg.ref.loc) * nodeSize, nodeSize})
			for k := range pg.leaves {
				if l := pg.leaves[k].Load(); l != nil {
					out = append(out, span{"leaf", int64(l.ref.loc) * nodeSize, nodeSize})
					for b, c := range l.data.chunk {
						if c != 0 {
							out = append(out, span{"data", blockAt(c, b), blockSize})
						}
					}
				}
			}
		}
	}
	return out
}

// sample is a closed pool with a snapshot, a clone and some data.
func sample(t *testing.T) (*thintest.Disk, []span) {
	t.Helper()
	ctx := t.Context()
	p, d := startPool(t, 5, 256, rules{})
	v := create(t, p, "v", 6<<20)
	must(t, v.WriteAt(ctx, filled(0, 256<<10, 1), 0, false))
	must(t, v.WriteAt(ctx, filled(4<<20-8192, 64<<10, 2), 4<<20-8192, true))
	must(t, p.Snapshot(ctx, "s", "v"))
	must(t, v.WriteAt(ctx, filled(0, 64<<10, 3), 0, false))
	c, err := p.Clone(ctx, "v@s", "c")
	must(t, err)
	must(t, c.WriteAt(ctx, filled(8192, 4096, 4), 8192, true))
	must(t, p.Close())
	q, err := Open(ctx, d, Options{}) // with all of the map in memory
	must(t, err)
	for _, v := range q.list() {
		must(t, v.ReadAt(ctx, make([]byte, v.Info().Size), 0))
	}
	must(t, q.Close())
	all := spans(q)
	return d, append(all, span{"ledger", int64(q.super.ledger.chunk)*chunkSize + tableHead, int64(q.super.ledger.size)})
}

func TestCheckFindsEveryFlippedBit(t *testing.T) {
	d, all := sample(t)
	r, err := Check(t.Context(), d)
	must(t, err)
	if len(r.Faults) > 0 || r.Volumes != 3 || r.Blocks < 64 {
		t.Fatalf("a healthy pool: %+v", r)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	byKind := map[string][]span{}
	for _, s := range all {
		byKind[s.what] = append(byKind[s.what], s)
	}
	for what, list := range byKind {
		for range 25 {
			s := list[rnd.IntN(len(list))]
			c := d.Clone()
			off, bit := s.off+rnd.Int64N(s.n), uint(rnd.IntN(8))
			c.Flip(off, bit)
			r, err := Check(t.Context(), c)
			must(t, err)
			if len(r.Faults) == 0 {
				t.Errorf("%s: bit %d of byte %d is not seen", what, bit, off)
			}
		}
	}
}

func TestOneSuperIsEnough(t *testing.T) {
	for _, off := range []int64{40, superGap + 40} {
		d, _ := sample(t)
		d.Flip(off, 1)
		p := openPool(t, d, 256, rules{})
		v, err := p.Volume("c")
		must(t, err)
		must(t, v.ReadAt(t.Context(), make([]byte, 1<<20), 0))
	}
}

func TestBadPools(t *testing.T) {
	empty := thintest.New(1, 1<<20)
	if _, err := Open(t.Context(), empty, Options{}); !errors.Is(err, errNoSuper) {
		t.Errorf("an empty file: %v", err)
	}
	r, err := Check(t.Context(), empty)
	if err != nil || len(r.Faults) == 0 {
		t.Errorf("check of an empty file: %+v, %v", r, err)
	}
	whole, _ := sample(t)
	size, _ := whole.Size()
	half := thintest.New(1, size/2)
	b := make([]byte, size/2)
	_, err = whole.ReadAt(b, 0)
	must(t, err)
	_, err = half.WriteAt(b, 0)
	must(t, err)
	if _, err := Open(t.Context(), half, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("a half-copied pool: %v", err)
	}
	newer := whole.Clone()
	s, _, err := readSupers(newer)
	must(t, err)
	p := s.encode()
	p[8] = version + 1
	binary.LittleEndian.PutUint32(p[sectorSize-4:], checksum(p[:sectorSize-4]))
	for i := range int64(2) {
		_, err := newer.WriteAt(p, i*superGap)
		must(t, err)
	}
	if _, err := Open(t.Context(), newer, Options{}); !errors.Is(err, ErrFormat) {
		t.Errorf("a newer format: %v", err)
	}
}

// TestDurableFrameIsMissed loses a frame in the middle of the log: replay must
// not stop there as if the rest had never been flushed.
func TestDurableFrameIsMissed(t *testing.T) {
	p, d := startPool(t, 1, 128, rules{})
	v := create(t, p, "v", 1<<20)
	from := p.wal.head
	for i := range int64(4) {
		must(t, v.WriteAt(t.Context(), filled(i*65536, 4096, 1), i*65536, true))
	}
	d.Flip(p.wal.start+int64(from.pos)+100, 3)
	if _, err := Open(t.Context(), d, Options{}); !errors.Is(err, ErrDamaged) {
		t.Errorf("open: %v", err)
	}
}

// TestLastFrameIsDamaged damages the last frame: no later one says that it was
// durable, but a cut leaves each sector old or new, and this one is neither.
func TestLastFrameIsDamaged(t *testing.T) {
	for _, wrapped := range []bool{false, true} {
		p, d := startPool(t, 1, 128, rules{})
		v := create(t, p, "v", 1<<20)
		var from position
		for i := int64(0); i == 0 || wrapped && from.pos != 0; i++ {
			must(t, p.commit())
			from = p.wal.head
			must(t, v.WriteAt(t.Context(), filled(i%16*65536, 4096, 1), i%16*65536, true))
		}
		for _, off := range []int64{100, sectorSize + 100, blockSize - 1} {
			c := d.Clone()
			c.Flip(p.wal.start+int64(from.pos)+off, 3)
			if _, err := Open(t.Context(), c, Options{}); !errors.Is(err, ErrDamaged) {
				t.Errorf("byte %d of the last frame, wrapped %v: open: %v", off, wrapped, err)
			}
		}
		q, err := Open(t.Context(), d, Options{})
		must(t, err)
		must(t, q.Close())
	}
}
