package nettest

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// patience is how long a process that a test has started may take to begin or to end.
const patience = 180 * time.Second

// Process is a program that a test has started. It ends with the test's process at the
// latest. A nil one is gone, and printed nothing.
type Process struct {
	t      testing.TB
	cmd    *exec.Cmd
	log    Journal
	exited chan struct{}
	err    error // how it ended; valid once exited is closed
}

// Start starts a program and does not wait.
func Start(t testing.TB, words ...string) *Process {
	t.Helper()
	p := &Process{t: t, cmd: exec.Command(words[0], words[1:]...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := Begin(p.cmd); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.exited)
	}()
	return p
}

// Log is what the process has printed until now.
func (p *Process) Log() string {
	if p == nil {
		return ""
	}
	return p.log.String()
}

// LogEnd is its last n bytes.
func (p *Process) LogEnd(n int) string {
	text := p.Log()
	return text[max(0, len(text)-n):]
}

// PID is the process's number.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Err is how the process ended, which it has.
func (p *Process) Err() error {
	<-p.exited
	return p.err
}

// Gone tells whether the process has ended.
func (p *Process) Gone() bool {
	if p == nil {
		return true
	}
	select {
	case <-p.exited:
		return true
	default:
		return false
	}
}

// Ready waits until a daemon says that it is ready.
func (p *Process) Ready() {
	p.t.Helper()
	Eventually(p.t, patience, "the daemon is ready", func() bool {
		if p.Gone() {
			p.t.Fatalf("the daemon ended before it was ready: %v\n%s", p.err, p.Log())
		}
		return strings.Contains(p.Log(), "msg=ready ")
	})
}

// Signal sends a signal to a process that may be gone.
func (p *Process) Signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Error(err)
	}
}

// End sends a daemon a signal, waits for its end, and demands that it had not
// panicked. One that is gone stays so.
func (p *Process) End(s syscall.Signal) {
	p.t.Helper()
	p.Signal(s)
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Errorf("%s does not end on %v", p.cmd.Path, s)
		p.cmd.Process.Kill()
		<-p.exited
	}
	for _, never := range []string{"panic", "goroutine "} {
		if strings.Contains(p.Log(), never) {
			p.t.Errorf("the log of %s has %q:\n%s", p.cmd.Path, never, p.LogEnd(16<<10))
		}
	}
}
