package raw

import (
	"sync"
	"time"

	"ripstop/lun"
)

var _ lun.Prompt = (*volume)(nil)

// TryReadAt reads what the page cache holds. What is wrong with the range or
// the volume is for ReadAt to say.
func (v *volume) TryReadAt(p []byte, off int64) (bool, error) {
	if v.direct() || len(p) > promptMax || !v.fits(off, int64(len(p))) || !v.luck.Worth() {
		return false, nil
	}
	ok := v.file.TryReadAt(p, off)
	v.luck.Note(ok)
	return ok, nil
}

// TryWriteAt copies whole mapped blocks into the page cache, unless somebody
// changes the map there. One that took long keeps the next ones away for a while.
func (v *volume) TryWriteAt(p []byte, off int64) (bool, error) {
	n := int64(len(p))
	if v.direct() || (off|n)%blockSize != 0 || n == 0 || n > promptMax || !v.fits(off, n) || v.failed.Load() != nil || v.brake.On() {
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
	v.brake.Note(time.Since(began))
	return true, err
}

const promptMax = 1 << 20 // bytes of a copy at once: some 100 µs
