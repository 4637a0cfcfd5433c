package vswitchtest

import (
	"maps"
	"slices"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// traces demands that a trace of the frame ends where want says, and that nobody
// hears, counts or learns of it.
func (l *lab) traces(from string, f frame, want map[string][]tag) vswitch.Trace {
	l.t.Helper()
	got := l.tracesUnseen(from, f)
	if got.Port != from || got.Switch != "lab" || got.Dataplane != l.plane {
		l.t.Errorf("the trace is of port %q of switch %q on dataplane %s", got.Port, got.Switch, got.Dataplane)
	}
	if (got.Reason == "") != (len(want) > 0) {
		l.t.Errorf("the reason to drop the frame is %q, and it is for %v:\n%v", got.Reason, want, got.Decisions)
	}
	hears := map[string]bool{}
	for _, e := range got.Egress {
		hears[e.Port] = true
		tags, ok := want[e.Port]
		outer := len(tags) > 0 && tags[0] == q(got.VLAN) && len(tags) == len(content(f))+1
		if !ok || outer != e.Tagged {
			l.t.Errorf("the trace has %s hear the frame, tagged %v; want %v", e.Port, e.Tagged, want)
		}
	}
	for name := range want {
		if !hears[name] {
			l.t.Errorf("the trace does not have %s hear the frame:\n%v", name, got.Decisions)
		}
	}
	return got
}

// content is the tags of a frame that are content.
func content(f frame) []tag {
	if len(f.tags) > 0 && f.tags[0].kind == cTag {
		return f.tags[1:]
	}
	return f.tags
}

// memory is what a switch learned and counted of frames.
type memory struct {
	seats map[seat]string
	drops map[string]map[string]uint64
	vlans map[uint16]uint64
}

func (l *lab) memory() memory {
	l.t.Helper()
	i := l.driver.(vswitch.Inspector)
	out := memory{map[seat]string{}, map[string]map[string]uint64{}, map[uint16]uint64{}}
	fdb, err := i.FDB(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, e := range fdb {
		out.seats[seat{e.VLAN, e.MAC}] = e.Port
	}
	counters, err := i.Counters(l.t.Context())
	if err != nil {
		l.t.Fatal(err)
	}
	for _, c := range counters.Ports {
		out.drops[c.Port] = c.Drops
	}
	for _, v := range counters.VLANs {
		out.vlans[v.VLAN] = v.Frames
	}
	return out
}

func (m memory) equal(o memory) bool {
	return maps.Equal(m.seats, o.seats) && maps.EqualFunc(m.drops, o.drops, maps.Equal) && maps.Equal(m.vlans, o.vlans)
}

// tracesUnseen traces a frame, and demands that the switch is as it was.
func (l *lab) tracesUnseen(from string, f frame) vswitch.Trace {
	l.t.Helper()
	before := l.memory()
	got, err := l.driver.(vswitch.Tracer).Trace(l.t.Context(), from, f.bytes())
	if err != nil {
		l.t.Fatal(err)
	}
	if after := l.memory(); !before.equal(after) {
		l.t.Errorf("a trace changed the switch from\n%v\nto\n%v", before, after)
	}
	return got
}

// silence has the kernels at the ports send nothing of their own.
func (l *lab) silence() {
	l.t.Helper()
	const off = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
	for _, p := range l.ports() {
		nettest.Run(l.t, "ip", "netns", "exec", p.Netns, "sh", "-c", "echo 1 >"+off)
	}
	nettest.Run(l.t, "sh", "-c", "echo 1 >"+off)
	l.t.Cleanup(func() { nettest.Run(l.t, "sh", "-c", "echo 0 >"+off) })
}

// trace is about what random frames do not meet: the host, guards and the file's
// keys.
func (s suite) trace(t *testing.T) {
	l := s.withGateway(t)
	l.silence()
	l.traces("a", l.frame("a", broadcast), and(untagged("b", "blue"), "t", q(10)))
	l.learn("a", "b")
	gateway := l.stations["blue"].mac
	l.traces("a", l.frame("a", gateway), untagged("blue"))
	l.traces("blue", l.frame("blue", l.stations["a"].mac), untagged("a"))
	l.traces("t", l.frame("t", l.stations["a"].mac).with(q(10)), untagged("a"))
	l.set("a", func(p *vswitch.Port) {
		p.Security.AllowedMACs = []vswitch.MAC{l.stations["a"].mac}
		p.Security.BPDUGuard = true
		p.Security.MACLimit = 1
	})
	forged := l.frame("a", l.stations["b"].mac)
	forged.src = vswitch.MAC{2, 9, 9, 9, 9, 9}
	l.dropped("a", forged, "mac-spoofed", "switches.lab.ports.a.allowed-macs")
	l.dropped("a", l.frame("a", vswitch.MAC{1, 0x80, 0xc2, 0, 0, 0}), "bpdu-guard", "switches.lab.ports.a.bpdu-guard")
	l.dropped("a", l.frame("a", broadcast).with(q(20)), "tagged-on-access", "switches.lab.ports.a.vlan")
	l.dropped("t", l.frame("t", broadcast).with(q(30)), "vlan-not-allowed", "switches.lab.ports.t.trunk")
	l.dropped("a", l.frame("a", l.stations["b"].mac).pad(1600), "too-big", "switches.lab.ports.b.mtu")
	// The BPDU that was only traced did not shut the port.
	l.traces("a", l.frame("a", l.stations["b"].mac), untagged("b"))
	if _, err := l.driver.(vswitch.Tracer).Trace(t.Context(), "nobody", l.frame("a", broadcast).bytes()); err == nil {
		t.Error("a port that does not exist is traced")
	}
	if _, err := l.driver.(vswitch.Tracer).Trace(t.Context(), "a", make([]byte, 13)); err == nil {
		t.Error("half a header is traced")
	}
}

func (l *lab) dropped(from string, f frame, reason, rule string) {
	l.t.Helper()
	got := l.traces(from, f, none)
	if got.Reason != reason || !slices.ContainsFunc(got.Decisions, func(d vswitch.Decision) bool { return d.Rule == rule }) {
		l.t.Errorf("the frame is dropped for %q by\n%v\nwant %q by %s", got.Reason, got.Decisions, reason, rule)
	}
}
