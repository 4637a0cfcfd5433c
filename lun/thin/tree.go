package thin

import (
	"encoding/binary"
	"math/bits"
	"sync"
	"sync/atomic"
)

//	volume ─┬─ page ─┬─ leaf ─── 1024 blocks: chunk, crc
//	        │        └─ leaf ◄─┐
//	snapshot ─ page ───────────┘   shared until somebody changes it
//
// Who changes a page or leaf that others use copies it first.

// nodeRef is where a node is on disk; place 0 is nowhere.
type nodeRef struct {
	loc   uint64
	crc   uint32
	flags uint32
}

// Flags of references to leaves. The numbers are on disk.
const (
	flagIntent  = 1
	flagSuspect = 2
	flagLost    = 4 // with place 0: there is a leaf, and nobody knows where
	flagListed  = 8 // the ledger speaks of it
)

// page is 512 leaves. Its pointers change under the pool's tree lock.
type page struct {
	refs   atomic.Int32 // volumes that have it
	leaves [pageLeaves]atomic.Pointer[leaf]

	// Of the checkpoint alone.
	stored [pageLeaves]nodeRef
	ref    nodeRef
	seen   uint64 // checkpoint
}

// leaf is the map of 1024 blocks.
type leaf struct {
	index int          // in its volume
	refs  atomic.Int32 // pages that have it

	mu      sync.Mutex
	free    sync.Cond // some blocks are no longer busy
	ref     nodeRef
	data    *leafData // nil: on disk alone
	dirty   bool      // data are not what is on disk
	writing bool      // data that were are on their way to it
	intent  intent
	owner   uint32 // volume of the intent
	used    bool   // the intent was used since the last checkpoint
	suspect bool   // blocks may have been torn by a cut
	gone    bool   // no page has it any more
	bad     error  // it cannot be read
	blocks  int32  // that are mapped in it on disk; 0 where it could not be read when the pool was opened
	named   bool   // by a volume, when the pool was opened
	listed  bool   // in the ledger

	// What it takes. Counted by the pool's space, and read without a lock.
	id        uint32
	alone     [leafRegions]uint8 // chunks that it alone uses, of each region
	covered   atomic.Int32       // regions with one
	exclusive atomic.Int32       // chunks that it alone uses
	chunks    atomic.Int32       // chunks that it uses

	healed   atomic.Int32 // covered, when Heal was here last; 0 since it changed
	scrubbed uint64       // pass of Scrub
}

// lost tells whether the leaf is known to be unreadable.
func (l *leaf) lost() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bad != nil
}

// intent is whether blocks may be overwritten in place.
type intent byte

const (
	intentNone  intent = iota
	intentAsked        // its record is in the log, perhaps not durable
	intentHeld
)

type leafData struct {
	chunk    [leafBlocks]uint32 // 0 is unmapped
	crc      [leafBlocks]uint32
	own      [leafRegions]uint32 // where new blocks of a region go; 0 is nowhere yet
	fresh    [leafRegions]uint16 // blocks of own that were never written
	busy     [leafBlocks / 64]uint64
	inflight int
}

func newLeaf(index int, data *leafData) *leaf {
	l := &leaf{index: index, data: data}
	l.free.L = &l.mu
	l.refs.Store(1)
	return l
}

// mask is the bits of from..to that lie in word i.
func mask(i, from, to int) uint64 {
	lo, hi := max(from-i*64, 0), min(to-i*64, 64)
	if lo >= hi {
		return 0
	}
	return (^uint64(0) >> (64 - (hi - lo))) << lo
}

// claim waits until none of the blocks is busy, and makes them so. With mu
// held; false when the leaf is gone meanwhile.
func (l *leaf) claim(from, to int) bool {
	for !l.gone && l.data != nil && l.data.anyBusy(from, to) {
		l.free.Wait()
	}
	if l.gone || l.data == nil {
		return false
	}
	for i := from / 64; i*64 < to; i++ {
		l.data.busy[i] |= mask(i, from, to)
	}
	l.data.inflight++
	return true
}

func (d *leafData) anyBusy(from, to int) bool {
	for i := from / 64; i*64 < to; i++ {
		if d.busy[i]&mask(i, from, to) != 0 {
			return true
		}
	}
	return false
}

// release is the end of a claim. With mu held.
func (l *leaf) release(from, to int) {
	for i := from / 64; i*64 < to; i++ {
		l.data.busy[i] &^= mask(i, from, to)
	}
	l.data.inflight--
	l.free.Broadcast()
}

// regionBusy is how many blocks of a region are busy.
func (d *leafData) regionBusy(r int) int {
	return bits.OnesCount64(d.busy[r/4] & mask(r/4, r*chunkBlocks, (r+1)*chunkBlocks))
}

// uses tells whether a block of the region lies in the chunk.
func (d *leafData) uses(r int, chunk uint32) bool {
	for _, c := range d.chunk[r*chunkBlocks : (r+1)*chunkBlocks] {
		if c == chunk {
			return true
		}
	}
	return false
}

// each calls fn for every chunk that the leaf l, whose data these are, uses, once.
func (d *leafData) each(l *leaf, fn func(share)) {
	for r := range leafRegions {
		region := d.chunk[r*chunkBlocks : (r+1)*chunkBlocks]
		for i, c := range region {
			if c != 0 && c != lostChunk && !contains(region[:i], c) && c != d.own[r] {
				fn(share{c, r, l})
			}
		}
		if d.own[r] != 0 {
			fn(share{d.own[r], r, l})
		}
	}
}

func contains(s []uint32, x uint32) bool {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == x {
			return true
		}
	}
	return false
}

// mapped is how many blocks take space.
func (d *leafData) mapped() (n int64) {
	for _, c := range d.chunk {
		if c != 0 {
			n++
		}
	}
	return n
}

func (d *leafData) encode(p []byte) {
	for i := range leafBlocks {
		binary.LittleEndian.PutUint32(p[i*8:], d.chunk[i])
		binary.LittleEndian.PutUint32(p[i*8+4:], d.crc[i])
	}
}

func decodeLeaf(p []byte) *leafData {
	d := new(leafData)
	for i := range leafBlocks {
		d.chunk[i] = binary.LittleEndian.Uint32(p[i*8:])
		d.crc[i] = binary.LittleEndian.Uint32(p[i*8+4:])
	}
	return d
}

func (p *page) encode(b []byte) {
	for i, r := range p.stored {
		binary.LittleEndian.PutUint64(b[i*16:], r.loc)
		binary.LittleEndian.PutUint32(b[i*16+8:], r.flags)
		binary.LittleEndian.PutUint32(b[i*16+12:], r.crc)
	}
}

func decodePage(b []byte) *page {
	p := new(page)
	for i := range p.stored {
		p.stored[i] = nodeRef{
			loc:   binary.LittleEndian.Uint64(b[i*16:]),
			flags: binary.LittleEndian.Uint32(b[i*16+8:]),
			crc:   binary.LittleEndian.Uint32(b[i*16+12:]),
		}
	}
	return p
}
