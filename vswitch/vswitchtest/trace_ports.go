package vswitchtest

import (
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/internal/packet"
	"ripstop/vswitch"
)

// asks traces a packet from one port to another's address, and demands that
// nothing is counted, learned or remembered.
func (l *lab) asks(from string, p packet.Packet) vswitch.Trace {
	l.t.Helper()
	p.Src = l.stations[from].mac
	frame, err := p.Frame()
	if err != nil {
		l.t.Fatal(err)
	}
	before := l.memory()
	t, err := l.driver.(vswitch.Tracer).Trace(l.t.Context(), from, frame)
	if err != nil {
		l.t.Fatal(err)
	}
	if after := l.memory(); !before.equal(after) {
		l.t.Errorf("a trace changed the switch from\n%v\nto\n%v", before, after)
	}
	return t
}

// decides demands that a trace ends for a reason, "" for who hears it, and that a
// stage has a rule.
func (l *lab) decides(t vswitch.Trace, reason, stage, rule, words string) {
	l.t.Helper()
	is := func(d vswitch.Decision) bool {
		return d.Stage == stage && d.Rule == rule && strings.Contains(d.Result, words)
	}
	if t.Reason != reason || (reason == "") != (len(t.Egress) > 0) || !slices.ContainsFunc(t.Decisions, is) {
		l.t.Errorf("the trace ends for %q, heard by %v, with\n%v\nwant %q, and %s by %s: %s", t.Reason, t.Egress, t.Decisions, reason, stage, rule, words)
	}
}

// tracePorts is what groups and limits do to a frame.
func (s suite) tracePorts(t *testing.T) {
	in := rule(false, vswitch.In, "10.10.0.0/24", 6, 80, 80)
	deny, out := rule(true, vswitch.In, "10.10.0.4/32", vswitch.AnyProtocol, 0, 65535), rule(false, vswitch.Out, "", 17, 53, 53)
	deny.Place, out.Place, out.Group = 1, 2, "h"
	f := vswitch.NewPolicy([]string{"h", "g"}, true, []vswitch.FilterRule{in, deny, out})
	l := s.lab(t, ports{
		"a": filtered(access(10, "a", "10.10.0.2/24"), f),
		"b": access(10, "b", "10.10.0.3/24"), "c": access(10, "c", "10.10.0.4/24"),
	})
	l.silence()
	a, b, c := netip.MustParseAddr("10.10.0.2"), netip.MustParseAddr("10.10.0.3"), netip.MustParseAddr("10.10.0.4")
	l.learn("b", "c")
	to := packet.Packet{Dst: l.stations["a"].mac, Protocol: packet.TCP, From: b, To: a, FromPort: 4000, ToPort: 80}
	const groups = "switches.lab.ports.a.groups"

	web := to
	for range 2 { // what was traced is no connection
		l.decides(l.asks("b", web), "", vswitch.StageFilter, "groups.g.rules[0]", "a: passes in")
	}
	ssh := to
	ssh.ToPort = 22
	l.decides(l.asks("b", ssh), "filtered", vswitch.StageFilter, groups, "no rule")
	other := to
	other.From = c
	l.decides(l.asks("c", other), "filtered", vswitch.StageFilter, "groups.g.rules[1]", "a: dropped")
	dns := packet.Packet{Dst: l.stations["b"].mac, Protocol: packet.UDP, From: a, To: b, FromPort: 5000, ToPort: 53}
	l.decides(l.asks("a", dns), "", vswitch.StageFilter, "groups.h.rules[2]", "a: passes out")
	back := packet.Packet{Dst: l.stations["a"].mac, Protocol: packet.UDP, From: b, To: a, FromPort: 53, ToPort: 5000}
	l.decides(l.asks("b", back), "filtered", vswitch.StageFilter, groups, "no rule")
	mail := dns
	mail.ToPort = 25
	if got := l.asks("a", mail); len(got.Decisions) != 1 || got.VLAN != 10 {
		t.Errorf("after a drop by the sender's groups there is %v", got)
	}
	l.decides(l.asks("a", mail), "filtered", vswitch.StageFilter, groups, "no rule")
	arp := packet.Packet{Dst: broadcast, Protocol: packet.ARP, From: b, To: a}
	l.decides(l.asks("b", arp), "", vswitch.StageFilter, groups, "needs no rule")

	// A real datagram makes the connection that lets its answer in.
	// Neighbors that are looked for again would be counted meanwhile.
	nettest.Run(t, "ip", "-n", "a", "neigh", "replace", "10.10.0.3", "lladdr", l.stations["b"].mac.String(), "dev", "eth0", "nud", "permanent")
	nettest.Run(t, "ip", "-n", "b", "neigh", "replace", "10.10.0.2", "lladdr", l.stations["a"].mac.String(), "dev", "eth0", "nud", "permanent")
	echoes(t, "b", "53")
	asked := dial(t, "a", "udp", "10.10.0.3:53", arrival)
	if !answers(t, asked, 64, arrival) {
		t.Fatal("the server does not answer")
	}
	back.ToPort = asked.LocalAddr().(*net.UDPAddr).AddrPort().Port()
	l.decides(l.asks("b", back), "", vswitch.StageFilter, groups, "connection that is known")
	l.restart()
	l.decides(l.asks("b", back), "", vswitch.StageFilter, groups, "connection that is known")
	l.decides(l.asks("c", other), "filtered", vswitch.StageFilter, "groups.g.rules[1]", "a: dropped")

	// 60 bytes at 10 bit/s take 48 s.
	l.set("c", func(p *vswitch.Port) { p.Limit = vswitch.Limit{Send: 10, Receive: 10, Burst: time.Millisecond} })
	const limit = "switches.lab.ports.c.limit"
	toC := packet.Packet{Dst: l.stations["c"].mac, Protocol: packet.UDP, From: b, To: c, FromPort: 7, ToPort: 7}
	fromC := packet.Packet{Dst: l.stations["b"].mac, Protocol: packet.UDP, From: c, To: b, FromPort: 7, ToPort: 7}
	l.decides(l.asks("b", toC), "", vswitch.StageLimit, limit, "c: within")
	l.decides(l.asks("c", fromC), "", vswitch.StageLimit, limit, "c: within")
	l.sends("b", l.frame("b", l.stations["c"].mac), untagged("c"))
	l.sends("c", l.frame("c", l.stations["b"].mac), untagged("b"))
	l.decides(l.asks("b", toC), "limit", vswitch.StageLimit, limit, "c: dropped")
	l.decides(l.asks("c", fromC), "limit", vswitch.StageLimit, limit, "c: dropped")
}
