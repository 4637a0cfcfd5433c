// Package backup keeps copies of LUNs in a store of objects: a directory, or an S3 bucket. It
// knows the format (FORMAT.md) and does no I/O but through Store.
//
//	stream of a disk ─► Writer ─► chunks, by the hash of what they hold ─┐
//	                      └─► pages of chunks' names ─► Backup ──────────┼─► Store
//	Prune: rules ─► backups that go; chunks that nobody names go ◄───────┤
//	Read ◄── every chunk compared with its name ◄────────────────────────┘
//
// A backup is complete by itself: it names all of its chunks, also those that an
// earlier one brought. So any can be deleted, and none is read through another.
//
// # What runs at the same time
//
// Any number of Writers and Prunes may work on a store, from any hosts, and be killed at any
// moment. A Writer puts its backup under pending/ first, waits until no Prune is under
// way, looks whether all chunks are there, and only then puts it under backups/. A
// Prune puts a note under pruning/ first and then reads which backups there are, pending
// ones too. So either the Prune sees the backup, or the Writer sees what the Prune took, and
// writes it again. That holds on a store whose listings show what was put before them, as
// file systems and S3 do.
//
// # Caveats
//
// Who can write to the store can delete backups, put older ones back, and, where it is not
// sealed, make others. Sealed, it tells sizes and times, and how many chunks two backups have in common.
package backup
