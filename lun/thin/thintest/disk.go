package thintest

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// SectorSize is the bytes that a power cut leaves together.
const SectorSize = 512

const pageSize = 4096

// ErrCut is what every operation gives once the power is gone.
var ErrCut = errors.New("the power is cut")

// Op is what is asked of a disk.
type Op int

// The operations that Inject sees.
const (
	Read Op = iota
	Write
	Sync
	Grow
	Punch
)

type page [pageSize]byte

// change is an unsynced write; data nil are zeros.
type change struct {
	off, n int64
	data   []byte
}

// Disk is a disk in memory. It is safe for concurrent use.
type Disk struct {
	mu     sync.Mutex
	rand   *rand.Rand
	inject func(op Op, off, n int64) error
	left   int // changes until the power is cut; negative is never
	cut    bool

	stable, now []*page // nil is zeros; pages of stable are never changed
	size        int64   // now
	stableSize  int64
	unsynced    []change
	holes       map[int64]bool // pages that were punched and not filled since

	id  [16]byte // of the pool whose super Record noted
	seq uint64
}

// New is a disk of zeros. Equal seeds and equal calls give equal crashes.
func New(seed uint64, size int64) *Disk {
	n := pages(size)
	return &Disk{
		rand: rand.New(rand.NewPCG(seed, 0)), left: -1, holes: map[int64]bool{},
		stable: make([]*page, n), now: make([]*page, n), size: size, stableSize: size,
	}
}

func pages(size int64) int { return int((size + pageSize - 1) / pageSize) }

// Inject calls fn before every operation, with no lock held: an error is what
// the operation gives, without any effect; blocking is a disk that hangs.
func (d *Disk) Inject(fn func(op Op, off, n int64) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inject = fn
}

// Cut lets the power fail in the n-th change from now: a write, sync, grow or
// punch; 1 is the next one.
func (d *Disk) Cut(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.left = n
}

// CutNow lets the power fail before the next operation.
func (d *Disk) CutNow() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cut = true
}

func (d *Disk) ask(op Op, off, n int64) error {
	d.mu.Lock()
	fn := d.inject
	d.mu.Unlock()
	if fn == nil {
		return nil
	}
	return fn(op, off, n)
}

// change counts down to the cut. With the lock held.
func (d *Disk) change() error {
	if d.left > 0 {
		if d.left--; d.left == 0 {
			d.cut = true
		}
	}
	if d.cut {
		return ErrCut
	}
	return nil
}

// ReadAt reads what was written last, synced or not.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if err := d.ask(Read, off, int64(len(p))); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut {
		return 0, ErrCut
	}
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, io.EOF
	}
	for n := 0; n < len(p); {
		at := off + int64(n)
		part := p[n:min(len(p), n+int(pageSize-at%pageSize))]
		if pg := d.now[at/pageSize]; pg != nil {
			copy(part, pg[at%pageSize:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	return len(p), nil
}

// WriteAt writes inside the size; a cut may let a part of it land.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if err := d.ask(Write, off, int64(len(p))); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, fmt.Errorf("write %d bytes at %d of %d: outside the disk", len(p), off, d.size)
	}
	if d.punched(off, int64(len(p))) {
		return 0, fmt.Errorf("write %d bytes at %d: what was punched was not filled again", len(p), off)
	}
	alive := !d.cut
	err := d.change()
	if alive {
		c := change{off: off, n: int64(len(p)), data: slices.Clone(p)}
		d.unsynced = append(d.unsynced, c)
		d.put(d.now, c, 0, c.n)
	}
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// put copies the bytes from..to of a change into pages, which it copies first
// where they are those of stable.
func (d *Disk) put(in []*page, c change, from, to int64) {
	for at := from; at < to; {
		i, o := (c.off+at)/pageSize, (c.off+at)%pageSize
		n := min(to-at, pageSize-o)
		if i >= int64(len(in)) {
			return
		}
		pg := in[i]
		if pg == nil || pg == d.stable[i] {
			pg = new(page)
			if in[i] != nil {
				*pg = *in[i]
			}
			in[i] = pg
		}
		if c.data == nil {
			clear(pg[o : o+n])
		} else {
			copy(pg[o:o+n], c.data[at:at+n])
		}
		at += n
	}
}

// Sync makes everything written before it stable.
func (d *Disk) Sync() error {
	if err := d.ask(Sync, 0, 0); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.change(); err != nil {
		return err
	}
	for _, c := range d.unsynced {
		for i := c.off / pageSize; i*pageSize < c.off+c.n; i++ {
			d.stable[i] = d.now[i]
		}
	}
	d.unsynced = d.unsynced[:0]
	d.stableSize = d.size
	return nil
}

// StartReadAt is a ReadAt that ends before the return, as a Queue's may.
func (d *Disk) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	_, err := d.ReadAt(p, off)
	done(err == nil)
	return true
}

// StartWriteAt is a WriteAt that ends before the return.
func (d *Disk) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	_, err := d.WriteAt(p, off)
	done(err == nil)
	return true
}

// WritePair is two WriteAts, of which a cut may lose either.
func (d *Disk) WritePair(p []byte, off int64, r []byte, to int64) bool {
	_, err := d.WriteAt(p, off)
	_, other := d.WriteAt(r, to)
	return err == nil && other == nil
}

// Size is the bytes that the disk has now.
func (d *Disk) Size() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.size, nil
}

// Grow makes the disk larger; until a sync a cut may take that back.
func (d *Disk) Grow(size int64) error {
	if err := d.ask(Grow, size, 0); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.change(); err != nil {
		return err
	}
	if more := pages(size) - len(d.now); more > 0 {
		d.now = append(d.now, make([]*page, more)...)
		d.stable = append(d.stable, make([]*page, more)...)
	}
	d.size = max(d.size, size)
	return nil
}

// Fill gives a range room again, which Inject sees as a Grow where some of it was
// punched; what still has its room needs none.
func (d *Disk) Fill(off, n int64) error {
	d.mu.Lock()
	punched := d.punched(off, n)
	d.mu.Unlock()
	if !punched {
		return nil
	}
	if err := d.ask(Grow, off+n, 0); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := off / pageSize; i < (off+n)/pageSize; i++ {
		delete(d.holes, i)
	}
	return nil
}

// punched tells whether some page of a range has no room. With the lock held.
func (d *Disk) punched(off, n int64) bool {
	for i := off / pageSize; len(d.holes) > 0 && i <= (off+n-1)/pageSize; i++ {
		if d.holes[i] {
			return true
		}
	}
	return false
}

// Punch makes n bytes at off zeros.
func (d *Disk) Punch(off, n int64) error {
	if err := d.ask(Punch, off, n); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.change(); err != nil {
		return err
	}
	c := change{off: off, n: n}
	d.unsynced = append(d.unsynced, c)
	d.put(d.now, c, 0, n)
	for i := off / pageSize; i < (off+n)/pageSize; i++ {
		d.holes[i] = true
	}
	return nil
}

// Crash is the disk after the power has come back: what was synced, and of
// every unsynced change a random part. The old disk is of no more use.
func (d *Disk) Crash() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &Disk{rand: d.rand, left: -1, size: d.stableSize, stable: d.stable, holes: d.holes, id: d.id, seq: d.seq}
	if d.size > d.stableSize && d.rand.IntN(2) == 0 {
		n.size = d.size
	}
	n.now = slices.Clone(d.stable)
	lands := d.rand.IntN(101)    // per cent, of this crash
	tears := d.rand.IntN(2) == 0 // or each change lands whole or not at all
	for _, c := range d.unsynced {
		whole := d.rand.IntN(100) < lands
		for at := int64(0); at < c.n; {
			step := min(c.n-at, SectorSize-(c.off+at)%SectorSize)
			if tears && d.rand.IntN(100) < lands || !tears && whole {
				n.put(n.now, c, at, at+step)
			}
			at += step
		}
	}
	count := pages(n.size)
	n.now = n.now[:count]
	n.stable = slices.Clone(n.now)
	n.stableSize = n.size
	return n
}

// Revive is the disk after whoever used it was killed: it has forgotten nothing,
// and what was not synced still is not. The old disk is of no more use.
func (d *Disk) Revive() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &Disk{rand: d.rand, left: -1, stable: d.stable, now: d.now, size: d.size, stableSize: d.stableSize,
		unsynced: d.unsynced, holes: d.holes, id: d.id, seq: d.seq}
}

// Lose is what becomes of unsynced changes when writing them fails: the disk never
// gets them, but a cache gives them to who reads, until Forget.
func (d *Disk) Lose() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unsynced = nil
}

// Forget has everything that is not unsynced be read from the disk.
func (d *Disk) Forget() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut {
		return ErrCut
	}
	d.now = slices.Clone(d.stable)
	for _, c := range d.unsynced {
		d.put(d.now, c, 0, c.n)
	}
	return nil
}

// Record notes a super outside of the disk, where no cut takes it away.
func (d *Disk) Record(id [16]byte, _, seq uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.cut {
		return ErrCut
	}
	d.id, d.seq = id, seq
	return nil
}

// Recorded is what Record noted of a pool.
func (d *Disk) Recorded(id [16]byte) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if id != d.id {
		return 0, nil
	}
	return d.seq, nil
}

// Remember notes what another disk has noted, as if the other's content had been
// replaced by this one's.
func (d *Disk) Remember(other *Disk) {
	other.mu.Lock()
	id, seq := other.id, other.seq
	other.mu.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.id, d.seq = id, seq
}

// Clone is a copy of what the disk holds now, all of it stable, without what was
// noted outside of it.
func (d *Disk) Clone() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := &Disk{rand: rand.New(rand.NewPCG(d.rand.Uint64(), 1)), left: -1, size: d.size, stableSize: d.size, holes: maps.Clone(d.holes)}
	n.stable = make([]*page, len(d.now))
	for i, pg := range d.now {
		if pg != nil {
			c := *pg
			n.stable[i] = &c
		}
	}
	n.now = slices.Clone(n.stable)
	return n
}

// Flip inverts one bit, at once and for good.
func (d *Disk) Flip(off int64, bit uint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var b byte
	i := off / pageSize
	if d.now[i] != nil {
		b = d.now[i][off%pageSize]
	}
	d.put(d.now, change{off: off, n: 1, data: []byte{b ^ 1<<(bit%8)}}, 0, 1)
	d.stable[i] = d.now[i]
}
