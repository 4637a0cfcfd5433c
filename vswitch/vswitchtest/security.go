package vswitchtest

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// secured is an access port of VLAN 10 with a security.
func secured(name string, s vswitch.Security) vswitch.Port {
	p := access(10, name)
	p.Security = s
	return p
}

// drops is how often a port's frames were dropped for a reason, in a VLAN.
func (l *lab) drops(port string, vid uint16, why string) uint64 {
	l.t.Helper()
	i, ok := l.driver.(vswitch.Inspector)
	if !ok {
		l.t.Fatal("the dataplane counts nothing")
	}
	c, err := i.Counters(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, p := range c.Ports {
		if p.Port != port {
			continue
		}
		sum := uint64(0)
		for _, lost := range p.VLANDrops {
			sum += lost[why]
		}
		if sum != p.Drops[why] {
			l.t.Errorf("%s: %d %s in all VLANs together, and %d in all", port, sum, why, p.Drops[why])
		}
		return p.VLANDrops[vid][why]
	}
	l.t.Fatalf("port %q has no counters", port)
	return 0
}

// refuses sends a frame that goes nowhere, and demands that it is counted.
func (l *lab) refuses(from string, f frame, vid uint16, why string) {
	l.t.Helper()
	before := l.drops(from, vid, why)
	l.sends(from, f, none)
	// The station's kernel has something to say, too.
	if n := l.drops(from, vid, why) - before; n == 0 || n > 10 {
		l.t.Errorf("from %s, tags %v: %d frames more are counted as %s in VLAN %d, want 1", from, f.tags, n, why, vid)
	}
}

// macLock has ports send from addresses that are not theirs.
func (s suite) macLock(t *testing.T) {
	mine, second, other := vswitch.MAC{2, 0, 0, 0, 1, 1}, vswitch.MAC{2, 0, 0, 0, 1, 2}, vswitch.MAC{2, 0, 0, 0, 1, 9}
	trunked := trunk("t", 0, 10, 20)
	trunked.Security.AllowedMACs = []vswitch.MAC{other}
	l := s.lab(t, ports{
		"a": secured("a", vswitch.Security{AllowedMACs: []vswitch.MAC{mine, second}}),
		"b": access(10, "b"), "c": access(20, "c"), "t": trunked,
	})
	from := func(port string, src, dst vswitch.MAC) frame {
		f := l.frame(port, dst)
		f.src = src
		return f
	}
	l.sends("a", from("a", mine, broadcast), and(untagged("b"), "t", q(10)))
	l.sends("a", from("a", second, broadcast).with(q(0)), and(untagged("b"), "t", q(10)))
	l.refuses("a", from("a", other, broadcast), 10, "mac-spoofed")
	l.refuses("a", from("a", l.stations["b"].mac, broadcast), 10, "mac-spoofed")
	// An address that belongs to a port is there before it sends, and stays.
	l.sends("b", l.frame("b", mine), untagged("a"))
	l.refuses("b", from("b", mine, broadcast), 10, "mac-spoofed")
	l.sends("b", l.frame("b", mine), untagged("a"))
	l.sends("b", l.frame("b", other), and(none, "t", q(10)))
	l.sends("c", l.frame("c", other), and(none, "t", q(20)))
	l.refuses("c", from("c", other, broadcast), 20, "mac-spoofed")
	l.sends("c", from("c", mine, broadcast), and(none, "t", q(20))) // another VLAN
	l.sends("t", from("t", other, l.stations["b"].mac).with(q(10)), untagged("b"))
	l.refuses("t", from("t", l.stations["b"].mac, broadcast).with(q(20)), 20, "mac-spoofed")
	// ARP says it, too.
	arp := arpRequest(mine, netip.MustParseAddr("10.10.0.2"), netip.MustParseAddr("10.10.0.3"))
	l.sends("a", arp, and(untagged("b"), "t", q(10)))
	copy(arp.payload[8:], l.stations["b"].mac[:])
	l.refuses("a", arp, 10, "mac-spoofed")
	l.restart()
	l.refuses("b", from("b", mine, broadcast), 10, "mac-spoofed")
	l.set("a", func(p *vswitch.Port) { p.Security.AllowedMACs = []vswitch.MAC{second} })
	l.refuses("a", from("a", mine, broadcast), 10, "mac-spoofed")
	l.sends("b", from("b", mine, broadcast), and(untagged("a"), "t", q(10))) // it is nobody's now
	l.set("a", func(p *vswitch.Port) { p.Security.AllowedMACs = nil })
	l.sends("a", from("a", second, broadcast), and(untagged("b"), "t", q(10)))
	l.sends("b", from("b", second, broadcast), and(untagged("a"), "t", q(10)))
}

// ipLock has a port send from IP addresses that are not its own, and say so in
// ARP and neighbor discovery.
func (s suite) ipLock(t *testing.T) {
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.10.0.2/32"), netip.MustParsePrefix("10.10.1.0/24"), netip.MustParsePrefix("fd00::2/128")}
	l := s.lab(t, ports{"a": secured("a", vswitch.Security{AllowedIPs: prefixes}), "b": access(10, "b"), "t": trunk("t", 0, 10)})
	src, everybody := l.stations["a"].mac, and(untagged("b"), "t", q(10))
	ip := func(text string) netip.Addr { return netip.MustParseAddr(text) }
	four := func(from string, protocol byte, payload ...byte) frame {
		f := l.frame("a", broadcast)
		head := ipv4(protocol, 0, ip(from), ip("10.10.0.3"), 0)
		f.kind, f.payload = etherIPv4, slices.Concat(head, payload, f.payload)
		return f
	}
	six := func(from string, next byte, payload ...byte) frame {
		f := l.frame("a", broadcast)
		f.kind, f.payload = etherIPv6, append(ipv6(next, ip(from), ip("ff02::1"), payload...), f.payload...)
		return f
	}
	discovery := func(kind byte, target string) []byte {
		return append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, ip(target).AsSlice()...)
	}
	local := netip.AddrFrom16([16]byte{0xfe, 0x80, 8: src[0] ^ 2, src[1], src[2], 0xff, 0xfe, src[3], src[4], src[5]}).String()
	dhcp := []byte{0, 68, 0, 67, 0, 8, 0, 0}
	for _, f := range []frame{
		four("10.10.0.2", 17), four("10.10.1.99", 6), four("0.0.0.0", 17, dhcp...),
		six("fd00::2", 17), six(local, 58, 133, 0), six("::", 58, discovery(135, "fd00::2")...), six("::", 58, discovery(135, local)...),
		six("::", 0, 58, 0, 5, 2, 0, 0, 1, 0, 143, 0, 0, 0), // MLD behind a hop-by-hop header
		six("fd00::2", 58, discovery(135, "fd00::99")...), six("fd00::2", 58, discovery(136, "fd00::2")...),
		arpRequest(src, ip("10.10.0.2"), ip("10.10.0.3")), arpRequest(src, ip("0.0.0.0"), ip("10.10.0.3")),
		l.frame("a", broadcast),
	} {
		l.sends("a", f, everybody)
	}
	for _, f := range []frame{
		four("10.10.0.3", 17), four("10.10.2.1", 17), four("0.0.0.0", 6), four("0.0.0.0", 17, 0, 69, 0, 67), four("255.255.255.255", 17),
		six("fd00::3", 17), six("fe80::1", 17), six("::", 17), six("::ffff:10.10.0.2", 17), six("::", 58, 128, 0),
		six("::", 58, discovery(135, "fd00::3")...), six("fd00::2", 58, discovery(136, "fd00::3")...),
		six("fd00::2", 60, append([]byte{58, 0, 1, 4, 0, 0, 0, 0}, discovery(136, "fd00::3")...)...), // behind an extension header
		arpRequest(src, ip("10.10.0.3"), ip("10.10.0.2")),
	} {
		l.refuses("a", f, 10, "ip-spoofed")
	}
	l.restart()
	l.refuses("a", four("10.10.0.3", 17), 10, "ip-spoofed")
	l.set("a", func(p *vswitch.Port) { p.Security.AllowedIPs = prefixes[:1] })
	l.refuses("a", six("fd00::2", 17), 10, "ip-spoofed")
	l.refuses("a", six(local, 17), 10, "ip-spoofed")
	l.sends("a", four("10.10.0.2", 17), everybody)
	l.set("a", func(p *vswitch.Port) { p.Security.AllowedIPs = nil })
	l.sends("a", four("10.10.0.3", 17), everybody)
}

// guards has a port serve what others believe.
func (s suite) guards(t *testing.T) {
	l := s.lab(t, ports{"a": access(10, "a"), "b": access(10, "b"), "t": secured("t", vswitch.Security{Trusted: true})})
	ip := netip.MustParseAddr
	offer := func(from string, fragment uint16, ports ...byte) frame {
		f := l.frame(from, broadcast)
		f.kind, f.payload = etherIPv4, slices.Concat(ipv4(17, fragment, ip("10.10.0.2"), ip("255.255.255.255"), 0), ports, []byte{0, 8, 0, 0}, f.payload)
		return f
	}
	six := func(from string, next byte, payload ...byte) frame {
		f := l.frame(from, broadcast)
		f.kind, f.payload = etherIPv6, append(ipv6(next, ip("fe80::1"), ip("ff02::1"), payload...), f.payload...)
		return f
	}
	options := []byte{58, 0, 1, 4, 0, 0, 0, 0}
	for why, list := range map[string][]frame{
		"dhcp-guard": {
			offer("a", 0, 0, 67, 0, 68), offer("a", 0x2000, 0, 67, 0, 68), six("a", 17, 2, 35, 2, 34, 0, 8, 0, 0),
		},
		"ra-guard": {
			six("a", 58, 134, 0), six("a", 58, 137, 0), six("a", 60, append(options, 134, 0)...),
			six("a", 44, 58, 0, 0, 1, 0, 0, 0, 7, 134, 0),
		},
		"hidden-protocol": {
			six("a", 44, 60, 0, 0, 1, 0, 0, 0, 7, 58, 200, 1, 4), // the header that tells is in the next fragment
			six("a", 60, slices.Repeat([]byte{60, 0, 1, 4, 0, 0, 0, 0}, 9)...),
			six("a", 58, 134, 0).with(tag{sTag, 0}),
			snap(six("a", 58, 134, 0)),
		},
	} {
		for _, f := range list {
			l.refuses("a", f, 10, why)
		}
	}
	for _, f := range []frame{offer("t", 0, 0, 67, 0, 68), six("t", 58, 134, 0), six("t", 17, 2, 35, 2, 34, 0, 8, 0, 0)} {
		l.sends("t", f, untagged("a", "b"))
	}
	for _, f := range []frame{offer("a", 0, 0, 68, 0, 67), six("a", 58, 133, 0), six("a", 17, 2, 34, 2, 35, 0, 8, 0, 0), offer("a", 0x00b9, 0, 67, 0, 68), six("a", 6, 0, 67, 0, 68)} {
		l.sends("a", f, untagged("b", "t"))
	}
	l.set("a", func(p *vswitch.Port) { p.Security.Trusted = true })
	l.sends("a", offer("a", 0, 0, 67, 0, 68), untagged("b", "t"))
}

// macLimit has a port send from many addresses: the others' stay known.
func (s suite) macLimit(t *testing.T) {
	l := s.lab(t, ports{"a": secured("a", vswitch.Security{MACLimit: 8}), "b": access(10, "b"), "c": access(10, "c")})
	l.learn("a", "b")
	for n := range byte(12) {
		f := l.frame("a", broadcast)
		f.src = vswitch.MAC{2, 0, 0, 7, 0, n}
		if n < 7 { // and a itself
			l.sends("a", f, untagged("b", "c"))
		} else {
			l.refuses("a", f, 10, "mac-limit")
		}
	}
	f := l.frame("a", l.stations["b"].mac)
	f.src = vswitch.MAC{2, 0, 0, 7, 0, 3}
	l.sends("a", f, untagged("b"))
	l.sends("c", l.frame("c", l.stations["b"].mac), untagged("b"))
	l.sends("b", l.frame("b", vswitch.MAC{2, 0, 0, 7, 0, 3}), untagged("a"))
	// A full port cannot take others' stations, and these can leave it.
	f = l.frame("a", broadcast)
	f.src = l.stations["b"].mac
	l.refuses("a", f, 10, "mac-limit")
	f = l.frame("c", broadcast)
	f.src = vswitch.MAC{2, 0, 0, 7, 0, 3}
	l.sends("c", f, untagged("a", "b"))
	f = l.frame("a", broadcast)
	f.src = vswitch.MAC{2, 0, 0, 7, 1, 0}
	l.sends("a", f, untagged("b", "c"))
	l.set("a", func(p *vswitch.Port) { p.Security.MACLimit = 0 })
	l.sends("a", l.frame("a", broadcast), untagged("b", "c"))
}

// storm has a port flood its VLAN.
func (s suite) storm(t *testing.T) {
	l := s.lab(t, ports{
		"a": secured("a", vswitch.Security{Storm: vswitch.Storm{Broadcast: 5, Multicast: 6, UnknownUnicast: 7}}),
		"b": access(10, "b"), "c": access(10, "c"),
	})
	l.learn("b")
	for _, c := range []struct {
		to   vswitch.MAC
		why  string
		most int
	}{
		{broadcast, "storm-broadcast", 5},
		{vswitch.MAC{1, 0, 0x5e, 1, 1, 1}, "storm-multicast", 6},
		{vswitch.MAC{2, 0, 0, 9, 9, 9}, "storm-unknown-unicast", 7},
	} {
		const sent = 400
		f := l.frame("a", c.to)
		for range sent {
			l.stations["a"].send(t, f)
		}
		got, dropped := l.collect(f.payload, 2), l.drops("a", 10, c.why)
		// The machine may take its time over the frames, and a new second begins; and
		// the station's kernel takes its part.
		if n := len(got["c"]); n == 0 || n > 10*c.most || len(got["b"]) != n || uint64(n)+dropped < sent {
			t.Errorf("of %d frames %d went on and %d are counted as %s; want about %d", sent, n, dropped, c.why, c.most)
		}
	}
	for range 20 {
		l.sends("a", l.frame("a", l.stations["b"].mac), untagged("b")) // is no flood
	}
	for range 20 {
		l.sends("b", l.frame("b", broadcast), untagged("a", "c")) // nor anybody else's
	}
}

// loop has a station join two of its ports, so that each broadcast comes back.
func (s suite) loop(t *testing.T) {
	const most = 50
	limits := vswitch.Security{Storm: vswitch.Storm{Broadcast: most, Multicast: most, UnknownUnicast: most}}
	one, two := secured("x", limits), secured("x", limits)
	two.IfName = "eth1"
	l := s.lab(t, ports{"one": one, "two": two, "b": access(10, "b"), "c": access(20, "c"), "d": access(20, "d")})
	l.learn("c", "d")
	apart := l.stream("c", "d", time.Millisecond)
	nettest.Run(t, "ip", "-n", "x", "link", "add", "loop", "up", "type", "bridge")
	for _, dev := range []string{"eth0", "eth1"} {
		nettest.Run(t, "ip", "-n", "x", "link", "set", dev, "master", "loop")
	}
	f := l.frame("b", broadcast)
	l.stations["b"].send(t, f)
	start, heard := time.Now(), 0
	for time.Since(start) < time.Second || heard == 0 && time.Since(start) < arrival {
		wait([]*station{l.stations["b"]}, unix.POLLIN, quiet)
		for b := l.stations["b"].receive(t); b != nil; b = l.stations["b"].receive(t) {
			if bytes.Contains(b, f.payload) {
				heard++
			}
		}
	}
	if took := int(time.Since(start).Seconds()) + 2; heard == 0 || heard > 2*most*took {
		t.Errorf("in %d seconds %d copies of a frame came back; want some, and at most %d a second of each port", took, heard, most)
	}
	nettest.Run(t, "ip", "-n", "x", "link", "del", "loop")
	apart.end()
	if l.drops("one", 10, "storm-broadcast")+l.drops("two", 10, "storm-broadcast") == 0 {
		t.Error("no frame of the loop is counted")
	}
}

// bpduGuard has a station play a bridge.
func (s suite) bpduGuard(t *testing.T) {
	l := s.lab(t, ports{"a": secured("a", vswitch.Security{BPDUGuard: true}), "b": secured("b", vswitch.Security{BPDUGuard: true}), "c": access(10, "c")})
	stp, pvst := vswitch.MAC{0x01, 0x80, 0xc2, 0, 0, 0}, vswitch.MAC{0x01, 0, 0x0c, 0xcc, 0xcc, 0xcd}
	l.sends("a", l.frame("a", broadcast), untagged("b", "c"))
	l.refuses("c", l.frame("c", stp), 0, "reserved-multicast")
	l.sends("c", l.frame("c", broadcast), untagged("a", "b"))
	l.refuses("a", l.frame("a", stp), 0, "bpdu-guard")
	l.refuses("b", l.frame("b", pvst), 0, "bpdu-guard")
	for _, from := range []string{"a", "b"} {
		l.refuses(from, l.frame(from, broadcast), 0, "bpdu-guard")
	}
	c, err := l.driver.(vswitch.Inspector).Counters(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range c.Ports {
		if want := p.Port != "c"; p.Shut != want {
			t.Errorf("port %s is said to be shut: %t", p.Port, p.Shut)
		}
	}
	if faults := l.differences(); len(faults) != 2 || faults[0].Object() != "port/lab/a" || l.driver.Do(t.Context(), faults[0]) == nil {
		t.Errorf("the steps are\n%s\nand should say that a and b are shut", text(faults))
	}
	l.restart()
	l.refuses("a", l.frame("a", broadcast), 0, "bpdu-guard")
	l.set("a", func(p *vswitch.Port) { p.Security.BPDUGuard = false })
	l.sends("a", l.frame("a", broadcast), untagged("b", "c"))
}
