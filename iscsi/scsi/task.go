package scsi

import "fmt"

// Status codes of SAM-5 that a Task can end with.
const (
	StatusGood                = 0x00
	StatusCheckCondition      = 0x02
	StatusReservationConflict = 0x18
	StatusTaskAborted         = 0x40
)

// Task is one command: what the transport brings and what the unit answers.
type Task struct {
	LUN     uint64 // the 8-byte LUN field of SAM-5 as a big-endian number
	CDB     []byte // 16 bytes, or more with an extended CDB
	Attr    byte   // task attribute as in RFC 7143 section 11.3.1: untagged, simple, ordered, head of queue, ACA
	Out     []byte // data-out, complete; it may be shorter or longer than the CDB takes
	InLimit int    // bytes of data-in that the initiator has room for

	// Buffer gives n bytes for data-in, n <= InLimit; their content is
	// overwritten. It is called at most once, and not for n = 0. Nil means make.
	Buffer func(n int) []byte

	// Done is called, from a goroutine of the unit or its device, at the end of a
	// Task that went on with Start. It must not wait.
	Done func()

	Status   byte   // one of Status…
	Sense    []byte // with StatusCheckCondition: fixed or descriptor format, no length in front
	In       []byte // data-in, a part of what Buffer gave
	ActualIn int    // bytes that the command had to send: more than len(In) is an overflow

	// Crash is a panic of the program or its device that ended the command, which
	// answers HARDWARE ERROR. Nil for none.
	Crash *CrashError

	command command // the command while it runs
}

// CrashError is a panic while a command ran.
type CrashError struct {
	Value any
	Stack []byte // of the goroutine, as debug.Stack gives it
}

// Error names the value.
func (e *CrashError) Error() string { return fmt.Sprintf("run command: %v", e.Value) }
