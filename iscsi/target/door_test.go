package target

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/iscsi"
)

// TestDoor connects to a portal that is bound to an interface through that
// interface and through another one. The kernel must give every connection of
// the first kind to the bound listener and every other one to the door.
func TestDoor(t *testing.T) {
	for _, n := range []struct{ ns, dev, host, guest, host6, guest6 string }{
		{"c1", "san", "10.30.0.1/24", "10.30.0.2/24", "fd00:30::1/64", "fd00:30::2/64"},
		{"c2", "other", "10.40.0.1/24", "10.40.0.2/24", "fd00:40::1/64", "fd00:40::2/64"},
	} {
		nettest.Namespace(t, n.ns)
		nettest.Run(t, "ip", "link", "add", n.dev, "type", "veth", "peer", "name", "eth0", "netns", n.ns)
		t.Cleanup(func() { nettest.Run(t, "ip", "link", "del", n.dev) })
		nettest.Run(t, "ip", "addr", "add", n.host, "dev", n.dev)
		nettest.Run(t, "ip", "link", "set", n.dev, "up")
		nettest.Run(t, "ip", "-n", n.ns, "addr", "add", n.guest, "dev", "eth0")
		nettest.Run(t, "ip", "-n", n.ns, "link", "set", "eth0", "up")
		nettest.Run(t, "ip", "addr", "add", n.host6, "dev", n.dev, "nodad")
		nettest.Run(t, "ip", "-n", n.ns, "addr", "add", n.guest6, "dev", "eth0", "nodad")
	}
	nettest.Run(t, "ip", "-n", "c2", "route", "add", "10.30.0.0/24", "via", "10.40.0.1")
	nettest.Run(t, "ip", "-n", "c2", "route", "add", "fd00:30::/64", "via", "fd00:40::1")

	w := newWorld(t, Options{})
	portal := netip.MustParseAddrPort("10.30.0.1:3260")
	bound := twoTargets()[openIQN]
	bound.Portals = []iscsi.Portal{{Address: portal, Device: "san"}}
	w.become(map[string]iscsi.Target{openIQN: bound})

	const each = 15 // with the rest fewer than the log lines of a burst
	for range each {
		nettest.Run(t, "ip", "netns", "exec", "c1", "bash", "-c", knock)
		nettest.Run(t, "ip", "netns", "exec", "c2", "bash", "-c", knock)
	}
	// The kernel counts the host itself as reached through the interface that
	// has the address (net/ipv4/route.c, ip_route_output_key_hash_rcu).
	nettest.Run(t, "bash", "-c", knock)
	w.logged("refused login", "address=10.30.0.1:")
	inside := strings.Count(w.logs.String(), `msg="refused login" address=10.30.0.2:`)
	outside := strings.Count(w.logs.String(), `msg="refused connection" address=10.40.0.2:`)
	if inside != each || outside != each {
		t.Errorf("%d of %d reached the portal, %d of %d the door", inside, each, outside, each)
	}
	out := nettest.Run(t, "ip", "netns", "exec", "c1", "iscsi-ls", "iscsi://10.30.0.1")
	if !strings.Contains(out, "Portal:10.30.0.1:3260,1") {
		t.Errorf("discovery through the right interface: %s", out)
	}
	if out, err := exec.Command("ip", "netns", "exec", "c2", "iscsi-ls", "iscsi://10.30.0.1").CombinedOutput(); err == nil {
		t.Errorf("discovery through the wrong interface: %s", out)
	}
	testDoorGivesWay(t, w, bound, portal)

	bound.Portals = []iscsi.Portal{{Address: netip.MustParseAddrPort("[fd00:30::1]:3260"), Device: "san"}}
	w.become(map[string]iscsi.Target{openIQN: bound})
	for range 5 {
		nettest.Run(t, "ip", "netns", "exec", "c1", "bash", "-c", strings.ReplaceAll(knock, "10.30.0.1", "fd00:30::1"))
		nettest.Run(t, "ip", "netns", "exec", "c2", "bash", "-c", strings.ReplaceAll(knock, "10.30.0.1", "fd00:30::1"))
	}
	inside = strings.Count(w.logs.String(), `msg="refused login" address=[fd00:30::2]:`)
	outside = strings.Count(w.logs.String(), `msg="refused connection" address=[fd00:40::2]:`)
	if inside != 5 || outside != 5 {
		t.Errorf("IPv6: %d of 5 reached the portal, %d of 5 the door", inside, outside)
	}
}

// knock sends a ping before login and waits for the end of the connection.
const knock = `exec 3<>/dev/tcp/10.30.0.1/3260; head -c48 /dev/zero >&3; cat <&3 >/dev/null; true`

// testDoorGivesWay adds a portal for every interface at the address of the
// bound one, and takes it away again: the door goes and comes back.
func testDoorGivesWay(t *testing.T, w *world, bound iscsi.Target, portal netip.AddrPort) {
	free := bound
	free.Portals = []iscsi.Portal{{Address: portal}}
	freeIQN := openIQN + "free"
	w.become(map[string]iscsi.Target{openIQN: bound, freeIQN: free})
	out := nettest.Run(t, "ip", "netns", "exec", "c2", "iscsi-ls", "iscsi://10.30.0.1")
	if !strings.Contains(out, freeIQN) || strings.Contains(out, openIQN+" ") {
		t.Errorf("through the other interface: %s", out)
	}
	w.become(map[string]iscsi.Target{openIQN: bound})
	if err := exec.Command("ip", "netns", "exec", "c2", "iscsi-ls", "iscsi://10.30.0.1").Run(); err == nil {
		t.Error("the door did not come back")
	}
	w.become(map[string]iscsi.Target{})
	if len(w.doors)+len(w.listeners) > 0 {
		t.Errorf("left: %v %v", w.doors, w.listeners)
	}
}

// TestNewInterface replaces the interface of a portal by another one of the
// same name: the portal is found to be gone, and comes back on the new one.
func TestNewInterface(t *testing.T) {
	w := newWorld(t, Options{})
	bound := twoTargets()[openIQN]
	bound.Portals = []iscsi.Portal{{Address: netip.MustParseAddrPort("10.30.0.1:3260"), Device: "san"}}
	want := map[string]iscsi.Target{openIQN: bound}
	plug := func() {
		nettest.Run(t, "ip", "link", "add", "san", "type", "veth", "peer", "name", "sanp")
		nettest.Run(t, "ip", "addr", "add", "10.30.0.1/24", "dev", "san")
		nettest.Run(t, "ip", "link", "set", "san", "up")
	}
	plug()
	w.become(want)
	nettest.Run(t, "iscsi-ls", "iscsi://10.30.0.1")
	nettest.Run(t, "ip", "link", "del", "san")
	have, err := w.Observe(t.Context())
	if err != nil || len(have.Targets[openIQN].Portals) > 0 {
		t.Errorf("without the interface: %+v, %v", have.Targets[openIQN].Portals, err)
	}
	err = w.Do(t.Context(), iscsi.SetTarget{Name: openIQN, From: have.Targets[openIQN], To: bound})
	if err == nil || !strings.Contains(err.Error(), "the interface does not exist") {
		t.Errorf("a step without the interface: %v", err)
	}
	plug()
	w.become(want)
	nettest.Run(t, "iscsi-ls", "iscsi://10.30.0.1")
	w.become(nil)
	nettest.Run(t, "ip", "link", "del", "san")
}
