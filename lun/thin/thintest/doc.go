// Package thintest is a simulated disk for tests of the thin engine: it loses,
// reorders and tears what was not synced, fails on request, and comes back as
// the same disk from the same seed.
//
//	WriteAt ─► now ───────────► ReadAt          power cut: of each unsynced write
//	            │ Sync                          each sector of 512 bytes lands or
//	            └────► stable ─► Crash          does not, whatever its neighbours do
//
// A power cut is a number: Cut(n) lets the n-th change from now fail, and every
// one after it, so that a test can cut inside any operation without knowing it.
//
// Oracle holds what each sector may be after a cut: what was flushed last, or
// anything written since.
//
// # Caveats
//
// Sectors are atomic: a sector is old or new, never a mix and never garbage.
package thintest
