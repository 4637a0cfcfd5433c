package thin

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
)

// recover builds the last durable state from super, table, pages and log.
// It writes nothing.
func (p *Pool) recover(ctx context.Context) error {
	s, err := p.newest()
	if err != nil {
		return err
	}
	if err := p.fresh(s); err != nil {
		return err
	}
	p.recovering, p.uncounted = true, true
	if err := p.begin(s); err != nil {
		return err
	}
	found, err := p.loadTable()
	if err != nil {
		return err
	}
	if err := p.replay(ctx, s); err != nil {
		return err
	}
	p.suspicion()
	return p.count(ctx, found, p.loadLedger(s))
}

// found is the nodes that the super on disk names.
type found struct {
	leaves map[uint64]*leaf
	pages  map[uint64]*page
}

// forgetter is a File behind a cache. When writing fails, a cache keeps what the
// disk has not, and a later sync knows nothing of it.
type forgetter interface {
	// Forget has everything be read from the disk. What was written was synced.
	Forget() error
}

// newest is the super to begin with. After an unclean stop it is the disk's, and
// so is all that follows.
func (p *Pool) newest() (super, error) {
	s, _, err := readSupers(p.file)
	f, ok := p.file.(forgetter)
	if err != nil || s.clean || !ok {
		return s, err
	}
	if err := f.Forget(); err != nil {
		return s, err
	}
	s, _, err = readSupers(p.file)
	return s, err
}

// loadTable makes the volumes with their pages. Leaves stay on disk.
func (p *Pool) loadTable() (*found, error) {
	payload, chunks, err := readTable(p.file, p.super.table, p.space.size())
	if err != nil {
		return nil, err
	}
	for _, c := range chunks {
		p.space.fix(c)
	}
	p.tables = chunks
	p.tableChunks.Store(int64(len(chunks)))
	entries, next, err := decodeTable(payload)
	if err != nil {
		return nil, damaged("table", err)
	}
	p.nextID = next
	f := &found{leaves: map[uint64]*leaf{}, pages: map[uint64]*page{}}
	for _, e := range entries {
		v := newVolume(p, e)
		if p.volumes[e.number] != nil || p.names[e.shape.name] != nil {
			return nil, damaged("table", fmt.Errorf("%q is there twice", e.shape.name))
		}
		for i, ref := range e.pages {
			if ref.loc == 0 {
				continue
			}
			pg, err := p.loadPage(f, ref, i, e.number)
			if err != nil {
				return nil, err
			}
			pg.refs.Add(1)
			v.pages[i].Store(pg)
		}
		p.volumes[e.number], p.names[e.shape.name] = v, v
	}
	return f, nil
}

// loadPage is the page at a place, which two volumes may have.
func (p *Pool) loadPage(f *found, ref nodeRef, at int, owner uint32) (*page, error) {
	if pg := f.pages[ref.loc]; pg != nil {
		return pg, nil
	}
	b := aligned(nodeSize)
	err := p.readNode(ref, b)
	if err != nil && !medium(err) {
		return nil, err
	}
	if !p.space.markNode(ref.loc) {
		return nil, damaged("map", fmt.Errorf("the node at byte %d is something else, too", ref.loc*nodeSize))
	}
	p.pages.Add(1)
	if err != nil {
		p.harm.pages[at] = err
		f.pages[ref.loc] = lostPage(ref, at, err)
		return f.pages[ref.loc], nil
	}
	pg := decodePage(b)
	pg.ref = ref
	f.pages[ref.loc] = pg
	for i, r := range pg.stored {
		if r.loc == 0 {
			if r.flags&flagLost != 0 { // it was given up with its page
				l := lostLeaf(at*pageLeaves+i, damaged("map", errLost))
				l.refs.Add(1)
				pg.leaves[i].Store(l)
			}
			continue
		}
		l := f.leaves[r.loc]
		if l == nil {
			l = p.foundLeaf(r, at*pageLeaves+i, owner)
			f.leaves[r.loc] = l
			if !p.space.markNode(r.loc) {
				return nil, damaged("map", fmt.Errorf("the node at byte %d is something else, too", r.loc*nodeSize))
			}
		}
		l.refs.Add(1)
		pg.leaves[i].Store(l)
	}
	return pg, nil
}

// foundLeaf is a leaf that stays on disk until it is needed.
func (p *Pool) foundLeaf(r nodeRef, index int, owner uint32) *leaf {
	l := newLeaf(index, nil)
	l.refs.Store(0)
	l.ref = nodeRef{loc: r.loc, crc: r.crc}
	l.suspect, l.listed = r.flags&flagSuspect != 0, r.flags&flagListed != 0
	if r.flags&flagIntent != 0 && !p.super.clean {
		p.intend(l, owner)
	}
	return l
}

// intend notes a durable intent.
func (p *Pool) intend(l *leaf, owner uint32) {
	l.intent, l.owner = intentHeld, owner
	p.intents[l] = struct{}{}
}

// suspicion turns the intents of before the stop into doubt.
func (p *Pool) suspicion() {
	for l := range p.intents {
		l.intent, l.suspect = intentNone, true
		delete(p.intents, l)
	}
}

const replayed = 64 << 10 // bytes of records that replay applies together

// replay applies the frames from the super's place on.
func (p *Pool) replay(ctx context.Context, s super) error {
	at := position{s.logPos, s.logSeq}
	r := reader{wal: &p.wal}
	for more := !s.clean; more; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var records []byte // of some frames, whose leaves are read together
		for len(records) < replayed {
			some, next, ok, err := r.find(at)
			if err != nil {
				return err
			}
			if more = ok; !ok {
				break
			}
			records = append(records, some...)
			at = next
		}
		if err := p.apply(records); err != nil {
			return err
		}
	}
	if !s.clean {
		lost, err := p.wal.lost(at)
		if err != nil {
			return err
		}
		if lost {
			return damaged("log", fmt.Errorf("frame %d is not whole, and was durable", at.seq))
		}
		spoiled, err := p.wal.spoiled(at)
		if err != nil {
			return err
		}
		if spoiled {
			return damaged("log", fmt.Errorf("frame %d: %w", at.seq, errChecksum))
		}
		if last := p.wal.shadow.durable(p.id, s.epoch); last >= at.seq {
			return fmt.Errorf("%w: frame %d of its log was on stable storage, and it ends before frame %d: put the newer one back, "+
				"or if there is none, the disk lost what it had taken; to go on without that, remove the pool's shadow file", ErrStale, last, at.seq)
		}
		if err := p.replayShadow(s); err != nil {
			return err
		}
	}
	p.wal.head, p.wal.tail, p.wal.durable = at, at, at.seq-1
	p.wal.stamp.epoch++
	return nil
}

// prefetch reads the leaves that maps and unmaps change, many at a time. What
// it cannot read is left to who needs it.
func (p *Pool) prefetch(records []byte) {
	var wanted []*leaf
	seen := map[*leaf]bool{}
	for d := (decoder{p: records}); len(d.p) > 0; {
		r := d.record()
		v := p.volumes[r.volume]
		if d.err != nil || v == nil || r.kind != recMap && r.kind != recUnmap || int(r.block/leafBlocks) >= len(v.pages)*pageLeaves {
			continue
		}
		if l := v.leaf(int(r.block / leafBlocks)); l != nil && l.data == nil && l.bad == nil && l.ref.loc != 0 && !seen[l] {
			seen[l] = true
			wanted = append(wanted, l)
		}
	}
	if len(wanted) < 2 || int64(len(wanted)) > p.budget/2 {
		return
	}
	data := make([]*leafData, len(wanted))
	var next atomic.Int64
	var readers sync.WaitGroup
	for range min(countReaders, len(wanted)) {
		readers.Go(func() {
			b := aligned(nodeSize)
			for i := next.Add(1) - 1; i < int64(len(wanted)); i = next.Add(1) - 1 {
				if p.readNode(wanted[i].ref, b) == nil {
					data[i] = decodeLeaf(b)
				}
			}
		})
	}
	readers.Wait()
	for i, l := range wanted {
		if l.mu.Lock(); data[i] != nil {
			l.data = data[i]
			p.keep(l)
		}
		l.mu.Unlock()
	}
}

// apply carries out the records of frames.
func (p *Pool) apply(records []byte) error {
	p.prefetch(records)
	d := decoder{p: records}
	for len(d.p) > 0 {
		r := d.record()
		if d.err != nil {
			return damaged("log", d.err)
		}
		if err := p.redo(r); err != nil {
			return err
		}
	}
	return nil
}

var errImpossible = errors.New("a record is impossible here")

func (p *Pool) redo(r record) error {
	if r.kind == recCreate {
		return p.redoInsert(r.volume, r.shape, r.size, func() *Volume {
			return newVolume(p, entry{number: r.volume, size: r.size, shape: r.shape})
		})
	}
	v := p.volumes[r.volume]
	if v == nil {
		return damaged("log", errImpossible)
	}
	switch r.kind {
	case recMap, recUnmap:
		return v.redoBlocks(r)
	case recIntent:
		if int(r.block) >= len(v.pages)*pageLeaves {
			return damaged("log", errImpossible)
		}
		l, err := v.reach(int(r.block), false)
		if err != nil {
			return err
		}
		p.intend(l, v.number)
	case recSnapshot, recClone, recRestore:
		return p.redoItems(r, v)
	case recDelete:
		p.remove(v)
	case recRename:
		if r.shape.block != v.shape().block || !r.shape.possible(v.size.Load()) || p.vacant(r.shape.name) != nil {
			return damaged("log", errImpossible)
		}
		p.assign(v, r.shape)
	case recReserve:
		v.reserved.Store(r.block != 0)
	case recGrow:
		if r.size < v.size.Load() || !v.shape().possible(r.size) {
			return damaged("log", errImpossible)
		}
		v.extend(r.size)
	}
	return nil
}

// redoInsert makes a volume if there can be one like that.
func (p *Pool) redoInsert(number uint32, s shape, size int64, make func() *Volume) error {
	if !s.possible(size) || number == 0 || number == math.MaxUint32 || p.volumes[number] != nil || p.vacant(s.name) != nil {
		return damaged("log", errImpossible)
	}
	p.insert(make())
	return nil
}

func (p *Pool) redoItems(r record, v *Volume) error {
	for _, i := range r.items {
		from := p.volumes[i.from]
		if from == nil {
			return damaged("log", errImpossible)
		}
		if r.kind != recClone { // the data of a snapshot were durable before its frame
			from.calm()
		}
		err := p.redoInsert(i.to, i.shape, from.size.Load(), func() *Volume { return from.copy(i.to, i.shape, r.kind != recClone) })
		if err != nil {
			return err
		}
	}
	if r.kind == recRestore {
		source := p.volumes[r.block]
		if source == nil {
			return damaged("log", errImpossible)
		}
		v.assume(source)
	}
	return nil
}

// count finds out how many leaves use each chunk, and which nodes are no
// longer named.
func (p *Pool) count(ctx context.Context, f *found, g *ledger) error {
	leaves := p.distinct(f)
	var of []*leaf
	if g != nil {
		of = g.match(f)
	}
	if !p.thorough {
		all := len(leaves)
		leaves = p.adopt(g, of, leaves)
		p.ledger.read = len(leaves)*ledgerShare > all
	}
	if err := p.countLeaves(ctx, leaves); err != nil {
		return err
	}
	if p.thorough && g != nil {
		p.ledger.fault = p.agrees(g, of)
	}
	for _, v := range p.list() {
		v.leaves(func(l *leaf, _ bool) { v.mapped.Add(int64(l.blocks)) })
	}
	p.uncounted = false
	p.hold()
	if _, ok := p.file.(filler); ok {
		p.space.puncture()
	}
	for loc := range f.pages {
		p.dead = append(p.dead, loc)
	}
	for loc, l := range f.leaves {
		if !l.named {
			p.dead = append(p.dead, loc)
		}
	}
	for _, v := range p.list() {
		if v.reserved.Load() {
			p.space.promise(&v.promise, promise{v.unmet(), mapChunks(v.size.Load())})
		}
	}
	slices.Sort(p.dead) // the same disk gives the same pool
	return nil
}

// distinct is each leaf that a volume has, once, and notes that it is named.
// Pages that are, are taken out of what was found.
func (p *Pool) distinct(f *found) []*leaf {
	var out []*leaf
	for _, v := range p.list() {
		for i := range v.pages {
			if pg := v.pages[i].Load(); pg != nil {
				delete(f.pages, pg.ref.loc)
			}
		}
		v.leaves(func(l *leaf, _ bool) {
			if !l.named {
				l.named = true
				out = append(out, l)
			}
		})
	}
	return out
}
