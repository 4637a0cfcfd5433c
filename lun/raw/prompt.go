package raw

import (
	"sync"
	"sync/atomic"
	"time"

	"ripstop/lun"
)

var _ lun.Prompt = (*volume)(nil)

// TryReadAt reads what the page cache holds. What is wrong with the range or
// the volume is for ReadAt to say.
func (v *volume) TryReadAt(p []byte, off int64) (bool, error) {
	if v.direct() || len(p) > promptMax || !v.fits(off, int64(len(p))) || !v.luck.worth() {
		return false, nil
	}
	ok := v.file.TryReadAt(p, off)
	v.luck.note(ok)
	return ok, nil
}

// luck tells whether it is worth to look into the page cache first: a look in
// vain slows a read through the ring by a quarter. After a row of misses
// only one read in eight looks, until one hits. Its zero value looks.
type luck struct{ misses atomic.Uint32 }

const badLuck = 16 // misses in a row

func (l *luck) worth() bool {
	n := l.misses.Load()
	return n < badLuck || l.misses.Add(1)%8 == 0
}

func (l *luck) note(hit bool) {
	if hit {
		if l.misses.Load() != 0 {
			l.misses.Store(0)
		}
		return
	}
	if l.misses.Load() < badLuck {
		l.misses.Add(1)
	}
}

// TryWriteAt copies whole mapped blocks into the page cache, unless somebody
// changes the map there. No file system promises that such a copy never waits:
// ext4 knows no RWF_NOWAIT for it, and the kernel holds back who makes pages
// dirty faster than the disk takes them. So one that took long keeps the next
// ones away for a while (see brake).
func (v *volume) TryWriteAt(p []byte, off int64) (bool, error) {
	n := int64(len(p))
	if v.direct() || (off|n)%blockSize != 0 || n == 0 || n > promptMax || !v.fits(off, n) || v.failed.Load() != nil || v.brake.on() {
		return false, nil
	}
	if !v.stripes.tryShare(off, n) {
		return false, nil
	}
	defer v.stripes.each(off, n, (*sync.RWMutex).RUnlock)
	if v.missing(off, n) != 0 {
		return false, nil
	}
	began := time.Now()
	err := v.put(p, off)
	v.brake.note(time.Since(began))
	return true, err
}

const (
	promptMax = 1 << 20                // bytes of a copy at once: some 100 µs
	slowWrite = 10 * time.Millisecond  // longer than a copy, and than a time slice of another process
	slowFor   = 100 * time.Millisecond // without writes at once after a slow one
)

// brake keeps writes away from who must not wait, while the kernel makes
// writers wait. Its zero value is off.
type brake struct {
	until atomic.Int64 // nanoseconds since 1970; 0 is off
}

func (b *brake) on() bool {
	until := b.until.Load()
	if until == 0 {
		return false
	}
	if time.Now().UnixNano() < until {
		return true
	}
	b.until.CompareAndSwap(until, 0)
	return false
}

func (b *brake) note(took time.Duration) {
	if took > slowWrite {
		b.until.Store(time.Now().Add(slowFor).UnixNano())
	}
}
