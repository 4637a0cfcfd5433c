package session

// WindowSize is how many commands an initiator may have in flight.
const WindowSize = 128

// Verdict is what becomes of a command by its number.
type Verdict int

// The verdicts of Window.Admit.
const (
	Take   Verdict = iota // the next one: carry it out
	Ignore                // outside of the window, or there before: RFC 7143 section 4.2.2.1 drops it in silence
	Gap                   // a command before it is missing: another connection may bring it
)

// Window is the command window of a session, whatever connections bring the
// commands. Its zero value expects command 0.
type Window struct {
	ExpCmdSN uint32    // the next command to be taken
	skipped  [2]uint64 // bit n%64 of word n/64: ExpCmdSN+n counts as received
}

// Max is the last command number that the initiator may use.
func (w *Window) Max() uint32 { return w.ExpCmdSN + WindowSize - 1 }

// Admit judges a command and moves the window when it takes a counted one.
// Immediate commands carry the number of the next command without using it up.
func (w *Window) Admit(cmdSN uint32, immediate bool) Verdict {
	v := w.Judge(cmdSN, immediate)
	if v == Take && !immediate {
		w.advance()
	}
	return v
}

// Judge is what Admit would say. It moves nothing.
func (w *Window) Judge(cmdSN uint32, immediate bool) Verdict {
	ahead := w.ahead(cmdSN)
	switch {
	case immediate || ahead == 0:
		return Take
	case ahead < 0 || ahead >= WindowSize || w.isSkipped(ahead):
		return Ignore
	}
	return Gap
}

// ahead is the distance from the next command in serial arithmetic (RFC 1982).
func (w *Window) ahead(cmdSN uint32) int { return int(int32(cmdSN - w.ExpCmdSN)) }

func (w *Window) isSkipped(n int) bool { return w.skipped[n/64]>>(n%64)&1 == 1 }

// Skip has a command that has not come count as received (RFC 7143 section
// 11.5.5); when it comes after all it is ignored. It is false for a command
// that came, or outside of the window.
func (w *Window) Skip(cmdSN uint32) bool {
	n := w.ahead(cmdSN)
	if n < 0 || n >= WindowSize {
		return false
	}
	w.skipped[n/64] |= 1 << (n % 64)
	if n == 0 {
		w.advance()
	}
	return true
}

// advance moves past the next command, and past those that were skipped.
func (w *Window) advance() {
	for {
		w.ExpCmdSN++
		w.skipped[0] = w.skipped[0]>>1 | w.skipped[1]<<63
		w.skipped[1] >>= 1
		if w.skipped[0]&1 == 0 {
			return
		}
	}
}
