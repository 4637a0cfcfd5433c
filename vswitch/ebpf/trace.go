package ebpf

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ripstop/vswitch"
)

// longestFrame is the most bytes of a frame that the kernel takes for a dry run:
// a page less what it keeps beside it.
const longestFrame = 3500

// traceContext is the head of struct __sk_buff in linux/bpf.h, as far as
// BPF_PROG_TEST_RUN lets it be set.
type traceContext struct {
	_       [10]uint32
	Ifindex uint32
	_       uint32
	CB      [5]uint32
}

// Trace lets a frame run through the switch's own code over its own maps, in a
// program that only notes what it would do.
func (d *Driver) Trace(_ context.Context, port string, frame []byte) (vswitch.Trace, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p, ifindex, ok := d.seat(port)
	if !ok {
		return vswitch.Trace{}, &vswitch.NoPortError{Name: port}
	}
	t := vswitch.Trace{Switch: p.name, Port: port, Dataplane: vswitch.EBPF}
	n, err := d.enter(p, ifindex, &t, frame)
	if err == nil && t.Reason == "" {
		var back bool
		if back, err = n.answer(&t, frame); err == nil && !back {
			n.delivery(&t)
		}
		if err == nil {
			err = d.depart(p, &t, frame)
		}
	}
	if err != nil {
		return vswitch.Trace{}, fmt.Errorf("trace at port %q: %w", port, err)
	}
	return t, nil
}

// enter is the frame's way into the switch.
func (d *Driver) enter(p *plane, ifindex uint32, t *vswitch.Trace, frame []byte) (n notes, err error) {
	if len(frame) < 14 || len(frame) > longestFrame {
		return n, fmt.Errorf("a frame of %d bytes: give one of 14 to %d", len(frame), longestFrame)
	}
	s := stop{plane: p, port: t.Port, ifindex: ifindex, slot: p.slots[ifindex], way: vswitch.Out}
	s.rest, s.tag = vswitch.SplitTag(frame)
	if t.Reason, err = d.pass(s, t); t.Reason != "" || err != nil {
		t.VLAN = s.vid()
		return n, err
	}
	if n, err = d.dry(p, ifindex, frame); err == nil {
		n.admission(t)
	}
	return n, err
}

// seat is the switch and the device of a port or gateway.
func (d *Driver) seat(port string) (*plane, uint32, bool) {
	for _, p := range d.planes {
		for ifindex, at := range p.places {
			if at.name == port {
				return p, ifindex, true
			}
		}
	}
	return nil, 0, false
}

// notes is what a dry run tells of a frame.
type notes struct {
	*plane
	slot    uint32
	tag     uint32
	to      vswitch.MAC
	from    vswitch.MAC
	verdict planeVerdict
	copies  []planeCopy // by slot
}

func (d *Driver) dry(p *plane, ifindex uint32, frame []byte) (_ notes, err error) {
	rest, tag := vswitch.SplitTag(frame)
	n := notes{plane: p, slot: p.slots[ifindex], tag: tag, to: vswitch.MAC(rest), from: vswitch.MAC(rest[6:])}
	spec := d.spec.Copy()
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != planeProgRipstopTrace })
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: p.maps.byName()})
	if err != nil {
		return n, fmt.Errorf("load program: %w", err)
	}
	defer c.Close()
	verdicts, copies := c.Maps[planeMapVerdicts], c.Maps[planeMapCopies]
	if err := verdicts.Put(uint32(0), &planeVerdict{Why: planeReasonREASONS}); err != nil {
		return n, fmt.Errorf("write map %q: %w", planeMapVerdicts, err)
	}
	in := traceContext{Ifindex: ifindex, CB: [5]uint32{n.slot, tag, 0}}
	if p.program == planeProgRipstopGuard {
		in.CB[2] = 1
	}
	err = d.host.Run(func() error {
		_, err := c.Programs[planeProgRipstopTrace].Run(&ebpf.RunOptions{Data: rest, Context: in})
		return err
	})
	if err != nil {
		return n, fmt.Errorf("run program: %w", err)
	}
	if err := verdicts.Lookup(uint32(0), &n.verdict); err != nil {
		return n, fmt.Errorf("read map %q: %w", planeMapVerdicts, err)
	}
	keys := make([]uint32, maxPorts)
	n.copies = make([]planeCopy, maxPorts)
	var cursor ebpf.MapBatchCursor
	if _, err := copies.BatchLookup(&cursor, keys, n.copies, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return n, fmt.Errorf("read map %q: %w", planeMapCopies, err)
	}
	return n, nil
}

// name is that of the port or gateway in a slot.
func (n notes) name(slot uint32) string { return n.places[n.ports[slot].Ifindex].name }

// onIngress is the reasons for which a frame gets no VLAN.
var onIngress = []planeReason{
	planeReasonREASON_TAGGED_ON_ACCESS, planeReasonREASON_VLAN_NOT_ALLOWED,
	planeReasonREASON_NO_NATIVE_VLAN, planeReasonREASON_DOUBLE_TAGGED,
}

// onEgress is the reasons for which a frame that was let in gets no further.
var onEgress = []planeReason{
	planeReasonREASON_SAME_PORT, planeReasonREASON_ISOLATED, planeReasonREASON_TOO_BIG,
	planeReasonREASON_NO_DESTINATION, planeReasonREASON_STORM_UNICAST,
}

// admission tells up to what the FDB learns.
func (n notes) admission(t *vswitch.Trace) {
	why := n.verdict.Why
	if why < planeReasonREASONS && !slices.Contains(onEgress, why) {
		t.Reason = reasons[why]
	}
	if t.VLAN = uint16(n.verdict.Vid); t.VLAN == 0 && t.Reason == "" {
		t.VLAN = n.ports[n.slot].Pvid // of a port of which nothing is learned
	}
	rule := vswitch.Rule(t.Switch, t.Port, t.Reason)
	if slices.Contains(onIngress, why) {
		t.Note(vswitch.StageIngress, rule, "%s: dropped, %s", n.wire(), t.Reason)
		return
	}
	if t.VLAN != 0 {
		t.Note(vswitch.StageIngress, n.source(t), "%s: VLAN %d", n.wire(), t.VLAN)
	}
	if t.Reason != "" {
		t.Note(vswitch.StageGuard, rule, "dropped, %s", t.Reason)
		return
	}
	t.Note(vswitch.StageGuard, "", "passed")
	if t.Dataplane != vswitch.EBPF {
		return
	}
	switch n.verdict.Lesson {
	case planeLessonLESSON_NEW:
		t.Note(vswitch.StageLearn, "", "%s is new at %s", n.from, t.Port)
	case planeLessonLESSON_MOVED:
		t.Note(vswitch.StageLearn, "", "%s would move to %s", n.from, t.Port)
	case planeLessonLESSON_SAME:
		t.Note(vswitch.StageLearn, "", "%s is known at %s", n.from, t.Port)
	}
}

// wire is the form in which the frame came.
func (n notes) wire() string {
	switch {
	case n.tag>>16 == 0x8100:
		return fmt.Sprintf("802.1Q tag %d", n.tag&0xfff)
	case n.tag != 0:
		return "no 802.1Q tag, 802.1ad as content"
	}
	return "no tag"
}

// source is the key of the file that gives the frame its VLAN.
func (n notes) source(t *vswitch.Trace) string {
	port := n.ports[n.slot]
	switch {
	case n.places[port.Ifindex].gateway:
		return ""
	case port.Pvid != t.VLAN:
		return vswitch.PortKey(t.Switch, t.Port, "trunk")
	case port.Flags&planePortFlagPORT_TRUNK != 0:
		return vswitch.PortKey(t.Switch, t.Port, "native")
	}
	return vswitch.PortKey(t.Switch, t.Port, "vlan")
}

// answer tells whether the switch answers a question for a station of another host,
// which the sender alone hears then.
func (n notes) answer(t *vswitch.Trace, frame []byte) (bool, error) {
	ip, from, ok := asked(frame)
	if !ok || n.ports[n.slot].Flags&planePortFlagPORT_OVERLAY != 0 {
		return false, nil
	}
	at := addressOf(t.VLAN, ip)
	var station planeNeighbor
	if err := n.maps.Neighbors.Lookup(&at, &station); err != nil {
		if gone(err) == nil {
			return false, nil
		}
		return false, fmt.Errorf("read map %q: %w", planeMapNeighbors, err)
	}
	if vswitch.MAC(station.Mac) == from {
		return false, nil
	}
	t.Note(vswitch.StageFDB, "", "answered: %s is that of %s on another host, and the question goes to nobody", ip, vswitch.MAC(station.Mac))
	t.Deliver([]vswitch.Egress{{Port: t.Port, Tagged: n.tag>>16 == 0x8100 && n.tag&0xfff != 0}})
	return true, nil
}

// asked is the address for which a frame asks all by ARP or neighbor discovery, in the
// forms that the program answers, and who asks.
func asked(frame []byte) (ip netip.Addr, from vswitch.MAC, ok bool) {
	rest, tag := vswitch.SplitTag(frame)
	if rest[0]&1 == 0 || tag != 0 && tag>>16 != 0x8100 {
		return ip, from, false
	}
	b := rest[14:]
	switch binary.BigEndian.Uint16(rest[12:]) {
	case unix.ETH_P_ARP:
		if len(b) < 28 || !bytes.Equal(b[:8], []byte{0, 1, 8, 0, 6, 4, 0, 1}) || bytes.Equal(b[14:18], b[24:28]) {
			return ip, from, false
		}
		return netip.AddrFrom4([4]byte(b[24:])), vswitch.MAC(b[8:]), true
	case unix.ETH_P_IPV6:
		if len(b) != 72 || b[6] != unix.IPPROTO_ICMPV6 || b[7] != 255 {
			return ip, from, false
		}
		source, nd := netip.AddrFrom16([16]byte(b[8:])), b[40:] // RFC 4861, 4.3, with the one option of 4.6.1
		if source.IsUnspecified() || nd[0] != 135 || nd[1] != 0 || nd[24] != 1 || nd[25] != 1 || nd[26]&1 != 0 {
			return ip, from, false
		}
		return netip.AddrFrom16([16]byte(nd[8:])), vswitch.MAC(nd[26:]), true
	}
	return ip, from, false
}

// delivery tells where the frame goes.
func (n notes) delivery(t *vswitch.Trace) {
	known := n.name(n.verdict.Known)
	switch {
	case n.to[0]&1 != 0:
		t.Note(vswitch.StageFDB, "", "%s is a group: to all ports of VLAN %d", n.to, t.VLAN)
	case n.to == n.from:
		t.Note(vswitch.StageFDB, "", "%s is the sender", n.to)
	case n.verdict.Known == 0:
		t.Note(vswitch.StageFDB, "", "%s is not known: to all ports of VLAN %d", n.to, t.VLAN)
	case n.verdict.Fixed != 0:
		t.Note(vswitch.StageFDB, "", "%s belongs to %s", n.to, known)
	default:
		t.Note(vswitch.StageFDB, "", "%s is at %s", n.to, known)
	}
	var to []vswitch.Egress
	for slot, c := range n.copies {
		name := n.name(uint32(slot))
		switch {
		case c.Form == planeFormNOT_A_MEMBER:
		case c.Why < planeReasonREASONS:
			why := reasons[c.Why]
			t.Note(vswitch.StageEgress, vswitch.Rule(t.Switch, name, why), "%s: dropped, %s", name, why)
		default:
			to = append(to, vswitch.Egress{Port: name, Tagged: c.Form == planeFormTAGGED})
		}
	}
	t.Deliver(to)
	if why := n.verdict.Why; why < planeReasonREASONS {
		t.Reason = reasons[why]
		at := t.Port
		if known != "" {
			at = known
		}
		t.Note(vswitch.StageEgress, vswitch.Rule(t.Switch, at, t.Reason), "dropped, %s", t.Reason)
	}
}

// Admit is the part of a Trace that a guard decides: up to where the frame is
// handed to who forwards. The VLAN and the Reason say what came of it, and the Egress
// that the guard answers itself.
func (g *Guard) Admit(_ context.Context, port string, frame []byte) (vswitch.Trace, error) {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	p, ifindex, ok := g.d.seat(port)
	if !ok || p.places[ifindex].gateway {
		return vswitch.Trace{}, &vswitch.NoPortError{Name: port}
	}
	t := vswitch.Trace{Switch: p.name, Port: port, Dataplane: vswitch.Bridge}
	n, err := g.d.enter(p, ifindex, &t, frame)
	if err != nil {
		return vswitch.Trace{}, fmt.Errorf("trace at port %q: %w", port, err)
	}
	if n.plane != nil && n.verdict.Why == planeReasonREASON_STORM_UNICAST {
		t.Reason = reasons[n.verdict.Why]
		t.Note(vswitch.StageGuard, vswitch.Rule(t.Switch, t.Port, t.Reason), "dropped, %s", t.Reason)
	}
	if n.plane != nil && t.Reason == "" {
		if _, err := n.answer(&t, frame); err != nil {
			return vswitch.Trace{}, fmt.Errorf("trace at port %q: %w", port, err)
		}
	}
	return t, nil
}
