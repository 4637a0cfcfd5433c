package vswitchtest

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/internal/reconcile"
	"ripstop/vswitch"
)

// lent puts one end of a foreign veth pair into the switch.
func (s suite) lent(t *testing.T) {
	nettest.Namespace(t, "far")
	nettest.Run(t, "ip", "link", "add", "nic0", "type", "veth", "peer", "name", "eth0", "netns", "far")
	t.Cleanup(func() { nettest.Run(t, "ip", "link", "del", "nic0") })
	nettest.Run(t, "ip", "-n", "far", "link", "set", "eth0", "up")
	nettest.Run(t, "ip", "link", "set", "nic0", "alias", "to the lab, port 7 = ü%")
	nettest.Run(t, "ip", "address", "add", "192.0.2.7/24", "dev", "nic0")
	before := nicState(t)
	l := s.lab(t, ports{"a": access(10, "a")})
	l.ports()["up"] = vswitch.Port{Kind: vswitch.Device, Device: "nic0", Tagged: []uint16{10}}
	l.apply()
	l.stations["up"] = openStation(t, "up", "far", "eth0")
	l.sends("a", l.frame("a", broadcast), and(none, "up", q(10)))
	l.sends("up", l.frame("up", broadcast).with(q(10)), untagged("a"))
	l.set("up", func(p *vswitch.Port) { p.MTU = 9000 })
	l.restart()
	l.set("up", func(p *vswitch.Port) { p.MTU = 0 })
	l.set("up", func(p *vswitch.Port) { p.MTU = 1400 })
	up := l.ports()["up"]
	delete(l.ports(), "up")
	delete(l.stations, "up")
	l.apply()
	if after := nicState(t); after != before {
		t.Errorf("nic0 came back as\n%s, was\n%s", after, before)
	}
	// The same when it comes back with its whole switch.
	l.ports()["up"] = up
	l.apply()
	l.want = vswitch.State{}
	l.apply()
	if after := nicState(t); after != before {
		t.Errorf("nic0 came back from its switch as\n%s, was\n%s", after, before)
	}
}

// nicState is what ip and tc show of nic0 without what time changes.
func nicState(t *testing.T) string {
	t.Helper()
	out := nettest.Run(t, "ip", "-d", "address", "show", "nic0")
	if strings.Contains(nettest.Run(t, "tc", "qdisc", "show", "dev", "nic0"), "clsact") {
		out += "with a place for filters\n"
	}
	return regexp.MustCompile(`state \w+ |qdisc \w+ |qlen \d+|,?LOWER_UP|,?NO-CARRIER|,?M-DOWN`).ReplaceAllString(out, "")
}

// interfaces has what happens to interfaces of the host happen to one that is lent:
// each time the rest of the switch works on, what is wrong is said, and it heals.
func (s suite) interfaces(t *testing.T) {
	nettest.Namespace(t, "far")
	plug := func() {
		nettest.Run(t, "ip", "link", "add", "nic0", "type", "veth", "peer", "name", "eth0", "netns", "far")
		nettest.Run(t, "ip", "-n", "far", "link", "set", "eth0", "up")
	}
	plug()
	nettest.Run(t, "ip", "link", "add", "br9", "type", "bridge")
	t.Cleanup(func() { nettest.Run(t, "ip", "link", "del", "br9") })
	nettest.Run(t, "ip", "link", "set", "nic0", "master", "br9")
	l := s.lab(t, ports{"a": access(10, "a"), "b": access(10, "b")})
	up := vswitch.Port{Kind: vswitch.Device, Device: "nic0", Tagged: []uint16{10}}
	says := func(why string) {
		t.Helper()
		var said []string
		for _, o := range reconcile.Run(t.Context(), l.driver, l.diff(), map[string]error{}) {
			if o.Err != nil && !errors.Is(o.Err, reconcile.ErrWaits) {
				said = append(said, o.Err.Error())
			}
		}
		if err := l.driver.Commit(t.Context()); err != nil {
			t.Error(err)
		}
		if len(said) != 1 || !strings.Contains(said[0], why) {
			t.Errorf("what is said is %q, want one with %q", said, why)
		}
	}
	works := func() {
		t.Helper()
		l.apply()
		l.stations["up"] = openStation(t, "up", "far", "eth0")
		l.sends("a", l.frame("a", broadcast), and(untagged("b"), "up", q(10)))
		l.sends("up", l.frame("up", broadcast).with(q(10)), untagged("a", "b"))
	}

	l.ports()["up"] = up
	says("interface nic0 is in another bridge or bond already: ")
	l.sends("a", l.frame("a", broadcast), untagged("b"))
	if got := nettest.Run(t, "ip", "link", "show", "nic0"); !strings.Contains(got, "master br9") {
		t.Errorf("the interface was taken from its bridge: %s", got)
	}
	nettest.Run(t, "ip", "link", "set", "nic0", "nomaster")
	works()

	nettest.Run(t, "ip", "link", "del", "nic0")
	delete(l.stations, "up")
	says("no interface named nic0: ")
	l.sends("a", l.frame("a", broadcast), untagged("b"))
	plug()
	works()

	// A name changes only while the interface is down, before Linux 6.2.
	nettest.Run(t, "ip", "link", "set", "nic0", "down")
	nettest.Run(t, "ip", "link", "set", "nic0", "name", "nic5")
	nettest.Run(t, "ip", "link", "set", "nic5", "up")
	says(`port "up": it keeps interface nic5: no interface named nic0: `)
	l.sends("a", l.frame("a", broadcast), and(untagged("b"), "up", q(10)))
	l.sends("up", l.frame("up", broadcast).with(q(10)), untagged("a", "b"))
	up.Device = "nic5"
	l.ports()["up"] = up
	if steps := l.diff(); len(steps) != 0 {
		t.Errorf("the interface's new name needs\n%s", text(steps))
	}
	works()
	delete(l.ports(), "up")
	delete(l.stations, "up")
	l.apply()
	nettest.Run(t, "ip", "link", "del", "nic5")
}

func (s suite) missing(t *testing.T) {
	l := s.lab(t, ports{"a": access(10, "a")})
	nettest.Run(t, "ip", "link", "add", "taken", "type", "bridge")
	t.Cleanup(func() { nettest.Run(t, "ip", "link", "del", "taken") })
	for _, c := range []struct {
		name string
		port vswitch.Port
		want string
	}{
		{"up", vswitch.Port{Kind: vswitch.Device, Device: "nic9", PVID: 10}, `port "up": no interface named nic9: `},
		{"taken", access(10, "x"), `exists and is not ripstop's: `},
		{"again", access(10, "a"), `has an interface "eth0" `},
	} {
		l.ports()[c.name] = c.port
		outcomes := reconcile.Run(t.Context(), l.driver, l.diff(), map[string]error{})
		if len(outcomes) != 1 || outcomes[0].Err == nil || !strings.Contains(outcomes[0].Err.Error(), c.want) {
			t.Errorf("port %q: %v, want an error with %q", c.name, outcomes, c.want)
		}
		delete(l.ports(), c.name)
		l.apply()
	}
}

// foreign looks at everything else of the host before and after.
func (s suite) foreign(t *testing.T) {
	nettest.Namespace(t, "mine")
	for _, name := range []string{"br9", "nic9"} {
		kind := "bridge"
		if name == "nic9" {
			kind = "veth"
		}
		nettest.Run(t, "ip", "link", "add", name, "type", kind)
		t.Cleanup(func() { nettest.Run(t, "ip", "link", "del", name) })
	}
	nettest.Run(t, "ip", "link", "set", "nic9", "master", "br9", "alias", "mine", "up")
	nettest.Run(t, "tc", "qdisc", "add", "dev", "nic9", "clsact")
	nettest.Run(t, "tc", "filter", "add", "dev", "nic9", "ingress", "protocol", "ip", "prio", "7", "u32", "match", "u32", "0", "0")
	// The kernel numbers a namespace when a pair first reaches into it.
	number := regexp.MustCompile(`  ?\(id: \d+\)|netns-?\w* \d+`)
	look := func() string {
		return number.ReplaceAllString(nettest.Run(t, "ip", "-d", "-o", "link")+nettest.Run(t, "tc", "filter", "show", "dev", "nic9", "ingress")+
			nettest.Run(t, "ip", "netns")+nettest.Run(t, "ip", "-n", "mine", "-o", "link"), "")
	}
	// The kernel notes some time later that the other end of nic9 is down.
	nettest.Eventually(t, 5*time.Second, "nic9 has no carrier", func() bool { return strings.Contains(look(), "LOWERLAYERDOWN") })
	before := look()
	l := s.lab(t, ports{"a": access(10, "a"), "m": access(10, "mine")})
	l.sends("a", l.frame("a", broadcast), untagged("m"))
	l.want = vswitch.State{}
	l.apply()
	if after := look(); after != before {
		t.Errorf("others' things changed from\n%s\nto\n%s", before, after)
	}
}
