// Package crypt encrypts LUNs on their way into pools and decrypts them on their
// way out, and keeps the keys that it takes.
//
//	target, verbs ─► Volume: AES-XTS, block by block ─► the engine's volume: what lies on the disk
//
//	key file ─HKDF─► seals ─► header ─► volume key ─► Volume
//	                          └ a record of the LUN in its pool
//
// # Data
//
// The cipher is XTS-AES-256 of IEEE 1619-2018 (NIST SP 800-38E) over AES of the
// standard library. A data unit is a logical block of the LUN, 512 or 4096 bytes,
// its tweak the number of the block: so every access is of whole units, nothing is
// read to be written, and what was atomic stays so. XTS changes 16 bytes by
// themselves: a block that a power cut tore reads as old and new parts, as
// without encryption.
//
// A sector of zeros on the disk reads as zeros and is not decrypted: holes are such,
// what was unmapped, and what a power cut left of a unit that was being zeroed. No other
// sector is ever written as zeros but with a probability of 2^-4096.
//
// # Keys
//
// A LUN has a random volume key of 64 bytes, drawn when it is made and never changed.
// It is kept in a header, sealed with the keys of files, one or, while keys are
// exchanged, two. Snapshots are read with their LUN's key; a clone has the same volume
// key in a header of its own. Deleting the LUN overwrites the header.
//
// # Caveats
//
// XTS hides data from who has the disk. It does not notice changes that he makes, and
// shows which blocks are zeros or unmapped, and which were written between two looks.
package crypt
