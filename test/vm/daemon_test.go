//go:build vm

package vm

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ripstop/internal/nettest"
)

// nothing is a configuration without any object: applied, it takes down all
// that ripstop made.
const nothing = "version: 1\n"

// daemon is a ripstop daemon with a state directory, a socket and a
// configuration file of its own. It can be started several times, one at a time.
type daemon struct {
	t     testing.TB
	dir   string
	netns string // where it runs and is reached; empty is the first one
	*process
}

// newDaemon prepares a daemon with a configuration and starts nothing.
func newDaemon(t testing.TB, netns, config string) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: t.TempDir(), netns: netns}
	if err := os.Mkdir(filepath.Join(d.dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	d.write(config)
	return d
}

// config is the path of the configuration file.
func (d *daemon) config() string { return filepath.Join(d.dir, "config.yaml") }

// write writes the configuration file, of which the daemon hears nothing.
func (d *daemon) write(config string) {
	d.t.Helper()
	writeFile(d.t, d.config(), config)
}

// secret writes a file of the state directory that only root may read.
func (d *daemon) secret(name, value string) {
	d.t.Helper()
	writeFile(d.t, filepath.Join(d.dir, "state", name), value+"\n")
}

// command gives the words that run ripstop for this daemon. nsenter and not ip
// netns exec, whose mount namespace would hide namespaces that the daemon makes.
func (d *daemon) command(args ...string) []string {
	words := []string{"ripstop", "--state", filepath.Join(d.dir, "state"), "--socket", filepath.Join(d.dir, "socket")}
	if d.netns != "" {
		words = append([]string{"nsenter", "--net=/run/netns/" + d.netns}, words...)
	}
	return append(words, args...)
}

// cli runs a command against the daemon and gives its output.
func (d *daemon) cli(args ...string) string {
	d.t.Helper()
	words := d.command(args...)
	return run(d.t, words[0], words[1:]...)
}

// apply makes a configuration the daemon's.
func (d *daemon) apply(config string) string {
	d.t.Helper()
	d.write(config)
	return d.cli("apply", d.config())
}

// serve starts the daemon with the configuration file and waits until it is
// ready.
func (d *daemon) serve() {
	d.t.Helper()
	words := d.command("serve", "--config", d.config())
	d.process = start(d.t, "", words[0], words[1:]...)
	d.awaitLog("msg=ready ")
}

// up runs the files in the foreground until they are ready.
func (d *daemon) up(files ...string) {
	d.t.Helper()
	words := d.command(append([]string{"up"}, files...)...)
	d.process = start(d.t, "ready", words[0], words[1:]...)
}

// end sends a signal and waits until the daemon has ended.
func (d *daemon) end(s syscall.Signal) {
	d.t.Helper()
	if s == syscall.SIGKILL {
		d.kill(d.t)
		return
	}
	d.signal(d.t, s)
	nettest.Eventually(d.t, patience, "the daemon ends", d.ended)
	if d.err != nil {
		d.t.Errorf("the daemon ended with %v after signal %v, want exit status 0", d.err, s)
	}
}

// awaitLog waits until the daemon has printed a text.
func (d *daemon) awaitLog(text string) {
	d.t.Helper()
	nettest.Eventually(d.t, patience, "the daemon logs "+text, func() bool {
		if strings.Contains(d.out.String(), text) {
			return true
		}
		if d.ended() {
			d.t.Fatalf("the daemon ended before it logged %q: %v", text, d.err)
		}
		return false
	})
}

// startedWithoutSteps fails the test when the last start changed anything.
func (d *daemon) startedWithoutSteps() {
	d.t.Helper()
	d.awaitLog(`msg="configuration applied" steps=0 unwell=0`)
	d.planIsEmpty()
}

// planIsEmpty fails the test when the configuration file asks for a step.
func (d *daemon) planIsEmpty() {
	d.t.Helper()
	if got := d.cli("plan", d.config()); got != "nothing to do\n" { // exit 2 has failed the test already
		d.t.Errorf("plan gave %q, want nothing to do", got)
	}
}

// get gives one object as the API has it.
func get[T any](d *daemon, kind, name string) T {
	d.t.Helper()
	var v T
	out := d.cli("get", kind, name, "-o", "json")
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		d.t.Fatalf("get %s %s: %v\n%s", kind, name, err, out)
	}
	return v
}

// edit replaces the one place of a configuration where old stands.
func edit(t testing.TB, config, old, new string) string {
	t.Helper()
	if n := strings.Count(config, old); n != 1 {
		t.Fatalf("%q stands %d times in the configuration, want once", old, n)
	}
	return strings.Replace(config, old, new, 1)
}
