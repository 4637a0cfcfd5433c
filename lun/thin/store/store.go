package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"ripstop/internal/disk"
	"ripstop/internal/uring"
	"ripstop/lun"
)

// Options are what a File needs besides its path.
type Options struct {
	// Parents makes missing parents of a directory. Without it a missing parent
	// is an error, for it may be a file system that is not mounted.
	Parents bool
	// Direct has data go past the page cache, where the file system lets them.
	Direct bool
	// Ring, when set, carries out what would have to wait for a disk.
	Ring *uring.Ring
	// StateDir is where the records of pools on devices are kept; "" is nowhere.
	StateDir string
}

// File is an open pool file or device. It is safe for concurrent use. Offsets and
// lengths are multiples of 4096; memory may lie anywhere.
type File struct {
	file   *disk.File
	lock   *os.File // of a directory; the claim of a device
	device bool
	fresh  bool
	places chan struct{} // one for each access that waits in a thread
	record record

	shadowPath string // "" is nowhere
	shadow     []byte // nil until it is asked for

	growing sync.Mutex
	size    atomic.Int64 // bytes
}

// accesses is how many may wait in threads: more would not make a disk faster,
// and a disk that hangs must not take all threads of the process.
const accesses = 128

// Open takes a pool directory, made if it is not there, or a block device, which
// nobody else has then. Fresh tells whether there is a pool yet.
func Open(path string, o Options) (*File, error) {
	f, err := open(path, o)
	if err != nil {
		return nil, fmt.Errorf("pool %s: %w", path, help(err))
	}
	return f, nil
}

func open(path string, o Options) (*File, error) {
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		if err := disk.Mkdir(path, o.Parents); err != nil {
			return nil, err
		}
		st, err = os.Stat(path)
	}
	if err != nil {
		return nil, err
	}
	var f *File
	switch mode := st.Mode(); {
	case mode.IsDir():
		f, err = openDir(path, o)
	case mode&os.ModeDevice != 0 && mode&os.ModeCharDevice == 0:
		f, err = openDevice(path, o)
	default:
		return nil, errors.New("it is neither a directory nor a block device: name one of them")
	}
	if err != nil {
		return nil, err
	}
	return f, f.begin(o)
}

// begin chooses the way of data.
func (f *File) begin(o Options) error {
	f.places = make(chan struct{}, accesses)
	if !o.Direct {
		return nil
	}
	err := f.file.SetDirect(true)
	if errors.Is(err, disk.ErrRefused) {
		return nil
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

// help adds what to do against the common causes.
func help(err error) error {
	switch {
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%w: mount the file system for writing, or set the device read-write", err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fmt.Errorf("%w: free space on the file system", err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Errorf("%w: let the user of ripstop write there", err)
	}
	return err
}

// Fresh tells whether there is no pool yet: thin.Format makes it.
func (f *File) Fresh() bool { return f.fresh }

// IsDevice tells a block device from a directory.
func (f *File) IsDevice() bool { return f.device }

// Direct tells whether data go past the page cache.
func (f *File) Direct() bool { return f.file.Direct() != 0 }

// SetDirect changes that. No write may be under way. An error leaves it as it was.
func (f *File) SetDirect(on bool) error {
	err := f.file.SetDirect(on)
	if errors.Is(err, disk.ErrRefused) {
		return fmt.Errorf("%w, so they go through it: write `cache: writeback`, or put the pool on another file system", err)
	}
	return err
}

// ReadAt is pread(2).
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	f.places <- struct{}{}
	n, err := f.file.ReadAt(p, off)
	<-f.places
	return n, err
}

// WriteAt is pwrite(2).
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	f.places <- struct{}{}
	n, err := f.file.WriteAt(p, off)
	<-f.places
	return n, err
}

// TryReadAt fills p where the page cache has all of it.
func (f *File) TryReadAt(p []byte, off int64) bool { return f.file.TryReadAt(p, off) }

// TryWriteAt is a WriteAt where it finds a place without waiting.
func (f *File) TryWriteAt(p []byte, off int64) bool {
	select {
	case f.places <- struct{}{}:
	default:
		return false
	}
	_, err := f.file.WriteAt(p, off)
	<-f.places
	return err == nil
}

// StartReadAt begins a ReadAt in the ring, as lun.Queue says.
func (f *File) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	return f.file.StartReadAt(p, off, done)
}

// StartWriteAt begins a WriteAt in the ring; only past the page cache.
func (f *File) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	return f.file.StartWriteAt(p, off, done)
}

// WritePair is two WriteAts that wait together; only past the page cache and where
// it finds a place.
func (f *File) WritePair(p []byte, off int64, r []byte, to int64) bool {
	select {
	case f.places <- struct{}{}:
	default:
		return false
	}
	ok := f.file.WritePair(p, off, r, to)
	<-f.places
	return ok
}

// Sync is fdatasync(2).
func (f *File) Sync() error { return f.file.Datasync() }

// Forget has what is read next come from the disk itself, where everything is that
// was written. After a failed write the page cache keeps what the disk has not.
func (f *File) Forget() error {
	if err := f.file.Forget(); err != nil {
		return fmt.Errorf("give up the page cache: %w", err)
	}
	return nil
}

// Size is the bytes of the file or device.
func (f *File) Size() (int64, error) { return f.size.Load(), nil }

// Grow makes the file larger, with its space taken from the file system, which
// lun.ErrNoSpace says it has not. A device is as large as it is.
func (f *File) Grow(size int64) error {
	f.growing.Lock()
	defer f.growing.Unlock()
	is := f.size.Load()
	if size <= is {
		return nil
	}
	if f.device {
		return fmt.Errorf("grow the pool to %d bytes: its device has %d: %w", size, is, lun.ErrNoSpace)
	}
	err := f.allocate(is, size-is)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP): // it has no way to promise space
		err = f.file.Truncate(size)
	case errors.Is(err, lun.ErrNoSpace):
		err = errors.Join(err, f.file.Truncate(is))
	}
	if err != nil {
		return fmt.Errorf("grow the pool to %d bytes: %w", size, err)
	}
	f.size.Store(size)
	return nil
}

// Punch gives the space of n bytes back. Where that cannot be, it is kept.
func (f *File) Punch(off, n int64) error {
	if err := f.file.Punch(off, n); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("give back %d bytes at %d: %w", n, off, err)
	}
	return nil
}

// Fill takes the space of n bytes that were punched from the file system again.
func (f *File) Fill(off, n int64) error {
	if f.device {
		return nil
	}
	if err := f.allocate(off, n); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("take %d bytes at %d again: %w", n, off, err)
	}
	return nil
}

func (f *File) allocate(off, n int64) error {
	err := f.file.Allocate(off, n)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("the file system has no %d bytes left: %w", n, lun.ErrNoSpace)
	}
	return err
}

// Close lets go of everything when what is under way has ended.
func (f *File) Close() error {
	return errors.Join(f.file.Close(), f.unmapShadow(), f.lock.Close())
}

// magics are how a pool begins, whatever its version, at one of two places.
var (
	magic       = []byte("RSTHIN")
	magicPlaces = []int64{0, 32 << 10}
)

// holdsPool tells whether a pool, whole or damaged, is there.
func holdsPool(r io.ReaderAt) (bool, error) {
	p := make([]byte, len(magic))
	for _, at := range magicPlaces {
		n, err := r.ReadAt(p, at)
		if n == len(p) && string(p) == string(magic) {
			return true, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
	}
	return false, nil
}
