package fabric

import (
	_ "embed"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"ripstop/internal/nettest"
)

//go:embed testdata/prefixes.yaml
var prefixes string

var refused = regexp.MustCompile(`(?m)^192\.0\.2\.0/25 .* refused `)

// TestPrefixesOverMesh has networks of two hosts reach each other by EVPN's prefixes over a
// mesh, while the daemon of one is killed and comes back; both announce the network under
// the mesh as well, which nobody takes.
func TestPrefixesOverMesh(t *testing.T) {
	// A daemon that is killed takes its WireGuard with it, and says nothing.
	prefixesOverMesh(t, "ebpf", "9s")
}

func prefixesOverMesh(t *testing.T, dataplane, hold string) {
	w := newWire(t)
	a, b := newHost(t, "a"), newHost(t, "b")
	file := strings.NewReplacer("DATAPLANE", dataplane, "HOLD", hold).Replace(prefixes)
	for i, h := range []*host{a, b} {
		w.plug(h.name, fmt.Sprintf("192.0.2.%d/24", i+1))
		file = strings.ReplaceAll(file, "KEY-OF-"+strings.ToUpper(h.name), `"`+strings.TrimSpace(h.ripstop("key", "mesh.key"))+`"`)
	}
	for _, h := range []*host{a, b} {
		h.serve()
		h.apply(file)
	}
	for _, h := range []*host{a, b} {
		h.well()
	}
	nettest.Run(t, "ip", "-n", "web", "route", "add", "default", "via", "10.20.0.1")
	nettest.Run(t, "ip", "-n", "db", "route", "add", "default", "via", "10.21.0.1")
	reaches(t, "web", "10.21.0.2")
	routes := nettest.Run(t, "ip", "-n", "a", "route", "show", "proto", "115")
	if !strings.HasPrefix(routes, "10.21.0.0/24 via 10.99.0.2 dev vx10999 metric 20 onlink") || strings.Count(routes, "\n") > 1 {
		t.Errorf("host a has the routes\n%s", routes)
	}
	nettest.Eventually(t, limit, "host a refuses the network under the mesh", func() bool {
		return refused.MatchString(a.ripstop("get", "route"))
	})
	nettest.Eventually(t, limit, "packets of 1370 bytes go", func() bool { return pings("web", "10.21.0.2", "-M", "do", "-s", "1342") })

	ping := nettest.Start(t, "ip", "netns", "exec", "web", "ping", "-n", "-i", "0.05", "-W", "1", "10.21.0.2")
	answers := func() int { return strings.Count(ping.Log(), " bytes from ") }
	goes := func(on string) {
		t.Helper()
		before := answers()
		nettest.Eventually(t, limit, "the ping goes on "+on, func() bool { return answers() > before+20 })
	}
	goes("at first")
	b.end(syscall.SIGKILL)
	b.serve()
	b.well()
	goes("after the daemon of b is back")
	ping.End(syscall.SIGINT)
	t.Log(ping.LogEnd(200))
	w.clean()
}
