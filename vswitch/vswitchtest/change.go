package vswitchtest

import (
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// portDown checks a port that is administratively down.
func (s suite) portDown(t *testing.T) {
	l := s.house(t)
	l.set("b", func(p *vswitch.Port) { p.Down = true })
	l.sends("a", l.frame("a", broadcast), and(none, "t", q(10)))
	l.sends("t", l.frame("t", broadcast).with(q(10)), untagged("a"))
	l.set("b", func(p *vswitch.Port) { p.Down = false })
	l.sends("a", l.frame("a", broadcast), and(untagged("b"), "t", q(10)))
}

// stream sends numbered frames from one station to another, one every interval,
// until it is stopped.
type stream struct {
	l        *lab
	from, to *station
	stop     chan struct{}
	sent     chan uint32
}

const streamMark = "numbered"

func (l *lab) stream(from, to string, interval time.Duration) *stream {
	s := &stream{l, l.stations[from], l.stations[to], make(chan struct{}), make(chan uint32, 1)}
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		n := uint32(0)
		for {
			select {
			case <-s.stop:
				s.sent <- n
				return
			case <-tick.C:
				p := binary.BigEndian.AppendUint32([]byte(streamMark), n)
				s.from.send(l.t, frame{dst: s.to.mac, src: s.from.mac, kind: etherTest, payload: p})
				n++
			}
		}
	}()
	return s
}

// end stops the stream and demands that each frame arrived once. Their order is
// the sender's scheduler's: a thread that moves to another CPU overtakes itself.
func (s *stream) end() {
	s.l.t.Helper()
	close(s.stop)
	sent := <-s.sent
	seen := map[uint32]int{}
	deadline := time.Now().Add(arrival)
	for len(seen) < int(sent) && time.Now().Before(deadline) {
		b := s.to.receive(s.l.t)
		if b == nil {
			wait([]*station{s.to}, unix.POLLIN, quiet)
			continue
		}
		if _, number, found := strings.Cut(string(b), streamMark); found {
			seen[binary.BigEndian.Uint32([]byte(number))]++
			deadline = time.Now().Add(arrival)
		}
	}
	var wrong []uint32
	for n := range sent {
		if seen[n] != 1 {
			wrong = append(wrong, n)
		}
	}
	if len(wrong) > 0 || sent == 0 {
		s.l.t.Errorf("of %d frames %d were lost or doubled: %v …", sent, len(wrong), wrong[:min(len(wrong), 10)])
	}
}

func (s suite) removeUnderTraffic(t *testing.T) {
	l := s.house(t)
	l.learn("a", "b", "c", "d")
	keep := l.stream("c", "d", time.Millisecond)
	storm := make(chan struct{})
	ended := make(chan struct{})
	b := l.stations["b"].mac
	go func() {
		defer close(ended)
		for {
			select {
			case <-storm:
				return
			default:
				for _, to := range []vswitch.MAC{b, broadcast} {
					l.stations["a"].send(t, frame{dst: to, src: l.stations["a"].mac, kind: etherTest, payload: []byte("storm")})
				}
			}
		}
	}()
	port := l.ports()["b"]
	for range 3 {
		delete(l.ports(), "b")
		l.apply()
		l.ports()["b"] = port
		l.apply()
	}
	close(storm)
	<-ended
	keep.end()
	delete(l.stations, "b")
	l.stations["b"] = openStation(t, "b", "b", "eth0")
	l.collect([]byte("storm"), 1)
	l.sends("a", l.frame("a", broadcast), and(untagged("b"), "t", q(10)))
}

func (s suite) liveChange(t *testing.T) {
	l := s.house(t)
	l.learn("a", "b")
	st := l.stream("a", "b", time.Millisecond)
	for n := range 3 {
		l.set("c", func(p *vswitch.Port) { p.PVID = 10 + 20*uint16(n%2) })
		l.set("t", func(p *vswitch.Port) { p.Tagged = []uint16{10, 20, 30 + uint16(n)} })
		l.set("d", func(p *vswitch.Port) { p.Isolated = n%2 == 0 })
		l.ports()["x"] = access(10, "x")
		l.apply()
		delete(l.ports(), "x")
		l.apply()
	}
	l.set("a", func(p *vswitch.Port) { p.Tagged = []uint16{30} })
	l.set("a", func(p *vswitch.Port) { p.Tagged = nil })
	st.end()
}

func (s suite) restart(t *testing.T) {
	sw := vswitch.Gateway{VLAN: 10, Addresses: []netip.Prefix{netip.MustParsePrefix("10.10.0.1/24")}}
	l := s.house(t)
	l.want.Switches["lab"].Gateways["blue"] = sw
	l.ports()["vm"] = vswitch.Port{Kind: vswitch.Tap, PVID: 10}
	l.apply()
	l.learn("a", "b")
	st := l.stream("a", "b", time.Millisecond)
	for range 3 {
		l.restart()
	}
	l.close() // forwards with no daemon at all
	nettest.Eventually(t, arrival, "traffic without a daemon", func() bool { return wait([]*station{l.stations["b"]}, unix.POLLIN, quiet) })
	l.driver = s.open(t)
	st.end()
	l.sends("c", l.frame("c", broadcast), and(untagged("d"), "t", q(20)))
}

func (s suite) settings(t *testing.T) {
	l := s.house(t)
	l.set("a", func(p *vswitch.Port) {
		p.Addresses = []netip.Prefix{netip.MustParsePrefix("10.10.0.2/24"), netip.MustParsePrefix("fd00:10::2/64")}
	})
	before := nettest.Run(t, "ip", "-n", "a", "-br", "link", "show", "eth0")
	l.set("a", func(p *vswitch.Port) { p.Addresses[0] = netip.MustParsePrefix("10.10.0.22/24") })
	addresses := nettest.Run(t, "ip", "-n", "a", "-br", "address", "show", "eth0")
	if !strings.Contains(addresses, "10.10.0.22/24") || strings.Contains(addresses, "10.10.0.2/24") || !strings.Contains(addresses, "fd00:10::2/64") {
		t.Errorf("the far end has %s", addresses)
	}
	if after := nettest.Run(t, "ip", "-n", "a", "-br", "link", "show", "eth0"); after != before {
		t.Errorf("changing an address replaced the device: before %s, after %s", before, after)
	}
	mac := vswitch.MAC{2, 0, 0, 0, 0, 0xaa}
	l.set("a", func(p *vswitch.Port) { p.MAC = mac; p.MTU = 9000 })
	l.stations["a"].mac = mac
	l.set("a", func(p *vswitch.Port) { p.MTU = 0 })
	l.sends("a", l.frame("a", broadcast), and(untagged("b"), "t", q(10)))
	// A device that is made again is another, and its namespace stays clean.
	delete(l.stations, "b")
	l.set("b", func(p *vswitch.Port) { p.IfName = "net0" })
	l.station("b")
	l.sends("a", l.frame("a", broadcast), and(untagged("b"), "t", q(10)))
}

func (s suite) gateway(t *testing.T) {
	l := s.house(t)
	gateways := l.want.Switches["lab"].Gateways
	gateways["blue"] = vswitch.Gateway{VLAN: 10, Addresses: []netip.Prefix{
		netip.MustParsePrefix("10.10.0.1/24"), netip.MustParsePrefix("fd00:10::1/64"),
	}}
	for name, address := range map[string]string{"a": "10.10.0.2/24", "c": "10.10.0.3/24"} {
		l.set(name, func(p *vswitch.Port) { p.Addresses = []netip.Prefix{netip.MustParsePrefix(address)} })
	}
	l.set("b", func(p *vswitch.Port) { p.Addresses = []netip.Prefix{netip.MustParsePrefix("fd00:10::2/64")} })
	nettest.Run(t, "ip", "netns", "exec", "a", "ping", "-c1", "-W3", "10.10.0.1")
	nettest.Run(t, "ip", "netns", "exec", "b", "ping", "-c1", "-W3", "fd00:10::1")
	nettest.Run(t, "ping", "-c1", "-W3", "10.10.0.2")
	// From another VLAN nobody answers for the gateway's address.
	c := arpRequest(l.stations["c"].mac, netip.MustParseAddr("10.10.0.3"), netip.MustParseAddr("10.10.0.1"))
	l.sends("c", c, and(untagged("d"), "t", q(20)))
	for b := l.stations["c"].receive(t); b != nil; b = l.stations["c"].receive(t) {
		if len(b) > 22 && b[12] == 8 && b[13] == 6 && b[21] == 2 {
			t.Errorf("the gateway answers in VLAN 20: %x", b)
		}
	}
	blue := gateways["blue"]
	blue.Addresses = []netip.Prefix{netip.MustParsePrefix("10.10.0.254/24")}
	gateways["blue"] = blue
	l.apply()
	nettest.Run(t, "ip", "netns", "exec", "a", "ping", "-c1", "-W3", "10.10.0.254")
	blue.VLAN = 20
	gateways["blue"] = blue
	l.apply()
	nettest.Run(t, "ip", "netns", "exec", "c", "ping", "-c1", "-W3", "10.10.0.254")
	delete(gateways, "blue")
	l.apply()
	if out := nettest.Run(t, "ip", "-br", "link"); strings.Contains(out, "blue") {
		t.Errorf("the gateway's device is still there:\n%s", out)
	}
}
