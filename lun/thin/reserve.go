package thin

import (
	"context"
	"errors"
	"fmt"

	"ripstop/lun"
)

// A reserved volume has room in the pool for all of its blocks. What it may
// still need is promised: one chunk for each region in which no chunk is its
// alone, for in one that is its alone every block of the region has a place.
//
//	free chunks   │ map │ reserve │ promised │ what others may take │
//
// Without snapshots the promise shrinks as the volume is filled. A snapshot
// makes everything shared, so all of the volume is promised anew, and a pool
// without that room refuses the snapshot. A promise is chunks that the file
// has: it does not depend on the file system.

// Reserve promises a volume room for all of its blocks, or takes the promise
// back. A pool without that room refuses with lun.ErrNoSpace. It is durable.
func (p *Pool) Reserve(ctx context.Context, name string, on bool) error {
	p.control.Lock()
	defer p.control.Unlock()
	if err := p.setReserved(ctx, name, on); err != nil {
		return fmt.Errorf("reserve room for LUN %s: %w", name, err)
	}
	return nil
}

// Reserved tells whether the volume has room for all of its blocks.
func (v *Volume) Reserved() bool { return v.reserved.Load() }

func (p *Pool) setReserved(ctx context.Context, name string, on bool) error {
	v, err := p.Volume(name)
	if err != nil {
		return err
	}
	if v.snapshot {
		return errors.New("it is a snapshot, which takes no writes")
	}
	v.gate.Lock()
	defer v.gate.Unlock()
	if v.reserved.Load() == on {
		return p.writable()
	}
	before := v.promise
	if on {
		if err := p.commit(); err != nil { // what it gave up is not its any more
			return err
		}
		err = p.promise(v, promise{v.unmet(), mapChunks(v.size.Load())})
	} else {
		p.space.promise(&v.promise, promise{})
	}
	if err != nil {
		return err
	}
	err = p.restructure(ctx, func() error {
		v.reserved.Store(on)
		p.wal.add(false, func(b []byte) []byte { return appendReserve(b, v.number, on) })
		return nil
	})
	if err != nil {
		v.reserved.Store(!on)
		p.space.promise(&v.promise, before)
	}
	return err
}

// mapChunks is what the map of a volume may take besides its data: its leaves
// twice, for a checkpoint writes them to new places.
func mapChunks(size int64) int64 { return 1 + size/leafSize/(chunkNodes/2) }

func regions(size int64) int64 { return (size + chunkSize - 1) / chunkSize }

// promise is chunks that a volume may still take.
type promise struct{ data, maps int64 }

// promise makes want what is promised to a volume. With its gate held.
func (p *Pool) promise(v *Volume, want promise) error {
	before := v.promise
	p.space.promise(&v.promise, want) // others see it before they take more
	for try := 0; ; {
		missing, data := p.space.missing(p.reserve() + p.debt())
		if missing <= 0 || want.data <= before.data && want.maps <= before.maps {
			return nil
		}
		if !data && p.expand() {
			continue
		}
		var err error
		if try++; try > 1 {
			err = fmt.Errorf("%d bytes are to be promised, and %d are missing: %w: %s",
				want.data*chunkSize, missing*chunkSize, lun.ErrNoSpace, "grow the pool, or delete snapshots or LUNs")
		} else {
			err = p.checkpoint(false) // what was given up is free after it
		}
		if err != nil {
			p.space.promise(&v.promise, before)
			return err
		}
	}
}

// missing is the chunks that are promised and cannot be kept, when spare ones
// go to nobody; data tells that the bound of data is why.
func (s *space) missing(spare int64) (n int64, data bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n = s.promised.data + s.data.Load() - s.bound.Load(); n > 0 {
		return n, true
	}
	return s.promised.data + s.promised.maps + spare - s.free.Load(), false
}

// wants is the chunks that must become free for what is promised and spare ones.
func (s *space) wants(spare int64) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.promised.data + s.promised.maps + spare - s.free.Load()
}

// unmet is the regions without a chunk that is the volume's alone. With its
// gate held and nothing of it pending.
func (v *Volume) unmet() int64 {
	n := regions(v.size.Load())
	v.leaves(func(l *leaf, alone bool) {
		if alone {
			n -= int64(l.covered.Load())
		}
	})
	return n
}

// promiseAll promises anew what a volume shares from now on with a snapshot.
// With its gate held.
func (p *Pool) promiseAll(v *Volume) (undo func(), err error) {
	if !v.reserved.Load() {
		return func() {}, nil
	}
	before := v.promise
	size := v.size.Load()
	if err := p.promise(v, promise{regions(size), mapChunks(size)}); err != nil {
		return nil, fmt.Errorf("room is reserved for LUN %s, which would share all of it: %w", v.shape().name, err)
	}
	return func() { p.space.promise(&v.promise, before) }, nil
}

// repromise counts anew what reserved volumes need, after others went.
func (p *Pool) repromise() error {
	for _, v := range p.list() {
		if !v.reserved.Load() {
			continue
		}
		v.gate.Lock()
		err := p.commit()
		if err == nil {
			p.space.promise(&v.promise, promise{v.unmet(), mapChunks(v.size.Load())})
		}
		v.gate.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// uncovered notes that a region of a reserved volume has no chunk of its own
// any more, if it had one before. With the leaf's mu held.
func (v *Volume) uncovered(d *leafData, r int, before bool) {
	if before && !d.coveredIn(r, &v.pool.space) {
		v.pool.space.owe(&v.promise)
	}
}

// covers tells whether the volume is reserved and a chunk of the region is its.
func (v *Volume) covers(d *leafData, r int) bool {
	return v.reserved.Load() && d.coveredIn(r, &v.pool.space)
}

func (d *leafData) coveredIn(r int, s *space) bool {
	if c := d.own[r]; c != 0 && s.exclusive(c) {
		return true
	}
	for _, c := range d.chunk[r*chunkBlocks : (r+1)*chunkBlocks] {
		if c != 0 && s.exclusive(c) {
			return true
		}
	}
	return false
}

// takeData is a chunk for a region of the volume, of those that the file has.
func (v *Volume) takeData(l *leaf, r int) (uint32, error) {
	p := v.pool
	spare, need := p.debt(), &v.promise
	if !v.reserved.Load() {
		spare, need = spare+p.reserve(), nil
	}
	if c, ok := p.space.takeData(l, r, spare, need); ok {
		return c, nil
	}
	return 0, fmt.Errorf("the pool is full: %w", lun.ErrNoSpace)
}

// reclaim makes free what was given up and is not free yet; false when there
// is nothing such.
func (v *Volume) reclaim() (bool, error) {
	p := v.pool
	if v.reserved.Load() { // it has its room: the map of others may stand on it until the next super
		return true, errors.Join(p.commit(), p.checkpoint(false))
	}
	if !p.wal.gives() {
		return false, nil
	}
	return true, p.commit()
}
