package raw

import (
	"io"

	"ripstop/internal/disk"
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

// openDisk opens a file of the host.
func (e *Engine) openDisk(path string, flag int) (file, error) {
	f, err := disk.Open(path, flag, e.options.Ring)
	if err != nil {
		return nil, err // a nil file, not a file without a value
	}
	return f, nil
}
