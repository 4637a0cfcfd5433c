package gap

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

const limit = 60 * time.Second

// daemon is `ripstop serve` with a state directory of its own; builds of it take
// turns, one at a time.
type daemon struct {
	t      *testing.T
	dir    string
	cmd    *exec.Cmd
	log    *journal
	exited chan struct{}
}

// journal collects what processes print.
type journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}

// newDaemon prepares a daemon. When the test ends, it takes everything down.
func newDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{t: t, dir: t.TempDir()}
	t.Cleanup(func() {
		if t.Failed() && d.log != nil {
			text := d.log.String()
			t.Logf("the last daemon's log:\n%s", text[max(0, len(text)-8<<10):])
		}
		if d.gone() {
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
	d.log, d.exited = &journal{}, make(chan struct{})
	w := d.words(v, "serve")
	d.cmd = exec.Command(w[0], w[1:]...)
	d.cmd.Stdout, d.cmd.Stderr = d.log, d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() {
		defer close(d.exited)
		d.cmd.Wait() // how it ended is in its log
	}()
	nettest.Eventually(d.t, limit, "the daemon is ready", func() bool {
		if d.gone() {
			d.t.Fatalf("%s ended before it was ready:\n%s", v, d.log)
		}
		return strings.Contains(d.log.String(), "msg=ready ")
	})
}

func (d *daemon) gone() bool {
	if d.cmd == nil {
		return true
	}
	select {
	case <-d.exited:
		return true
	default:
		return false
	}
}

// end ends the daemon by a signal.
func (d *daemon) end(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
	<-d.exited
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
	if !strings.Contains(d.log.String(), how) {
		d.t.Errorf("the log of %s does not say %q:\n%s", v, how, d.log)
	}
	for _, word := range []string{`msg="step done"`, `msg="drift put right"`, "level=ERROR"} {
		if strings.Contains(d.log.String(), word) {
			d.t.Errorf("the start of %s did something:\n%s", v, d.log)
			return
		}
	}
}
