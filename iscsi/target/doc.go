// Package target serves iSCSI targets (RFC 7143) over TCP: it listens on the
// portals of an iscsi.State, logs initiators in, and runs their commands on
// logical units.
//
//	portal ─► accept ─► conn: reader ──► login ──► nexus ──► scsi.Session
//	              │       ▲     │                    │            │
//	              │       │     └── ends at once ────┼────────────┤ Begin
//	              │       └── one writev when the    │            ▼
//	              │           input is drained       │     must wait: a lane
//	              │     writer ◄── finished list ◄───┴──────── of the unit
//	              └── table (immutable snapshot) ◄── Do(step)
//
// A nexus is a session, of one connection or several: the command window, the
// commands by their tags, the memory that they hold. Each connection has two
// goroutines. The reader reads as many PDUs as one read brings, begins every
// command, gathers the answers of those that end with that, and writes them at
// once when nothing more has come in. What must wait goes on in a goroutine of
// its unit; at its end it joins a list, from which the writer, parked while
// there is nothing, or the reader answers it. So no lane waits for a socket: an
// initiator that reads slowly holds up nobody else at the unit. Status numbers
// are given under the lock that orders the writes.
//
// Commands begin in the order of their numbers, whatever connection brings
// them: a reader whose command is not the next one stops until it is. With one
// connection a missing number will never come, and ends it.
//
// What a session's commands hold is bounded by Options.MaxData: a reader stops
// while running commands hold it, and when those hold it that only wait for
// their data the answer is TASK SET FULL.
//
// A task management function marks what it ends while no command begins, and is
// answered when all of that has ended.
//
// A Server is the driver of iscsi.State: Observe and Do are what
// internal/reconcile asks for.
//
// # Caveats
//
// Error recovery level 0: a digest or sequence error ends the connection with
// its commands, and so does the loss of it.
//
// A function that ends commands whose data are still due does not wait for those
// data, though RFC 7143 section 4.2.3.3 asks for it: Linux with FastAbort, its
// default, never sends them. What comes after all is swallowed.
//
// An initiator whose session may not go on loses its units at once. It is asked
// to log out, and cut off when it has not after Options.LogoutWait. Close asks
// nobody: initiators come back at once, to the next server.
//
// A portal that is bound to an interface refuses what comes through any other
// one. The host itself reaches it: the kernel counts its connections as through
// the interface that has the address.
//
// Discovery tells an initiator of the targets that its name opens, whether they
// ask for CHAP or not, and of no others. It asks no proof itself.
package target
