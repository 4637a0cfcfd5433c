//go:build vm

package vm

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

// patience is the limit for anything that takes a second on a real machine;
// the emulated one is twenty times slower, and shares its host.
const patience = 3 * time.Minute

// run runs a command and gives its output; its failure is the test's.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := try(t, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// try runs a command that may fail; the error holds its output.
func try(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	// A cleanup runs commands too, when the test's own context has ended.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), errors.Join(err, ctx.Err()), out)
	}
	return string(out), nil
}

// process is a program in the background. The end of its output is in the test's
// log when the test fails.
type process struct {
	cmd  *exec.Cmd
	out  output
	done chan struct{} // closed after the program ended
	err  error         // how it ended; valid once done is closed
}

// start starts a program and waits until a line of its output begins with
// ready, if that is not empty. The program is stopped when the test ends.
func start(t testing.TB, ready, name string, args ...string) *process {
	t.Helper()
	p := &process{cmd: exec.Command(name, args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	p.cmd.WaitDelay = time.Second // its children may keep the output open
	// iscsid ends by a signal to its whole process group, which must not be ours.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", name, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.stop(t)
		if t.Failed() {
			t.Logf("%s: %v\n%s", name, p.err, p.out.end())
		}
	})
	if ready != "" {
		p.await(t, ready)
	}
	return p
}

// await waits until a line of the output begins with prefix.
func (p *process) await(t testing.TB, prefix string) {
	t.Helper()
	nettest.Eventually(t, patience, fmt.Sprintf("%s prints %q", p.cmd.Path, prefix), func() bool {
		if p.out.hasLine(prefix) {
			return true
		}
		if p.ended() {
			t.Fatalf("%s ended before it printed %q: %v", p.cmd.Path, prefix, p.err)
		}
		return false
	})
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop asks the program to end by SIGTERM, and fails the test when it does not.
func (p *process) stop(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(patience):
		t.Errorf("%s does not end on SIGTERM", p.cmd.Path)
		p.kill(t)
	}
}

// kill ends the program at once and returns when it is gone.
func (p *process) kill(t testing.TB) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.done
}

// signal sends a signal to the program and its children.
func (p *process) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if p.ended() {
		return
	}
	// ESRCH: it ended just now.
	if err := syscall.Kill(-p.cmd.Process.Pid, s); err != nil && err != syscall.ESRCH {
		t.Errorf("%v to %s: %v", s, p.cmd.Path, err)
	}
}

// output is what a program prints.
type output struct{ nettest.Journal }

// end is the text, or its last lines when there are very many.
func (o *output) end() string {
	const most = 32 << 10
	all := o.String()
	if len(all) <= most {
		return all
	}
	return "…" + all[len(all)-most:]
}

// hasLine reports whether a line begins with prefix.
func (o *output) hasLine(prefix string) bool {
	return strings.Contains("\n"+o.String(), "\n"+prefix)
}
