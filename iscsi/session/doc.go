// Package session holds the arithmetic of an iSCSI session in full feature phase
// as values (RFC 7143 sections 4.2 and 11): which command numbers are taken,
// what data-out is asked for and in which order it must come, into which PDUs
// data-in is cut, what residual is left, and how many bytes commands hold.
//
//	command ─► Window ─► Transfer ─► R2T ─► Data-Out ─► complete ─► run ─► Segments
//	                        │                                        ▲
//	                        └────────────── Memory ──────────────────┴ Residual
//
// # Caveats
//
// Error recovery level 0, data PDUs and sequences in order: a number that is
// not the next one is a fault and never a loss. Only the numbers of commands may
// come out of order, because connections overtake each other.
package session
