// Package scsi is the SCSI half of the target: it turns a command descriptor
// block into work on a Device and an answer (SAM-5, SPC-4, SBC-3). It does no
// I/O of its own and starts no goroutine; the transport above it (iscsi/target)
// owns connections and buffers.
//
//	CDB ─► Session.Execute ─► opcode table ─► Unit ─► Device
//	                │                          │
//	                └── unit attentions ◄──────┘
package scsi
