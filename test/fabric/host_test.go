package fabric

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"ripstop/internal/nettest"
)

// host is a daemon in a network namespace, with a state directory of its own.
type host struct {
	t    testing.TB
	name string
	dir  string
	proc *nettest.Process
}

// newHost makes a host that routes. When the test ends, its daemon has taken
// everything down.
func newHost(t testing.TB, name string) *host {
	t.Helper()
	nettest.Namespace(t, name)
	nettest.Run(t, "ip", "netns", "exec", name, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	h := &host{t: t, name: name, dir: t.TempDir()}
	t.Cleanup(func() {
		if t.Failed() {
			w := h.words("status")
			status, _ := exec.Command(w[0], w[1:]...).CombinedOutput() // it may have no daemon
			t.Logf("the status of host %s, and its last log:\n%s\n%s", name, status, h.proc.LogEnd(6<<10))
		}
		if h.proc.Gone() {
			h.serve()
		}
		h.apply("version: 1\n")
		if left := nettest.Run(t, "ip", "-n", name, "route", "show", "proto", "114"); left != "" {
			t.Errorf("host %s has routes left:\n%s", name, left)
		}
		h.end(syscall.SIGTERM)
	})
	return h
}

// words is a command on the host.
func (h *host) words(words ...string) []string {
	return append([]string{"nsenter", "--net=/run/netns/" + h.name, program,
		"--host", h.name, "--state", filepath.Join(h.dir, "state"), "--socket", filepath.Join(h.dir, "sock")}, words...)
}

func (h *host) ripstop(words ...string) string {
	h.t.Helper()
	w := h.words(words...)
	return nettest.Run(h.t, w[0], w[1:]...)
}

// serve starts the daemon and waits until it is ready.
func (h *host) serve() {
	h.t.Helper()
	h.proc = nettest.Start(h.t, h.words("serve")...)
	h.proc.Ready()
}

// end ends the daemon by a signal.
func (h *host) end(s syscall.Signal) {
	h.t.Helper()
	h.proc.End(s)
}

// memory is the most that the daemon has taken, in bytes.
func (h *host) memory() (n int) {
	h.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", h.proc.PID()))
	if err != nil {
		h.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscanf(after, "%d kB", &n); err != nil {
		h.t.Fatalf("%v in\n%s", err, status)
	}
	return n << 10
}

// apply has the daemon carry a file out.
func (h *host) apply(config string) {
	h.t.Helper()
	file := filepath.Join(h.dir, "fabric.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		h.t.Fatal(err)
	}
	h.ripstop("apply", file)
}

// well waits until all of the host is as the file says.
func (h *host) well() {
	h.t.Helper()
	w := h.words("status")
	nettest.Eventually(h.t, limit, "host "+h.name+" is well", func() bool {
		return exec.Command(w[0], w[1:]...).Run() == nil
	})
}

// disk is qemu-io, which reaches a LUN by libiscsi from a namespace and verifies
// it round by round in one session, until it is stopped.
type disk struct {
	t      testing.TB
	in     io.WriteCloser
	out    *bufio.Reader
	cmd    *exec.Cmd
	rounds atomic.Int64
	stop   chan struct{}
	ended  chan error
}

func newDisk(t testing.TB, netns, url string) *disk {
	t.Helper()
	d := &disk{t: t, stop: make(chan struct{}), ended: make(chan error, 1)}
	d.cmd = exec.Command("nsenter", "--net=/run/netns/"+netns, "stdbuf", "-o0", "qemu-io", "--image-opts", "-t", "none", url)
	var err error
	if d.in, err = d.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	d.out, d.cmd.Stderr = bufio.NewReader(out), d.cmd.Stdout
	if err := nettest.Begin(d.cmd); err != nil {
		t.Fatal(err)
	}
	go func() { d.ended <- d.work() }()
	t.Cleanup(func() {
		d.in.Close()
		d.cmd.Process.Kill()
		d.cmd.Wait() // its answers were judged
	})
	return d
}

// work writes a pattern, flushes it, and reads it and the one before.
func (d *disk) work() error {
	const size, places = 64 << 10, 256
	if err := d.do(""); err != nil {
		return err
	}
	at := func(n int64) string { return fmt.Sprintf("-P %d %d %d", 1+n%250, n%places*size, size) }
	for n := int64(0); ; n++ {
		select {
		case <-d.stop:
			return nil
		default:
		}
		cmds := []string{"write " + at(n), "flush", "read " + at(n)}
		if n > 0 {
			cmds = append(cmds, "read "+at(n-1))
		}
		for _, c := range cmds {
			if err := d.do(c); err != nil {
				return err
			}
		}
		d.rounds.Add(1)
	}
}

// do is one command of qemu-io, up to its prompt for the next one: it reads ahead,
// and forgets what it has read.
func (d *disk) do(command string) error {
	if command != "" {
		if _, err := io.WriteString(d.in, command+"\n"); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	var answer []byte
	for !bytes.HasSuffix(answer, []byte("qemu-io> ")) {
		b, err := d.out.ReadByte()
		if err != nil {
			return fmt.Errorf("%s: %w after %q", command, err, answer)
		}
		answer = append(answer, b)
	}
	if bytes.Contains(answer, []byte("ailed")) || bytes.Contains(answer, []byte("rror")) {
		return fmt.Errorf("%s: %s", command, answer)
	}
	return nil
}

// goes waits until the disk has done some rounds more.
func (d *disk) goes(on string) {
	d.t.Helper()
	want := d.rounds.Load() + 5
	nettest.Eventually(d.t, limit, "the disk goes on "+on, func() bool {
		select {
		case err := <-d.ended:
			d.t.Fatalf("the disk %s: %v", on, err)
		default:
		}
		return d.rounds.Load() >= want
	})
}

// end ends the work and demands that it was faultless.
func (d *disk) end() {
	d.t.Helper()
	close(d.stop)
	if err := <-d.ended; err != nil {
		d.t.Errorf("the disk: %v", err)
	}
}
