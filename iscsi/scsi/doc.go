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
// What APTPL and saved mode pages promise is in a record that a Keeper holds;
// a unit whose record cannot be read is not served (OpenUnit).
//
// A command checks, in this order: logical unit, opcode, CDB, unit attention,
// reservation, range, data. Errors become sense data in senseOf and nowhere
// else. COMPARE AND WRITE and ORWRITE are atomic because the Device's
// CompareAndWrite is; reads and writes take no lock but that of the list of
// running commands.
//
// # Caveats
//
// Task attributes are not obeyed: an initiator that needs an order waits for
// the status, as all of them do. There is no protection information, no ACA, no
// asymmetric access and no third-party copy. What task management aborts ends
// when the Device notices its context; task management waits for that.
package scsi
