package backup

import (
	"context"
	"errors"
	"time"
)

// Store keeps objects by name: lower-case letters, digits, '-', '.' and '/' between parts. It is
// safe for concurrent use.
type Store interface {
	// Put makes an object, whole or not at all; it is on stable storage on return. One
	// of that name is replaced.
	Put(ctx context.Context, name string, p []byte) error
	// Get is an object. One of more than limit bytes is ErrDamaged, one that is not
	// there ErrNotFound.
	Get(ctx context.Context, name string, limit int64) ([]byte, error)
	// List calls yield for all objects below a directory, in any order, until it
	// returns false. The prefix is "" or ends with a '/'.
	List(ctx context.Context, prefix string, yield func(Object) bool) error
	// Delete removes an object; none of that name is no error.
	Delete(ctx context.Context, name string) error
}

// Object is what a store says of one.
type Object struct {
	Name     string
	Size     int64     // bytes
	Modified time.Time // by the store's clock
}

// What can be wrong with objects.
var (
	// ErrNotFound: there is no such object.
	ErrNotFound = errors.New("it is not there")
	// ErrDamaged: an object is not what was put.
	ErrDamaged = errors.New("damaged, cut off, or of another store: have a copy of it put back, or take another backup")
	// ErrNoStore: what was opened has no head.
	ErrNoStore = errors.New("there is no backup store: mount what has it, or make one with `ripstop backup init`")
	// ErrWrongKey: the head is whole, and made with another key.
	ErrWrongKey = errors.New("the key is not the store's: name the file that it was made with")
	// ErrNeedsKey: the store is sealed.
	ErrNeedsKey = errors.New("the store is encrypted: name the key's file with --key")
	// ErrGone: chunks that a backup counted on were pruned meanwhile. It must be made
	// anew, with all data and without a parent.
	ErrGone = errors.New("chunks were removed meanwhile")
)

// Attempts is how often a backup is made before ErrGone is an error: the first by changes, which one
// Prune spoils, the second beside what is left of that, and more for what begins later.
const Attempts = 4

// The names of objects.
const (
	headName   = "ripstop-backup"
	chunksDir  = "chunks/"
	backupsDir = "backups/"
	pendingDir = "pending/"
	pruningDir = "pruning/"

	capsulesDir        = "capsules/"
	pendingCapsulesDir = "pending-capsules/"
	// TmpDir is where a store may have what is not whole yet.
	TmpDir = "tmp/"
)
