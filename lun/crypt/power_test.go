package crypt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"ripstop/lun"
	"ripstop/lun/thin"
	"ripstop/lun/thin/thintest"
)

// powerCuts is how many lives with a cut each test has.
const powerCuts = 40

// TestPowerCuts: what lies under the layer is a real thin pool on a disk that loses power. Whatever the cut
// tears, each sector of the clear text is what was written last before the last flush or later, and no mixture;
// what was flushed is there.
func TestPowerCuts(t *testing.T) {
	for _, block := range []int{512, 4096} {
		cuts, torn := 0, 0
		for seed := range uint64(powerCuts) {
			c, n, err := powerLife(seed, block)
			if err != nil {
				t.Fatalf("blocks of %d, seed %d: %v", block, seed, err)
			}
			cuts, torn = cuts+c, torn+n
		}
		if cuts < powerCuts/2 || torn == 0 {
			t.Errorf("blocks of %d: %d cuts, after which %d sectors were older than written: nothing was cut", block, cuts, torn)
		}
	}
}

// powerLife works on an encrypted LUN until the power fails, and again on what is found
// then. It tells how many cuts there were, and how many sectors were not as written last.
func powerLife(seed uint64, block int) (cuts, older int, err error) {
	const size = 1 << 20
	ctx := context.Background()
	r := rand.New(rand.NewPCG(seed, uint64(block)))
	disk := thintest.New(seed, 0)
	if err := thin.Format(disk, 256<<10); err != nil {
		return 0, 0, err
	}
	x, err := newXTS(randomKey(r), block)
	if err != nil {
		return 0, 0, err
	}
	oracle := thintest.NewOracle(size)
	stamp := uint64(0)
	for life := range 4 {
		p, err := thin.Open(ctx, disk, thin.Options{Limit: 16 << 20, Slab: 1 << 20})
		if err != nil {
			return cuts, older, fmt.Errorf("life %d: %w", life, err)
		}
		if life == 0 {
			if _, err := p.Create(ctx, "a", size, block); err != nil {
				return cuts, older, err
			}
		}
		under, err := p.Volume("a")
		if err != nil {
			return cuts, older, err
		}
		v := newVolume(under, x)
		if life > 0 {
			n, err := foundAfter(ctx, v, oracle)
			if older += n; err != nil {
				return cuts, older, fmt.Errorf("life %d: after the cut: %w", life, err)
			}
		}
		disk.Cut(20 + r.IntN(120))
		for err == nil {
			stamp++
			err = powerStep(ctx, r, v, oracle, stamp, int64(block))
		}
		if !errors.Is(err, thintest.ErrCut) && !errors.Is(err, lun.ErrReadOnly) {
			return cuts, older, fmt.Errorf("life %d: %w", life, err)
		}
		cuts++
		_ = p.Close() // of a disk without power
		disk = disk.Crash()
	}
	return cuts, older, nil
}

func randomKey(r *rand.Rand) []byte {
	key := make([]byte, keySize)
	for i := range key {
		key[i] = byte(r.Uint32())
	}
	return key
}

// powerStep is one write, unmap, flush or read. What it began may be there.
func powerStep(ctx context.Context, r *rand.Rand, v *Volume, o *thintest.Oracle, stamp uint64, block int64) error {
	blocks := o.Size() / block
	n := 1 + r.Int64N(min(blocks/4, 24))
	at := r.Int64N(blocks - n + 1)
	off, length := at*block, n*block
	switch r.IntN(10) {
	case 0:
		err := v.Flush(ctx)
		if err == nil {
			o.Flush()
		}
		return err
	case 1:
		o.Write(off, length, 0)
		return v.Unmap(ctx, off, length)
	case 2:
		o.Write(off, length, 0)
		return v.WriteZeroes(ctx, off, length)
	case 3:
		p := make([]byte, length)
		if err := v.ReadAt(ctx, p, off); err != nil {
			return err
		}
		return o.Exact(p, off)
	}
	p := make([]byte, length)
	thintest.Fill(p, off, stamp)
	o.Write(off, length, stamp)
	return v.WriteAt(ctx, p, off, false)
}

// foundAfter compares all of a volume with what may be there after a cut.
func foundAfter(ctx context.Context, v *Volume, o *thintest.Oracle) (older int, err error) {
	p := make([]byte, o.Size())
	if err := v.ReadAt(ctx, p, 0); err != nil {
		return 0, err
	}
	const sector = thintest.SectorSize
	for off := 0; off < len(p); off += sector {
		if o.Exact(p[off:off+sector], int64(off)) != nil {
			older++
		}
	}
	return older, o.After(p, 0)
}
