// Package thin is the engine of thin volumes with snapshots and clones, exact
// after a power cut. A pool lives in one File. FORMAT.md tells what is on the
// disk and why a cut anywhere leaves the last durable state.
//
//	           volume "data"        snapshot "data@monday"
//	                │                       │
//	map             └──── pages, leaves ────┘   shared until changed, kept in memory in part
//	                          │
//	chunks of 64 KiB   ┌──────┴───────┐         allocated whole, mapped by 4 KiB blocks
//	                   data    CRC32C in the map
//	log                records of every change ─► frames; a flush is one sync or two
//	checkpoint         map to new places ─► super; replay starts there
//
// The way of a write: claim its blocks, place them (where they are if nobody
// else uses that chunk, otherwise in the region's own chunk), get a durable
// intent if something is overwritten, write the data, change the map and add a
// record. A flush makes the records durable. The way of a read: copy the map,
// read, compare the CRC; a block that was changed meanwhile is read again alone.
//
// An access for which everything is at hand (Start and Try) does the same with
// nothing to wait for; all else refuses it, and it takes the long way. Maintain
// commits records, makes checkpoints and prepares slabs before writers must.
//
// Locks, each taken before the next: a volume's gate, the pool's tree, a
// leaf's mu, the log's mu. None but a leaf's own is held over I/O to data.
//
// What goes wrong: a block that cannot be read, or is not what its CRC says, is
// a lun.MediumError for that read alone. A pool that finds no room refuses
// what takes room (lun.ErrNoSpace) and nothing else. A failed sync, and a failed
// write of the log or the map, end writing until the pool is opened anew
// (lun.ErrReadOnly); reads go on. A disk that hangs holds what asked it.
//
// # Caveats
//
// Without Maintain a checkpoint is made by the operation that fills the log.
// Heal, Scrub and Trim are called by whoever has the pool, a bounded piece at a
// time. Heal leaves alone what a volume shares map and all with its newest
// snapshot. Trim needs a File with Fill.
//
// Opening counts who uses each chunk. Of leaves that share none it learns that
// from a ledger that the last stop left, unless they changed since; it reads the
// others, 2 GiB for each TiB that is mapped. A leaf
// or page that cannot be read is a medium error for what it maps; nothing that
// was free then is given out until it is made anew and the pool is opened again
// (see Options.GiveUp), and a pool whose file cannot grow is read-only. A table or
// log that cannot be read keeps the whole pool closed (ErrDamaged). An
// older copy of the whole file is told only where the File keeps the newest
// generation outside of it.
//
// A reserved volume shares everything after a snapshot, so the snapshot asks for
// room for all of it again, and is refused without. Clones are not reserved.
//
// Space that is given up counts as used until the next flush (R3); a write that
// finds no room makes one. WriteZeroes may stop half way in a full pool. Usage counts a block for each
// volume that maps it.
package thin
