// Package pdu holds the bytes of iSCSI (RFC 7143 section 11): one struct for
// each PDU, the text keys of section 6.1, and the digests of section 13.1.
//
//	BHS 48 ─ AHS 4n ─ header digest ─ data segment ─ pad to 4 ─ data digest
//	  │       │                          │
//	Decode   CDB                     ParseText …
//
// Each struct lists its fields once, with their byte offsets as the RFC's
// tables give them; decoding, encoding and printing walk that one list, so
// they cannot disagree. The walker remembers its first fault.
//
// # Caveats
//
// Reserved bits are ignored on decoding and zero on encoding, as the RFC asks.
// Data segments are the caller's: a struct only carries their length.
package pdu
