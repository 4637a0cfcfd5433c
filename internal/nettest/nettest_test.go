package nettest

import (
	"os"
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
