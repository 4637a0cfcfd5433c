package raw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"ripstop/internal/disk"
	"ripstop/lun"
)

const pieceSize = 16 << 20 // bytes that a long operation handles under its locks at a time

// volume is a LUN in service.
type volume struct {
	is   atomic.Pointer[label]
	pool *pool
	meta lunMeta // as it was opened; the size is size, the id that of is
	file file

	size    atomic.Int64
	used    atomic.Int64          // bytes of mapped blocks
	failed  atomic.Pointer[error] // why there are no more writes
	onFault func(lun string)      // Options.OnFault
	closed  atomic.Bool           // set with all stripes held
	syncer  syncer
	brake   disk.Brake // of TryWriteAt
	luck    disk.Luck  // of TryReadAt

	flights sync.Pool // *flight

	stripes stripes
	bitmap  bitmap // under the stripes
}

var _ lun.Gauge = (*volume)(nil)

// label is what Rename changes of a volume.
type label struct {
	name string
	id   id
}

func (v *volume) name() string { return v.is.Load().name }

// Info is the volume as it is now.
func (v *volume) Info() lun.Info {
	is := v.is.Load()
	return lun.Info{
		Name: is.name, ID: is.id, Size: v.size.Load(), BlockSize: v.meta.Block,
		ReadOnly: v.failed.Load() != nil,
	}
}

// Usage is the accounts of the volume and of its pool.
func (v *volume) Usage() lun.Usage {
	return lun.Usage{PoolSize: v.pool.size.Load(), PoolUsed: v.pool.used.Load(), Used: v.used.Load()}
}

func (v *volume) shape() lun.LUN {
	return lun.LUN{Pool: v.pool.name, Size: v.size.Load(), Block: v.meta.Block, Fault: v.broken()}
}

// broken is why there are no more writes, "" while there are.
func (v *volume) broken() string {
	if why := v.failed.Load(); why != nil {
		return (*why).Error()
	}
	return ""
}

// ReadAt reads without a lock: holes read as zeros by themselves.
func (v *volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := v.check(ctx, off, int64(len(p))); err != nil {
		return err
	}
	n, err := v.file.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	return v.fault("read", off+int64(n), err)
}

// WriteAt writes p, all or nothing as far as the pool's room goes.
func (v *volume) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if err := errors.Join(v.check(ctx, off, int64(len(p))), v.writable()); err != nil {
		return err
	}
	if len(p) > 0 {
		if err := v.write(p, off); err != nil {
			return err
		}
	}
	if fua {
		return v.sync()
	}
	return nil
}

func (v *volume) write(p []byte, off int64) error {
	n := int64(len(p))
	v.stripes.each(off, n, (*sync.RWMutex).RLock)
	if !v.rough(off, n) && v.missing(off, n) == 0 {
		defer v.stripes.each(off, n, (*sync.RWMutex).RUnlock)
		return v.put(p, off)
	}
	v.stripes.each(off, n, (*sync.RWMutex).RUnlock)
	v.stripes.each(off, n, (*sync.RWMutex).Lock)
	defer v.stripes.each(off, n, (*sync.RWMutex).Unlock)
	return v.fill(p, off)
}

// direct tells whether data go past the page cache.
func (v *volume) direct() bool { return v.file.Direct() != 0 }

// rough tells whether a write must read what lies around it first, and so have
// its regions alone. The caller has or shares them, so that it stays true.
func (v *volume) rough(off, n int64) bool {
	granule := v.file.Direct()
	return granule != 0 && (off|n)&(granule-1) != 0
}

// setDirect chooses the way of data while nobody writes, which is not for long:
// what the page cache holds has been written out before.
func (v *volume) setDirect(on bool) error {
	if on && !v.direct() {
		if err := v.sync(); err != nil {
			return err
		}
	}
	v.stripes.all((*sync.RWMutex).Lock)
	defer v.stripes.all((*sync.RWMutex).Unlock)
	return v.file.SetDirect(on)
}

// missing is how many blocks under n bytes at off are not mapped.
func (v *volume) missing(off, n int64) int64 {
	first, end := off/blockSize, up(off+n)/blockSize
	return end - first - v.bitmap.count(first, end)
}

// put writes p; the caller holds or shares its regions.
func (v *volume) put(p []byte, off int64) error {
	n, err := v.file.WriteAt(p, off)
	if err == nil {
		return nil
	}
	return v.fault("write", off+int64(n), err)
}

// fill writes p and maps what it needs; the caller holds its regions alone.
func (v *volume) fill(p []byte, off int64) error {
	if v.closed.Load() {
		return v.fault("write", off, os.ErrClosed)
	}
	n := int64(len(p))
	need := v.missing(off, n) * blockSize
	if need > 0 && !v.pool.reserve(need) {
		return fmt.Errorf("write LUN %s: pool %s is full: %w", v.name(), v.pool.name, lun.ErrNoSpace)
	}
	first, end := off/blockSize, up(off+n)/blockSize
	if err := v.put(p, off); err != nil {
		v.undo(first, end)
		return err
	}
	v.bitmap.set(first, end, true)
	v.used.Add(need)
	return nil
}

// undo gives back the room of blocks that a failed write may have filled. Where
// even the hole cannot be made, the blocks are mapped and keep their room.
func (v *volume) undo(first, end int64) {
	for first < end {
		n, mapped := v.bitmap.run(first, end)
		if !mapped {
			if v.file.Punch(first*blockSize, n*blockSize) == nil {
				v.pool.release(n * blockSize)
			} else {
				v.bitmap.set(first, first+n, true)
				v.used.Add(n * blockSize)
			}
		}
		first += n
	}
}

// CompareAndWrite holds its regions alone from the read to the write.
func (v *volume) CompareAndWrite(ctx context.Context, old, data []byte, off int64) error {
	n := int64(len(data))
	if len(old) != len(data) {
		return fmt.Errorf("compare and write LUN %s: %d and %d bytes: %w", v.name(), len(old), len(data), lun.ErrRange)
	}
	if err := errors.Join(v.check(ctx, off, n), v.writable()); err != nil || n == 0 {
		return err
	}
	v.stripes.each(off, n, (*sync.RWMutex).Lock)
	defer v.stripes.each(off, n, (*sync.RWMutex).Unlock)
	is := make([]byte, n)
	if got, err := v.file.ReadAt(is, off); int64(got) < n {
		return v.fault("read", off+int64(got), err)
	}
	if !bytes.Equal(is, old) {
		return &lun.Miscompare{Offset: firstDifference(is, old)}
	}
	return v.fill(data, off)
}

func firstDifference(a, b []byte) int64 {
	for i := range a {
		if a[i] != b[i] {
			return int64(i)
		}
	}
	return int64(len(a))
}

// Flush shares a sync with everybody else who waits for one.
func (v *volume) Flush(ctx context.Context) error {
	if err := errors.Join(v.check(ctx, 0, 0), v.writable()); err != nil {
		return err
	}
	return v.sync()
}

// sync puts the file on stable storage. The kernel reports lost data once, so
// the first failure is the end of writing.
func (v *volume) sync() error {
	if err := v.syncer.wait(v.file.Datasync); err != nil {
		if errors.Is(err, os.ErrClosed) {
			return fmt.Errorf("flush LUN %s: %w", v.name(), lun.ErrClosed)
		}
		err = fmt.Errorf("flush LUN %s: %w: data may be lost, and it takes no more writes: "+
			"look at the disk, then take the LUN out of service and put it back, or restart ripstop", v.name(), err)
		if v.failed.CompareAndSwap(nil, &err) && v.onFault != nil {
			v.onFault(v.name())
		}
		return err
	}
	return v.writable() // an earlier sync of the same data may have failed
}

// check refuses what does not fit the volume.
func (v *volume) check(ctx context.Context, off, n int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if v.closed.Load() {
		return fmt.Errorf("LUN %s: %w", v.name(), lun.ErrClosed)
	}
	if !v.fits(off, n) {
		return fmt.Errorf("LUN %s: %d bytes at %d of %d: %w", v.name(), n, off, v.size.Load(), lun.ErrRange)
	}
	return nil
}

// fits tells whether a range lies in the volume and on its blocks.
func (v *volume) fits(off, n int64) bool {
	block, size := int64(v.meta.Block), v.size.Load()
	return off >= 0 && n >= 0 && n <= size && off <= size-n && (off|n)&(block-1) == 0
}

func (v *volume) writable() error {
	if why := v.failed.Load(); why != nil {
		return fmt.Errorf("%w since: %w", lun.ErrReadOnly, *why)
	}
	return nil
}

// fault is the error for bytes that could not be read or written.
func (v *volume) fault(verb string, off int64, err error) error {
	is := error(&lun.MediumError{Offset: off - off%int64(v.meta.Block), Err: err})
	switch {
	case errors.Is(err, os.ErrClosed):
		is = lun.ErrClosed
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		is = fmt.Errorf("the file system is full: %w", lun.ErrNoSpace)
	case errors.Is(err, unix.EROFS):
		is = fmt.Errorf("the file system is read-only: %w", lun.ErrReadOnly)
	}
	return fmt.Errorf("%s LUN %s: %w", verb, v.name(), is)
}

// extend makes the volume as large as its file has become.
func (v *volume) extend(size int64) {
	v.stripes.all((*sync.RWMutex).Lock)
	defer v.stripes.all((*sync.RWMutex).Unlock)
	v.bitmap.grow(up(size) / blockSize)
	v.size.Store(size)
}

// Settle waits for the writes that are under way.
func (v *volume) Settle() {
	for i := range v.stripes {
		v.stripes[i].Lock()
		v.stripes[i].Unlock() // to have had it is what is wanted
	}
}

// close ends I/O: what holds a region is waited for, what comes later is
// refused. Data are put on stable storage.
func (v *volume) close() error {
	v.stripes.all((*sync.RWMutex).Lock)
	v.closed.Store(true)
	v.stripes.all((*sync.RWMutex).Unlock)
	err := v.writable()
	if err == nil {
		err = v.sync()
	}
	return errors.Join(err, v.file.Close())
}
