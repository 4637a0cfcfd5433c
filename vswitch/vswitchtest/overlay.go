package vswitchtest

import (
	"bytes"
	"net/netip"
	"reflect"
	"slices"
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
	l.told(far)
	l.restart()
}

// told tells the switch of what is on other hosts, and has it follow.
func (l *lab) told(far vswitch.MAC) {
	t := l.t
	teller := func() vswitch.Teller { return l.driver.(vswitch.Teller) }
	tell := func(add, gone vswitch.Told) {
		t.Helper()
		if err := teller().Tell(t.Context(), add, gone); err != nil {
			t.Fatal(err)
		}
	}
	ip, vtep := netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr(vtepFar)
	six := netip.MustParseAddr("fd00::9")
	key := vswitch.StationKey{VNI: 7, MAC: far}
	add := vswitch.NewTold()
	add.Floods[vswitch.FloodKey{VNI: 7, VTEP: vtep}] = true
	add.Stations[key] = vtep
	add.Addresses[vswitch.AddressKey{VNI: 7, IP: ip}] = far
	add.Addresses[vswitch.AddressKey{VNI: 7, IP: six}] = far
	tell(add, vswitch.NewTold())
	if got, err := teller().Told(t.Context()); err != nil || !reflect.DeepEqual(got, add) {
		t.Errorf("told %v, %v; want %v", got, err, add)
	}
	l.sends("a", l.frame("a", broadcast), and(untagged("b", "far"), "t", q(10)))
	l.sends("a", l.frame("a", far), untagged("far"))
	l.sends("far", l.frame("far", broadcast), and(untagged("a", "b"), "t", q(10)))
	l.sends("a", l.frame("a", far), untagged("far"))
	l.restart()
	l.sends("a", l.frame("a", far), untagged("far"))

	if got, err := l.driver.(vswitch.Tracer).Trace(t.Context(), "vx7", l.frame("far", broadcast).bytes()); err != nil || got.VLAN != 10 || got.Reason != "" {
		t.Errorf("the trace of a frame from another host is %+v, %v; want it in VLAN 10", got, err)
	}

	// The switch answers for it, and nobody else hears the question.
	a := l.stations["a"]
	ask := arpRequest(a.mac, netip.MustParseAddr("10.0.0.1"), ip)
	answer := frame{dst: a.mac, src: far, kind: etherARP, payload: slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 2}, far[:], ip.AsSlice(), a.mac[:], []byte{10, 0, 0, 1})}
	l.answers("a", ask, answer)
	l.tracesAnswered("a", ask)
	l.answers("t", arpRequest(l.stations["t"].mac, netip.MustParseAddr("10.0.0.2"), ip).with(q(10)),
		frame{dst: l.stations["t"].mac, src: far, tags: []tag{q(10)}, kind: etherARP,
			payload: slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 2}, far[:], ip.AsSlice(), l.stations["t"].mac[:], []byte{10, 0, 0, 2})})
	l.tracesAnswered("t", arpRequest(l.stations["t"].mac, netip.MustParseAddr("10.0.0.2"), ip).with(q(10)))
	// What is not told goes to all.
	other := arpRequest(a.mac, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.8"))
	l.sends("a", other, and(untagged("b", "far"), "t", q(10)))
	// Nor is there an answer to who takes the address over: all have to hear of that.
	l.sends("t", arpRequest(l.stations["t"].mac, ip, ip).with(q(10)), untagged("a", "b", "far"))
	l.neighborSolicited(six, far)

	// Of the stations here it knows what they say of themselves.
	want := vswitch.Station{StationKey: vswitch.StationKey{VNI: 7, MAC: a.mac}, IPs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}}
	before, err := teller().News(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := l.here(a.mac); !reflect.DeepEqual(got, want) {
		t.Errorf("station a is %v, want %v", got, want)
	}
	if got := l.here(far); got.MAC != (vswitch.MAC{}) {
		t.Errorf("a station elsewhere is told to be here: %v", got)
	}
	// What another port says of one is none of its own.
	lie := arpRequest(a.mac, netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("10.0.0.8"))
	lie.src = l.stations["b"].mac
	l.sends("b", lie, and(untagged("a", "far"), "t", q(10)))
	for range 10 {
		if got := l.here(a.mac); !reflect.DeepEqual(got, want) {
			t.Fatalf("station a is %v after what another port said of it, want %v", got, want)
		}
	}
	// One that is told to be elsewhere and sends here, is here.
	moved := l.frame("b", broadcast)
	moved.src = vswitch.MAC{2, 8, 8, 8, 8, 8}
	guest := vswitch.NewTold()
	guest.Stations[vswitch.StationKey{VNI: 7, MAC: moved.src}] = vtep
	tell(guest, vswitch.NewTold())
	l.sends("a", l.frame("a", moved.src), untagged("far"))
	l.sends("b", moved, and(untagged("a", "far"), "t", q(10)))
	l.sends("a", l.frame("a", moved.src), untagged("b"))
	if after, err := teller().News(t.Context()); err != nil || after == before {
		t.Errorf("no news of a station that moved: %v", err)
	}
	if got := l.here(moved.src); got.MAC != moved.src {
		t.Error("the station that moved here is not here")
	}
	tell(vswitch.NewTold(), guest)
	l.sends("a", l.frame("a", moved.src), untagged("b"))
	tell(vswitch.NewTold(), add)
	l.sends("a", l.frame("a", far), and(untagged("b"), "t", q(10)))
	l.sends("a", ask, and(untagged("b"), "t", q(10)))
}

// anycastGateway has a gateway that all hosts of a VLAN have, and one that this host has
// alone: others are told of the second, and not of the first, which would be a station of
// each host.
func (s suite) anycastGateway(t *testing.T) {
	over := func(vni uint32) vswitch.Overlay {
		return vswitch.Overlay{VNI: vni, Local: netip.MustParseAddr("127.0.0.1"), Told: true}
	}
	l := s.lab(t, ports{
		"a": access(10, "a"), "b": access(10, "b"),
		"vx7": {Kind: vswitch.VXLAN, PVID: 10, MTU: 1450, Security: vswitch.Security{Trusted: true}, Overlay: over(7)},
		"vx8": {Kind: vswitch.VXLAN, PVID: 20, MTU: 1450, Security: vswitch.Security{Trusted: true}, Overlay: over(8)},
	})
	all, own := netip.MustParsePrefix("10.0.0.254/24"), netip.MustParsePrefix("10.20.0.254/24")
	l.want.Switches["lab"].Gateways["blue"] = vswitch.Gateway{VLAN: 10, MTU: 1450, Addresses: []netip.Prefix{all}, MAC: vswitch.AnycastMAC(7)}
	l.want.Switches["lab"].Gateways["red"] = vswitch.Gateway{VLAN: 20, MTU: 1450, Addresses: []netip.Prefix{own}}
	l.apply()
	for range 2 {
		stations, err := l.driver.(vswitch.Teller).Stations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		gateways := map[uint32]int{}
		for _, s := range stations {
			if s.Fixed || slices.Contains(s.IPs, all.Addr()) || slices.Contains(s.IPs, own.Addr()) {
				gateways[s.VNI]++
			}
		}
		if gateways[7] != 0 || gateways[8] != 1 {
			t.Errorf("%d gateways are told of in the VLAN of the anycast one and %d in that of the host's own, want 0 and 1: %v", gateways[7], gateways[8], stations)
		}
		l.sends("a", l.frame("a", vswitch.AnycastMAC(7)), untagged()) // the gateway's alone, or other hosts' would take it as well
		l.restart()
	}
}

// heardOfPort has a port say more addresses than a switch has room for: no other
// port's are forgotten, and new ones of others are still heard.
func (s suite) heardOfPort(t *testing.T) {
	l := s.lab(t, ports{
		"a": access(10, "a"), "b": access(10, "b"), "c": access(10, "c"),
		"vx7": {
			Kind: vswitch.VXLAN, PVID: 10, MTU: 1450, Security: vswitch.Security{Trusted: true},
			Overlay: vswitch.Overlay{VNI: 7, Local: netip.MustParseAddr("127.0.0.1"), Told: true},
		},
	})
	says := func(name string, ip netip.Addr) frame { return arpRequest(l.stations[name].mac, ip, ip) }
	first, later := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	l.sends("b", says("b", first), untagged("a", "c"))
	l.sends("a", l.frame("a", broadcast), untagged("b", "c"))
	for i := range 5 * vswitch.MaxHeard {
		f := says("a", netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}))
		f.dst = f.src // which goes to nobody
		l.stations["a"].send(t, f)
	}
	l.sends("a", l.frame("a", broadcast), untagged("b", "c"))
	l.sends("c", says("c", later), untagged("a", "b"))
	if n := len(l.here(l.stations["a"].mac).IPs); n != vswitch.MaxHeard {
		t.Errorf("of the port that announces endless addresses, %d are known; want %d", n, vswitch.MaxHeard)
	}
	for name, ip := range map[string]netip.Addr{"b": first, "c": later} {
		if got := l.here(l.stations[name].mac).IPs; !slices.Equal(got, []netip.Addr{ip}) {
			t.Errorf("addresses of station %s are %v, want %v", name, got, ip)
		}
	}
}

// here is what the switch tells of a station of this host.
func (l *lab) here(mac vswitch.MAC) vswitch.Station {
	l.t.Helper()
	all, err := l.driver.(vswitch.Teller).Stations(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, s := range all {
		if s.MAC == mac {
			return s
		}
	}
	return vswitch.Station{}
}

// answers demands that a question comes back as its answer, and goes nowhere else.
func (l *lab) answers(from string, ask, want frame) {
	l.t.Helper()
	l.stations[from].send(l.t, ask)
	got := l.collect(want.payload[:18], 1)
	if len(got) != 1 || len(got[from]) != 1 || !bytes.HasPrefix(got[from][0], want.bytes()) {
		l.t.Errorf("from %s: got %x, want %x at %s", from, got, want.bytes(), from)
	}
}

// tracesAnswered demands of a trace that the sender alone hears of a question.
func (l *lab) tracesAnswered(from string, ask frame) {
	l.t.Helper()
	got, err := l.driver.(vswitch.Tracer).Trace(l.t.Context(), from, ask.bytes())
	if err != nil {
		l.t.Fatal(err)
	}
	if want := []vswitch.Egress{{Port: from, Tagged: len(ask.tags) > 0}}; !reflect.DeepEqual(got.Egress, want) || got.Reason != "" {
		l.t.Errorf("the trace has %v hear the question, for the reason %q; want %v:\n%v", got.Egress, got.Reason, want, got.Decisions)
	}
}

// neighborSolicited asks for an IPv6 address, and demands an answer with its checksum.
func (l *lab) neighborSolicited(ip netip.Addr, mac vswitch.MAC) {
	l.t.Helper()
	a := l.stations["a"]
	me := netip.MustParseAddr("fd00::1")
	ask := neighborSolicitation(a.mac, me, ip)
	ask.payload = append(ask.payload, slices.Concat([]byte{1, 1}, a.mac[:])...)
	ask.payload[5] = 32
	l.tracesAnswered("a", ask)
	body := slices.Concat([]byte{136, 0, 0, 0, 0x60, 0, 0, 0}, ip.AsSlice(), []byte{2, 1}, mac[:])
	sum := ^checksum(ip.AsSlice(), me.AsSlice(), []byte{0, 0, 0, 32, 0, 0, 0, 58}, body)
	body[2], body[3] = byte(sum>>8), byte(sum)
	want := frame{dst: a.mac, src: mac, kind: etherIPv6, payload: ipv6(58, ip, me, body...)}
	a.send(l.t, ask)
	got := l.collect(want.payload[44:], 1)
	if len(got) != 1 || len(got["a"]) != 1 || !bytes.Equal(got["a"][0], want.bytes()) {
		l.t.Errorf("neighbor solicitation: got %x, want %x", got, want.bytes())
	}
}

// checksum is the one's complement sum of RFC 1071.
func checksum(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, p := range parts {
		for i := 0; i < len(p); i += 2 {
			sum += uint32(p[i])<<8 | uint32(p[i+1])
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return uint16(sum)
}
