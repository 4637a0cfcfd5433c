package vswitchtest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// loopDetection joins two ports by a bridge behind them, and by a cable.
func (s suite) loopDetection(t *testing.T) {
	// A storm without a limit leaves an emulated machine no time to look for its loop.
	const most = 500
	limits := vswitch.Storm{Broadcast: most, Multicast: most, UnknownUnicast: most}
	detect := vswitch.Security{LoopDetection: true, Storm: limits}
	one, two := secured("x", detect), secured("x", detect)
	two.IfName = "eth1"
	l := s.lab(t, ports{"one": one, "two": two, "b": access(10, "b"), "c": access(20, "c"), "d": access(20, "d")})
	l.silence()
	l.learn("b", "c", "d")
	l.probes()
	if faults := l.differences(); len(faults) > 0 {
		t.Fatalf("there is no loop, and the steps are\n%s", text(faults))
	}
	l.sends("b", l.frame("b", broadcast), untagged("one", "two"))

	// A storm behind a bridge: the other VLAN loses nothing, and it ends.
	apart := l.stream("c", "d", time.Millisecond)
	l.bridge("x", "eth0", "eth1")
	storm := l.frame("b", broadcast)
	l.stations["b"].send(t, storm)
	l.shuts("two", `in a loop with port "one"`)
	apart.end()
	l.calm(storm)
	f := l.frame("b", broadcast)
	l.stations["b"].send(t, f)
	if got := l.collect(f.payload, 2); len(got["b"]) > 0 {
		t.Errorf("in the loop, b hears its own frame %d times", len(got["b"]))
	}
	if l.drops("two", 10, "loop")+l.drops("one", 10, "loop") == 0 {
		t.Error("no probe is counted")
	}
	l.restart()
	l.shuts("two", `in a loop with port "one"`)
	nettest.Run(t, "ip", "-n", "x", "link", "del", "loop")
	l.opens()
	l.sends("b", l.frame("b", broadcast), untagged("one", "two"))

	// Who is trusted stays.
	l.set("two", func(p *vswitch.Port) { p.Security.Trusted = true })
	l.bridge("x", "eth0", "eth1")
	l.shuts("one", `in a loop with port "two"`)
	// What the daemon is told not to look for opens at once.
	l.set("one", func(p *vswitch.Port) { p.Security.LoopDetection = false })
	l.shuts("two", `in a loop with port "one"`)
	nettest.Run(t, "ip", "-n", "x", "link", "del", "loop")

	// A probe that a station of another port forges, or sends back late, does nothing.
	l.opens()
	l.stations["c"].send(t, frame{dst: vswitch.MAC{3, 'r', 'i', 'p', 's', 't'}, src: l.stations["c"].mac, kind: 0x88b6, payload: make([]byte, 46)})
	l.probes()
	if faults := l.differences(); len(faults) > 0 {
		t.Errorf("a forged probe: the steps are\n%s", text(faults))
	}
}

// bridge makes a foreign bridge between two devices of a namespace.
func (l *lab) bridge(space string, devices ...string) {
	l.t.Helper()
	nettest.Run(l.t, "ip", "-n", space, "link", "add", "loop", "up", "type", "bridge")
	for _, dev := range devices {
		nettest.Run(l.t, "ip", "-n", space, "link", "set", dev, "master", "loop")
	}
}

// probes sends a round of probes.
func (l *lab) probes() {
	l.t.Helper()
	if _, err := l.driver.(vswitch.LoopDetector).DetectLoops(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
}

// shuts demands that soon one port, and no other, is shut for a reason.
func (l *lab) shuts(port, why string) {
	l.t.Helper()
	var steps []vswitch.Step
	nettest.Eventually(l.t, 10*time.Second, "port "+port+" is shut, "+why, func() bool {
		l.probes()
		steps = l.differences()
		return len(steps) == 1 && steps[0].Object() == "port/lab/"+port && strings.Contains(steps[0].String(), why)
	})
	l.probes() // for those that act a round later
}

// opens demands that no port is shut any more after a while.
func (l *lab) opens() {
	l.t.Helper()
	nettest.Eventually(l.t, 20*time.Second, "the ports open again", func() bool {
		l.probes()
		return len(l.differences()) == 0
	})
	l.probes()
}

// calm demands that copies of a frame end.
func (l *lab) calm(f frame) {
	l.t.Helper()
	b := l.stations["b"]
	nettest.Eventually(l.t, 10*time.Second, "the storm ends", func() bool {
		l.probes()
		heard := false
		for wait([]*station{b}, unix.POLLIN, 10*quiet) {
			raw := b.receive(l.t)
			heard = heard || bytes.Contains(raw, f.payload)
			if heard && raw == nil {
				break
			}
		}
		return !heard
	})
}
