//go:build vm

package vm

import (
	"maps"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"ripstop/internal/nettest"
)

// inside runs a command in a named network namespace and gives its output.
func inside(t testing.TB, netns, name string, args ...string) string {
	t.Helper()
	return run(t, "ip", append([]string{"netns", "exec", netns, name}, args...)...)
}

// reaches fails the test when a namespace gets no answer from an address.
func reaches(t testing.TB, netns, address string) {
	t.Helper()
	inside(t, netns, "ping", "-q", "-c", "1", "-W", "10", address)
}

// misses fails the test when a namespace gets an answer from an address.
func misses(t testing.TB, netns, address string) {
	t.Helper()
	out, err := try(t, "ip", "netns", "exec", netns, "ping", "-q", "-c", "3", "-i", "0.2", "-W", "1", address)
	if err == nil || !strings.Contains(out, "100% packet loss") {
		t.Errorf("%s pings %s: %v, want that no answer comes:\n%s", netns, address, err, out)
	}
}

// links gives the indexes of all interfaces of the first namespace.
func links(t testing.TB) map[string]int {
	t.Helper()
	list, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	indexes := map[string]int{}
	for _, l := range list {
		indexes[l.Name] = l.Index
	}
	return indexes
}

// sameLinks fails the test when an interface came, went or was made anew.
func sameLinks(t testing.TB, before map[string]int) {
	t.Helper()
	if now := links(t); !maps.Equal(now, before) {
		t.Errorf("the interfaces are %v, want %v as before", now, before)
	}
}

// pings is a ping a millisecond, until it is ended.
type pings struct{ *process }

func startPings(t testing.TB, netns, address string) pings {
	t.Helper()
	// The count is a limit for when nobody ends it: less than one turn of icmp_seq.
	return pings{start(t, "64 bytes", "ip", "netns", "exec", netns, "ping", "-i", "0.001", "-c", "60000", address)}
}

// count gives how many replies came, and how many did not before the last one.
func (p pings) count(t testing.TB) (replies, lost int) {
	t.Helper()
	seen := map[int]bool{}
	last := 0
	for line := range strings.Lines(p.out.String()) {
		_, after, ok := strings.Cut(line, "icmp_seq=")
		number, _, whole := strings.Cut(after, " ttl=")
		if !ok || !whole {
			continue // not a reply, or not all of it has been read
		}
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatalf("ping printed %q", line)
		}
		seen[n], last = true, max(last, n)
	}
	return len(seen), last - len(seen)
}

// noneLost ends the pings after at least n replies, and fails the test when one
// is missing.
func (p pings) noneLost(t testing.TB, n int) {
	t.Helper()
	nettest.Eventually(t, patience, "enough pings are answered", func() bool {
		replies, _ := p.count(t)
		return replies >= n || p.ended()
	})
	p.signal(t, syscall.SIGINT)
	nettest.Eventually(t, patience, "ping ends", p.ended)
	if replies, lost := p.count(t); lost != 0 || replies < n {
		t.Errorf("%d pings were lost, %d answered, want 0 and at least %d", lost, replies, n)
	}
}
