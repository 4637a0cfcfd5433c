package raw

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"ripstop/internal/uring"
)

// file is what a volume needs of its data file. Every method may be called
// while another is, Close too: it lets each end.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// TryReadAt is ReadAt of what is in memory. Where something is not, or is
	// wrong, it is false, and p may hold anything.
	TryReadAt(p []byte, off int64) bool
	// StartReadAt begins a ReadAt where that can be done while nobody waits;
	// done is called at its end, and ok tells that all of p is filled.
	StartReadAt(p []byte, off int64, done func(ok bool)) bool
	// StartWriteAt begins a WriteAt in the same way.
	StartWriteAt(p []byte, off int64, done func(ok bool)) bool
	// SetDirect has data go past the page cache, or not. No write may be under way.
	SetDirect(on bool) error
	// Direct is 0 where data go through the page cache. Else a write that is not
	// of whole multiples of it must be alone in its region.
	Direct() int64
	// Datasync puts data, and what is needed to read them, on stable storage.
	Datasync() error
	// Resize sets the size and puts it on stable storage.
	Resize(size int64) error
	// Punch makes a hole of n bytes at off; the size stays.
	Punch(off, n int64) error
	// Data calls yield for the runs of data before size, in order.
	Data(size int64, yield func(off, end int64)) error
}

// diskFile is a file of the host.
type diskFile struct {
	*os.File
	conn  syscall.RawConn
	calls sync.Pool // *vectorCall
	ring  *uring.Ring
	queue *uring.File            // nil where there is no ring
	past  atomic.Pointer[direct] // nil where data go through the page cache
}

// openDisk is os.OpenFile with a mode for nobody else. What is opened for reading
// and writing is known to the ring, if there is one.
func (e *Engine) openDisk(path string, flag int) (file, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	d := &diskFile{File: f, conn: conn, calls: sync.Pool{New: newVectorCall}, ring: e.options.Ring}
	if d.ring != nil && flag == os.O_RDWR {
		err := d.control(func(fd int) (err error) {
			d.queue, err = d.ring.Register(fd)
			return err
		})
		if err != nil {
			e.log.Debug("file without ring", "file", path, "error", err)
		}
	}
	return d, nil
}

// Close waits for what the ring still does with the file.
func (f *diskFile) Close() error {
	var errs []error
	if d := f.past.Swap(nil); d != nil {
		errs = append(errs, d.Close())
	}
	if f.queue != nil {
		errs = append(errs, f.queue.Close())
	}
	return errors.Join(append(errs, f.File.Close())...)
}

// ReadAt reads past the page cache or through it.
func (f *diskFile) ReadAt(p []byte, off int64) (int, error) {
	if d := f.past.Load(); d != nil {
		n, err := d.ReadAt(p, off)
		if !errors.Is(err, os.ErrClosed) {
			return n, err
		} // the way was changed just now
	}
	return f.File.ReadAt(p, off)
}

// WriteAt writes past the page cache or through it.
func (f *diskFile) WriteAt(p []byte, off int64) (int, error) {
	if d := f.past.Load(); d != nil {
		return d.WriteAt(p, off)
	}
	return f.File.WriteAt(p, off)
}

// StartReadAt is a read by the ring.
func (f *diskFile) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	if d := f.past.Load(); d != nil {
		return d.queue != nil && d.fit(p, off) && d.queue.Read(p, off, done)
	}
	return f.queue != nil && f.queue.Read(p, off, done)
}

// StartWriteAt is a write by the ring, past the page cache. Into it a write of
// the ring would wait in a thread of the kernel's, as one of ours does.
func (f *diskFile) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	d := f.past.Load()
	return d != nil && d.queue != nil && d.fit(p, off) && d.queue.Write(p, off, done)
}

// vectorCall is a preadv2(2) that control can run without an allocation.
type vectorCall struct {
	p   [1][]byte
	off int64
	n   int
	err error
	run func(fd uintptr)
}

func newVectorCall() any {
	c := &vectorCall{}
	c.run = func(fd uintptr) { c.n, c.err = unix.Preadv2(int(fd), c.p[:], c.off, unix.RWF_NOWAIT) }
	return c
}

// TryReadAt is preadv2(2) with RWF_NOWAIT, which reads no further than the page
// cache goes.
func (f *diskFile) TryReadAt(p []byte, off int64) bool {
	if f.past.Load() != nil {
		return false
	}
	c := f.calls.Get().(*vectorCall)
	c.p[0], c.off, c.n = p, off, 0
	err := f.conn.Control(c.run)
	ok := err == nil && c.err == nil && c.n == len(p)
	c.p[0], c.err = nil, nil
	f.calls.Put(c)
	return ok
}

// Datasync is fdatasync(2).
func (f *diskFile) Datasync() error {
	return f.control(unix.Fdatasync)
}

// Resize is ftruncate(2) and fsync(2).
func (f *diskFile) Resize(size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// Punch is fallocate(2) with FALLOC_FL_PUNCH_HOLE.
func (f *diskFile) Punch(off, n int64) error {
	return f.control(func(fd int) error {
		for {
			err := unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
			if !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
}

// Data is lseek(2) with SEEK_DATA and SEEK_HOLE.
func (f *diskFile) Data(size int64, yield func(off, end int64)) error {
	return f.control(func(fd int) error {
		for at := int64(0); at < size; {
			off, err := unix.Seek(fd, at, unix.SEEK_DATA)
			if errors.Is(err, unix.ENXIO) { // no data from here on
				return nil
			}
			if err != nil {
				return err
			}
			if at, err = unix.Seek(fd, off, unix.SEEK_HOLE); err != nil {
				return err
			}
			if off < size {
				yield(off, min(at, size))
			}
		}
		return nil
	})
}

// control runs fn with a descriptor that stays open meanwhile.
func (f *diskFile) control(fn func(fd int) error) error {
	var inner error
	if err := f.conn.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}
