package vswitchtest

import (
	"net/netip"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// The VTEPs of the switch and of two other hosts, each at a link of its own.
const (
	vtepHere  = "192.0.2.1"
	vtepFar   = "192.0.2.2"
	vtepOther = "198.51.100.2"
)

// farHost is another host of a VNI: the far end of a link from here, with the kernel's
// own VXLAN device, on which the station stands.
func farHost(t *testing.T, netns, device, here, there string) {
	t.Helper()
	nettest.Namespace(t, netns)
	nettest.Run(t, "ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", netns)
	t.Cleanup(func() { nettest.Run(t, "ip", "link", "del", device) })
	nettest.Run(t, "ip", "address", "add", here+"/30", "dev", device)
	nettest.Run(t, "ip", "link", "set", device, "up")
	nettest.Run(t, "ip", "-n", netns, "address", "add", there+"/30", "dev", "eth0")
	nettest.Run(t, "ip", "-n", netns, "link", "set", "eth0", "up")
	if here != vtepHere {
		nettest.Run(t, "ip", "-n", netns, "route", "add", vtepHere, "via", here)
	}
	nettest.Run(t, "ip", "-n", netns, "link", "add", "vx", "type", "vxlan", "id", "7", "local", there, "remote", vtepHere, "dstport", "4789")
	nettest.Run(t, "ip", "netns", "exec", netns, "sh", "-c", "echo 1 > /proc/sys/net/ipv6/conf/vx/disable_ipv6")
	nettest.Run(t, "ip", "-n", netns, "link", "set", "vx", "up")
}

// overlay has a VLAN span three hosts, this one under test.
func (s suite) overlay(t *testing.T) {
	farHost(t, "far", "u1", vtepHere, vtepFar)
	farHost(t, "other", "u2", "198.51.100.1", vtepOther)
	l := s.lab(t, ports{
		"a": access(10, "a"), "b": access(10, "b"), "c": access(20, "c"), "t": trunk("t", 0, 10, 20),
		"vx7": {
			Kind: vswitch.VXLAN, PVID: 10, MTU: 1450, Security: vswitch.Security{Trusted: true},
			Overlay: vswitch.Overlay{VNI: 7, Local: netip.MustParseAddr(vtepHere), Peers: []netip.Addr{netip.MustParseAddr(vtepFar), netip.MustParseAddr(vtepOther)}},
		},
	})
	l.stations["far"] = openStation(t, "far", "far", "vx")
	l.stations["other"] = openStation(t, "other", "other", "vx")
	far := l.stations["far"].mac
	l.sends("a", l.frame("a", broadcast), and(untagged("b", "far", "other"), "t", q(10)))
	l.sends("c", l.frame("c", broadcast), and(none, "t", q(20)))
	// Split horizon: what came from a VTEP goes to no other.
	l.sends("far", l.frame("far", broadcast), and(untagged("a", "b"), "t", q(10)))
	l.sends("other", l.frame("other", vswitch.MAC{2, 9, 9, 9, 9, 9}), and(untagged("a", "b"), "t", q(10)))
	l.sends("a", l.frame("a", far), untagged("far"))
	l.sends("t", l.frame("t", far).with(q(10)), untagged("far"))
	l.sends("far", l.frame("far", l.stations["a"].mac), untagged("a"))
	// No tag makes it another VLAN's.
	l.sends("far", l.frame("far", broadcast).with(q(20)), none)
	l.restart()
	l.sends("a", l.frame("a", far), untagged("far"))

	// A station that was far is here now, and goes back.
	guest := vswitch.MAC{2, 8, 8, 8, 8, 8}
	moves := func(from string, want map[string][]tag) {
		f := l.frame(from, broadcast)
		f.src = guest
		l.sends(from, f, and(want, "t", q(10)))
		l.sends("a", l.frame("a", guest), untagged(from))
	}
	moves("far", untagged("a", "b"))
	moves("b", untagged("a", "far", "other"))
	moves("far", untagged("a", "b"))

	l.set("vx7", func(p *vswitch.Port) { p.Overlay.Peers = p.Overlay.Peers[:1] })
	l.sends("a", l.frame("a", broadcast), and(untagged("b", "far"), "t", q(10)))
	l.set("vx7", func(p *vswitch.Port) { p.MTU = 1400 })

	// Where another tells who is where, nothing is learned.
	l.set("vx7", func(p *vswitch.Port) { p.Overlay.Told = true })
	l.sends("a", l.frame("a", broadcast), and(untagged("b"), "t", q(10)))
	l.sends("far", l.frame("far", broadcast), and(untagged("a", "b"), "t", q(10)))
	l.sends("a", l.frame("a", far), and(untagged("b"), "t", q(10)))
	l.restart()
}
