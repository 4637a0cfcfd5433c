package session

// WindowSize is how many commands an initiator may have in flight.
const WindowSize = 128

// Verdict is what becomes of a command by its number.
type Verdict int

// The verdicts of Window.Admit.
const (
	Take   Verdict = iota // the next one: carry it out
	Ignore                // outside of the window: RFC 7143 section 4.2.2.1 drops it in silence
	Gap                   // a command before it is missing, which one TCP connection cannot lose
)

// Window is the command window of a session. Its zero value expects command 0.
type Window struct {
	ExpCmdSN uint32 // the next command to be taken
}

// Max is the last command number that the initiator may use.
func (w *Window) Max() uint32 { return w.ExpCmdSN + WindowSize - 1 }

// Admit judges a command and moves the window when it takes a counted one.
// Immediate commands carry the number of the next command without using it up.
func (w *Window) Admit(cmdSN uint32, immediate bool) Verdict {
	ahead := int32(cmdSN - w.ExpCmdSN) // serial arithmetic, RFC 1982
	switch {
	case immediate:
		return Take
	case ahead < 0 || ahead >= WindowSize:
		return Ignore
	case ahead > 0:
		return Gap
	}
	w.ExpCmdSN++
	return Take
}
