// Package copies keeps LUNs at targets elsewhere, too: round after round it brings
// what has changed since the snapshot that is there.
//
//	look: labels, reservations ─► snapshot ─► label "being written" ─► what changed ─► flush ─► label "whole"
//	  │                              │                                     │ every 64 MiB: flush, how far it is
//	  └── resume ◄── a cut, a crash ─┴─────────────────────────────────────┘
//
// What is there says itself what it is: a label behind the data names the LUN, the
// snapshot, and whether it is whole. It is written before the first byte of a round
// and after the last one, with flushes in between, so a copy that was cut off is never
// taken for a whole one, nor is a snapshot that somebody makes of it there. With two
// LUNs there, rounds go to the older one, and one is whole at each moment.
//
// # Caveats
//
// The label decides, and not what is remembered here: a state directory that was lost
// or put back costs a comparison and no data. Only the holder of a reservation writes
// there; when it was taken away, somebody may have written, and nothing is overwritten
// until a person says so.
package copies
