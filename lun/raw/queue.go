package raw

import (
	"sync"

	"ripstop/lun"
)

var _ lun.Queue = (*volume)(nil)

// StartReadAt reads through the ring.
func (v *volume) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	return v.fits(off, int64(len(p))) && v.file.StartReadAt(p, off, done)
}

// StartWriteAt writes mapped blocks through the ring, where data go past the page
// cache. The regions stay shared until the end of the write.
func (v *volume) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	n := int64(len(p))
	if n == 0 || !v.direct() || !v.fits(off, n) || v.failed.Load() != nil || !v.stripes.tryShare(off, n) {
		return false
	}
	if !v.closed.Load() && v.missing(off, n) == 0 {
		f := v.flights.Get().(*flight)
		f.v, f.off, f.n, f.done = v, off, n, done
		if v.file.StartWriteAt(p, off, f.landed) {
			return true
		}
		f.done = nil
		v.flights.Put(f)
	}
	v.stripes.each(off, n, (*sync.RWMutex).RUnlock)
	return false
}

// flight is a write that the ring has.
type flight struct {
	v      *volume
	off, n int64
	done   func(ok bool)
	landed func(ok bool) // made once, so that a write allocates nothing
}

func newFlight() any {
	f := &flight{}
	f.landed = f.land
	return f
}

func (f *flight) land(ok bool) {
	v, done := f.v, f.done
	v.stripes.each(f.off, f.n, (*sync.RWMutex).RUnlock)
	f.done = nil
	v.flights.Put(f)
	done(ok)
}
