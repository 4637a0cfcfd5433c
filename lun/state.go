// Package lun holds the words of ripstop's storage: pools and the thin LUNs in
// them (State), what differs between two states (Diff), and the steps that turn
// one into the other. It does no I/O; the engines below it (lun/raw, lun/thin/engine) do, each for the
// pools of one kind, and a Mux is one of all of them.
//
// # Caveats
//
// No step destroys data. A pool or LUN that is not wanted is taken out of
// service and keeps its bytes; a LUN is never made smaller.
package lun

// State is all pools and LUNs in service on one host, wanted or observed.
type State struct {
	Pools map[string]Pool
	LUNs  map[string]LUN
}

// Kind is how a pool keeps its LUNs. A pool never changes it.
type Kind string

// The kinds.
const (
	Raw  Kind = "raw"  // each LUN is a sparse file of the directory
	Thin Kind = "thin" // ripstop's own format: checksums, snapshots and clones
)

// Pool is where LUNs take their space from.
type Pool struct {
	Kind       Kind
	Path       string  // absolute directory, or a block device where Kind is Thin
	Size       int64   // bytes that its LUNs may fill
	Overcommit float64 // how often Size may be promised; at least 1
	Direct     bool    // data go past the page cache

	// Fault is why the pool as observed takes no more writes, and what to do about
	// it: "" while it does.
	Fault string
}

// LUN is one logical unit.
type LUN struct {
	Pool   string
	Mirror string // the pool of its other leg, "" for a LUN in one pool alone
	Size   int64  // bytes, a multiple of Block
	Block  int    // logical block size: 512 or 4096
	Thick  bool   // room for all of its blocks is kept

	Encryption Encryption // of its data on the disk

	// Ready is the pool in which the LUN as observed is already, after a move that
	// has yet to be carried out: "" without one.
	Ready string

	// Away is the pool of the leg that the mirror as observed goes on without, Why the
	// reason, and Syncing the one that is being brought up to date: "" without one.
	Away, Why, Syncing string

	// Fault is why the LUN as observed takes no more writes, and what to do about
	// it: "" while it does.
	Fault string
}
