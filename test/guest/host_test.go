package guest

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
)

// host is a daemon, and a directory in which the page's commands run.
type host struct {
	t   *testing.T
	dir string
}

// newHost starts a daemon without a configuration. When the test ends, it takes
// everything down.
func newHost(t *testing.T) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "ripstop-guest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t, dir}
	// QEMU's user reads its secret there and nothing else.
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(filepath.Join(dir, "state"), 0o700)); err != nil {
		t.Fatal(err)
	}
	h.write("state/vm1.secret", "a-secret-of-16b")
	h.write("vm1.secret", "a-secret-of-16b")
	if err := os.Chown(filepath.Join(dir, "vm1.secret"), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, h.words("serve")...)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := nettest.Begin(cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.write("none.yaml", "version: 1\n")
		h.run("apply", filepath.Join(dir, "none.yaml"))
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait() // how it ended is in its log
		if t.Failed() {
			t.Logf("the daemon's log:\n%s", log.String())
		}
	})
	nettest.Eventually(t, limit, "the daemon is ready", func() bool { return exec.Command(program, h.words("status")...).Run() == nil })
	return h
}

func (h *host) words(words ...string) []string {
	return append([]string{"--state", filepath.Join(h.dir, "state"), "--socket", filepath.Join(h.dir, "sock")}, words...)
}

func (h *host) write(name, text string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) run(words ...string) string {
	h.t.Helper()
	return nettest.Run(h.t, program, h.words(words...)...)
}

// sh runs a block of the page, whose ripstop is the daemon's.
func (h *host) sh(block string) {
	h.t.Helper()
	cmd := exec.Command("sh", "-ec", "ripstop() { "+strings.Join(append([]string{program}, h.words(`"$@"`)...), " ")+"; }\n"+block)
	cmd.Dir = h.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("%s: %v\n%s", block, err, out)
	}
}

// in calls f inside a namespace.
func in(t *testing.T, netns string, f func() error) {
	t.Helper()
	s, err := link.OpenNamespace(netns)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Run(f), s.Close()); err != nil {
		t.Fatal(err)
	}
}

// counter is one of an interface's statistics; netns "" is the host's.
func counter(t *testing.T, netns, name, what string) int {
	t.Helper()
	words := []string{"cat", "/sys/class/net/" + name + "/statistics/" + what}
	if netns != "" {
		words = append([]string{"ip", "netns", "exec", netns}, words...)
	}
	n, err := strconv.Atoi(strings.TrimSpace(nettest.Run(t, words[0], words[1:]...)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// flow is datagrams from one namespace to another, one a millisecond.
type flow struct {
	t    *testing.T
	out  net.Conn
	in   net.PacketConn
	stop func()
	over <-chan struct{} // closed to stop
	done chan struct{}   // closed when nothing more is sent
	sent int64           // of use when done
	seen atomic.Int64
}

func newFlow(t *testing.T, from, to, address string) *flow {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &flow{t: t, stop: cancel, over: ctx.Done(), done: make(chan struct{})}
	in(t, to, func() (err error) { f.in, err = net.ListenPacket("udp4", ":7007"); return err })
	in(t, from, func() (err error) { f.out, err = net.Dial("udp4", address+":7007"); return err })
	raw, err := f.in.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// What a busy receiver has not read yet is not lost by the switch.
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	go f.receive()
	go f.send()
	t.Cleanup(func() {
		f.stop()
		<-f.done
		f.out.Close()
		f.in.Close()
	})
	nettest.Eventually(t, limit, "datagrams arrive", func() bool { return f.seen.Load() > 50 })
	return f
}

func (f *flow) send() {
	defer close(f.done)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for ; ; f.sent++ {
		select {
		case <-f.over:
			return
		case <-tick.C:
		}
		if _, err := f.out.Write(binary.BigEndian.AppendUint32(nil, uint32(f.sent))); err != nil {
			f.t.Errorf("datagram %d: %v", f.sent, err)
		}
	}
}

// receive counts datagrams; each arrives once.
func (f *flow) receive() {
	seen, b := map[uint32]bool{}, make([]byte, 64)
	for {
		n, _, err := f.in.ReadFrom(b)
		if err != nil {
			return // closed
		}
		if i := binary.BigEndian.Uint32(b[:n]); !seen[i] {
			seen[i] = true
			f.seen.Add(1)
		}
	}
}

// end demands that everything arrived.
func (f *flow) end() {
	f.t.Helper()
	f.stop()
	<-f.done
	sent := f.sent
	deadline := time.Now().Add(3 * time.Second)
	for f.seen.Load() < sent && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond) // the poll interval of a condition
	}
	if seen := f.seen.Load(); seen != sent {
		f.t.Errorf("another port's flow lost %d of %d datagrams", sent-seen, sent)
	}
	f.t.Logf("%d datagrams of other ports meanwhile", sent)
}
