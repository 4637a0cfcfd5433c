package copies

import (
	"context"
	"errors"

	"ripstop/lun"
)

// Far is a LUN elsewhere. Offsets and lengths are bytes, in multiples of its block.
type Far interface {
	Size() int64
	Block() int
	ReadAt(ctx context.Context, p []byte, off int64) error
	WriteAt(ctx context.Context, p []byte, off int64) error
	// Zero makes n bytes at off zeros.
	Zero(ctx context.Context, off, n int64) error
	// Flush puts everything written on stable storage.
	Flush(ctx context.Context) error
	// Extents calls yield for the runs of all of it, in order, until it returns false.
	// What is not mapped holds nobody's data.
	Extents(ctx context.Context, yield func(off, n int64, mapped bool) bool) error

	// Held is who has registered, and who has reserved it for writing.
	Held(ctx context.Context) (Held, error)
	// Register makes us known under a key.
	Register(ctx context.Context, key uint64) error
	// Reserve has us alone write; it is ErrTaken where another does already.
	Reserve(ctx context.Context, key uint64) error
	// Preempt takes the reservation of who has it with the key victim.
	Preempt(ctx context.Context, key, victim uint64) error
}

// Held is who has registered with a LUN and reserved it.
type Held struct {
	Keys     []uint64
	Reserved bool
	By       uint64 // the key of who has reserved it
}

// Session is a way to LUNs elsewhere.
type Session interface {
	Open(ctx context.Context, lun uint16) (Far, error)
	Close() error
}

// ErrTaken says that a write was refused because of a reservation.
var ErrTaken = errors.New("another initiator has reserved it")

// Source is the LUNs here.
type Source interface {
	Volume(name string) (lun.Volume, error)
	Snapshots() []lun.SnapshotStats
	Snapshot(ctx context.Context, name string, luns ...string) error
	DeleteSnapshot(ctx context.Context, name string) (lun.Deleted, error)
}

// Memory keeps what was seen last, over a restart. It decides nothing.
type Memory interface {
	Load(name string) ([]byte, error)
	Save(name string, record []byte) error
}
