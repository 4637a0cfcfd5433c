// Package backup has the real program copy LUNs to a real S3 server and back, while things go wrong.
//
//	initiator ── iSCSI ──► ripstop serve ◄── ripstop backup ── proxy ──► versitygw
//
// The tests run in namespaces of their own.
package backup

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/test/s3"
)

// program is the program under test. TestMain builds it.
var program string

func TestMain(m *testing.M) {
	// Inside there is no network to get it from.
	if _, err := s3.Install(); err != nil {
		fmt.Fprintln(os.Stderr, "backup:", err)
		os.Exit(1)
	}
	nettest.Main(nettest.Program{M: m, Path: &program})
}

const limit = 90 * time.Second

// host is a daemon, and a directory in which commands run.
type host struct {
	t   *testing.T
	dir string
	env []string
	cmd *exec.Cmd

	netns string // "" is the test's own
}

// newHost starts a daemon with a file.
func newHost(t *testing.T, config string) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir(), env: append(os.Environ(), s3.Env()...)}
	h.write("lab.yaml", config)
	// The commands of the page name no socket.
	h.write("bin/ripstop", "#!/bin/sh\nexec "+program+" --state "+h.dir+"/state --socket "+h.dir+"/sock \"$@\"\n")
	h.env = append(h.env, "PATH="+h.dir+"/bin:"+os.Getenv("PATH"))
	h.serve()
	t.Cleanup(func() { h.end(syscall.SIGTERM) })
	return h
}

func (h *host) write(name, text string) {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		h.t.Fatal(err)
	}
}

// serve starts the daemon and waits until all is well.
func (h *host) serve() {
	h.t.Helper()
	h.start("--config", "lab.yaml")
	nettest.Eventually(h.t, limit, "the daemon is ready", func() bool { return h.command("ripstop", "status").Run() == nil })
}

// serveNothing starts the daemon with what was applied last, and waits until it answers.
func (h *host) serveNothing() {
	h.t.Helper()
	h.start()
	nettest.Eventually(h.t, limit, "the daemon answers", func() bool { return h.command("ripstop", "version", "--daemon").Run() == nil })
}

func (h *host) start(flags ...string) {
	h.t.Helper()
	h.cmd = h.command(append([]string{"ripstop", "serve"}, flags...)...)
	log := &bytes.Buffer{}
	h.cmd.Stdout, h.cmd.Stderr = log, log
	if err := nettest.Begin(h.cmd); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() {
		if h.t.Failed() {
			h.t.Logf("the daemon's log:\n%s", log.String())
		}
	})
}

// end ends the daemon.
func (h *host) end(s syscall.Signal) {
	if h.cmd == nil {
		return
	}
	_ = h.cmd.Process.Signal(s)
	_ = h.cmd.Wait()
	h.cmd = nil
}

// command is one in the host's directory.
func (h *host) command(words ...string) *exec.Cmd {
	if words[0] == "ripstop" {
		words[0] = h.dir + "/bin/ripstop"
	}
	if h.netns != "" {
		words = append([]string{"ip", "netns", "exec", h.netns}, words...)
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir, cmd.Env = h.dir, h.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// run runs a command that must succeed, and gives what it prints.
func (h *host) run(words ...string) string {
	h.t.Helper()
	out, err := h.command(words...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("%s: %v\n%s", strings.Join(words, " "), err, out)
	}
	return string(out)
}

// fails runs a command that must fail, and gives what it prints.
func (h *host) fails(words ...string) string {
	h.t.Helper()
	out, err := h.command(words...).CombinedOutput()
	if err == nil {
		h.t.Fatalf("%s succeeded:\n%s", strings.Join(words, " "), out)
	}
	return string(out)
}

// io has an initiator work on LUN n of the target, with commands of qemu-io.
func (h *host) io(n int, commands ...string) {
	h.t.Helper()
	words := []string{"qemu-io", "--image-opts", fmt.Sprintf("driver=iscsi,transport=tcp,portal=127.0.0.1:3260,target=iqn.2026-11.org.example:data,lun=%d,initiator-name=iqn.2026-11.org.example:worker", n)}
	for _, c := range commands {
		words = append(words, "-c", c)
	}
	if out := h.run(words...); strings.Contains(out, "failed") {
		h.t.Fatal(out)
	}
}
