package fabric

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

// oneFile is three hosts. a has no endpoint: the others learn where it is.
const oneFile = `version: 1
hosts:
  a: {public-key: "%s", address: 10.99.0.1/24, subnets: 10.10.0.0/24}
  b: {public-key: "%s", address: 10.99.0.2/24, endpoint: "192.0.2.2:51820", subnets: 10.30.0.0/24}
  c: {public-key: "%s", address: 10.99.0.3/24, endpoint: "192.0.2.3:51820", subnets: 10.20.0.0/24}
vlans:
  office: {id: 10, gateway: 10.10.0.1/24, on: a}
  san:    {id: 30, gateway: 10.30.0.1/24, on: b}
  shop:   {id: 20, gateway: 10.20.0.1/24, on: c}
switches:
  lab:
    ports:
      web:  {vlan: office, netns: web, address: 10.10.0.2/24, on: a}
      box:  {vlan: san, netns: box, address: 10.30.0.2/24, on: b}
      till: {vlan: shop, netns: till, address: 10.20.0.2/24, on: c}
tunnels:
  mesh: {listen: 51820, private-key: mesh.key, mesh: %s}
pools: {main: {path: pools/main, size: 256MiB, on: b}}
luns:  {data: {pool: main, size: 64MiB, on: b}}
targets:
  "iqn.2026-11.org.example:data":
    on: b
    portals: [{tunnel: mesh}]
    luns: {0: data}
    initiators: {"iqn.2026-11.org.example:web": {}}
`

const lun = "driver=raw,file.driver=iscsi,file.transport=tcp,file.portal=10.99.0.2:3260,file.target=iqn.2026-11.org.example:data,file.initiator-name=iqn.2026-11.org.example:web"

// hosts brings up three hosts of one file on a wire.
func hosts(t *testing.T, mesh string) (w *wire, a, b, c *host, file string) {
	t.Helper()
	w = newWire(t)
	a, b, c = newHost(t, "a"), newHost(t, "b"), newHost(t, "c")
	all := []*host{a, b, c}
	keys := []any{}
	for i, h := range all {
		w.plug(h.name, fmt.Sprintf("192.0.2.%d/24", i+1))
		keys = append(keys, strings.TrimSpace(h.ripstop("key", "mesh.key")))
	}
	file = fmt.Sprintf(oneFile, append(keys, mesh)...)
	for _, h := range all {
		h.serve()
		h.apply(file)
	}
	for _, h := range all {
		h.well()
		for netns, via := range map[string]string{"web": "10.10.0.1", "box": "10.30.0.1", "till": "10.20.0.1"} {
			if h == map[string]*host{"web": a, "box": b, "till": c}[netns] {
				nettest.Run(t, "ip", "-n", netns, "route", "add", "default", "via", via)
			}
		}
	}
	return w, a, b, c, file
}

// reaches waits until one namespace reaches an address.
func reaches(t *testing.T, netns, to string) {
	t.Helper()
	nettest.Eventually(t, limit, netns+" reaches "+to, func() bool { return pings(netns, to) })
}

func pings(netns, to string, more ...string) bool {
	return exec.Command("ip", append([]string{"netns", "exec", netns, "ping", "-c1", "-W1", to}, more...)...).Run() == nil
}

// endpointOf is where a host thinks that another one is.
func (h *host) endpointOf(peer string) string {
	h.t.Helper()
	var all []struct{ Name, Endpoint string }
	if err := json.Unmarshal([]byte(h.ripstop("get", "peer", "-o", "json")), &all); err != nil {
		h.t.Fatal(err)
	}
	for _, p := range all {
		if strings.HasSuffix(p.Name, peer) {
			return p.Endpoint
		}
	}
	return ""
}

// TestThreeHosts works on a LUN of host b in a VLAN of host a while everything
// between them fails, one after the other.
func TestThreeHosts(t *testing.T) {
	w, a, b, c, file := hosts(t, "full")
	d := newDisk(t, "web", lun)
	d.goes("at first")
	reaches(t, "web", "10.30.0.2")
	reaches(t, "till", "10.30.0.2")
	reaches(t, "till", "10.10.0.2")
	if got, want := c.ripstop("get", "tunnel"), ", to 192.0.2.2) - 60 (WireGuard over IPv4)"; !strings.Contains(got, "  1440 ") || !strings.Contains(strings.ReplaceAll(got, "192.0.2.1)", "192.0.2.2)"), want) {
		t.Errorf("the tunnel of c is\n%swant 1440, as %s", got, want)
	}

	steps := []struct {
		name string
		do   func()
	}{
		{"while b's daemon is restarted", func() { b.end(syscall.SIGTERM); b.serve() }},
		{"after a has moved", func() {
			nettest.Run(t, "ip", "-n", "a", "address", "del", "192.0.2.1/24", "dev", "wan")
			nettest.Run(t, "ip", "-n", "a", "address", "add", "192.0.2.11/24", "dev", "wan")
			nettest.Run(t, "ip", "-n", "a", "neighbor", "replace", "192.0.2.254", "lladdr", "02:00:00:00:00:fe", "dev", "wan")
			nettest.Run(t, "ip", "-n", "a", "route", "replace", "default", "via", "192.0.2.254")
		}},
		{"after a cut", func() {
			reaches(t, "till", "10.30.0.2")
			w.set(cut("ab", "ba"))
			before := d.rounds.Load()
			out := nettest.Run(t, "ip", "netns", "exec", "till", "ping", "-c20", "-i0.1", "-W1", "10.30.0.2")
			if !strings.Contains(out, " 20 received") {
				t.Errorf("host c does not always reach b while a is cut off:\n%s", out)
			}
			if more := d.rounds.Load() - before; more > 1 {
				t.Errorf("%d rounds through a cut", more)
			}
			w.set(nil)
		}},
		{"after a was not heard", func() { w.set(cut("ab")); time.Sleep(2 * time.Second); w.set(nil) }},
		{"after b was not heard", func() { w.set(cut("ba")); time.Sleep(2 * time.Second); w.set(nil) }},
		{"after flapping", func() {
			for range 15 {
				w.set(cut("ab", "ba"))
				time.Sleep(100 * time.Millisecond)
				w.set(nil)
				time.Sleep(100 * time.Millisecond)
			}
		}},
		{"on a rough way", func() { w.set(rough(5, 10, 1)); d.goes("on a rough way"); w.set(nil) }},
		{"after a's daemon was killed", func() {
			a.end(syscall.SIGKILL)
			time.Sleep(2 * time.Second) // in which the machine's packets have no tunnel
			a.serve()
		}},
	}
	for _, s := range steps {
		began := time.Now()
		s.do()
		d.goes(s.name)
		w.clean()
		t.Logf("%s: %s until it went on", s.name, time.Since(began).Round(100*time.Millisecond))
	}

	if got := b.endpointOf("a"); got != "192.0.2.11:51820" {
		t.Errorf("b has a at %q, want where it moved to", got)
	}
	w.replay("a", "b", netip.MustParseAddr("192.0.2.66"))
	d.goes("after a replayed handshake")
	b.apply(file)
	if got := b.endpointOf("a"); got != "192.0.2.11:51820" {
		t.Errorf("b has a at %q, want what it learned to outlive a replay and a reconcile", got)
	}
	d.end()
	w.clean()
}
