package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ripstop/internal/uring"
)

// direct is the same data file opened with O_DIRECT: transfers go between the
// caller's memory and the disk. Offsets and lengths must be multiples of
// granule; memory that is not aligned goes through a buffer that is.
type direct struct {
	*os.File
	granule int64 // bytes, a power of two of at most blockSize
	memory  int   // bytes, alignment of buffers
	buffers sync.Pool
	queue   *uring.File // nil where there is no ring
	pair    *uring.Pair // likewise
}

// ErrRefused is a file system that has no O_DIRECT.
var ErrRefused = errors.New("its file system does not let data past the page cache")

// openDirect opens a data file past the page cache; ErrRefused where it cannot be.
func openDirect(path string, ring *uring.Ring) (*direct, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if errors.Is(err, unix.EINVAL) {
		return nil, ErrRefused
	}
	if err != nil {
		return nil, err
	}
	d := &direct{File: f}
	conn, err := f.SyscallConn()
	if err == nil {
		err = errors.Join(conn.Control(func(fd uintptr) { err = d.prepare(int(fd), ring) }), err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

// prepare asks what must be aligned. Kernels before 6.1 do not tell: 4096 is
// enough everywhere.
func (d *direct) prepare(fd int, ring *uring.Ring) error {
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &st); err != nil {
		return os.NewSyscallError("statx", err)
	}
	d.granule, d.memory = blockSize, blockSize
	if st.Mask&unix.STATX_DIOALIGN != 0 {
		d.granule, d.memory = int64(st.Dio_offset_align), int(st.Dio_mem_align)
	}
	if d.granule == 0 || d.granule > blockSize {
		return ErrRefused
	}
	d.buffers.New = func() any { b := Aligned(64 << 10); return &b }
	if ring != nil {
		// A file system without such locks has the ring nevertheless.
		_ = unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB)
		d.queue, _ = ring.Register(fd) // where it has no place, threads do it
		d.pair, _ = uring.NewPair(fd)
	}
	return nil
}

// Aligned is n zero bytes at an address that is a multiple of 4096, which any
// O_DIRECT takes.
func Aligned(n int) []byte {
	b := make([]byte, n+blockSize)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & (blockSize - 1))
	return b[skip : skip+n : skip+n]
}

// fit tells whether the kernel takes the transfer as it is.
func (d *direct) fit(p []byte, off int64) bool {
	return (off|int64(len(p)))&(d.granule-1) == 0 && int(uintptr(unsafe.Pointer(unsafe.SliceData(p))))&(d.memory-1) == 0
}

// ReadAt is pread(2), through a buffer where it must be.
func (d *direct) ReadAt(p []byte, off int64) (int, error) {
	if d.fit(p, off) {
		return d.File.ReadAt(p, off)
	}
	return d.bounce(p, off, func(edge, piece []byte, skip, at int64) (int, error) {
		n, err := d.File.ReadAt(edge, at)
		n = copy(piece, edge[min(skip, int64(n)):n])
		if n == len(piece) {
			err = nil
		}
		return n, err
	})
}

// WriteAt is pwrite(2), through a buffer where it must be. A write that is not
// of whole granules reads first; the caller has its neighbours to itself then.
func (d *direct) WriteAt(p []byte, off int64) (int, error) {
	if d.fit(p, off) {
		return d.File.WriteAt(p, off)
	}
	return d.bounce(p, off, func(edge, piece []byte, skip, at int64) (int, error) {
		if int64(len(piece)) != int64(len(edge)) {
			n, err := d.File.ReadAt(edge, at)
			if err != nil && !errors.Is(err, io.EOF) {
				return 0, err
			}
			clear(edge[n:]) // behind the end of the file
		}
		copy(edge[skip:], piece)
		n, err := d.File.WriteAt(edge, at)
		return max(0, min(n-int(skip), len(piece))), err
	})
}

// bounce does a transfer in pieces; edge is an aligned buffer for the granules
// around a piece, which begins skip bytes into it and lies at byte at.
func (d *direct) bounce(p []byte, off int64, do func(edge, piece []byte, skip, at int64) (int, error)) (int, error) {
	b := d.buffers.Get().(*[]byte)
	defer d.buffers.Put(b)
	done := 0
	for done < len(p) {
		at := off + int64(done)
		skip := at & (d.granule - 1)
		piece := p[done:min(len(p), done+len(*b)-int(skip))]
		end := (skip + int64(len(piece)) + d.granule - 1) &^ (d.granule - 1)
		n, err := do((*b)[:end], piece, skip, at-skip)
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// WritePair writes p at off and r at to, with one call that waits for both; only past
// the page cache. Without true any part of both may be written.
func (f *File) WritePair(p []byte, off int64, r []byte, to int64) bool {
	d := f.past.Load()
	return d != nil && d.pair != nil && d.fit(p, off) && d.fit(r, to) && d.pair.Write(p, off, r, to)
}

// Close waits for what the ring still does with the file, which has no lock then: the
// kernel may keep it open for another second.
func (d *direct) Close() error {
	var err error
	if d.queue != nil {
		err = d.queue.Close()
	}
	if d.pair != nil {
		err = errors.Join(err, d.pair.Close())
	}
	if conn, bad := d.File.SyscallConn(); bad == nil {
		_ = conn.Control(func(fd uintptr) { _ = unix.Flock(int(fd), unix.LOCK_UN) })
	}
	return errors.Join(err, d.File.Close())
}

// predecessor is how long an open waits for the writes of a process that is gone.
const predecessor = 8 * time.Second

// outlast waits until no ring of a former process has the file open past the page cache.
// A ring does not end with its process: requests that the disk has are waited for by a
// worker of the kernel (io_uring/io_uring.c, io_ring_exit_work), while exit goes on, so
// a write could come after what is written next. flock(2) of a file that a ring has is held
// until that is over.
func (f *File) outlast(patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := f.Control(func(fd int) error { return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
		switch {
		case err == nil:
			return f.Control(func(fd int) error { return unix.Flock(fd, unix.LOCK_UN) })
		case errors.Is(err, unix.EINTR):
		case !errors.Is(err, unix.EWOULDBLOCK):
			return nil // the file system has no such locks
		case time.Now().After(end):
			return fmt.Errorf("%s: what a former process has begun to write has not ended: look at its disk, and at who else has the file", f.Name())
		}
	}
}

// SetDirect chooses between the page cache and going past it; ErrRefused where
// the file system does not let data past it. The caller holds off writes. What the cache holds is on the disk before it is passed.
func (f *File) SetDirect(on bool) error {
	old := f.past.Load()
	if on == (old != nil) {
		return nil
	}
	if !on {
		f.past.Store(nil)
		return old.Close()
	}
	d, err := openDirect(f.Name(), f.ring)
	if err != nil {
		return err
	}
	if err := f.Datasync(); err != nil {
		return errors.Join(fmt.Errorf("write out the page cache: %w", err), d.Close())
	}
	f.past.Store(d)
	return f.Forget()
}

// Align has what goes past the page cache be in whole multiples of granule, a
// power of two of at most 4096, as a disk with larger sectors asks for. No
// transfer may be under way.
func (f *File) Align(granule int64) {
	if d := f.past.Load(); d != nil {
		d.granule, d.memory = max(d.granule, granule), max(d.memory, int(granule))
	}
}

// Direct is the granule of what goes past the page cache, 0 for nothing does.
func (f *File) Direct() int64 {
	if d := f.past.Load(); d != nil {
		return d.granule
	}
	return 0
}
