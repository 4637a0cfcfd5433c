package vswitchtest

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// rule is one of a group "g". Remote "" is everybody.
func rule(deny bool, d vswitch.Direction, remote string, protocol uint8, first, last uint16) vswitch.FilterRule {
	r := vswitch.FilterRule{Deny: deny, Direction: d, Protocol: protocol, First: first, Last: last, Group: "g"}
	if remote != "" {
		r.Remote = netip.MustParsePrefix(remote)
	}
	return r
}

func policy(rules ...vswitch.FilterRule) *vswitch.Policy {
	return vswitch.NewPolicy([]string{"g"}, true, rules)
}

func filtered(p vswitch.Port, f *vswitch.Policy) vswitch.Port {
	p.Filters = map[uint16]*vswitch.Policy{p.PVID: f}
	for _, vid := range p.Tagged {
		p.Filters[vid] = f
	}
	return p
}

// filterLab is a web server a with groups, and two hosts without.
func (s suite) filterLab(t *testing.T) (*lab, *vswitch.Policy) {
	t.Helper()
	f := policy(
		rule(false, vswitch.In, "10.10.0.0/24", 6, 80, 80), rule(false, vswitch.In, "fd00:10::/64", 6, 80, 80),
		rule(true, vswitch.In, "10.10.0.4/32", vswitch.AnyProtocol, 0, 65535), rule(true, vswitch.In, "fd00:10::4/128", vswitch.AnyProtocol, 0, 65535),
		rule(false, vswitch.In, "", 1, 8<<8, 8<<8|255), rule(false, vswitch.In, "", 58, 128<<8, 128<<8|255),
		rule(false, vswitch.Out, "", 17, 53, 53),
	)
	l := s.lab(t, ports{
		"a": filtered(access(10, "a", "10.10.0.2/24", "fd00:10::2/64"), f),
		"b": access(10, "b", "10.10.0.3/24", "fd00:10::3/64"), "c": access(10, "c", "10.10.0.4/24", "fd00:10::4/64"),
	})
	for _, n := range []string{"a", "b", "c"} {
		nettest.Eventually(t, 5*time.Second, n+" has its addresses", func() bool {
			return !bytes.Contains([]byte(nettest.Run(t, "ip", "-n", n, "-6", "address", "show", "tentative")), []byte("fd00"))
		})
	}
	return l, f
}

// echoes answers on TCP and UDP ports of a namespace.
func echoes(t *testing.T, space string, ports ...string) {
	t.Helper()
	inside(t, space, func() error {
		for _, p := range ports {
			tcp, err := net.Listen("tcp", ":"+p)
			if err != nil {
				return err
			}
			udp, err := net.ListenPacket("udp", ":"+p)
			if err != nil {
				return err
			}
			t.Cleanup(func() { tcp.Close(); udp.Close() })
			go func() {
				for {
					c, err := tcp.Accept()
					if err != nil {
						return
					}
					t.Cleanup(func() { c.Close() })
					go copyBack(c)
				}
			}()
			go func() {
				b := make([]byte, 1<<16)
				for {
					n, from, err := udp.ReadFrom(b)
					if errors.Is(err, net.ErrClosed) {
						return
					}
					if err == nil {
						udp.WriteTo(b[:n], from)
					}
				}
			}()
		}
		return nil
	})
}

func copyBack(c net.Conn) {
	b := make([]byte, 1<<16)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := c.Write(b[:n]); err != nil {
			return
		}
	}
}

// dial opens a connection out of a namespace, nil when nobody answers.
func dial(t *testing.T, space, network, to string, patience time.Duration) net.Conn {
	t.Helper()
	var c net.Conn
	inside(t, space, func() error {
		var err error
		c, err = (&net.Dialer{Timeout: patience}).Dial(network, to)
		if err != nil {
			c = nil
		}
		return nil
	})
	if c != nil {
		t.Cleanup(func() { c.Close() })
	}
	return c
}

// answers sends something and tells whether it comes back.
func answers(t *testing.T, c net.Conn, n int, patience time.Duration) bool {
	t.Helper()
	if c == nil {
		return false
	}
	want := slices.Repeat([]byte("ripstop."), n/8)
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(want); err != nil {
		return false
	}
	got, b := []byte{}, make([]byte, n)
	for len(got) < len(want) {
		k, err := c.Read(b)
		if err != nil {
			return false
		}
		got = append(got, b[:k]...)
	}
	return bytes.Equal(got, want)
}

const soon = 300 * time.Millisecond // what does not come is not awaited longer

// groups is the connections of kernels through a port with groups.
func (s suite) groups(t *testing.T) {
	l, _ := s.filterLab(t)
	echoes(t, "a", "80", "81", "53")
	echoes(t, "b", "80", "53")
	try := func(from, network, to string, want bool) {
		t.Helper()
		patience := arrival
		if !want {
			patience = soon
		}
		if got := answers(t, dial(t, from, network, to, patience), 64, patience); got != want {
			t.Errorf("%s to %s %s: answered %t, want %t", from, network, to, got, want)
		}
	}
	for _, host := range []string{"10.10.0.%", "[fd00:10::%]"} {
		at := func(n, port string) string {
			return string(bytes.ReplaceAll([]byte(host), []byte("%"), []byte(n))) + ":" + port
		}
		try("b", "tcp", at("2", "80"), true)
		try("b", "tcp", at("2", "81"), false)
		try("c", "tcp", at("2", "80"), false) // denied, though allowed with its network
		try("a", "tcp", at("3", "80"), false)
		try("a", "udp", at("3", "53"), true)
		try("b", "udp", at("2", "53"), false)
		try("c", "tcp", at("3", "80"), true) // ports without groups
		if !answers(t, dial(t, "a", "udp", at("3", "53"), arrival), 4000, arrival) {
			t.Errorf("no answer to fragments from %s", at("3", "53"))
		}
	}
	nettest.Run(t, "ip", "netns", "exec", "b", "ping", "-c1", "-W5", "10.10.0.2")
	nettest.Run(t, "ip", "netns", "exec", "b", "ping", "-c1", "-W5", "fd00:10::2")
	if l.drops("a", 10, "filtered") == 0 {
		t.Error("no drop is counted")
	}
	// An error about what the port sent comes back, one about nothing does not.
	for _, to := range []string{"10.10.0.4:53", "[fd00:10::4]:53"} {
		c := dial(t, "a", "udp", to, arrival)
		if err := c.SetDeadline(time.Now().Add(arrival)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 9)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("from %s comes %v, want that nobody listens", to, err)
		}
	}
	f := l.frame("b", l.stations["a"].mac)
	f.kind = etherIPv4
	f.payload = slices.Concat(ipv4(1, 0, netip.MustParseAddr("10.10.0.3"), netip.MustParseAddr("10.10.0.2"), 0), []byte{3, 1, 0, 0, 0, 0, 0, 0},
		ipv4(17, 0, netip.MustParseAddr("10.10.0.2"), netip.MustParseAddr("10.10.0.3"), 0), []byte{9, 9, 0, 53, 0, 8, 0, 0}, f.payload)
	before := l.drops("a", 10, "filtered")
	l.sends("b", f, none)
	if l.drops("a", 10, "filtered") == before {
		t.Error("an error about nothing is not counted")
	}
	// What rules cannot name does not pass either way, and ARP does.
	l.refuses("a", l.frame("a", broadcast), 10, "filtered-not-ip")
	l.sends("b", l.frame("b", broadcast), untagged("c"))
	// Neither does what looks like a switch's search for loops.
	probe := l.frame("a", broadcast)
	probe.kind = 0x88b6
	l.refuses("a", probe, 10, "filtered-not-ip")
	probe.dst = vswitch.MAC{3, 'r', 'i', 'p', 's', 't'}
	l.refuses("a", probe, 10, "loop")
	l.sends("a", arpRequest(l.stations["a"].mac, netip.MustParseAddr("10.10.0.2"), netip.MustParseAddr("10.10.0.9")), untagged("b", "c"))
	// The rest of a packet whose first fragment nobody saw.
	rest := l.frame("a", l.stations["b"].mac)
	rest.kind, rest.payload = etherIPv4, append(ipv4(17, 0x00b9, netip.MustParseAddr("10.10.0.2"), netip.MustParseAddr("10.10.0.3"), 0), rest.payload...)
	l.refuses("a", rest, 10, "filtered-fragment")
}

// groupsChange changes the groups of a port under its connections.
func (s suite) groupsChange(t *testing.T) {
	l, first := s.filterLab(t)
	echoes(t, "a", "80", "81")
	set := func(f *vswitch.Policy) {
		t.Helper()
		l.set("a", func(p *vswitch.Port) {
			if p.Filters = nil; f != nil {
				p.Filters = map[uint16]*vswitch.Policy{10: f}
			}
		})
	}
	c := dial(t, "b", "tcp", "10.10.0.2:80", arrival)
	lives := func(want bool) {
		t.Helper()
		patience := arrival
		if !want {
			patience = soon
		}
		if got := answers(t, c, 64, patience); got != want {
			t.Errorf("the connection lives: %t, want %t", got, want)
		}
	}
	lives(true)
	set(policy(rule(false, vswitch.In, "10.10.0.3/32", 6, 1, 1000)))
	lives(true)
	l.restart()
	lives(true)
	for _, damage := range []string{"tc filter del dev a egress", "tc filter del dev a ingress prio 29295"} {
		nettest.Run(t, "sh", "-c", damage)
		if len(l.diff()) == 0 {
			t.Errorf("%s: nobody sees it", damage)
		}
		l.apply()
		lives(true)
		if answers(t, dial(t, "c", "tcp", "10.10.0.2:80", soon), 64, soon) {
			t.Errorf("%s: it is not mended", damage)
		}
	}
	set(policy(rule(false, vswitch.In, "", 6, 81, 81)))
	lives(false)
	c = dial(t, "c", "tcp", "10.10.0.2:81", arrival)
	lives(true)
	// A port that gets groups keeps the connections that they allow.
	set(nil)
	lives(true)
	set(policy(rule(false, vswitch.In, "", 6, 81, 81), rule(false, vswitch.Out, "", 17, 53, 53)))
	lives(true)
	// What every policy denies never passes while they change.
	denied := l.frame("b", l.stations["a"].mac)
	denied.kind = etherIPv4
	denied.payload = slices.Concat(ipv4(17, 0, netip.MustParseAddr("10.10.0.3"), netip.MustParseAddr("10.10.0.2"), 0), []byte{9, 9, 0, 99, 0, 8, 0, 0}, denied.payload)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_, _ = unix.Write(l.stations["b"].fd, denied.bytes())
			}
		}
	}()
	for i := range 20 {
		next := first
		if i%2 == 0 {
			next = policy(rule(true, vswitch.In, "", 17, 99, 99), rule(false, vswitch.In, "", vswitch.AnyProtocol, 0, 65535))
		}
		set(next)
	}
	close(stop)
	<-done
	if got := l.collect(denied.payload, 0); len(got["a"]) > 0 {
		t.Errorf("%d frames came through while policies changed", len(got["a"]))
	}
	l.ports()["t"] = filtered(trunk("t", 0, 10, 20), first)
	l.apply()
	l.station("t")
	l.sends("b", l.frame("b", broadcast), untagged("c")) // not IP
	l.set("t", func(p *vswitch.Port) { delete(p.Filters, 10) })
	l.sends("b", l.frame("b", broadcast), and(untagged("c"), "t", q(10)))
	l.set("t", func(p *vswitch.Port) { p.PVID, p.Tagged, p.Filters = 10, nil, map[uint16]*vswitch.Policy{10: first} })
	l.sends("b", l.frame("b", broadcast), untagged("c"))
}
