package crash

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

const (
	address = "127.0.0.1:3260"
	iqn     = "iqn.2026-11.org.example:t"
	limit   = 60 * time.Second
)

// daemon is `ripstop serve` with a state directory of its own; it can be
// started several times, one at a time.
type daemon struct {
	t     testing.TB
	dir   string
	netns string           // where it runs; "" is that of the test
	proc  *nettest.Process // nil when it is stopped
	err   error            // how it ended last
	log   string           // what it printed last, before that
}

// newDaemon prepares a daemon; it is killed when the test ends.
func newDaemon(t testing.TB, config string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: t.TempDir()}
	d.configure(config)
	t.Cleanup(func() {
		d.kill()
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", d.log)
		}
	})
	return d
}

func (d *daemon) file() string  { return filepath.Join(d.dir, "config.yaml") }
func (d *daemon) state() string { return filepath.Join(d.dir, "state") }

// configure writes the file, of which the daemon hears nothing.
func (d *daemon) configure(config string) {
	d.t.Helper()
	if err := os.WriteFile(d.file(), []byte(config), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// start starts the daemon and does not wait.
func (d *daemon) start() {
	d.t.Helper()
	words := []string{program, "--state", d.state(), "--socket", filepath.Join(d.dir, "sock"), "serve", "--config", d.file()}
	if d.netns != "" {
		words = append([]string{"nsenter", "--net=/run/netns/" + d.netns}, words...)
	}
	d.proc = nettest.Start(d.t, words...)
}

// serve starts the daemon and waits until it is ready.
func (d *daemon) serve() {
	d.t.Helper()
	d.start()
	d.proc.Ready()
}

func (d *daemon) gone() bool { return d.proc.Gone() }

// kill ends the daemon by SIGKILL.
func (d *daemon) kill() { d.end(syscall.SIGKILL) }

// stop ends the daemon as a service manager does.
func (d *daemon) stop() {
	d.t.Helper()
	d.end(syscall.SIGTERM)
	if d.err != nil {
		d.t.Errorf("the daemon ended with %v on SIGTERM", d.err)
	}
}

func (d *daemon) end(s syscall.Signal) {
	d.t.Helper()
	if d.proc == nil {
		return
	}
	d.proc.End(s)
	d.err, d.log, d.proc = d.proc.Err(), d.proc.LogEnd(16<<10), nil
}

// try runs a command against the daemon and gives its output; the error has it, too.
func (d *daemon) try(args ...string) (string, error) {
	args = append([]string{"--state", d.state(), "--socket", filepath.Join(d.dir, "sock")}, args...)
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("ripstop %s: %w\n%s", strings.Join(args[4:], " "), err, out)
	}
	return string(out), nil
}

// cli is try where failure is the test's.
func (d *daemon) cli(args ...string) string {
	d.t.Helper()
	out, err := d.try(args...)
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// apply makes a configuration the daemon's.
func (d *daemon) apply(config string) {
	d.t.Helper()
	d.configure(config)
	d.cli("apply", d.file())
}

// enter opens a session.
func (d *daemon) enter() *session {
	d.t.Helper()
	var s *session
	var err error
	nettest.Eventually(d.t, limit, "a session", func() bool {
		s, err = dial(address, iqn)
		return err == nil
	})
	d.t.Cleanup(s.close)
	return s
}

// field gives a number of an object: field("pool", "main", "used").
func (d *daemon) field(kind, name, of string) int64 {
	d.t.Helper()
	var all map[string]any
	out := d.cli("get", kind, name, "-o", "json")
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		d.t.Fatalf("%v\n%s", err, out)
	}
	n, ok := all[of].(float64)
	if !ok {
		d.t.Fatalf("%s %s has no number %s:\n%s", kind, name, of, out)
	}
	return int64(n)
}
