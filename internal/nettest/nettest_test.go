package nettest

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { Main(m) }

func TestOwnNamespaces(t *testing.T) {
	if got := strings.Join(left(), " "); got != "link lo" {
		t.Errorf("a new namespace holds %q, want the loopback alone", got)
	}
	Namespace(t, "a")
	if out := Run(t, "ip", "-n", "a", "-br", "link"); !strings.HasPrefix(out, "lo ") {
		t.Errorf("namespace a shows %q", out)
	}
	entries, err := os.ReadDir("/sys/class/net")
	if err != nil || len(entries) != 1 {
		t.Errorf("/sys/class/net shows %v, %v; want lo alone", entries, err)
	}
}

// failed is a test that has failed.
type failed struct {
	testing.TB
	cleanups []func()
}

func (f *failed) Failed() bool       { return true }
func (f *failed) Cleanup(end func()) { f.cleanups = append(f.cleanups, end) }

func TestSweep(t *testing.T) {
	before := left()
	f := &failed{TB: t}
	Sweep(f, "MARK=of-this-test")
	Run(t, "ip", "netns", "add", "swept")
	Run(t, "ip", "link", "add", "swept0", "type", "veth", "peer", "name", "swept1", "netns", "swept")
	stays := exec.Command("ip", "netns", "exec", "swept", "setsid", "sleep", "600")
	stays.Env = append(os.Environ(), "MARK=of-this-test")
	if err := stays.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = stays.Wait() }() // by a signal
	Eventually(t, sweepLimit, "the process has begun", func() bool { return len(marked("MARK=of-this-test")) == 1 })
	for _, end := range f.cleanups {
		end()
	}
	if after := left(); !slices.Equal(after, before) {
		t.Errorf("left are %v, and were %v", after, before)
	}
}
