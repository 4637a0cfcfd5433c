package raw

import (
	"errors"
	"io"
	"os"
	"sync"
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
	calls *sync.Pool  // *vectorCall
	queue *uring.File // nil where there is no ring
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
	d := diskFile{File: f, conn: conn, calls: &sync.Pool{New: newVectorCall}}
	if e.options.Ring != nil && flag == os.O_RDWR {
		err := d.control(func(fd int) (err error) {
			d.queue, err = e.options.Ring.Register(fd)
			return err
		})
		if err != nil {
			e.log.Debug("file without ring", "file", path, "error", err)
		}
	}
	return d, nil
}

// Close waits for what the ring still does with the file.
func (f diskFile) Close() error {
	var err error
	if f.queue != nil {
		err = f.queue.Close()
	}
	return errors.Join(err, f.File.Close())
}

// StartReadAt is a read by the ring.
func (f diskFile) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	return f.queue != nil && f.queue.Read(p, off, done)
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
func (f diskFile) TryReadAt(p []byte, off int64) bool {
	c := f.calls.Get().(*vectorCall)
	c.p[0], c.off, c.n = p, off, 0
	err := f.conn.Control(c.run)
	ok := err == nil && c.err == nil && c.n == len(p)
	c.p[0], c.err = nil, nil
	f.calls.Put(c)
	return ok
}

// Datasync is fdatasync(2).
func (f diskFile) Datasync() error {
	return f.control(unix.Fdatasync)
}

// Resize is ftruncate(2) and fsync(2).
func (f diskFile) Resize(size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	return f.Sync()
}

// Punch is fallocate(2) with FALLOC_FL_PUNCH_HOLE.
func (f diskFile) Punch(off, n int64) error {
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
func (f diskFile) Data(size int64, yield func(off, end int64)) error {
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
func (f diskFile) control(fn func(fd int) error) error {
	var inner error
	if err := f.conn.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return err
	}
	return inner
}
