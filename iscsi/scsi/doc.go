// Package scsi is the SCSI half of the target: it turns a command descriptor
// block into work on a Device and an answer (SAM-5, SPC-4, SBC-3). It does no
// I/O of its own; the transport above it (iscsi/target) owns connections,
// buffers and goroutines.
//
//	CDB ─► Session.Execute ─► opcode table ─► command ─► Device
//	             │                               │
//	     LUN map, unit attentions     Unit: reservations, mode
//	     (one per I_T nexus)          pages, running commands
//
// One table says of each command how it is found, which bits its CDB may have,
// what data it takes, how it stands to reservations and what runs it; REPORT
// SUPPORTED OPERATION CODES and Session.OutLength read the same lines. A CDB
// with a bit that the table does not know is refused, with a field pointer.
//
// What APTPL, saved mode pages, SANITIZE and WRITE ATOMIC promise is in a record
// that a Keeper holds; a unit whose record cannot be read is not served (OpenUnit).
//
// A command checks, in this order: logical unit, opcode, CDB, unit attention,
// reservation, range, data. Errors become sense data in senseOf and nowhere
// else. COMPARE AND WRITE and ORWRITE are atomic because the Device's
// CompareAndWrite is; reads and writes take no lock but that of the list of
// running commands.
//
// # Caveats
//
// There is no protection information, no ACA and no asymmetric access. What task
// management aborts ends when the Device notices its context; task management
// waits for that. WRITE ATOMIC needs a keeper, and is slow: it is for who needs
// it to be whole after a power cut. SANITIZE erases what the Device has of the
// unit, which is not what its snapshots or the disk below may have kept.
package scsi
