package thin

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"ripstop/lun"
)

// readNode reads 8 KiB that a reference names.
func (p *Pool) readNode(r nodeRef, b []byte) error {
	if r.loc/chunkNodes >= uint64(p.space.size()) {
		return damaged("map", fmt.Errorf("a reference to place %d, outside the pool", r.loc))
	}
	if _, err := p.file.ReadAt(b, int64(r.loc)*nodeSize); err != nil {
		return fmt.Errorf("read the map at byte %d: %w", int64(r.loc)*nodeSize, err)
	}
	if checksum(b) != r.crc {
		return damaged("map", fmt.Errorf("the node at byte %d: %w", int64(r.loc)*nodeSize, errChecksum))
	}
	return nil
}

// writeNode writes 8 KiB to a free place.
func (p *Pool) writeNode(b []byte) (nodeRef, error) {
	refs, err := p.writeNodes(b)
	if err != nil {
		return nodeRef{}, err
	}
	return refs[0], nil
}

// writeNodes writes nodes to free places, with one call for those side by side.
func (p *Pool) writeNodes(b []byte) ([]nodeRef, error) {
	refs := make([]nodeRef, len(b)/nodeSize)
	for i := range refs {
		loc := p.space.takeNode()
		if loc == 0 && p.expand() {
			loc = p.space.takeNode()
		}
		if loc == 0 {
			return nil, fmt.Errorf("write the map: %w", lun.ErrNoSpace)
		}
		refs[i].loc = loc
	}
	slices.SortFunc(refs, func(a, b nodeRef) int { return cmp.Compare(a.loc, b.loc) })
	for from := 0; from < len(refs); {
		to := from + 1
		for to < len(refs) && refs[to].loc == refs[to-1].loc+1 {
			to++
		}
		if _, err := p.file.WriteAt(b[from*nodeSize:to*nodeSize], int64(refs[from].loc)*nodeSize); err != nil {
			return nil, fmt.Errorf("write the map: %w", err)
		}
		from = to
	}
	for i := range refs {
		refs[i].crc = checksum(b[i*nodeSize : (i+1)*nodeSize])
	}
	return refs, nil
}

// lock is l with its mu held and its data in memory, settled if the pool
// stopped while blocks were being overwritten. On an error mu is not held.
func (p *Pool) lock(l *leaf) error {
	l.mu.Lock()
	if l.data == nil {
		if err := p.fetch(l); err != nil {
			l.mu.Unlock()
			return err
		}
	}
	if l.suspect {
		if err := p.settle(l); err != nil {
			l.mu.Unlock()
			return err
		}
	}
	return nil
}

// fetch reads the data of a leaf, with mu held.
func (p *Pool) fetch(l *leaf) error {
	if l.bad != nil {
		return l.bad
	}
	s := p.scratch()
	defer p.buffers.Put(s)
	err := p.readNode(l.ref, s.node)
	if errors.Is(err, ErrDamaged) {
		err = p.readNode(l.ref, s.node) // what is read wrong once may be right on the disk
	}
	var d *leafData
	if err == nil {
		d = decodeLeaf(s.node)
		if !p.uncounted && !p.space.counts(d) {
			err = damaged("map", fmt.Errorf("leaf %d has a block in a chunk that nobody uses", l.index))
		}
	}
	if err != nil {
		p.unread.Store(true)
		switch {
		case p.uncounted && medium(err):
			p.spoil(l, err)
		case errors.Is(err, ErrDamaged): // what it uses stays taken until the pool is opened anew
			l.bad = err
		}
		return err
	}
	l.data = d
	p.keep(l)
	return nil
}

// counts tells whether every chunk of a leaf holds data and is counted. Opening sees
// to that where it reads the leaf, and not where a ledger speaks for it.
func (s *space) counts(d *leafData) bool {
	last := uint32(0)
	for _, c := range d.chunk {
		if c == last || c == 0 || c == lostChunk {
			continue
		}
		if !s.isData(c) {
			return false
		}
		if n := s.state(c).Load(); n == 0 || n == holeChunk {
			return false
		}
		last = c
	}
	return true
}

// settle gives each block of a leaf that a cut may have torn the CRC of what
// is there. It needs no record: it would find the same again.
func (p *Pool) settle(l *leaf) error {
	if p.recovering {
		return nil
	}
	b := aligned(blockSize)
	for i, c := range l.data.chunk {
		if c == 0 || c == lostChunk {
			continue
		}
		if _, err := p.file.ReadAt(b, blockAt(c, i)); err != nil {
			return fmt.Errorf("read what a cut may have torn: %w", err)
		}
		if crc := checksum(b); crc != l.data.crc[i] {
			l.data.crc[i] = crc
			p.accepted.Add(1)
		}
	}
	l.suspect = false
	p.touch(l)
	return nil
}

// blockAt is the byte of the file where block i of a leaf lies in a chunk.
func blockAt(chunk uint32, i int) int64 {
	return int64(chunk)*chunkSize + int64(i%chunkBlocks)*blockSize
}

// touch notes that the data of a leaf changed, with mu held.
func (p *Pool) touch(l *leaf) {
	l.healed.Store(0)
	if l.dirty {
		return
	}
	l.dirty = true
	p.dirtyMu.Lock()
	p.dirty = append(p.dirty, l)
	p.dirtyCount.Add(1)
	p.dirtyMu.Unlock()
}

// keep notes that a leaf is in memory, and lets others go when there are too
// many. With the leaf's mu held.
func (p *Pool) keep(l *leaf) {
	p.clockMu.Lock()
	defer p.clockMu.Unlock()
	p.clock = append(p.clock, l)
	for tries := 0; int64(len(p.clock)) > p.budget && tries < 64; tries++ {
		if p.hand >= len(p.clock) {
			p.hand = 0
		}
		if victim := p.clock[p.hand]; victim == l || !victim.forget() {
			p.hand++
			continue
		}
		last := len(p.clock) - 1
		p.clock[p.hand] = p.clock[last]
		p.clock[last] = nil
		p.clock = p.clock[:last]
	}
}

// forget drops the data of a leaf that is on disk as it is and not in use.
func (l *leaf) forget() bool {
	if !l.mu.TryLock() {
		return false
	}
	defer l.mu.Unlock()
	if l.gone {
		return true
	}
	if l.data == nil || l.dirty || l.writing || l.data.inflight > 0 || l.ref.loc == 0 || l.data.ahead() {
		return false
	}
	l.data = nil
	return true
}

// ahead tells whether a region has a chunk that no block is in yet.
func (d *leafData) ahead() bool {
	for r, c := range d.own {
		if c != 0 && !d.uses(r, c) {
			return true
		}
	}
	return false
}

// unrefLeaf counts down the pages that have a leaf; without any it gives back
// what it uses. What asked for that is durable. When the leaf cannot be read,
// its chunks stay taken until the pool is opened anew.
func (p *Pool) unrefLeaf(l *leaf) {
	p.tree.Lock()
	left := l.refs.Add(-1)
	if left == 0 {
		delete(p.intents, l)
	}
	p.tree.Unlock()
	if left > 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.data == nil && p.fetch(l) != nil {
		return
	}
	l.data.each(l, p.space.unref)
	p.space.unname(l)
	l.gone = true
	if l.ref.loc != 0 {
		p.bury(l.ref.loc)
	}
}

// bury frees a node after the next super.
func (p *Pool) bury(loc uint64) {
	if p.rules.noNodeWait {
		p.space.freeNode(loc)
		return
	}
	p.dirtyMu.Lock()
	p.dead = append(p.dead, loc)
	p.dirtyMu.Unlock()
}
