package lun

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Volume is a LUN in service, as an engine gives it. It is safe for concurrent
// use. Offsets and lengths are bytes; what is not a multiple of the block, or
// not inside the size, is refused with an error and changes nothing.
type Volume interface {
	// Info is the volume as it is now; Size may grow between two calls.
	Info() Info
	// ReadAt fills p from off. What was never written reads as zeros.
	ReadAt(ctx context.Context, p []byte, off int64) error
	// WriteAt writes p at off; with fua it is on stable storage on return.
	// It writes all of p, or on ErrNoSpace of the pool nothing.
	WriteAt(ctx context.Context, p []byte, off int64, fua bool) error
	// Unmap makes n bytes at off read as zeros and gives their space back.
	Unmap(ctx context.Context, off, n int64) error
	// WriteZeroes makes n bytes at off read as zeros. Space that they have
	// stays theirs; space that they have not is not taken.
	WriteZeroes(ctx context.Context, off, n int64) error
	// CompareAndWrite writes data at off if old stands there, as one action
	// towards every other write. If not, the error is a *Miscompare.
	CompareAndWrite(ctx context.Context, old, data []byte, off int64) error
	// Flush puts everything acknowledged before it on stable storage.
	Flush(ctx context.Context) error
	// Extents calls yield for the runs of n bytes at off, in order, until it
	// returns false; mapped tells whether a run takes space of the pool.
	Extents(ctx context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error
}

// Prompt is a Volume that can do an access at once where nothing has to be
// waited for. A false says nothing of the data: the same access by ReadAt or
// WriteAt must follow.
type Prompt interface {
	Volume
	// TryReadAt fills p from off if that is all in memory.
	TryReadAt(p []byte, off int64) (bool, error)
	// TryWriteAt writes p at off if that is a copy into memory.
	TryWriteAt(p []byte, off int64) (bool, error)
}

// Queue is a Volume that can carry out accesses while nobody waits for them.
type Queue interface {
	Volume
	// StartReadAt begins a ReadAt and returns. It is false where it cannot, and
	// then nothing happens. Else done is called once, maybe before the return
	// and from any goroutine, and must not wait; p is the volume's until then.
	// Where ok is false, p may hold anything, and ReadAt must follow.
	StartReadAt(p []byte, off int64, done func(ok bool)) bool
	// StartWriteAt begins a WriteAt without fua in the same way. Where ok is
	// false, any part of p may be written, and WriteAt must follow.
	StartWriteAt(p []byte, off int64, done func(ok bool)) bool
}

// Comparer is a Volume that knows where it differs from an earlier one.
type Comparer interface {
	Volume
	// ChangedSince calls yield for the runs of n bytes at off, in order, until it
	// returns false; changed tells whether a run may differ from what the snapshot
	// since has there. What it does not call changed is equal. A since of another
	// pool is refused.
	ChangedSince(ctx context.Context, since Volume, off, n int64, yield func(off, n int64, changed bool) bool) error
}

// Gauge is a Volume that knows how full its pool is. It is asked before each
// command, so it must be cheap.
type Gauge interface {
	Volume
	Usage() Usage
}

// Usage is space in bytes at one moment.
type Usage struct {
	PoolSize int64 // that LUNs may use
	PoolUsed int64 // that LUNs use, those out of service included, or that is kept for them
	Used     int64 // that this one uses
}

// Info is what a Volume says of itself.
type Info struct {
	Name      string
	ID        [16]byte // random, for the life of the data: also when the LUN leaves and comes back
	Size      int64    // bytes
	BlockSize int      // 512 or 4096
	ReadOnly  bool     // it takes no more writes
}

// What can be wrong with a Volume.
var (
	// ErrNoSpace: a new block found no room in the pool or its file system.
	ErrNoSpace = errors.New("no space left in the pool")
	// ErrReadOnly: the volume takes no writes, for the reason that wraps it.
	ErrReadOnly = errors.New("the LUN is read-only")
	// ErrClosed: the volume is out of service.
	ErrClosed = errors.New("the LUN is out of service")
	// ErrHangs: the disk of a pool has not answered in time. What waits for it may
	// be carried out later.
	ErrHangs = errors.New("the disk does not answer")
	// ErrUnknown: no pool in service has data of that name.
	ErrUnknown = errors.New("no pool in service has such a LUN")
	// ErrRange: offset or length do not fit the size or the block.
	ErrRange = errors.New("outside the LUN or not a multiple of its block")
)

// MediumError says that bytes could not be read or written.
type MediumError struct {
	Offset int64 // bytes, of the first that could not
	Err    error
}

// Error names the place and the cause.
func (e *MediumError) Error() string {
	return fmt.Sprintf("medium error at byte %d: %v", e.Offset, e.Err)
}

// Unwrap is the cause.
func (e *MediumError) Unwrap() error { return e.Err }

// Miscompare says where compared data differed first.
type Miscompare struct {
	Offset int64 // bytes from the start of the compared range
}

// Error names the place.
func (e *Miscompare) Error() string {
	return fmt.Sprintf("data differ at byte %d of the range", e.Offset)
}

// PoolStats is how full a pool is: a copy, taken at one moment.
type PoolStats struct {
	Health
	Name        string
	Kind        Kind
	Size        int64  // bytes that may be used
	Used        int64  // bytes that LUN data take, those out of service included
	Retained    int64  // the part of Used that LUNs out of service take
	Snapshots   int64  // the part of Used that nothing but snapshots holds
	Reserved    int64  // bytes besides Used that are kept for thick LUNs
	Accepted    int64  // bytes that a crash may have torn and that were taken as they were found
	Provisioned int64  // bytes promised to the LUNs in service
	Limit       int64  // the most that may be promised: Size times overcommit
	Fault       string // why it takes no more writes, and what to do; "" while it does
}

// Health is what was found out about a pool's data in quiet hours.
type Health struct {
	Scrubbed time.Time // when all data had been read last; zero is never
	Bad      int64     // bytes that cannot be read, as far as it is known
	Unhealed int64     // bytes of volumes that are to be looked at for blocks that lie apart
}

// LUNStats is what a LUN holds: a copy, taken at one moment.
type LUNStats struct {
	Info
	Pool  string
	Used  int64 // bytes of its blocks that are not holes
	Thick bool  // room for all of it is kept

	Encrypted bool // its data on the disk

	Legs []LegStats // of a mirror, the one that is read first; none of any other LUN

	// Exclusive is the bytes of the pool that deleting it gives back, and Shared
	// what it uses together with snapshots and clones. Both count whole chunks.
	Exclusive, Shared int64
	Fault             string // why it takes no more writes, and what to do; "" while it does
}

// Stats is all pools and LUNs in service, each sorted by name.
type Stats struct {
	Pools []PoolStats
	LUNs  []LUNStats
}
