package thin

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A ledger is what counting would find of leaves that share no chunk, so that the
// next openings need not read them:
//
//	Close, Open after a count ─► leaves, runs ─► chunks ─► super ─► Open ─► space
//	                                                          └── damaged: all leaves are counted
//
// It goes on being named while the pool changes: pages mark the leaves that it
// speaks of, and a leaf that is written anew loses the mark and is counted. A pool
// whose map could not be read somewhere has none.

// run is chunks side by side that a leaf alone uses for regions side by side.
type run struct {
	chunk  uint32
	leaf   int // in the ledger
	region int
	n      int
}

// ledgerLeaf is a leaf that uses only chunks which nobody else does.
type ledgerLeaf struct {
	loc    uint64
	blocks int // mapped
}

type ledger struct {
	leaves []ledgerLeaf // by loc
	runs   []run        // by chunk
}

const maxLedger = 256 << 20 // bytes

// encode is nil when the ledger would be too large.
func (g *ledger) encode() []byte {
	b := binary.AppendUvarint(nil, uint64(len(g.leaves)))
	at := uint64(0)
	for _, l := range g.leaves {
		b = binary.AppendUvarint(b, l.loc-at)
		b = binary.AppendUvarint(b, uint64(l.blocks))
		at = l.loc
	}
	b = binary.AppendUvarint(b, uint64(len(g.runs)))
	chunk, leaf := uint32(0), 0
	for _, r := range g.runs {
		b = binary.AppendUvarint(b, uint64(r.chunk-chunk))
		b = binary.AppendVarint(b, int64(r.leaf-leaf))
		b = append(b, byte(r.region), byte(r.n))
		if len(b) > maxLedger {
			return nil
		}
		chunk, leaf = r.chunk+uint32(r.n), r.leaf
	}
	return b
}

var errLedger = errors.New("it says what cannot be")

// decodeLedger reads a ledger of a pool with that many chunks.
func decodeLedger(p []byte, chunks uint32) (*ledger, error) {
	g := &ledger{}
	d := varints{p: p}
	at := uint64(0)
	for n := d.next(uint64(len(p))); n > 0 && !d.bad; n-- {
		gap := d.next(uint64(chunks) * chunkNodes)
		if at += gap; gap == 0 || at >= uint64(chunks)*chunkNodes {
			return nil, errLedger
		}
		g.leaves = append(g.leaves, ledgerLeaf{at, int(d.next(leafBlocks))})
	}
	chunk, leaf := uint64(0), int64(0)
	for n := d.next(uint64(len(p))); n > 0 && !d.bad; n-- {
		chunk += d.next(uint64(chunks))
		leaf += d.signed(int64(len(g.leaves)))
		region, count := d.byte(), d.byte()
		if count == 0 || region+count > leafRegions || chunk+uint64(count) > uint64(chunks) || leaf < 0 || leaf >= int64(len(g.leaves)) {
			return nil, errLedger
		}
		g.runs = append(g.runs, run{uint32(chunk), int(leaf), region, count})
		chunk += uint64(count)
	}
	if d.bad || len(d.p) > 0 {
		return nil, errLedger
	}
	return g, nil
}

// varints reads numbers and remembers that one was not there or too large.
type varints struct {
	p   []byte
	bad bool
}

func (d *varints) next(most uint64) uint64 {
	x, n := binary.Uvarint(d.p)
	if n <= 0 || x > most {
		d.bad, d.p = true, nil
		return 0
	}
	d.p = d.p[n:]
	return x
}

func (d *varints) signed(most int64) int64 {
	x, n := binary.Varint(d.p)
	if n <= 0 || x > most || x < -most {
		d.bad, d.p = true, nil
		return 0
	}
	d.p = d.p[n:]
	return x
}

func (d *varints) byte() int {
	if len(d.p) == 0 {
		d.bad = true
		return 0
	}
	x := d.p[0]
	d.p = d.p[1:]
	return int(x)
}

// tally is the ledger of the pool as it is, and marks its leaves; nothing changes
// meanwhile. nil where it is not known what all leaves use.
func (p *Pool) tally() *ledger {
	if p.harm.any() || p.unread.Load() {
		return nil
	}
	listed := map[*leaf]bool{}
	for _, v := range p.list() {
		v.leaves(func(l *leaf, _ bool) {
			if _, known := listed[l]; !known {
				l.listed = l.plain()
				listed[l] = l.listed
			}
		})
	}
	maps.DeleteFunc(listed, func(_ *leaf, plain bool) bool { return !plain })
	sorted := slices.SortedFunc(maps.Keys(listed), func(a, b *leaf) int { return cmp.Compare(a.ref.loc, b.ref.loc) })
	g := &ledger{}
	ordinal := make([]int32, len(p.space.leaves)) // by id, from 1 on
	for i, l := range sorted {
		g.leaves = append(g.leaves, ledgerLeaf{l.ref.loc, int(l.blocks)})
		ordinal[l.id] = int32(i + 1)
	}
	for c := range p.space.size() {
		if !p.space.exclusive(c) {
			continue
		}
		key := *p.space.users(c)
		i, region := int(ordinal[key>>6])-1, int(key%leafRegions)
		if i < 0 {
			continue
		}
		if k := len(g.runs) - 1; k >= 0 && g.runs[k].goesOn(c, i, region) {
			g.runs[k].n++
			continue
		}
		g.runs = append(g.runs, run{c, i, region, 1})
	}
	return g
}

func (r *run) goesOn(chunk uint32, leaf, region int) bool {
	return r.chunk+uint32(r.n) == chunk && r.leaf == leaf && r.region+r.n == region
}

// plain tells whether the leaf is on disk as it is, and all that it uses is its alone.
func (l *leaf) plain() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.chunks.Load()
	return n > 0 && l.exclusive.Load() == n && l.ref.loc != 0 && !l.dirty && l.bad == nil && (l.data == nil || !l.data.ahead())
}

// recount writes a ledger of what is there in place of the one before. There is
// none where it finds no room, as in a pool that is full.
func (p *Pool) recount() error {
	p.ledger.next, p.ledger.old, p.ledger.chunks = tableRef{}, p.ledger.chunks, nil
	g := p.tally()
	if g == nil || len(g.leaves) == 0 {
		return nil
	}
	payload := g.encode()
	if payload == nil {
		return nil
	}
	n := tableChunksFor(len(payload))
	var chunks []uint32
	for len(chunks) < n {
		c, ok := p.space.take(fixedChunk, p.reserve()+p.debt()+p.space.owed())
		if !ok && p.expand() { // after opening, no more than the reserve is ready
			continue
		}
		if !ok {
			for _, c := range chunks {
				p.space.unfix(c)
			}
			return nil
		}
		chunks = append(chunks, c)
	}
	if err := writeTable(p.file, payload, chunks); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	p.ledger.next = tableRef{chunks[0], uint32(len(payload)), checksum(payload)}
	p.ledger.chunks = chunks
	return nil
}

// ledgerState is where the ledger is.
type ledgerState struct {
	next   tableRef // that the next super names
	chunks []uint32
	old    []uint32 // that only the super before names
	fault  error    // why opening had no use of it
	read   bool     // opening read so many leaves beside it that a new one pays
}

// ledgerShare is the share of all leaves, as its inverse, that opening may read
// beside the ledger before writing a new one takes less time than reading them again.
const ledgerShare = 32

// outdated tells whether opening should write a ledger.
func (p *Pool) outdated() bool {
	return p.ledger.next.size == 0 || !p.super.clean && (p.ledger.read || p.harm.any() || p.unread.Load())
}

// loadLedger is the ledger that the super names, if any; its chunks are kept.
func (p *Pool) loadLedger(s super) *ledger {
	if s.ledger.size == 0 {
		return nil
	}
	g, chunks, err := p.readLedger(s.ledger)
	if err != nil {
		p.ledger.fault = damaged("ledger", err)
		return nil
	}
	for _, c := range chunks {
		p.space.fix(c)
	}
	p.ledger.next, p.ledger.chunks = s.ledger, chunks
	return g
}

func (p *Pool) readLedger(r tableRef) (*ledger, []uint32, error) {
	payload, chunks, err := readTable(p.file, r, p.space.size())
	if err != nil {
		return nil, nil, err
	}
	if slices.ContainsFunc(chunks, func(c uint32) bool { return p.space.state(c).Load() != 0 }) {
		return nil, nil, errLedger
	}
	g, err := decodeLedger(payload, p.space.size())
	return g, chunks, err
}

// match is the leaves that the ledger speaks of, nil for what is another by now.
func (g *ledger) match(f *found) []*leaf {
	of := make([]*leaf, len(g.leaves))
	for i, e := range g.leaves {
		l := f.leaves[e.loc]
		if l != nil && l.named && l.listed && l.data == nil && l.bad == nil {
			of[i] = l
		}
	}
	return of
}

// adopt counts the leaves of a ledger, and gives back those that it does not have.
func (p *Pool) adopt(g *ledger, of, leaves []*leaf) []*leaf {
	if g == nil || p.harm.any() {
		return leaves
	}
	if !p.space.adopt(g, of) {
		p.ledger.fault = damaged("ledger", errLedger)
		p.ledger.next = tableRef{} // with another map, it might not be noticed
		return leaves
	}
	for i, l := range of {
		if l != nil {
			l.blocks = int32(g.leaves[i].blocks)
		}
	}
	return slices.DeleteFunc(leaves, func(l *leaf) bool { return l.chunks.Load() > 0 })
}

// adopt counts the runs of leaves that are there; false, and nothing is counted,
// when one is of what is not free.
func (s *space) adopt(g *ledger, of []*leaf) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	segments := *s.segments.Load()
	for _, r := range g.runs {
		for c := r.chunk; c < r.chunk+uint32(r.n) && of[r.leaf] != nil; c++ {
			if c == 0 || segments[c/segmentChunks].state[c%segmentChunks].Load() != 0 {
				return false
			}
		}
	}
	total := 0
	for _, r := range g.runs {
		l := of[r.leaf]
		if l == nil {
			continue
		}
		if l.id == 0 {
			s.name(l)
		}
		for i := range r.n {
			c, region := r.chunk+uint32(i), r.region+i
			segment := segments[c/segmentChunks]
			segment.state[c%segmentChunks].Store(1)
			segment.users[c%segmentChunks] = l.key(region)
			if l.alone[region]++; l.alone[region] == 1 {
				l.covered.Add(1)
			}
		}
		l.exclusive.Add(int32(r.n))
		l.chunks.Add(int32(r.n))
		total += r.n
	}
	s.free.Add(-int64(total))
	s.data.Add(int64(total))
	return true
}

// agrees compares a ledger with the leaves that it speaks of.
func (p *Pool) agrees(g *ledger, of []*leaf) error {
	said := make([][]share, len(of))
	for _, r := range g.runs {
		for i := range r.n {
			said[r.leaf] = append(said[r.leaf], share{r.chunk + uint32(i), r.region + i, of[r.leaf]})
		}
	}
	for i, l := range of {
		if l == nil || p.lock(l) != nil {
			continue
		}
		var is []share
		l.data.each(l, func(u share) { is = append(is, u) })
		blocks := l.data.mapped()
		l.mu.Unlock()
		slices.SortFunc(is, func(a, b share) int { return cmp.Compare(a.chunk, b.chunk) })
		if !slices.Equal(is, said[i]) || blocks != int64(g.leaves[i].blocks) {
			return damaged("ledger", fmt.Errorf("the leaf at byte %d: %w", g.leaves[i].loc*nodeSize, errLedger))
		}
	}
	return nil
}
