package vswitchtest

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// EtherTypes that hostile stations use.
const (
	etherIPv4       = 0x0800
	etherMACControl = 0x8808
	etherLLDP       = 0x88cc
	oldTag          = 0x9100 // a double tag's outer type before IEEE 802.1ad
)

// withGateway is the house with the host in VLAN 10, and a station on it.
func (s suite) withGateway(t *testing.T) *lab {
	t.Helper()
	l := s.house(t)
	l.want.Switches["lab"].Gateways["blue"] = vswitch.Gateway{
		VLAN: 10, Addresses: []netip.Prefix{netip.MustParsePrefix("10.10.0.1/24")},
	}
	l.apply()
	l.stations["blue"] = openStation(t, "blue", "", "blue")
	return l
}

// hopping sends what has taken frames into other VLANs on other switches.
func (s suite) hopping(t *testing.T) {
	l := s.lab(t, ports{
		"a": access(10, "a"), "b": access(10, "b"), "c": access(20, "c"),
		"n": trunk("n", 20, 10), "t": trunk("t", 0, 10, 20),
	})
	l.learn("a", "b", "c")
	old := func(vid uint16) tag { return tag{oldTag, vid} }
	service := func(vid uint16) tag { return tag{sTag, vid} }
	// From the VLAN that is native on a trunk: a tag inside names another VLAN.
	for _, tags := range [][]tag{{q(20), q(10)}, {q(0), q(10)}, {q(0), q(0), q(10)}, {q(10)}, {q(4095), q(10)}, {q(0), service(0), q(10)}} {
		l.sends("c", l.frame("c", broadcast).with(tags...), none)
		l.sends("c", l.frame("c", l.stations["a"].mac).with(tags...), none)
	}
	// Over the trunk's native VLAN.
	for _, tags := range [][]tag{{q(20), q(10)}, {q(0), q(10)}, {q(0), q(20)}, {q(10), q(20)}, {q(4095)}, {q(4095), q(10)}} {
		l.sends("n", l.frame("n", broadcast).with(tags...), none)
		l.sends("n", l.frame("n", l.stations["a"].mac).with(tags...), none)
	}
	// An outer tag of another kind is content of the port's VLAN, with all that is in it.
	for _, tags := range [][]tag{{old(20)}, {old(20), q(20)}, {service(20), q(20)}} {
		want := and(and(none, "b", tags...), "n", append([]tag{q(10)}, tags...)...)
		l.sends("a", l.frame("a", broadcast).with(tags...), and(want, "t", append([]tag{q(10)}, tags...)...))
	}
	// Who receives a priority tag of IEEE 802.1ad reads what is behind it as if
	// there were none, and the filters of a switch do not.
	for _, tags := range [][]tag{{service(0)}, {service(0), service(0)}, {service(0), q(20)}} {
		l.sends("a", l.frame("a", broadcast).with(tags...), none)
		l.sends("t", l.frame("t", broadcast).with(append([]tag{q(10)}, tags...)...), none)
	}
	// A station of one VLAN with the address of another VLAN's changes nothing there.
	f := l.frame("c", broadcast)
	f.src = l.stations["a"].mac
	l.sends("c", f, and(untagged("n"), "t", q(20)))
	l.sends("b", l.frame("b", l.stations["a"].mac), untagged("a"))
}

// control forges the frames that switches send to each other.
func (s suite) control(t *testing.T) {
	l := s.withGateway(t)
	l.learn("a", "b", "t")
	stp := vswitch.MAC{0x01, 0x80, 0xc2, 0, 0, 0}
	pause := vswitch.MAC{0x01, 0x80, 0xc2, 0, 0, 1}
	lldp := vswitch.MAC{0x01, 0x80, 0xc2, 0, 0, 0x0e}
	for _, c := range []struct {
		to   vswitch.MAC
		kind uint16
		head []byte
	}{
		{stp, 43, []byte{0x42, 0x42, 3, 0, 0, 0, 0, 0, 0}},             // a configuration BPDU of the best root
		{stp, 43, []byte{0x42, 0x42, 3, 0, 0, 0, 0x80, 0, 0}},          // a topology change
		{pause, etherMACControl, []byte{0, 1, 0xff, 0xff}},             // PAUSE (IEEE 802.3, annex 31B)
		{pause, etherMACControl, []byte{1, 1, 0, 0xff, 0xff}},          // PFC
		{l.stations["b"].mac, etherMACControl, []byte{0, 1, 0xff}},     // PAUSE to a station
		{broadcast, etherMACControl, []byte{0, 1, 0xff}},               // and to all
		{lldp, etherLLDP, []byte{2, 7, 4, 2, 0, 0, 0, 0, 1}},           // LLDP
		{vswitch.MAC{0x01, 0x80, 0xc2, 0, 0, 3}, 0x888e, []byte{1}},    // EAPOL
		{vswitch.MAC{0x01, 0x80, 0xc2, 0, 0, 2}, 0x8809, []byte{1, 1}}, // LACP
	} {
		f := l.frame("a", c.to)
		f.kind, f.payload = c.kind, append(f.payload, c.head...)
		l.sends("a", f, none)
		f = l.frame("t", c.to)
		f.kind, f.payload = c.kind, append(f.payload, c.head...)
		l.sends("t", f.with(q(10)), none)
	}
}

// gatewaySpoofed has stations take the address of the VLAN's gateway.
func (s suite) gatewaySpoofed(t *testing.T) {
	l := s.withGateway(t)
	l.learn("a", "b", "t")
	gateway := l.stations["blue"].mac
	l.sends("b", l.frame("b", gateway), untagged("blue"))
	for _, to := range []vswitch.MAC{broadcast, l.stations["b"].mac, gateway} {
		f := l.frame("a", to)
		f.src = gateway
		l.sends("a", f, none)
		f = l.frame("t", to).with(q(10))
		f.src = gateway
		l.sends("t", f, none)
	}
	l.sends("b", l.frame("b", gateway), untagged("blue"))
	l.sends("t", l.frame("t", gateway).with(q(10)), untagged("blue"))
	// The address means nothing where the gateway is not.
	l.learn("c", "d")
	l.sends("c", l.frame("c", gateway), and(untagged("d"), "t", q(20)))
}

// fragments carries them unread, whole and in their order, and drops what is
// longer than the port's MTU whatever the station thinks of its own.
func (s suite) fragments(t *testing.T) {
	l := s.house(t)
	l.learn("a", "b")
	to := l.stations["b"].mac
	for _, offset := range []uint16{0x2000, 0x2001, 0x20b9, 0x1fff, 0x0001} {
		f := l.frame("a", to)
		f.kind, f.payload = etherIPv4, append(ipv4(17, offset, netip.MustParseAddr("10.10.0.2"), netip.MustParseAddr("10.10.0.3"), 8), f.payload...)
		l.sends("a", f, untagged("b"))
	}
	for _, header := range [][]byte{
		{17, 0, 0, 1, 0, 0, 0, 7},              // first
		{17, 0, 0, 9, 0, 0, 0, 7},              // next
		{44, 0, 0, 1, 0, 0, 0, 7, 44, 0, 0, 1}, // a fragment of a fragment
	} {
		f := l.frame("a", to)
		f.kind, f.payload = etherIPv6, append(ipv6(44, netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00::3"), header...), f.payload...)
		l.sends("a", f, untagged("b"))
	}
	nettest.Run(t, "ip", "-n", "a", "link", "set", "eth0", "mtu", "9000")
	l.sends("a", l.frame("a", to).pad(1500), untagged("b"))
	for _, n := range []int{1505, 2000, 9000} {
		for _, dst := range []vswitch.MAC{to, broadcast} {
			f := l.frame("a", dst).pad(n)
			if _, err := unix.Write(l.stations["a"].fd, f.bytes()); err != nil && err != unix.ENOBUFS { // the port refuses it
				t.Fatal(err)
			}
			if got := l.collect(f.payload[:64], 0); len(got) > 0 {
				t.Errorf("a frame of %d bytes went on: %x", n, got)
			}
		}
	}
	nettest.Run(t, "ip", "-n", "a", "link", "set", "eth0", "mtu", "1500")
	// Nothing behind the addresses, and half a tag.
	for _, payload := range [][]byte{nil, {0}, {0, 10}} {
		for _, kind := range []uint16{cTag, sTag, etherIPv4, etherIPv6, etherARP, 0, 46} {
			f := frame{dst: broadcast, src: l.stations["a"].mac, kind: kind, payload: payload}
			if _, err := unix.Write(l.stations["a"].fd, f.bytes()); err != nil && err != unix.ENOBUFS && err != unix.EINVAL {
				t.Fatal(err)
			}
		}
	}
	l.sends("a", l.frame("a", broadcast), and(untagged("b"), "t", q(10)))
}
