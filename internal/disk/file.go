package disk

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"ripstop/internal/uring"
)

const blockSize = 4096

// File is an open file. Every method may be called while another is, Close too:
// it lets each end.
type File struct {
	*os.File
	conn  syscall.RawConn
	calls sync.Pool // *vectorCall
	ring  *uring.Ring
	queue *uring.File            // nil where there is no ring
	past  atomic.Pointer[direct] // nil where data go through the page cache
}

// Open is os.OpenFile with a mode for nobody else. What is opened for reading
// and writing, and no more, is known to the ring, if there is one with a place. It waits
// until nothing is written any more that a process which was killed had begun past the page
// cache, at most eight seconds.
func Open(path string, flag int, ring *uring.Ring) (*File, error) {
	f, err := os.OpenFile(path, flag, 0o600)
	if err != nil {
		return nil, err
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	d := &File{File: f, conn: conn, calls: sync.Pool{New: newVectorCall}}
	if flag&os.O_RDWR != 0 {
		if err := d.outlast(predecessor); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	if ring != nil && flag == os.O_RDWR {
		d.ring = ring
		// Where the ring has no place for it, threads do the same.
		_ = d.Control(func(fd int) (err error) {
			d.queue, err = ring.Register(fd)
			return err
		})
	}
	return d, nil
}

// Close waits for what the ring still does with the file.
func (f *File) Close() error {
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
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if d := f.past.Load(); d != nil {
		n, err := d.ReadAt(p, off)
		if !errors.Is(err, os.ErrClosed) {
			return n, err
		} // the way was changed just now
	}
	return f.File.ReadAt(p, off)
}

// WriteAt writes past the page cache or through it.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	if d := f.past.Load(); d != nil {
		n, err := d.WriteAt(p, off)
		if !errors.Is(err, os.ErrClosed) {
			return n, err
		}
	}
	return f.writeCached(p, off)
}

// cachedPiece is the bytes of one write into the page cache. A file system with
// large folios (ext4 since Linux 6.16) makes them as large as the write that
// fills them, and each later write looks at all blocks of its folio: 4 KiB into
// one of 256 KiB took half as long again as into one of 64 KiB.
const cachedPiece = 64 << 10

// writeCached writes through the page cache in pieces, which end at multiples
// of their length.
func (f *File) writeCached(p []byte, off int64) (int, error) {
	for done := 0; ; {
		at := off + int64(done)
		end := min(len(p), done+cachedPiece-int(at&(cachedPiece-1)))
		n, err := f.File.WriteAt(p[done:end], at)
		done += n
		if err != nil || done == len(p) {
			return done, err
		}
	}
}

// StartReadAt is a read by the ring.
func (f *File) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	if d := f.past.Load(); d != nil {
		return d.queue != nil && d.fit(p, off) && d.queue.Read(p, off, done)
	}
	return f.queue != nil && f.queue.Read(p, off, done)
}

// StartWriteAt is a write by the ring, past the page cache. Into it a write of
// the ring would wait in a thread of the kernel's, as one of ours does.
func (f *File) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	d := f.past.Load()
	return d != nil && d.queue != nil && d.fit(p, off) && d.queue.Write(p, off, done)
}

// vectorCall is a preadv2(2) that Control can run without an allocation.
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
func (f *File) TryReadAt(p []byte, off int64) bool {
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
func (f *File) Datasync() error {
	return f.Control(unix.Fdatasync)
}

// Forget has the page cache give up what it holds of the file and is on the disk.
func (f *File) Forget() error {
	return f.Control(func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) })
}

// Resize is ftruncate(2) and fsync(2).
func (f *File) Resize(size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// Punch is fallocate(2) with FALLOC_FL_PUNCH_HOLE.
func (f *File) Punch(off, n int64) error {
	return f.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

// Allocate is fallocate(2): n bytes at off take their space, and read as zeros
// where nothing was written.
func (f *File) Allocate(off, n int64) error { return f.fallocate(0, off, n) }

func (f *File) fallocate(mode uint32, off, n int64) error {
	return f.Control(func(fd int) error {
		for {
			err := unix.Fallocate(fd, mode, off, n)
			if !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	})
}

// Data is lseek(2) with SEEK_DATA and SEEK_HOLE.
func (f *File) Data(size int64, yield func(off, end int64)) error {
	return f.Control(func(fd int) error {
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

// Control runs fn with a descriptor that stays open meanwhile.
func (f *File) Control(fn func(fd int) error) error {
	var inner error
	if err := f.conn.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}
