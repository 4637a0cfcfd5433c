package thin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"ripstop/lun"
)

// Writing behind a snapshot spreads a region's blocks over chunks, and what is
// deleted leaves chunks with a few blocks each. Heal writes such a region into
// one new chunk:
//
//	old  A: 0 1 2 . 4 5 …     B: . . . 3 . .        claim ─► read, compare CRCs ─► write C
//	new  C: 0 1 2 3 4 5 …                           ─► map record (R1: C is synced before it) ─► give up A, B (R3)
//
// It is an ordinary write of the same data, so a cut leaves the old chunks or
// the new one. It takes no space: a region is healed only where a chunk that is
// the leaf's alone becomes free by it, and a leaf that others have, too, stays.

// Progress is what a bounded piece of work did, and what is left of the pass:
// the next call goes on, and one after Left was 0 begins anew.
type Progress struct {
	Done int64    // bytes that were read or written
	Left int64    // bytes of volumes that remain to be looked at
	Bad  []Damage // of Scrub: what cannot be read
}

// cursor is where a pass goes on.
type cursor struct {
	volume uint32
	leaf   int
}

// place is a leaf of a volume.
type place struct {
	v *Volume
	i int
	l *leaf
}

// ahead is the leaves from the cursor on, in the order of a pass.
func (p *Pool) ahead(c cursor) []place {
	var out []place
	for _, v := range p.list() {
		if v.number < c.volume {
			continue
		}
		v.each(func(i int, l *leaf) {
			if v.number > c.volume || i >= c.leaf {
				out = append(out, place{v, i, l})
			}
		})
	}
	return out
}

// pass calls look for the leaves from the cursor on until work bytes are done.
func (p *Pool) pass(ctx context.Context, c *cursor, work int64, look func(at place) (int64, error)) (Progress, error) {
	var pr Progress
	todo := p.ahead(*c)
	for k, at := range todo {
		if pr.Done >= work {
			*c = cursor{at.v.number, at.i}
			pr.Left = int64(len(todo)-k) * leafSize
			return pr, nil
		}
		n, err := look(at)
		pr.Done += n
		if err = errors.Join(ctx.Err(), err); err != nil {
			*c = cursor{at.v.number, at.i}
			pr.Left = int64(len(todo)-k) * leafSize
			return pr, err
		}
	}
	*c = cursor{}
	return pr, nil
}

// Heal rewrites about work bytes where blocks that belong together lie apart.
// It ends early with lun.ErrNoSpace where the pool has no chunk to write to.
func (p *Pool) Heal(ctx context.Context, work int64) (Progress, error) {
	p.background.Lock()
	defer p.background.Unlock()
	if err := p.writable(); err != nil {
		return Progress{}, fmt.Errorf("heal: %w", err)
	}
	pr, err := p.pass(ctx, &p.healing, work, func(at place) (int64, error) { return p.healLeaf(ctx, at) })
	if pr.Done > 0 { // what it gave up becomes free
		err = cmp.Or(err, p.commit())
	}
	if err != nil {
		return pr, fmt.Errorf("heal: %w", err)
	}
	return pr, nil
}

// healLeaf heals the regions of a leaf that need it.
func (p *Pool) healLeaf(ctx context.Context, at place) (n int64, err error) {
	todo, err := at.v.sick(at.i, at.l)
	if err != nil || len(todo) == 0 {
		return 0, err
	}
	n = nodeSize
	for _, r := range todo {
		if err := errors.Join(ctx.Err(), p.pace()); err != nil {
			return n, err
		}
		k, err := at.v.healRegion(at.i, r)
		n += k
		var bad *lun.MediumError
		if errors.As(err, &bad) { // that is Scrub's
			continue
		}
		if err != nil {
			return n, err
		}
	}
	at.l.healed.Store(at.l.covered.Load()) // where free space lies in pieces, it looks as before
	return n, nil
}

// sick is the regions of a leaf that heal by being rewritten. A leaf that
// cannot be read has none.
func (v *Volume) sick(i int, l *leaf) ([]int, error) {
	v.gate.RLock()
	defer v.gate.RUnlock()
	if v.closed || !v.alone(i, l) || l.exclusive.Load() == 0 || l.healed.Load() == l.covered.Load() {
		return nil, nil
	}
	if err := v.pool.lock(l); err != nil {
		if medium(err) {
			err = nil
		}
		return nil, err
	}
	defer l.mu.Unlock()
	var out []int
	scattered := l.data.scattered()
	for r := range leafRegions {
		if l.data.spread(r, &v.pool.space) || scattered && l.data.coveredIn(r, &v.pool.space) {
			out = append(out, r)
		}
	}
	if len(out) == 0 {
		l.healed.Store(l.covered.Load())
	}
	return out, nil
}

// alone tells whether leaf i of the volume is l and nobody else has it. With
// gate shared.
func (v *Volume) alone(i int, l *leaf) bool {
	pg := v.pages[i/pageLeaves].Load()
	return pg != nil && pg.refs.Load() == 1 && pg.leaves[i%pageLeaves].Load() == l && l.refs.Load() == 1
}

// spread tells whether the region lies in several chunks, one of which would
// become free by writing it into a new one.
func (d *leafData) spread(r int, s *space) bool {
	var have [chunkBlocks]uint32
	n, gain := 0, false
	for _, c := range d.chunk[r*chunkBlocks : (r+1)*chunkBlocks] {
		if c == lostChunk {
			return false
		}
		if c != 0 && !contains(have[:n], c) {
			have[n] = c
			n++
			gain = gain || s.exclusive(c)
		}
	}
	return n > 1 && gain
}

// scattered tells whether most regions of the leaf do not lie behind the one before.
func (d *leafData) scattered() bool {
	regions, breaks, last := 0, 0, uint32(0)
	for r := range leafRegions {
		c := d.chunk[r*chunkBlocks]
		if c == 0 || c == lostChunk {
			continue
		}
		regions++
		if last != 0 && c != last+1 {
			breaks++
		}
		last = c
	}
	return regions > 8 && breaks > regions/2
}

// healRegion writes a region into a chunk of its own, if it still needs that.
func (v *Volume) healRegion(i, r int) (n int64, err error) {
	v.gate.RLock()
	defer v.gate.RUnlock()
	l := v.leaf(i)
	if v.closed || l == nil || !v.alone(i, l) {
		return 0, nil
	}
	if err := v.pool.lock(l); err != nil {
		return 0, v.fault("read", i, r*chunkBlocks, err)
	}
	from := r * chunkBlocks
	ok := l.claim(from, from+chunkBlocks)
	l.mu.Unlock()
	if !ok {
		return 0, nil
	}
	n, target, err := v.rewrite(l, r)
	v.moved(l, r, target, err)
	return n, err
}

// rewrite copies the mapped blocks of a claimed region to a new chunk.
func (v *Volume) rewrite(l *leaf, r int) (n int64, target uint32, err error) {
	p, from := v.pool, r*chunkBlocks
	l.mu.Lock()
	have := l.data.chunk
	l.mu.Unlock()
	target, ok := p.space.takeData(l, r, p.reserve()+p.debt(), nil)
	if !ok {
		if p.wal.gives() {
			if err := p.commit(); err != nil {
				return 0, 0, err
			}
		}
		p.refill()
		target, ok = p.space.takeData(l, r, p.reserve()+p.debt(), nil)
	}
	if !ok {
		return 0, 0, fmt.Errorf("LUN %s: %w", v.shape().name, lun.ErrNoSpace)
	}
	b := aligned(chunkSize)
	for k := range chunkBlocks {
		if c := have[from+k]; c != 0 {
			if err := v.load(l, from+k, b[k*blockSize:(k+1)*blockSize]); err != nil {
				return n, target, err
			}
			n += 2 * blockSize
		}
	}
	for k := 0; k < chunkBlocks; k++ {
		end := k
		for end < chunkBlocks && have[from+end] != 0 {
			end++
		}
		if end == k {
			continue
		}
		if _, err := p.file.WriteAt(b[k*blockSize:end*blockSize], blockAt(target, from+k)); err != nil {
			return n, target, v.fault("write", l.index, from+k, err)
		}
		k = end
	}
	return n, target, nil
}

// moved makes the new chunk the region's, or gives it back, and ends the claim.
func (v *Volume) moved(l *leaf, r int, target uint32, err error) {
	from := r * chunkBlocks
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.release(from, from+chunkBlocks)
	if target == 0 {
		return
	}
	if err != nil {
		v.pool.wal.giveUp(given{chunks: []share{{target, r, l}}})
		return
	}
	d := l.data
	var gives []share
	give := func(c uint32) {
		if c != 0 && !slices.Contains(gives, share{c, r, l}) {
			gives = append(gives, share{c, r, l})
		}
	}
	fresh := ^uint16(0)
	for k := range chunkBlocks {
		if c := d.chunk[from+k]; c != 0 {
			give(c)
			d.chunk[from+k] = target
			fresh &^= 1 << k
		}
	}
	give(d.own[r])
	d.own[r], d.fresh[r] = target, fresh
	for k := 0; k < chunkBlocks; k++ {
		end := k
		for end < chunkBlocks && d.chunk[from+end] != 0 {
			end++
		}
		if end > k {
			first := uint32(l.index*leafBlocks + from + k)
			crcs := d.crc[from+k : from+end]
			v.pool.wal.add(true, func(b []byte) []byte { return appendMap(b, v.number, first, target, crcs) }, gives...)
			gives = nil
			k = end
		}
	}
	v.pool.touch(l)
}
