// Package target serves iSCSI targets (RFC 7143) over TCP: it listens on the
// portals of an iscsi.State, logs initiators in, and runs their commands on
// logical units.
//
//	portal ─► accept ─► conn: reader ──► login ──► session ──► scsi.Session
//	              │       ▲                                        │
//	              │       └── one writev when the input is drained ◄┘
//	              └── table (immutable snapshot) ◄── Do(step)
//
// Each connection is one goroutine. It reads as many PDUs as one read brings,
// runs every command to completion in place, gathers the replies, and writes
// them at once when nothing more has come in. Commands that take data from the
// initiator wait in a table, bounded in number and bytes, until it is there.
//
// A Server is the driver of iscsi.State: Observe and Do are what
// internal/reconcile asks for.
//
// # Caveats
//
// A session has one connection and error recovery level 0: a digest or
// sequence error ends it, and the initiator logs in again.
//
// A device that takes long holds up the other commands of that connection,
// never those of another.
//
// A portal that is bound to an interface refuses what comes through any other
// one. The host itself reaches it: the kernel counts its connections as through
// the interface that has the address.
//
// Discovery tells an initiator of the targets that its name opens, whether they
// ask for CHAP or not, and of no others. It asks no proof itself.
package target
