// Package store is the disk under a thin pool: a directory of a file system, or
// a block device.
//
//	directory                                    block device
//	  pool.json    kind, id, format, generation     the pool, from byte 0 to the end
//	  lock         held while in service
//	  pool.data    the pool, grown as it is asked   STATE/thin/ID.json, as pool.json
//	  pool.shadow  records that are pending         STATE/thin/device-*.shadow, likewise
//
// A File is a thin.File. It goes past the page cache where it shall and can, else
// through it; what the file system refuses is only speed. It keeps outside of
// the pool which state of it was the last (Record), so that an older copy that
// was put back does not pass for the present (Recorded).
//
// # Caveats
//
// Nothing foreign is overwritten: a device is taken when its first and last
// MiB are zeros or it holds a pool already; a directory when it holds a pool or
// neither of the two files.
//
// Without a state directory nothing tells that the pool on a device is an older
// copy, and what is pending is lost if the process is killed. Whoever removes pool.json says that the copy in place is the right one.
package store
