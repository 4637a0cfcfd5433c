package gap

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

const limit = 60 * time.Second

// daemon is `ripstop serve` with a state directory of its own; builds of it take
// turns, one at a time.
type daemon struct {
	t    *testing.T
	dir  string
	proc *nettest.Process
}

// newDaemon prepares a daemon. When the test ends, it takes everything down.
func newDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: t.TempDir()}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the last daemon's log:\n%s", d.proc.LogEnd(8<<10))
		}
		if d.proc.Gone() {
			d.serve(Same)
		}
		d.apply("version: 1\n")
		d.end(syscall.SIGTERM)
	})
	return d
}

func (d *daemon) words(v Variant, words ...string) []string {
	return append([]string{builds[v], "--state", filepath.Join(d.dir, "state"), "--socket", filepath.Join(d.dir, "sock")}, words...)
}

// serve starts a build and waits until it is ready.
func (d *daemon) serve(v Variant) {
	d.t.Helper()
	d.proc = nettest.Start(d.t, d.words(v, "serve")...)
	d.proc.Ready()
}

// end ends the daemon by a signal.
func (d *daemon) end(s syscall.Signal) {
	d.t.Helper()
	d.proc.End(s)
}

// apply has the daemon carry a file out.
func (d *daemon) apply(config string) {
	d.t.Helper()
	file := filepath.Join(d.dir, "config.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		d.t.Fatal(err)
	}
	w := d.words(Same, "apply", file)
	nettest.Run(d.t, w[0], w[1:]...)
}

// quiet demands that a daemon that was started had nothing to put right, and how
// it found the switch.
func (d *daemon) quiet(v Variant, how string) {
	d.t.Helper()
	log := d.proc.Log()
	if !strings.Contains(log, how) {
		d.t.Errorf("the log of %s does not say %q:\n%s", v, how, log)
	}
	for _, word := range []string{`msg="step done"`, `msg="drift put right"`, "level=ERROR"} {
		if strings.Contains(log, word) {
			d.t.Errorf("the start of %s did something:\n%s", v, log)
			return
		}
	}
}
