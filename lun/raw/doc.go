// Package raw is the engine that keeps each LUN in a sparse file of a pool
// directory. It needs nothing of the file system but holes.
//
//	pool directory
//	  pool.json        format, uuid             NAME.lun        data, sparse
//	  lock             held while in service    NAME.lun.json   format, id, block, size
//
//	WriteAt ─► all blocks mapped? ─ yes ─► pwrite
//	                 │ no
//	                 └─► reserve room in the pool ─► pwrite ─► mark mapped
//
// A bitmap for each LUN tells which blocks of 4 KiB take space. It is read from
// the holes of the file when the LUN is opened, so a crash can not make it lie.
// Every block that becomes mapped has taken its room from the pool's size
// before its data are written; Unmap punches a hole and gives it back.
//
// What is done to a pool is done one after the other, in its lane, and a disk that
// hangs holds up nothing of another pool.
//
// Data and metadata files become valid in an order that any crash leaves
// readable: data before the metadata that speak of them.
//
// Three ways lead to the data of an access, the first that works is taken: at
// once, where the page cache has them; through an io_uring, while nobody waits;
// and in the caller's goroutine, which also says what is wrong.
//
// # Caveats
//
// Data go through the page cache, or past it where the pool says so (O_DIRECT).
// Either way what is not flushed may be lost with the host's power, though not
// with the daemon. After a failed flush a LUN takes no more
// writes until it is opened anew, for the kernel forgets which data it lost.
//
// Room is what LUN data fill, counted in 4 KiB; the file system's own
// metadata come on top. There are no snapshots.
package raw
