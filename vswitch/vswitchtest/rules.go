package vswitchtest

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/vswitch"
)

// udp is an IPv4 datagram without content between two stations, port 0 to port 0.
func (l *lab) udp(from, to string, src, dst netip.Addr) frame {
	return frame{dst: l.stations[to].mac, src: l.stations[from].mac, kind: unix.ETH_P_IP, payload: ipv4(17, 0, src, dst, 8)}
}

// filterLog has groups drop frames: each drop is counted by port, VLAN and reason, and told
// with them where the groups say so.
func (s suite) filterLog(t *testing.T) {
	nobody := rule(false, vswitch.In, "10.9.9.9/32", 6, 80, 80)
	told.forget()
	l := s.lab(t, ports{
		"a": access(10, "a"), "logged": filtered(access(10, "logged"), policy(nobody)), "t": filtered(trunk("t", 0, 10, 20), policy(nobody)),
		"mute": filtered(access(10, "mute"), vswitch.NewPolicy([]string{"g"}, false, []vswitch.FilterRule{nobody})),
		"b":    access(20, "b"),
	})
	a, b, to := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	l.learn("a", "b")
	l.sends("a", l.udp("a", "mute", a, to), none)
	l.sends("a", l.udp("a", "logged", a, to), none)
	told.await(t, `port=logged vlan=10 direction=in reason=filtered protocol=17 from=10.0.0.1:0 to=10.0.0.3:0 rule="none allows it"`)
	f := l.udp("t", "b", to, b)
	f.tags = []tag{q(20)}
	l.sends("t", f, none)
	told.await(t, `port=t vlan=20 direction=out reason=filtered protocol=17 from=10.0.0.3:0 to=10.0.0.2:0 rule="none allows it"`)
	if strings.Contains(told.text(), "port=mute") {
		t.Errorf("a port whose groups have no log is told of:\n%s", told.text())
	}
	for _, c := range []struct {
		port string
		vid  uint16
	}{{"mute", 10}, {"logged", 10}, {"t", 20}} {
		if n := l.drops(c.port, c.vid, "filtered"); n < 1 {
			t.Errorf("%d frames of port %s are counted as dropped in VLAN %d, want some", n, c.port, c.vid)
		}
	}
	for _, c := range []struct {
		port string
		vid  uint16
	}{{"a", 10}, {"b", 20}, {"logged", 20}, {"mute", 20}} {
		if n := l.drops(c.port, c.vid, "filtered"); n != 0 {
			t.Errorf("%d frames of port %s are counted as dropped in VLAN %d, want none", n, c.port, c.vid)
		}
	}
}

// Rules of a port with few and of one with many, and how much more a packet may cost
// there. What looks at each rule costs tens of times as much.
const (
	fewRules, manyRules = 10, 10_000
	mostMore            = 3
)

// rulesOf is a policy of so many rules, each for an address and a port of its own.
func rulesOf(n int) *vswitch.Policy {
	rules := make([]vswitch.FilterRule, n)
	for i := range rules {
		port := uint16(1000 + i)
		remote := netip.PrefixFrom(netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), 32)
		rules[i] = vswitch.FilterRule{Direction: vswitch.In, Remote: remote, Protocol: 6, First: port, Last: port, Group: "g", Place: i}
	}
	return vswitch.NewPolicy([]string{"g"}, false, rules)
}

// rules measures packets to a port with many rules beside such to one with few, in
// turns. Each is looked up, for it makes no connection: a reset (RFC 9293, 3.10.7.1).
func (s suite) rules(t *testing.T) {
	l := s.lab(t, ports{
		"a": access(10, "a"), "few": filtered(access(10, "few"), rulesOf(fewRules)), "many": filtered(access(10, "many"), rulesOf(manyRules)),
	})
	const frames, rounds = 500, 15
	last := func(n int) frame {
		i := n - 1
		port := uint16(1000 + i)
		p := ipv4(6, 0, netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), netip.MustParseAddr("10.0.0.2"), 20)
		p[20+2], p[20+3], p[20+12], p[20+13] = byte(port>>8), byte(port), 5<<4, 4
		return frame{src: l.stations["a"].mac, kind: unix.ETH_P_IP, payload: p}
	}
	l.learn("a")
	best := map[string]time.Duration{}
	for range rounds {
		for name, n := range map[string]int{"few": fewRules, "many": manyRules} {
			f := last(n)
			f.dst = l.stations[name].mac
			start, got := time.Now(), 0
			for range frames {
				l.stations["a"].send(t, f)
			}
			for got < frames {
				if !wait([]*station{l.stations[name]}, unix.POLLIN, arrival) {
					t.Fatalf("%d of %d packets pass %d rules", got, frames, n)
				}
				for b := l.stations[name].receive(t); b != nil; b = l.stations[name].receive(t) {
					if slices.Equal(b, f.bytes()) {
						got++
					}
				}
			}
			if took := time.Since(start) / frames; best[name] == 0 || took < best[name] {
				best[name] = took
			}
		}
	}
	ratio := float64(best["many"]) / float64(best["few"])
	t.Logf("a packet takes %s past %d rules and %s past %d: %.2f times as long", best["few"], fewRules, best["many"], manyRules, ratio)
	if ratio > mostMore {
		t.Errorf("a packet takes %.2f times as long past %d rules as past %d, want at most %d times", ratio, manyRules, fewRules, mostMore)
	}
}
