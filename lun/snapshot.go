package lun

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Snapshotter is an engine that keeps LUNs as they were at one moment. A
// snapshot goes by "LUN@SNAPSHOT". It is on stable storage on return, as is
// every change below. It is safe for concurrent use.
type Snapshotter interface {
	// Snapshots is the snapshots in all pools in service, those of a LUN in the
	// order in which they were made.
	Snapshots() []SnapshotStats
	// Snapshot keeps the present of LUNs in service under a name, all of the same
	// moment: all of it is done or nothing. LUNs of a pool without snapshots are refused
	// (ErrNoSnapshots), and LUNs of several pools by all but a Mux.
	Snapshot(ctx context.Context, name string, luns ...string) error
	// Clone makes data that begin as a snapshot's, under the name of a LUN that
	// no pool has, and gives the LUN as which OpenLUN puts them into service.
	Clone(ctx context.Context, snapshot, name string) (LUN, error)
	// Restore makes a LUN what it was at its snapshot, and keeps what it is as the
	// snapshot keep. A LUN that has grown since keeps its size.
	Restore(ctx context.Context, name, snapshot, keep string) error
	// DeleteSnapshot destroys a snapshot and gives back what it alone held. Clones
	// of it keep their data.
	DeleteSnapshot(ctx context.Context, snapshot string) (Deleted, error)
}

// Keeper is a Snapshotter into whose pools LUNs move with their snapshots.
type Keeper interface {
	Snapshotter
	// SnapshotAs keeps the present of a LUN in service as the same snapshot as one of
	// another pool: with its name, identifier and time.
	SnapshotAs(ctx context.Context, lun string, of SnapshotStats) error
}

// SnapshotStats is what a snapshot holds: a copy, taken at one moment.
type SnapshotStats struct {
	Info             // Name is "LUN@SNAPSHOT"; ReadOnly
	Pool      string // that has it
	Created   time.Time
	Used      int64 // bytes that it reads from the pool
	Exclusive int64 // the part of Used that nothing else uses: what deleting gives back
}

// SplitSnapshot parts "LUN@SNAPSHOT"; ok is false for the name of a LUN.
func SplitSnapshot(name string) (lun, snapshot string, ok bool) {
	return strings.Cut(name, "@")
}

// What can be wrong with a snapshot, besides the errors of a Volume.
var (
	// ErrExists: the name is taken.
	ErrExists = errors.New("it exists")
	// ErrNoSnapshots: the kind of the pool takes none.
	ErrNoSnapshots = errors.New("the pool takes no snapshots")
)
