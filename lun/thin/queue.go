package thin

import (
	"slices"
	"sync/atomic"
	"time"

	"ripstop/lun"
)

// queueFile is a File that carries out transfers while nobody waits, as
// lun.Queue says of accesses.
type queueFile interface {
	StartReadAt(p []byte, off int64, done func(ok bool)) bool
	StartWriteAt(p []byte, off int64, done func(ok bool)) bool
}

// promptFile is a File that tells what it has in memory.
type promptFile interface {
	// Direct tells that nothing is in memory, and that writes go to the disk.
	Direct() bool
	// TryReadAt fills p, or is false; then p may hold anything.
	TryReadAt(p []byte, off int64) bool
	// TryWriteAt is a WriteAt that waits for no other, or is false; then p may be
	// written in part.
	TryWriteAt(p []byte, off int64) bool
}

var (
	_ lun.Queue  = (*Volume)(nil)
	_ lun.Prompt = (*Volume)(nil)
)

const (
	flightBlocks = 256 // blocks of an access that does not wait: 1 MiB
	flightRuns   = 64  // places that they may lie in
	asideBlocks  = 16  // to compare which takes longer than to begin a goroutine
)

// flight is an access to whole blocks of one leaf that does not wait.
//
//	gate shared ─► map copied, blocks claimed ─► transfers ─► CRCs compared, or map changed ─► gate
//
// It ends in whatever goroutine ends its last transfer, or, where much is to be
// compared, in one of its own: one goroutine ends all transfers of the ring.
type flight struct {
	v      *Volume
	part   part
	target [flightBlocks]uint32
	crc    [flightBlocks]uint32
	write  bool
	done   func(ok bool)
	landed func(ok bool) // made once, so that an access allocates nothing
	aside  func()        // land, likewise
	left   atomic.Int32  // transfers under way, and one for who starts them
	bad    atomic.Bool
}

func newFlight() any {
	f := &flight{}
	f.landed = func(ok bool) {
		if !f.over(ok) {
			return
		}
		if f.write || len(f.part.crc) < asideBlocks {
			f.land()
			return
		}
		go f.aside()
	}
	f.aside = f.land
	return f
}

// StartReadAt reads whole blocks of a leaf that is in memory, wherever they lie.
// What does not match its CRC is left to ReadAt.
func (v *Volume) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	if v.pool.queue == nil {
		return false
	}
	f := v.board(p, off, false)
	if f == nil {
		return false
	}
	f.done = done
	return f.start(v.pool.queue.StartReadAt)
}

// StartWriteAt writes whole blocks for which everything is there: the leaf, places,
// and the intent for what is overwritten.
func (v *Volume) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	if v.pool.queue == nil || v.pool.prompt != nil && !v.pool.prompt.Direct() {
		return false
	}
	f := v.board(p, off, true)
	if f == nil {
		return false
	}
	f.done = done
	return f.start(v.pool.queue.StartWriteAt)
}

// TryReadAt reads what is in memory and matches its CRC.
func (v *Volume) TryReadAt(p []byte, off int64) (bool, error) {
	m := v.pool.prompt
	if m == nil || m.Direct() || !v.luck.Worth() {
		return false, nil
	}
	f := v.board(p, off, false)
	if f == nil {
		return false, nil
	}
	ok := f.each(m.TryReadAt) && f.matches()
	f.leave()
	v.luck.Note(ok)
	return ok, nil
}

// TryWriteAt copies blocks into the page cache, under the conditions of
// StartWriteAt. One that took long keeps the next ones away for a while.
func (v *Volume) TryWriteAt(p []byte, off int64) (bool, error) {
	m := v.pool.prompt
	if m == nil || m.Direct() || v.brake.On() {
		return false, nil
	}
	f := v.board(p, off, true)
	if f == nil {
		return false, nil
	}
	began := time.Now()
	ok := f.each(m.TryWriteAt)
	v.brake.Note(time.Since(began))
	f.sum()
	f.publish(ok)
	f.leave()
	return ok, nil // WriteAt gives the error its name
}

// board begins a flight, with the gate shared; nil where it would have to wait
// for something, or is not for it to refuse.
func (v *Volume) board(p []byte, off int64, write bool) *flight {
	n := int64(len(p))
	if n == 0 || n > flightBlocks*blockSize || (off|n)&(blockSize-1) != 0 || off < 0 || off%leafSize+n > leafSize || !v.gate.TryRLock() {
		return nil
	}
	if size := v.size.Load(); v.closed || n > size || off > size-n || write && (v.snapshot || v.pool.failed.Load() != nil || v.pool.late()) {
		v.gate.RUnlock()
		return nil
	}
	f := v.pool.flights.Get().(*flight)
	f.v, f.write = v, write
	from := int(off % leafSize / blockSize)
	count := int(n / blockSize)
	f.part = part{
		index: int(off / leafSize), from: from, to: from + count, data: p, target: f.target[:count], crc: f.crc[:count],
	}
	f.left.Store(1)
	f.bad.Store(false)
	if write && f.claim() || !write && f.look() {
		return f
	}
	f.leave()
	return nil
}

// leave ends the flight.
func (f *flight) leave() {
	v := f.v
	f.v, f.part, f.done = nil, part{}, nil
	v.pool.flights.Put(f)
	v.gate.RUnlock()
}

// look copies the map; false when it is not in memory or may be torn.
func (f *flight) look() bool {
	pt := &f.part
	if pt.leaf = f.v.leaf(pt.index); pt.leaf == nil {
		clear(pt.target)
		return true
	}
	l := pt.leaf
	if !l.mu.TryLock() { // it may be on its way into memory
		return false
	}
	defer l.mu.Unlock()
	if l.data == nil || l.suspect {
		return false
	}
	copy(pt.target, l.data.chunk[pt.from:pt.to])
	copy(pt.crc, l.data.crc[pt.from:pt.to])
	if slices.Contains(pt.target, lostChunk) {
		return false
	}
	return f.runs() <= flightRuns
}

// claim plans a write and makes its blocks the flight's own; false when a leaf
// must be made or copied, a block is busy, an intent is not durable yet, or no
// chunk is at hand.
func (f *flight) claim() bool {
	pt, v := &f.part, f.v
	pg := v.pages[pt.index/pageLeaves].Load()
	if pg == nil || pg.refs.Load() != 1 {
		return false
	}
	l := pg.leaves[pt.index%pageLeaves].Load()
	if l == nil || l.refs.Load() != 1 {
		return false
	}
	pt.leaf = l
	if !l.mu.TryLock() {
		return false
	}
	defer l.mu.Unlock()
	if l.gone || l.data == nil || l.suspect || l.data.anyBusy(pt.from, pt.to) {
		return false
	}
	inPlace, err := v.place(pt)
	if err != nil || inPlace && l.intent != intentHeld || f.runs() > flightRuns {
		return false // a chunk that was taken meanwhile stays the region's own, for the write that follows
	}
	l.used = l.used || inPlace
	for b := pt.from; b < pt.to; b++ {
		l.data.fresh[b/chunkBlocks] &^= 1 << (b % chunkBlocks)
	}
	return l.claim(pt.from, pt.to)
}

// runs is the number of transfers.
func (f *flight) runs() (n int) {
	for b := f.part.from; b < f.part.to; b = f.part.run(b) {
		n++
	}
	return n
}

// each calls do for the blocks that lie side by side, until it is false; holes
// are zeros.
func (f *flight) each(do func(p []byte, off int64) bool) bool {
	pt := &f.part
	for b := pt.from; b < pt.to; {
		end := pt.run(b)
		p := pt.bytes(b, end)
		if c := pt.target[b-pt.from]; c == 0 {
			clear(p)
		} else if !do(p, blockAt(c, b)) {
			return false
		}
		b = end
	}
	return true
}

// start begins the transfers. When not even the first one can be, nothing has
// happened.
func (f *flight) start(transfer func(p []byte, off int64, done func(ok bool)) bool) bool {
	begun := 0
	all := f.each(func(p []byte, off int64) bool {
		f.left.Add(1)
		if !transfer(p, off, f.landed) {
			f.left.Add(-1)
			return false
		}
		begun++
		return true
	})
	if !all && begun == 0 {
		f.publish(false)
		f.leave()
		return false
	}
	if f.write {
		f.sum() // while the disk is at work
	}
	if f.over(all) {
		f.land()
	}
	return true
}

// over counts a transfer that has ended, and tells whether it was the last.
func (f *flight) over(ok bool) bool {
	if !ok {
		f.bad.Store(true)
	}
	return f.left.Add(-1) == 0
}

// sum notes the CRCs of what is written.
func (f *flight) sum() {
	ahead(f.part.data, 0)
	for i := range f.part.crc {
		ahead(f.part.data, i+1)
		f.part.crc[i] = checksum(f.part.data[i*blockSize : (i+1)*blockSize])
	}
}

// land ends a flight whose transfers have ended.
func (f *flight) land() {
	ok := !f.bad.Load()
	if !f.write {
		ok = ok && f.matches()
	}
	f.publish(ok)
	done := f.done
	f.leave()
	done(ok)
}

// publish makes a write the volume's, or only lets go of its blocks.
func (f *flight) publish(ok bool) {
	if !f.write {
		return
	}
	if ok {
		f.part.done = f.part.to - f.part.from
	}
	f.v.publish(&f.part)
}

// matches compares what was read with its CRCs.
func (f *flight) matches() bool {
	pt := &f.part
	ahead(pt.data, 0)
	for i, c := range pt.target {
		ahead(pt.data, i+1)
		if c != 0 && !f.v.pool.rules.noVerify && checksum(pt.data[i*blockSize:(i+1)*blockSize]) != pt.crc[i] {
			return false
		}
	}
	return true
}
