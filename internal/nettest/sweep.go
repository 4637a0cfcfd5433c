package nettest

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

const sweepLimit = 20 * time.Second

// Sweep has a test that fails end what it started and remove the links and namespaces
// that it made, so that it alone fails. Its processes are those with mark, a NAME=value,
// in their environment, whatever sessions and namespaces they went to.
func Sweep(t testing.TB, mark string) {
	t.Helper()
	SweepLinks(t)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, pid := range marked(mark) {
			// One that has ended meanwhile is as well.
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		Eventually(t, sweepLimit, "the test's processes have ended", func() bool { return len(marked(mark)) == 0 })
	})
}

// SweepLinks has a test that fails remove the links and namespaces that were made since,
// and that nothing else has removed.
func SweepLinks(t testing.TB) {
	t.Helper()
	before := left()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		entries, _ := os.ReadDir("/run/netns")
		for _, e := range entries {
			if !slices.Contains(before, "netns "+e.Name()) {
				_ = exec.Command("ip", "netns", "delete", e.Name()).Run()
			}
		}
		links, _ := net.Interfaces()
		for _, l := range links {
			if !slices.Contains(before, "link "+l.Name) {
				// A veth goes with its peer.
				_ = exec.Command("ip", "link", "delete", "dev", l.Name).Run()
			}
		}
	})
}

// marked is the processes that have a word in their environment, without this one.
func marked(mark string) []int {
	var pids []int
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		if err != nil || pid == os.Getpid() {
			continue
		}
		// One that has ended, a zombie among them, has none.
		if b, err := os.ReadFile(f); err == nil && slices.ContainsFunc(bytes.Split(b, []byte{0}), func(w []byte) bool { return string(w) == mark }) {
			pids = append(pids, pid)
		}
	}
	return pids
}
