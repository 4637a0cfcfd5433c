// Package initiator is the other side of a target: one session of one connection
// with it, and the disks behind its LUN numbers.
//
//	Dial ─► login, CHAP ─► Session ─► Disk ─► READ, WRITE, WRITE SAME, SYNCHRONIZE CACHE …
//	                          │                  │ waits for its place in the command window
//	                          └── one reader ◄───┘ and for its answer
//
// It is for programs that bring data somewhere, not for the disks of a host: commands
// of any number of goroutines are under way at once, and what is lost with the
// connection is begun again by the caller, over a new session.
//
// # Caveats
//
// Nothing that a target says is believed beyond what was asked of it: a length, an
// offset or a tag that was not agreed ends the session. Error recovery is level 0: a wrong digest ends
// the session, too.
package initiator
