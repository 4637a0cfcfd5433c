package thin

import (
	"context"
	"fmt"

	"ripstop/lun"
)

// Unmap gives whole blocks back and writes zeros over parts of blocks.
func (v *Volume) Unmap(ctx context.Context, off, n int64) error {
	return v.pieces(ctx, off, n, func(off, n int64) error {
		end := off + n
		from, to := (off+blockSize-1)&^(blockSize-1), end&^(blockSize-1)
		if end == v.size.Load() { // a last block that the end cuts short is whole
			to = (end + blockSize - 1) &^ (blockSize - 1)
		}
		if from >= to {
			return v.zero(off, end)
		}
		if err := v.zero(off, from); err != nil {
			return err
		}
		in := int(from % leafSize / blockSize)
		if err := v.unmap(int(from/leafSize), in, in+int((to-from)/blockSize)); err != nil {
			return err
		}
		return v.zero(to, end)
	})
}

// WriteZeroes writes zeros where blocks are mapped.
func (v *Volume) WriteZeroes(ctx context.Context, off, n int64) error {
	return v.pieces(ctx, off, n, func(off, n int64) error { return v.zero(off, off+n) })
}

// pieces does a change leaf by leaf.
func (v *Volume) pieces(ctx context.Context, off, n int64, do func(off, n int64) error) error {
	v.gate.RLock()
	err := v.check(ctx, off, n)
	v.gate.RUnlock()
	for end := off + n; err == nil && off < end; {
		step := min(end-off, leafSize-off%leafSize)
		err = v.change(ctx, off, step, func() error { return do(off, step) })
		off += step
	}
	if err == nil && n == 0 {
		err = v.writable()
	}
	return err
}

// unmap takes the blocks from..to off leaf i.
func (v *Volume) unmap(i, from, to int) error {
	any, err := v.anyMapped(i, from, to)
	if err != nil || !any {
		return err
	}
	if from == 0 && to == leafBlocks {
		return v.unmapLeaf(i)
	}
	pt := part{index: i, from: from, to: to, gives: true}
	if err := v.claimPart(&pt); err != nil {
		return err
	}
	l := pt.leaf
	l.mu.Lock()
	defer l.mu.Unlock()
	var given []share
	for r := from / chunkBlocks; r*chunkBlocks < to; r++ {
		given = v.unmapRegion(&pt, r, given)
	}
	v.pool.wal.add(false, func(b []byte) []byte {
		return appendHead(b, recUnmap, v.number, uint32(i*leafBlocks+from), uint32(to-from))
	}, given...)
	v.pool.touch(l)
	l.release(from, to)
	return nil
}

// unmapRegion appends the chunks that the region no longer uses.
func (v *Volume) unmapRegion(pt *part, r int, given []share) []share {
	d := pt.leaf.data
	lo, hi := max(pt.from, r*chunkBlocks), min(pt.to, (r+1)*chunkBlocks)
	before := v.covers(d, r)
	var old [chunkBlocks]uint32
	n := 0
	for b := lo; b < hi; b++ {
		c := d.chunk[b]
		if c == 0 {
			continue
		}
		d.chunk[b], d.crc[b] = 0, 0
		v.mapped.Add(-1)
		if c != lostChunk && !contains(old[:n], c) {
			old[n] = c
			n++
		}
	}
	busy := d.regionBusy(r) - pt.busyIn(r)
	for _, c := range old[:n] {
		d.tidy(r, c, busy, func(c uint32) { given = append(given, share{c, r, pt.leaf}) })
	}
	v.uncovered(d, r, before)
	return given
}

func (v *Volume) anyMapped(i, from, to int) (bool, error) {
	l := v.leaf(i)
	if l == nil {
		return false, nil
	}
	if err := v.pool.lock(l); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.bad != nil {
			return true, nil
		}
		return false, v.fault("read", i, from, err)
	}
	defer l.mu.Unlock()
	for _, c := range l.data.chunk[from:to] {
		if c != 0 {
			return true, nil
		}
	}
	// A write on its way will map what it claimed: it counts as later.
	return false, nil
}

// unmapLeaf takes a whole leaf off the volume. It counts as used until the
// record is durable, for who else has it must not write into its chunks before.
func (v *Volume) unmapLeaf(i int) error {
	for {
		l := v.leaf(i)
		if l == nil {
			return nil
		}
		done, err := v.cutLeaf(i, l)
		if err != nil || done {
			return err
		}
	}
}

// cutLeaf takes leaf l off its place; done is false when it is not there.
func (v *Volume) cutLeaf(i int, l *leaf) (done bool, err error) {
	p := v.pool
	if err := v.seize(l); err != nil {
		return false, v.fault("unmap", i, 0, err)
	}
	ok := l.claim(0, leafBlocks) // no write is on its way into it
	l.mu.Unlock()
	if !ok {
		return false, nil
	}
	p.tree.Lock()
	defer p.tree.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.release(0, leafBlocks)
	if v.leaf(i) != l {
		return false, nil
	}
	if pg := v.pages[i/pageLeaves].Load(); v.reserved.Load() && pg.refs.Load() == 1 && l.refs.Load() == 1 {
		for r := range leafRegions {
			if l.data.coveredIn(r, &p.space) {
				p.space.owe(&v.promise)
			}
		}
	}
	p.ownPage(&v.pages[i/pageLeaves]).leaves[i%pageLeaves].Store(nil)
	v.mapped.Add(-l.data.mapped())
	l.gone = l.refs.Load() == 1
	p.wal.add(false, func(b []byte) []byte {
		return appendHead(b, recUnmap, v.number, uint32(i*leafBlocks), leafBlocks)
	})
	p.wal.giveUp(given{leaves: []*leaf{l}})
	return true, nil
}

// zero writes zeros over what is mapped of the bytes from off to end, which lie
// in one leaf.
func (v *Volume) zero(off, end int64) error {
	var zeros []byte
	for off < end {
		i, b := int(off/leafSize), int(off%leafSize/blockSize)
		stop := min(end, off&^(blockSize-1)+blockSize)
		any, err := v.anyMapped(i, b, b+1)
		for err == nil && stop < end && stop-off < 256<<10 {
			var next bool
			if next, err = v.anyMapped(i, int(stop%leafSize/blockSize), int(stop%leafSize/blockSize)+1); next != any {
				break
			}
			stop = min(end, stop+blockSize)
		}
		if err == nil && any {
			if zeros == nil {
				zeros = aligned(256 << 10)
			}
			err = v.put(zeros[:stop-off], off, nil)
		}
		if err != nil {
			return err
		}
		off = stop
	}
	return nil
}

// extent is bytes that are alike.
type extent struct {
	off, n int64
	is     bool
}

// joiner joins extents that follow each other, and yields them.
type joiner struct {
	have  extent
	yield func(off, n int64, is bool) bool
}

func (j *joiner) add(e extent) bool {
	if j.have.n > 0 && j.have.is == e.is {
		j.have.n += e.n
		return true
	}
	if !j.end() {
		return false
	}
	j.have = e
	return true
}

func (j *joiner) end() bool { return j.have.n == 0 || j.yield(j.have.off, j.have.n, j.have.is) }

// Extents looks at a leaf at a time and yields with no lock held.
func (v *Volume) Extents(ctx context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error {
	return v.compareBlocks(ctx, nil, off, n, yield)
}

// Changed calls yield for the runs of n bytes at off, in order, until it
// returns false; changed tells whether a run may differ from what the snapshot
// since, of the same volume or of what it was cloned from, has there. What it
// does not call changed is equal. A nil since is zeros.
func (v *Volume) Changed(ctx context.Context, since *Volume, off, n int64, yield func(off, n int64, changed bool) bool) error {
	if since != nil && since.pool != v.pool {
		return fmt.Errorf("compare LUN %s with %s: they are in two pools", v.shape().name, since.shape().name)
	}
	return v.compareBlocks(ctx, since, off, n, yield)
}

// ChangedSince is Changed since a snapshot that must be of this pool, too.
func (v *Volume) ChangedSince(ctx context.Context, since lun.Volume, off, n int64, yield func(off, n int64, changed bool) bool) error {
	s, ok := since.(*Volume)
	if !ok || s == nil {
		return fmt.Errorf("compare LUN %s with %s: they are in two pools", v.shape().name, since.Info().Name)
	}
	return v.Changed(ctx, s, off, n, yield)
}

func (v *Volume) compareBlocks(ctx context.Context, since *Volume, off, n int64, yield func(off, n int64, is bool) bool) error {
	j := joiner{yield: yield}
	for end := off + n; off < end; {
		stop := min(end, off-off%leafSize+leafSize)
		runs, err := v.compareLeaf(ctx, since, off, stop)
		if err != nil {
			return err
		}
		for _, e := range runs {
			if !j.add(e) {
				return nil
			}
		}
		off = stop
	}
	j.end()
	return nil
}

// compareLeaf is the runs of the bytes off..end of one leaf.
func (v *Volume) compareLeaf(ctx context.Context, since *Volume, off, end int64) ([]extent, error) {
	mine, err := v.snap(ctx, off, end-off)
	if err != nil {
		return nil, err
	}
	base := &leafData{}
	if since != nil {
		if since.sharedLeaf(int(off/leafSize)) == v.sharedLeaf(int(off/leafSize)) {
			return []extent{{off, end - off, false}}, nil
		}
		if base, err = since.snapOrZeros(ctx, off, end-off); err != nil {
			return nil, err
		}
	}
	var runs []extent
	j := joiner{yield: func(off, n int64, is bool) bool {
		runs = append(runs, extent{off, n, is})
		return true
	}}
	for off < end {
		b := int(off % leafSize / blockSize)
		stop := min(end, off&^(blockSize-1)+blockSize)
		j.add(extent{off, stop - off, mine.chunk[b] != base.chunk[b] || mine.crc[b] != base.crc[b] || mine.chunk[b] == lostChunk})
		off = stop
	}
	j.end()
	return runs, nil
}

func (v *Volume) sharedLeaf(i int) *leaf {
	v.gate.RLock()
	defer v.gate.RUnlock()
	if i/pageLeaves >= len(v.pages) {
		return nil
	}
	return v.leaf(i)
}

// snap is a copy of the map of the leaf that the bytes lie in.
func (v *Volume) snap(ctx context.Context, off, n int64) (*leafData, error) {
	v.gate.RLock()
	defer v.gate.RUnlock()
	if err := v.check(ctx, off, n); err != nil {
		return nil, err
	}
	d := &leafData{}
	l := v.leaf(int(off / leafSize))
	if l == nil {
		return d, nil
	}
	if err := v.pool.lock(l); err != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.bad != nil {
			return v.lostBlocks(l.index), nil
		}
		return nil, v.fault("read", l.index, 0, err)
	}
	defer l.mu.Unlock()
	d.chunk, d.crc = l.data.chunk, l.data.crc
	return d, nil
}

// snapOrZeros is snap where the volume reaches so far.
func (v *Volume) snapOrZeros(ctx context.Context, off, n int64) (*leafData, error) {
	if off >= v.size.Load() {
		return &leafData{}, ctx.Err()
	}
	return v.snap(ctx, off, min(n, v.size.Load()-off))
}

var _ lun.Volume = (*Volume)(nil)
