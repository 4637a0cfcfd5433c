package scsi

import (
	"context"
	"errors"
	"fmt"
)

// Device is what a logical unit keeps its blocks in. It is safe for concurrent
// use. Offsets and lengths are bytes, multiples of BlockSize, not zero and
// inside the size, which the caller has checked. Errors are those below, or
// anything else for a hardware error; when ctx ends, ctx.Err(). Neither ctx nor
// a slice may be kept after return: both belong to a command that is then over.
type Device interface {
	// Info is the device as it is now; Size may grow between two calls. It is
	// asked for each command, so it must be cheap.
	Info() Info
	// ReadAt fills p from off. What was never written reads as zeros.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// WriteAt writes p at off; with fua it is on stable storage on return.
	WriteAt(ctx context.Context, p []byte, off int64, fua bool) error
	// Unmap makes n bytes at off read as zeros and gives their space back.
	Unmap(ctx context.Context, off, n int64) error
	// WriteZeroes makes n bytes at off read as zeros; their space stays theirs.
	WriteZeroes(ctx context.Context, off, n int64) error
	// CompareAndWrite writes data at off if old stands there, atomically.
	// Where it does not, nothing is written and the error is a Miscompare.
	CompareAndWrite(ctx context.Context, old, data []byte, off int64) error
	// Flush puts everything acknowledged before it on stable storage.
	Flush(ctx context.Context) error
	// Extents calls yield for the runs of n bytes at off, in order, until it
	// returns false; mapped tells whether a run takes space. yield does not
	// use the device.
	Extents(ctx context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error
}

// Prompt is a Device that can tell whether an access would have to wait.
type Prompt interface {
	Device
	// TryReadAt is ReadAt where that waits neither for the medium nor for
	// another access. Elsewhere it is false, and p may hold anything.
	TryReadAt(p []byte, off int64) (bool, error)
	// TryWriteAt is WriteAt without fua where that is a copy into memory. The
	// kernel may hold even that back for a moment while its memory is full of
	// data for the disk. Elsewhere it is false, and WriteAt must follow.
	TryWriteAt(p []byte, off int64) (bool, error)
}

// Queue is a Device that can carry out accesses while nobody waits for them.
type Queue interface {
	Device
	// StartReadAt begins a ReadAt and returns. It is false where it cannot, and
	// then nothing happens. Else done is called once, maybe before the return
	// and from any goroutine, and must not wait; p is the device's until then.
	// Where ok is false, p may hold anything, and ReadAt must follow.
	StartReadAt(p []byte, off int64, done func(ok bool)) bool
	// StartWriteAt begins a WriteAt without fua in the same way. Where ok is
	// false, any part of p may be written, and WriteAt must follow.
	StartWriteAt(p []byte, off int64, done func(ok bool)) bool
}

// Info is what a Device says of itself.
type Info struct {
	Name      string   // the logical unit's name in the file
	ID        [16]byte // stays for the life of the data; the NAA designator is made of it
	Size      int64    // bytes
	BlockSize int      // logical block: 512 or 4096
	ReadOnly  bool
}

// What a Device can say is wrong. Each becomes its sense code in one place.
var (
	// ErrNoSpace: the pool has no room for a new block (27h/07h).
	ErrNoSpace = errors.New("no space left in the pool")
	// ErrReadOnly: the device takes no writes (27h/00h).
	ErrReadOnly = errors.New("the device is read-only")
	// ErrGone: the device went out of service (25h/00h).
	ErrGone = errors.New("the device is out of service")
)

// errNoExtents: a device says nothing of a range that it was asked about.
var errNoExtents = errors.New("the device tells no extents")

// MediumError says that a block cannot be read or written (11h/00h, 0Ch/00h).
type MediumError struct {
	Offset int64 // bytes, of the first bad block
	Err    error
}

// Error names the place and the cause.
func (e *MediumError) Error() string {
	return fmt.Sprintf("medium error at byte %d: %v", e.Offset, e.Err)
}

// Unwrap is the cause.
func (e *MediumError) Unwrap() error { return e.Err }

// Miscompare says where compared data differed first (1Dh/00h).
type Miscompare struct {
	Offset int64 // bytes from the start of the compared range
}

// Error names the place.
func (e *Miscompare) Error() string {
	return fmt.Sprintf("data differ at byte %d of the range", e.Offset)
}
