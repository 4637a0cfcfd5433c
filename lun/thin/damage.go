package thin

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ripstop/lun"
)

// A leaf or page that cannot be read takes nothing with it but the blocks that
// it maps, which are medium errors. What it used is not known then, so
//
//	what is free     is given to nobody: it may be its; writes take what the file grows by
//	what is counted  counts once more where it may be its too: nobody overwrites it in place
//
// until no such place is left and the pool is opened anew. A pool whose file
// cannot grow is read-only meanwhile. Writing or unmapping there makes the loss
// final: the leaf is made anew, and its other blocks are lost until they are
// written or unmapped, too.

// lostChunk stands in a leaf for a block whose place nobody knows.
const lostChunk = ^uint32(0)

var errLost = errors.New("the map of it is lost")

// Damage is a part of a volume whose map could not be read at opening.
type Damage struct {
	Volume string // or snapshot
	Offset int64  // bytes
	Size   int64  // bytes
	Err    error
}

// Damaged is what could not be read when the pool was opened and was not made
// anew since, by volume and offset.
func (p *Pool) Damaged() []Damage {
	var out []Damage
	for _, v := range p.list() {
		v.leaves(func(l *leaf, _ bool) {
			l.mu.Lock()
			bad := l.bad
			l.mu.Unlock()
			if bad == nil {
				return
			}
			off := int64(l.index) * leafSize
			n := min(leafSize, v.size.Load()-off)
			if n <= 0 {
				return
			}
			if k := len(out) - 1; k >= 0 && out[k].Volume == v.shape().name && out[k].Offset+out[k].Size == off {
				out[k].Size += n
				return
			}
			out = append(out, Damage{v.shape().name, off, n, bad})
		})
	}
	return out
}

// medium tells whether an error is of one place of the disk.
func medium(err error) bool {
	for _, e := range []error{ErrDamaged, unix.EIO, unix.ENODATA, unix.EREMOTEIO, unix.EILSEQ} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// lostPage is a page whose leaves nobody knows.
func lostPage(ref nodeRef, at int, err error) *page {
	pg := &page{ref: ref}
	for i := range pg.leaves {
		pg.stored[i] = nodeRef{flags: flagLost}
		l := lostLeaf(at*pageLeaves+i, err)
		l.refs.Store(1)
		pg.leaves[i].Store(l)
	}
	return pg
}

// lostLeaf is a leaf that is nowhere.
func lostLeaf(index int, err error) *leaf {
	l := newLeaf(index, nil)
	l.refs.Store(0)
	l.bad = err
	return l
}

// renew makes a leaf that cannot be read one of lost blocks. With its mu held.
func (v *Volume) renew(l *leaf) {
	l.data = v.lostBlocks(l.index)
	l.bad, l.suspect = nil, false
	if !v.pool.uncounted {
		v.mapped.Add(l.data.mapped() - int64(l.blocks))
	}
	v.pool.touch(l)
	v.pool.keep(l)
}

// lostBlocks is the map of a leaf of which nothing is known.
func (v *Volume) lostBlocks(index int) *leafData {
	d := new(leafData)
	n := min(leafBlocks, (v.size.Load()-int64(index)*leafSize+blockSize-1)/blockSize)
	for b := range n {
		d.chunk[b] = lostChunk
	}
	return d
}

// harm is what could not be read while the pool was opened.
type harm struct {
	leaves map[int]error // by index
	pages  map[int]error // by index
}

func (h *harm) any() bool { return len(h.leaves)+len(h.pages) > 0 }

// reaches tells whether a leaf of that index may share with what is not known.
func (h *harm) reaches(index int) bool {
	return h.leaves[index] != nil || h.pages[index/pageLeaves] != nil
}

// spoil notes that a leaf cannot be read, while the pool is opened.
func (p *Pool) spoil(l *leaf, err error) {
	l.bad = err
	p.harm.leaves[l.index] = err
}

// fence keeps for what is not known everything that may be its. With giveUp it
// is given up instead.
func (p *Pool) fence(giveUp bool) {
	if giveUp {
		for _, v := range p.list() {
			v.forgetLost()
		}
		p.harm = harm{}
		return
	}
	p.space.fence()
	seen := map[*leaf]bool{}
	for _, v := range p.list() {
		v.leaves(func(l *leaf, _ bool) {
			if seen[l] || !p.harm.reaches(l.index) {
				return
			}
			seen[l] = true
			if l.bad == nil {
				l.mu.Lock()
				if l.data != nil || p.fetch(l) == nil {
					l.data.each(l, func(u share) { p.space.hold(u.chunk) })
				}
				l.mu.Unlock()
			}
			if p.harm.pages[l.index/pageLeaves] != nil {
				l.refs.Add(1)
			}
		})
	}
}

// forgetLost makes every leaf of the volume that cannot be read one of lost blocks.
func (v *Volume) forgetLost() {
	for i := range v.pages {
		for k := range pageLeaves {
			if v.pages[i].Load() == nil {
				break
			}
			l := v.leaf(i*pageLeaves + k)
			if l == nil || l.bad == nil {
				continue
			}
			if int64(l.index)*leafSize >= v.size.Load() {
				v.pool.ownPage(&v.pages[i]).leaves[k].Store(nil)
				continue
			}
			l.mu.Lock()
			v.renew(l)
			l.mu.Unlock()
		}
	}
}

// cramped is why the pool is read-only, when what is left of its file is too
// little for the map, and nil when it is not.
func (p *Pool) cramped() error {
	for p.space.free.Load() < p.debt()+2 {
		if p.expand() {
			continue
		}
		if !p.harm.any() {
			return fmt.Errorf("the map finds no room: %w: make some on the file system", lun.ErrNoSpace)
		}
		return fmt.Errorf("%w: the map cannot be read in %d places, so nothing free is sure to be free, and the file does not grow: "+
			"copy what can be read, or give the damaged parts up", ErrDamaged, len(p.harm.leaves)+len(p.harm.pages))
	}
	return nil
}

// fence gives what is free now to nobody.
func (s *space) fence() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.count {
		st := s.state(c)
		switch old := st.Load(); {
		case old == 0 || old == holeChunk:
			st.Store(fixedChunk)
		case old&nodeChunk != 0 && old&fixedChunk == 0:
			st.Store(old | 1<<chunkNodes - 1)
		}
	}
	s.nodes = nil
	s.holes = 0
	s.free.Store(0)
}

// hold counts a use by nobody.
func (s *space) hold(c uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state(c).Add(1) == 2 {
		s.alone(*s.users(c), -1)
	}
}
