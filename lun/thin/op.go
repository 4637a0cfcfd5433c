package thin

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"ripstop/lun"
)

// scratch is what one operation needs besides its caller's bytes.
type scratch struct {
	node  []byte // 8 KiB
	block []byte // 4 KiB, twice: for the first and the last block of a write
	parts []part
	chunk []uint32
	crc   []uint32
}

func newScratch() *scratch {
	return &scratch{node: aligned(nodeSize), block: aligned(2 * blockSize)}
}

func (p *Pool) scratch() *scratch { return p.buffers.Get().(*scratch) }

// part is the blocks from..to of one leaf that a write concerns.
//
//	    from                      to
//	─────┼──────┼──────┼──────┼────┼──
//	     ┊skip┌─────── data ─┐┊
type part struct {
	index    int // of the leaf
	leaf     *leaf
	from, to int
	skip     int // bytes of the first block that stay
	data     []byte
	target   []uint32 // chunk for each block
	crc      []uint32
	done     int  // blocks from the start that are written
	gives    bool // it gives space back
	framed   bool // its record is in a frame already
}

// split cuts a range of bytes at the borders of leaves.
func (s *scratch) split(data []byte, off int64) []part {
	parts, total := s.parts[:0], 0
	for len(data) > 0 {
		in := off % leafSize
		n := min(int64(len(data)), leafSize-in)
		pt := part{
			index: int(off / leafSize), skip: int(in % blockSize), data: data[:n],
			from: int(in / blockSize), to: int((in + n + blockSize - 1) / blockSize),
		}
		parts = append(parts, pt)
		total += pt.to - pt.from
		data, off = data[n:], off+n
	}
	if cap(s.chunk) < total {
		s.chunk, s.crc = make([]uint32, total), make([]uint32, total)
	}
	at := 0
	for i := range parts {
		n := parts[i].to - parts[i].from
		parts[i].target, parts[i].crc = s.chunk[at:at+n], s.crc[at:at+n]
		at += n
	}
	s.parts = parts
	return parts
}

// claim makes all blocks of a write its own, in ascending order, so that two
// writes never wait for each other.
func (v *Volume) claim(parts []part) error {
	for i := range parts {
		if err := v.claimPart(&parts[i]); err != nil {
			v.release(parts[:i])
			return err
		}
	}
	return nil
}

func (v *Volume) claimPart(pt *part) error {
	for {
		l, err := v.reach(pt.index, pt.gives)
		if err != nil {
			return err
		}
		if err := v.seize(l); err != nil {
			return v.fault("write", pt.index, pt.from, err)
		}
		ok := l.claim(pt.from, pt.to)
		l.mu.Unlock()
		if ok {
			pt.leaf = l
			return nil
		}
	}
}

// seize is lock for changing: a leaf that could not be read is made anew.
func (v *Volume) seize(l *leaf) error {
	err := v.pool.lock(l)
	if err == nil {
		return nil
	}
	l.mu.Lock()
	if l.bad != nil { // known by now: while the pool is opened, trying to read it has told
		v.renew(l)
		return nil
	}
	l.mu.Unlock()
	return err
}

func (v *Volume) release(parts []part) {
	for i := range parts {
		l := parts[i].leaf
		l.mu.Lock()
		l.release(parts[i].from, parts[i].to)
		l.mu.Unlock()
	}
}

// plan finds a place for each block of a claimed part, and gets the intent that
// overwriting needs. On an error the places that it took are given back by tidy.
func (v *Volume) plan(pt *part) error {
	l := pt.leaf
	for again := true; ; {
		l.mu.Lock()
		inPlace, err := v.place(pt)
		if errors.Is(err, lun.ErrNoSpace) {
			l.mu.Unlock()
			if more, err := v.room(&again); more || err != nil {
				if err != nil {
					return err
				}
				continue
			}
			return err
		}
		if err != nil || !inPlace || l.intent == intentHeld || v.pool.rules.noIntent {
			if inPlace {
				l.used = true
			}
			l.mu.Unlock()
			return err
		}
		l.mu.Unlock()
		v.ask(l)
		if err := v.pool.commit(); err != nil {
			return err
		}
		l.mu.Lock()
		if l.intent == intentAsked {
			l.intent, l.used = intentHeld, true
		}
		l.mu.Unlock()
	}
}

// room makes room for a chunk: the file grows, or, once, what was given up
// becomes free. It is asked with no lock held, for both may take a while and who ends a
// transfer of the ring must not wait for a leaf.
func (v *Volume) room(again *bool) (bool, error) {
	if !v.pool.space.full() && v.pool.expand() {
		return true, nil
	}
	if !*again {
		return false, nil
	}
	*again = false
	return v.reclaim()
}

// ask puts an intent into the log.
func (v *Volume) ask(l *leaf) {
	p := v.pool
	p.tree.Lock()
	defer p.tree.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	p.intents[l] = struct{}{}
	if l.intent == intentNone {
		l.intent, l.owner = intentAsked, v.number
	}
	p.wal.add(false, func(b []byte) []byte { return appendHead(b, recIntent, v.number, uint32(l.index)) })
}

// place chooses the chunk of each block: where it is, if no other leaf uses
// that chunk, or else the region's own chunk. With the leaf's mu held.
func (v *Volume) place(pt *part) (inPlace bool, err error) {
	d, s := pt.leaf.data, &v.pool.space
	for b := pt.from; b < pt.to; b++ {
		r, bit := b/chunkBlocks, uint16(1)<<(b%chunkBlocks)
		c := d.chunk[b]
		if c != 0 && (s.exclusive(c) || v.pool.rules.shareInPlace) {
			pt.target[b-pt.from] = c
			inPlace = true
			continue
		}
		if c, err = v.ownChunk(pt.leaf, r); err != nil {
			return inPlace, err
		}
		pt.target[b-pt.from] = c
		inPlace = inPlace || d.fresh[r]&bit == 0
	}
	return inPlace, nil
}

// ownChunk is where new blocks of a region go. Slots of a chunk that was not
// just taken may be named by what is durable, so they count as overwritten.
func (v *Volume) ownChunk(l *leaf, r int) (uint32, error) {
	d, s := l.data, &v.pool.space
	if c := d.own[r]; c != 0 {
		if s.exclusive(c) {
			return c, nil
		}
		d.own[r] = 0
	}
	for _, c := range d.chunk[r*chunkBlocks : (r+1)*chunkBlocks] {
		if c != 0 && s.exclusive(c) {
			d.own[r], d.fresh[r] = c, 0
			return c, nil
		}
	}
	c, err := v.takeData(l, r)
	if err != nil {
		return 0, err
	}
	d.own[r], d.fresh[r] = c, ^uint16(0)
	return c, nil
}

// tidy gives up the region's chunk c if no block of it lies there any more. The
// chunk for new blocks stays while another operation may be filling it.
func (d *leafData) tidy(r int, c uint32, busy int, give func(uint32)) {
	if c == 0 || d.uses(r, c) {
		return
	}
	if d.own[r] == c {
		if busy > 0 {
			return
		}
		d.own[r], d.fresh[r] = 0, 0
	}
	give(c)
}

// write writes the data of a claimed and planned part to their places, with
// one call for blocks that lie side by side.
func (v *Volume) write(s *scratch, pt *part) error {
	for b := pt.from; b < pt.to; {
		if head, n := pt.partial(b); n > 0 {
			block := s.block[:blockSize]
			if err := v.load(pt.leaf, b, block); err != nil {
				return err
			}
			copy(block[head:], pt.bytes(b, b+1))
			if err := v.store(pt, b, block); err != nil {
				return err
			}
			b++
			continue
		}
		end := b + 1
		for end < pt.to && pt.beside(end) {
			if _, n := pt.partial(end); n > 0 {
				break
			}
			end++
		}
		if err := v.store(pt, b, pt.bytes(b, end)); err != nil {
			return err
		}
		b = end
	}
	return nil
}

// beside tells whether block b lies right behind the one before it.
func (pt *part) beside(b int) bool {
	t, u := pt.target[b-pt.from-1], pt.target[b-pt.from]
	return blockAt(t, b-1)+blockSize == blockAt(u, b)
}

// partial is how many bytes of block b the data cover, if not all, and from
// which on. n 0 means all.
func (pt *part) partial(b int) (head, n int) {
	start := (b - pt.from) * blockSize
	head = max(0, pt.skip-start)
	end := min(blockSize, pt.skip+len(pt.data)-start)
	if head == 0 && end == blockSize {
		return 0, 0
	}
	return head, end - head
}

// bytes is the data that belong to the blocks from..to.
func (pt *part) bytes(from, to int) []byte {
	lo := max(0, (from-pt.from)*blockSize-pt.skip)
	hi := min(len(pt.data), (to-pt.from)*blockSize-pt.skip)
	return pt.data[lo:hi]
}

// store writes whole blocks from block b on and notes their CRCs.
func (v *Volume) store(pt *part, b int, p []byte) error {
	i := b - pt.from
	l := pt.leaf
	l.mu.Lock()
	for k := range len(p) / blockSize {
		l.data.fresh[(b+k)/chunkBlocks] &^= 1 << ((b + k) % chunkBlocks)
	}
	l.mu.Unlock()
	for k := range len(p) / blockSize {
		if pt.framed {
			break // they are in the frame
		}
		pt.crc[i+k] = checksum(p[k*blockSize : (k+1)*blockSize])
	}
	n, err := v.pool.file.WriteAt(p, blockAt(pt.target[i], b))
	if err != nil {
		return v.fault("write", pt.index, b+n/blockSize, err)
	}
	pt.done = i + len(p)/blockSize
	return nil
}

// load reads one block of a claimed leaf; what is not mapped are zeros.
func (v *Volume) load(l *leaf, b int, p []byte) error {
	l.mu.Lock()
	c, crc := l.data.chunk[b], l.data.crc[b]
	l.mu.Unlock()
	if c == 0 {
		clear(p)
		return nil
	}
	if c == lostChunk {
		return v.fault("read", l.index, b, errLost)
	}
	if _, err := v.pool.file.ReadAt(p, blockAt(c, b)); err != nil {
		return v.fault("read", l.index, b, err)
	}
	if checksum(p) != crc && !v.pool.rules.noVerify {
		return v.fault("read", l.index, b, errChecksum)
	}
	return nil
}

// publish makes what was written of a part the volume's, puts it into the log,
// and gives up what it replaces.
func (v *Volume) publish(pt *part) {
	if pt.framed {
		v.publishFramed(pt)
		return
	}
	l := pt.leaf
	l.mu.Lock()
	defer l.mu.Unlock()
	for b := pt.from; b < pt.from+pt.done; {
		end := b + 1
		for end < pt.from+pt.done && end%chunkBlocks != 0 && pt.target[end-pt.from] == pt.target[b-pt.from] {
			end++
		}
		v.publishRun(pt, b, end)
		b = end
	}
	l.release(pt.from, pt.to)
	if pt.done < pt.to-pt.from {
		v.withdraw(pt)
	}
	if pt.done > 0 {
		v.pool.touch(l)
	}
}

// publishRun is publish for blocks that go to one chunk.
func (v *Volume) publishRun(pt *part, from, to int) {
	d := pt.leaf.data
	r, target := from/chunkBlocks, pt.target[from-pt.from]
	var old [chunkBlocks]uint32
	n, moved := 0, false
	for b := from; b < to; b++ {
		was := d.chunk[b]
		d.chunk[b], d.crc[b] = target, pt.crc[b-pt.from]
		if was == target {
			continue
		}
		moved = true
		if was == 0 {
			v.mapped.Add(1)
		} else if was != lostChunk && !contains(old[:n], was) {
			old[n] = was
			n++
		}
	}
	var up [chunkBlocks]share
	given := up[:0]
	busy := d.regionBusy(r) - pt.busyIn(r)
	for _, c := range old[:n] {
		d.tidy(r, c, busy, func(c uint32) { given = append(given, share{c, r, pt.leaf}) })
	}
	first := uint32(pt.index*leafBlocks + from)
	v.pool.wal.add(moved, func(b []byte) []byte {
		return appendMap(b, v.number, first, target, pt.crc[from-pt.from:to-pt.from])
	}, given...)
}

// busyIn is how many blocks of a region are busy because of this part.
func (pt *part) busyIn(r int) int {
	return max(0, min(pt.to, (r+1)*chunkBlocks)-max(pt.from, r*chunkBlocks))
}

// withdraw gives back chunks that were taken for blocks that were not written.
// With the leaf's mu held, after the release.
func (v *Volume) withdraw(pt *part) {
	d := pt.leaf.data
	for r := pt.from / chunkBlocks; r*chunkBlocks < pt.to; r++ {
		before := v.covers(d, r)
		d.tidy(r, d.own[r], d.regionBusy(r), func(c uint32) {
			v.pool.wal.giveUp(given{chunks: []share{{c, r, pt.leaf}}})
		})
		v.uncovered(d, r, before)
	}
}

// fault is the error for bytes that could not be read or written.
func (v *Volume) fault(verb string, index, block int, err error) error {
	off := (int64(index)*leafBlocks + int64(block)) * blockSize
	is := error(&lun.MediumError{Offset: off, Err: err})
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		is = fmt.Errorf("the file system is full: %w", lun.ErrNoSpace)
	case errors.Is(err, unix.EROFS):
		is = fmt.Errorf("the file system is read-only: %w", lun.ErrReadOnly)
	}
	return fmt.Errorf("%s LUN %s: %w", verb, v.shape().name, is)
}
