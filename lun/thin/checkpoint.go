package thin

import (
	"fmt"
	"maps"
	"slices"

	"ripstop/lun"
)

// draft is a checkpoint on its way.
type draft struct {
	tail    *mark // where replay will start
	leaves  []*leaf
	entries []entry
	pages   [][]*page // of each entry
	old     []uint64  // nodes that only the super before names
	next    uint32
}

// checkpoint makes a super that needs no log before now. I/O goes on; others
// who want one wait for this one. With clean nothing may change any more.
func (p *Pool) checkpoint(clean bool) error {
	before := p.wal.tailSeq()
	p.checkpointing.Lock()
	defer p.checkpointing.Unlock()
	if !clean && !p.recovering && p.wal.tailSeq() != before && p.wal.used() < p.wal.size/2 {
		return nil // somebody has just made one
	}
	if err := p.writable(); err != nil {
		return err
	}
	if err := p.carryOut(clean); err != nil {
		return p.fail(fmt.Errorf("checkpoint: %w", err))
	}
	return nil
}

func (p *Pool) carryOut(clean bool) error {
	if clean {
		// What is in the log is in the map: nothing follows.
		if err := p.wal.commit(); err != nil {
			return err
		}
	}
	d := p.draft(clean)
	p.rules.point("checkpoint: begun")
	if err := p.writeLeaves(d); err != nil {
		return err
	}
	p.rules.point("checkpoint: leaves are written")
	if clean || p.recovering && p.outdated() {
		if err := p.recount(); err != nil {
			return err
		}
		p.rules.point("checkpoint: ledger is written")
	}
	if err := p.writePages(d); err != nil {
		return err
	}
	table, chunks, err := p.writeTable(d)
	if err != nil {
		return err
	}
	p.rules.point("checkpoint: table is written")
	if err := p.wal.commit(); err != nil {
		return err
	}
	if !p.rules.noSuperSync {
		if err := p.file.Sync(); err != nil {
			return err
		}
	}
	p.rules.point("checkpoint: log is durable")
	s := p.successor(d, table, clean)
	if err := writeSupers(p.file, &s); err != nil {
		return err
	}
	p.rules.point("checkpoint: super is written")
	p.settleAccounts(d, s, chunks)
	p.note(s)
	return nil
}

// draft marks where replay will start and takes what changed until then.
func (p *Pool) draft(clean bool) *draft {
	d := &draft{}
	p.wal.running.Lock() // what a frame before the mark says is in its leaf, too
	p.tree.Lock()
	d.tail = p.wal.setMark()
	p.dirtyMu.Lock()
	d.leaves, p.dirty = p.dirty, nil
	p.dirtyCount.Store(0)
	d.old, p.dead = p.dead, nil
	p.dirtyMu.Unlock()
	d.next = p.nextID
	for _, number := range slices.Sorted(maps.Keys(p.volumes)) {
		e, pages := p.volumes[number].entry()
		d.entries = append(d.entries, e)
		d.pages = append(d.pages, pages)
	}
	var held []*leaf
	for l := range p.intents {
		held = append(held, l)
	}
	p.tree.Unlock()
	p.wal.running.Unlock()
	for _, l := range held {
		if !l.carry(clean || p.rules.noCarry) {
			p.tree.Lock()
			l.mu.Lock()
			if l.intent == intentNone {
				delete(p.intents, l)
			}
			l.mu.Unlock()
			p.tree.Unlock()
		}
	}
	return d
}

// carry tells whether an intent lives on: it was used since the checkpoint
// before, or is just being asked for.
func (l *leaf) carry(end bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	flying := l.data != nil && l.data.inflight > 0
	if !end && (l.used || flying || l.intent == intentAsked) {
		l.used = false
		return true
	}
	l.intent, l.used = intentNone, false
	return false
}

const batchNodes = 64 // that are written together: 512 KiB

func (p *Pool) writeLeaves(d *draft) error {
	b := aligned(min(batchNodes, len(d.leaves)) * nodeSize)
	for some := range slices.Chunk(d.leaves, batchNodes) {
		if err := p.writeSome(d, some, b); err != nil {
			return err
		}
	}
	return nil
}

// writeLeaf writes a leaf alone.
func (p *Pool) writeLeaf(d *draft, l *leaf) error {
	s := p.scratch()
	defer p.buffers.Put(s)
	return p.writeSome(d, []*leaf{l}, s.node)
}

// writeSome writes leaves as they are now, with room for all in b. Their older
// places stay for the super that names them.
func (p *Pool) writeSome(d *draft, leaves []*leaf, b []byte) error {
	var changed []*leaf
	for _, l := range leaves {
		if l.copyOut(b[len(changed)*nodeSize:]) {
			changed = append(changed, l)
		}
	}
	refs, err := p.writeNodes(b[:len(changed)*nodeSize])
	if err != nil {
		return err
	}
	for i, l := range changed {
		p.move(d, l, refs[i])
	}
	return nil
}

// copyOut encodes a leaf that is not on disk as it is.
func (l *leaf) copyOut(b []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone || !l.dirty || l.data == nil {
		return false
	}
	l.data.encode(b)
	l.blocks = int32(l.data.mapped())
	l.dirty, l.writing = false, true
	return true
}

// move notes where a leaf was written.
func (p *Pool) move(d *draft, l *leaf, ref nodeRef) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.writing = false
	if l.ref.loc != 0 {
		p.replace(d, l.ref.loc)
	}
	l.ref, l.listed = ref, false
	if l.gone { // it went while it was written
		p.bury(ref.loc)
	}
}

// replace frees a node when the super of this draft is durable.
func (p *Pool) replace(d *draft, loc uint64) {
	if p.rules.noNodeWait {
		p.space.freeNode(loc)
		return
	}
	d.old = append(d.old, loc)
}

// writePages writes each page whose references changed, and puts the places
// of all into the entries.
func (p *Pool) writePages(d *draft) error {
	p.round++
	for i, pages := range d.pages {
		for k, pg := range pages {
			if pg == nil {
				continue
			}
			if pg.seen != p.round {
				pg.seen = p.round
				if err := p.writePage(d, pg); err != nil {
					return err
				}
			}
			d.entries[i].pages[k] = pg.ref
		}
	}
	return nil
}

func (p *Pool) writePage(d *draft, pg *page) error {
	changed := pg.ref.loc == 0
	for i := range pg.leaves {
		var ref nodeRef
		if l := pg.leaves[i].Load(); l != nil {
			var err error
			if ref, err = p.reference(d, l); err != nil {
				return err
			}
		}
		if ref != pg.stored[i] {
			pg.stored[i] = ref
			changed = true
		}
	}
	if !changed {
		return nil
	}
	s := p.scratch()
	defer p.buffers.Put(s)
	pg.encode(s.node)
	ref, err := p.writeNode(s.node)
	if err != nil {
		return err
	}
	if pg.ref.loc != 0 {
		p.replace(d, pg.ref.loc)
	}
	pg.ref = ref
	return nil
}

// reference is how a page names a leaf. One that was made since the draft is
// written now.
func (p *Pool) reference(d *draft, l *leaf) (nodeRef, error) {
	l.mu.Lock()
	fresh := l.ref.loc == 0
	l.mu.Unlock()
	if fresh {
		if err := p.writeLeaf(d, l); err != nil {
			return nodeRef{}, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	ref := l.ref
	if l.bad != nil && ref.loc == 0 {
		ref.flags |= flagLost
	}
	if l.intent != intentNone {
		ref.flags |= flagIntent
	}
	if l.suspect {
		ref.flags |= flagSuspect
	}
	if l.listed {
		ref.flags |= flagListed
	}
	return ref, nil
}

// writeTable writes the table.
func (p *Pool) writeTable(d *draft) (ref tableRef, chunks []uint32, err error) {
	payload := newTable(d.entries, d.next)
	for range tableChunksFor(len(payload)) {
		c, ok := p.space.take(fixedChunk, 0)
		if !ok && p.expand() {
			c, ok = p.space.take(fixedChunk, 0)
		}
		if !ok {
			return ref, nil, fmt.Errorf("write the table: %w", lun.ErrNoSpace)
		}
		chunks = append(chunks, c)
	}
	if err := writeTable(p.file, payload, chunks); err != nil {
		return ref, nil, err
	}
	return tableRef{chunks[0], uint32(len(payload)), checksum(payload)}, chunks, nil
}

// successor is the super that names the table. The log was flushed since the
// draft, so the place of the mark is known.
func (p *Pool) successor(d *draft, table tableRef, clean bool) super {
	s := p.super
	s.seq++
	if p.recovering {
		s.epoch++
	}
	s.chunks = p.space.size()
	s.logPos, s.logSeq = d.tail.head.pos, d.tail.head.seq
	s.table, s.ledger, s.clean = table, p.ledger.next, clean
	return s
}

// settleAccounts frees what only the super before named.
func (p *Pool) settleAccounts(d *draft, s super, chunks []uint32) {
	for _, loc := range d.old {
		p.space.freeNode(loc)
	}
	for _, c := range p.tables {
		p.space.unfix(c)
	}
	for _, c := range p.ledger.old {
		p.space.unfix(c)
	}
	p.ledger.old = nil
	p.super, p.tables = s, chunks
	p.tableChunks.Store(int64(len(chunks)))
	p.wal.mu.Lock()
	p.wal.tail = d.tail.head
	p.wal.mu.Unlock()
}

func (w *wal) tailSeq() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.tail.seq
}
