package vswitchtest

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/vswitch"
)

// house is two VLANs with two access ports each, and a trunk of both.
func (s suite) house(t *testing.T) *lab {
	t.Helper()
	return s.lab(t, ports{
		"a": access(10, "a"), "b": access(10, "b"),
		"c": access(20, "c"), "d": access(20, "d"),
		"t": trunk("t", 0, 10, 20),
	})
}

func (s suite) vlans(t *testing.T) {
	l := s.house(t)
	l.sends("a", l.frame("a", broadcast), and(untagged("b"), "t", q(10)))
	l.sends("c", l.frame("c", broadcast), and(untagged("d"), "t", q(20)))
	l.sends("t", l.frame("t", broadcast).with(q(10)), untagged("a", "b"))
	l.sends("t", l.frame("t", broadcast).with(q(20)), untagged("c", "d"))
	l.sends("t", l.frame("t", broadcast).with(q(30)), none)
	l.sends("t", l.frame("t", broadcast), none)
	// Known and unknown stations of another VLAN are equally out of reach.
	l.sends("a", l.frame("a", l.stations["c"].mac), and(untagged("b"), "t", q(10)))
	l.sends("t", l.frame("t", l.stations["c"].mac).with(q(10)), untagged("a", "b"))
}

// allVLANs has one port carry every VLAN that there is (IEEE 802.1Q, table 9-2).
func (s suite) allVLANs(t *testing.T) {
	all := make([]uint16, 4094)
	for i := range all {
		all[i] = uint16(i + 1)
	}
	l := s.lab(t, ports{"a": access(1, "a"), "m": access(2000, "m"), "z": access(4094, "z"), "t": trunk("t", 0, all...)})
	works := func() {
		t.Helper()
		for name, vid := range map[string]uint16{"a": 1, "m": 2000, "z": 4094} {
			l.sends(name, l.frame(name, broadcast), and(none, "t", q(vid)))
			l.sends("t", l.frame("t", broadcast).with(q(vid)), untagged(name))
		}
	}
	works()
	l.set("t", func(p *vswitch.Port) { p.Tagged = all[1:4093] })
	l.sends("m", l.frame("m", broadcast), and(none, "t", q(2000)))
	l.sends("z", l.frame("z", broadcast), none)
}

func (s suite) native(t *testing.T) {
	l := s.lab(t, ports{
		"a": access(10, "a"), "c": access(20, "c"),
		"n": trunk("n", 20, 10),
		"t": trunk("t", 0, 10, 20),
	})
	l.sends("n", l.frame("n", broadcast), and(untagged("c"), "t", q(20)))
	l.sends("n", l.frame("n", broadcast).with(q(10)), and(untagged("a"), "t", q(10)))
	l.sends("n", l.frame("n", broadcast).with(q(0)), and(untagged("c"), "t", q(20)))
	l.sends("c", l.frame("c", broadcast), and(untagged("n"), "t", q(20)))
	l.sends("a", l.frame("a", broadcast), and(and(none, "n", q(10)), "t", q(10)))
	l.sends("t", l.frame("t", broadcast).with(q(20)), untagged("c", "n"))
	l.sends("t", l.frame("t", broadcast).with(q(10)), and(untagged("a"), "n", q(10)))
}

func (s suite) discovery(t *testing.T) {
	l := s.house(t)
	a := l.stations["a"].mac
	arp := arpRequest(a, netip.MustParseAddr("10.10.0.201"), netip.MustParseAddr("10.10.0.202"))
	l.sends("a", arp, and(untagged("b"), "t", q(10)))
	solicit := neighborSolicitation(a, netip.MustParseAddr("fe80::a:1"), netip.MustParseAddr("fe80::b:2"))
	l.sends("a", solicit, and(untagged("b"), "t", q(10)))
}

func (s suite) unicast(t *testing.T) {
	l := s.house(t)
	b := l.stations["b"].mac
	l.learn("a")
	unknown := vswitch.MAC{2, 0, 0, 0, 0, 99}
	l.sends("a", l.frame("a", unknown), and(untagged("b"), "t", q(10)))
	l.learn("b")
	l.sends("a", l.frame("a", b), untagged("b"))
	l.sends("t", l.frame("t", b).with(q(10)), untagged("b"))
	l.sends("b", l.frame("b", b), none) // back where it came from
	l.sends("t", l.frame("t", b).with(q(20)), untagged("c", "d"))
	f := l.frame("t", broadcast).with(q(10))
	l.sends("t", f, untagged("a", "b"))
	l.sends("a", l.frame("a", l.stations["t"].mac), and(none, "t", q(10)))
}

func (s suite) accessTags(t *testing.T) {
	l := s.house(t)
	for _, tags := range [][]tag{
		{q(10)},        // its own VLAN
		{q(20)},        // another's
		{q(10), q(20)}, // a hop, were the outer tag taken off
		{q(20), q(10)},
		{q(0), q(20)},
		{q(0), q(10)},
		{q(4095)},
	} {
		l.sends("a", l.frame("a", broadcast).with(tags...), none)
		l.sends("a", l.frame("a", l.stations["c"].mac).with(tags...), none)
	}
	l.sends("a", l.frame("a", broadcast).with(q(0)), and(untagged("b"), "t", q(10)))
}

func (s suite) reservedIDs(t *testing.T) {
	l := s.house(t)
	l.sends("t", l.frame("t", broadcast).with(q(4095)), none)
	l.sends("t", l.frame("t", broadcast).with(q(0)), none) // priority only, and no native VLAN
}

func (s suite) serviceTags(t *testing.T) {
	l := s.house(t)
	for _, vid := range []uint16{10, 20} {
		service := tag{sTag, vid}
		f := l.frame("a", broadcast).with(service)
		l.sends("a", f, and(and(none, "b", service), "t", q(10), service))
	}
}

func (s suite) doubleTags(t *testing.T) {
	l := s.lab(t, ports{
		"a": access(10, "a"), "c": access(20, "c"),
		"n": trunk("n", 20, 10), "t": trunk("t", 0, 10, 20), "u": trunk("u", 0, 10, 20),
	})
	l.learn("a", "c")
	service := tag{sTag, 20}
	for _, outer := range []uint16{0, 10, 20} {
		for _, from := range []string{"n", "t"} {
			l.sends(from, l.frame(from, broadcast).with(q(outer), q(10)), none)
			l.sends(from, l.frame(from, l.stations["a"].mac).with(q(outer), q(20)), none)
		}
	}
	inside := and(and(and(none, "a", service), "n", q(10), service), "u", q(10), service)
	l.sends("t", l.frame("t", broadcast).with(q(10), service), inside)
	inside = and(and(and(none, "c", service), "n", service), "u", q(20), service)
	l.sends("t", l.frame("t", broadcast).with(q(20), service), inside)
}

func (s suite) reservedMulticast(t *testing.T) {
	l := s.house(t)
	for last := range byte(16) {
		to := vswitch.MAC{0x01, 0x80, 0xc2, 0, 0, last}
		l.sends("a", l.frame("a", to), none)
		l.sends("t", l.frame("t", to).with(q(10)), none)
	}
	l.sends("a", l.frame("a", vswitch.MAC{0x01, 0x80, 0xc2, 0, 0, 0x10}), and(untagged("b"), "t", q(10)))
}

func (s suite) badSource(t *testing.T) {
	l := s.house(t)
	for _, src := range []vswitch.MAC{{}, broadcast, {1, 0, 0x5e, 0, 0, 1}, {3}} {
		f := l.frame("a", broadcast)
		f.src = src
		l.sends("a", f, none)
		f = l.frame("t", broadcast).with(q(10))
		f.src = src
		l.sends("t", f, none)
	}
}

func (s suite) move(t *testing.T) {
	l := s.lab(t, ports{"a": access(10, "a"), "b": access(10, "b"), "c": access(10, "c")})
	guest := vswitch.MAC{2, 0, 0, 0, 0, 77}
	from := func(port string) {
		f := l.frame(port, broadcast)
		f.src = guest
		l.stations[port].send(t, f)
		l.collect(f.payload, 2)
	}
	from("a")
	l.sends("c", l.frame("c", guest), untagged("a"))
	from("b")
	l.sends("c", l.frame("c", guest), untagged("b"))
	from("a")
	l.sends("c", l.frame("c", guest), untagged("a"))
}

func (s suite) changeVLAN(t *testing.T) {
	l := s.house(t)
	l.learn("a", "b", "c", "d")
	a, b := l.stations["a"].mac, l.stations["b"].mac
	l.sends("a", l.frame("a", b), untagged("b"))
	l.set("b", func(p *vswitch.Port) { p.PVID = 20 })
	l.sends("a", l.frame("a", b), and(none, "t", q(10)))
	l.sends("b", l.frame("b", a), and(untagged("c", "d"), "t", q(20)))
	l.sends("c", l.frame("c", b), untagged("b"))
	l.set("b", func(p *vswitch.Port) { p.PVID, p.Tagged = 0, []uint16{10} })
	l.sends("c", l.frame("c", b), and(untagged("d"), "t", q(20)))
	l.sends("b", l.frame("b", broadcast), none)
	l.sends("b", l.frame("b", a).with(q(10)), untagged("a"))
	l.set("b", func(p *vswitch.Port) { p.PVID, p.Tagged = 10, nil })
	l.sends("b", l.frame("b", a).with(q(10)), none)
	l.sends("b", l.frame("b", a), untagged("a"))
}

func (s suite) isolated(t *testing.T) {
	i, j := access(10, "i"), access(10, "j")
	i.Isolated, j.Isolated = true, true
	l := s.lab(t, ports{"i": i, "j": j, "p": access(10, "p")})
	l.sends("i", l.frame("i", broadcast), untagged("p"))
	l.sends("p", l.frame("p", broadcast), untagged("i", "j"))
	l.learn("i", "j", "p")
	l.sends("i", l.frame("i", l.stations["j"].mac), none)
	l.sends("i", l.frame("i", l.stations["p"].mac), untagged("p"))
	l.set("j", func(p *vswitch.Port) { p.Isolated = false })
	l.sends("i", l.frame("i", l.stations["j"].mac), untagged("j"))
}

// whose sends to a station behind a port and to another behind the same one: a
// kernel must not take the other's frame for its own.
func (s suite) whose(t *testing.T) {
	l := s.lab(t, ports{"a": access(10, "a"), "b": access(10, "b"), "t": trunk("t", 0, 10)})
	other := vswitch.MAC{2, 0, 0, 0, 0, 7}
	l.learn("a", "b")
	hello := l.frame("b", broadcast)
	hello.src = other
	l.sends("b", hello, and(untagged("a"), "t", q(10)))
	for _, from := range []string{"a", "t"} {
		for to, want := range map[vswitch.MAC]uint8{l.stations["b"].mac: unix.PACKET_HOST, other: unix.PACKET_OTHERHOST} {
			f := l.frame(from, to)
			if from == "t" {
				f = f.with(q(10))
			}
			l.stations[from].send(t, f)
			if got := l.kind("b", f.payload); got != want {
				t.Errorf("from %s to %s: the receiver's kernel sees a frame of kind %d, want %d", from, to, got, want)
			}
		}
	}
}

// kind is what a station's kernel thinks of the frame that carries mark.
func (l *lab) kind(name string, mark []byte) uint8 {
	l.t.Helper()
	s := l.stations[name]
	for deadline := time.Now().Add(arrival); time.Now().Before(deadline); wait([]*station{s}, unix.POLLIN, quiet) {
		for b := s.receive(l.t); b != nil; b = s.receive(l.t) {
			if bytes.Contains(b, mark) {
				return s.kind
			}
		}
	}
	l.t.Fatalf("%s did not get the frame", name)
	return 0
}

// counted sends frames to a known station and looks at its port's counters,
// which start anew with another port in its place.
func (s suite) counted(t *testing.T) {
	const frames, size = 20, 64
	l := s.lab(t, ports{"a": access(10, "a"), "b": access(10, "b")})
	l.learn("a", "b")
	before := l.got("b")
	for range frames {
		l.sends("a", l.frame("a", l.stations["b"].mac).pad(size), untagged("b"))
	}
	after := l.got("b")
	// The station's kernel may say something, too.
	n, sum := after.TxFrames-before.TxFrames, after.TxBytes-before.TxBytes
	if n < frames || n > frames+5 || sum < frames*size {
		t.Errorf("port b is said to have got %d frames with %d bytes, want %d of %d", n, sum, frames, size)
	}
	b := l.ports()["b"]
	delete(l.ports(), "b")
	delete(l.stations, "b")
	l.apply()
	l.ports()["b"] = b
	l.apply()
	if again := l.got("b"); again.TxFrames > 5 {
		t.Errorf("a new port is said to have got %d frames", again.TxFrames)
	}
}

// got is the counters of a port.
func (l *lab) got(port string) vswitch.PortCounters {
	l.t.Helper()
	c, err := l.driver.(vswitch.Inspector).Counters(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	i := slices.IndexFunc(c.Ports, func(p vswitch.PortCounters) bool { return p.Port == port })
	if i < 0 {
		l.t.Fatalf("port %q has no counters", port)
	}
	return c.Ports[i]
}
