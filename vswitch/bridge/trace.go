package bridge

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"

	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// Trace has the guard's program decide what the bridge gets, and follows the rest
// through the bridge's state: its VLANs, its FDB and its ports.
func (d *Driver) Trace(ctx context.Context, port string, frame []byte) (vswitch.Trace, error) {
	found, err := d.devices.Observe(ctx)
	if err != nil {
		return vswitch.Trace{}, err
	}
	w, ok := findSeat(found, port)
	if !ok {
		return vswitch.Trace{}, &vswitch.NoPortError{Name: port}
	}
	if w.trace, err = d.enter(ctx, w, frame); err != nil || w.trace.Reason != "" {
		return w.trace, err
	}
	if len(w.trace.Egress) > 0 { // the guard answers
		return d.guard.Depart(ctx, w.trace, frame)
	}
	if w.members, err = d.memberships(); err != nil {
		return vswitch.Trace{}, err
	}
	if w.stations, err = d.stations(); err != nil {
		return vswitch.Trace{}, err
	}
	rest, _ := vswitch.SplitTag(frame)
	w.to, w.from, w.size = vswitch.MAC(rest), vswitch.MAC(rest[6:]), len(rest)
	w.forward()
	return d.guard.Depart(ctx, w.trace, frame)
}

// walk is the way of one frame through a bridge.
type walk struct {
	trace    vswitch.Trace
	name     string // of the switch
	port     string // at which the frame comes in
	sw       device.Switch
	br       netlink.Link
	in       netlink.Link // of the port or gateway
	gateway  bool
	members  map[int]membership
	stations []station
	to, from vswitch.MAC
	size     int // bytes without an outer tag
}

func findSeat(found map[string]device.Switch, port string) (walk, bool) {
	for name, sw := range found {
		at := slices.IndexFunc(sw.Others, func(l netlink.Link) bool { return isSwitch(l, name) })
		if at < 0 {
			continue
		}
		w := walk{name: name, port: port, sw: sw, br: sw.Others[at]}
		if p, ok := sw.Ports[port]; ok {
			w.in = p.Link
			return w, true
		}
		if g, ok := sw.Gateways[port]; ok {
			w.in, w.gateway = g.Link, true
			return w, true
		}
	}
	return walk{}, false
}

// enter is the frame's way up to the bridge. What the host sends through a
// gateway is nobody's to guard.
func (d *Driver) enter(ctx context.Context, w walk, frame []byte) (vswitch.Trace, error) {
	if !w.gateway {
		return d.guard.Admit(ctx, w.port, frame)
	}
	if len(frame) < 14 {
		return vswitch.Trace{}, fmt.Errorf("trace at gateway %q: a frame of %d bytes: give one of 14 at least", w.port, len(frame))
	}
	t := vswitch.Trace{Switch: w.name, Port: w.port, Dataplane: vswitch.Bridge}
	if v, ok := w.in.(*netlink.Vlan); ok {
		t.VLAN = uint16(v.VlanId)
	}
	t.Note(vswitch.StageIngress, "", "the gateway's VLAN %d", t.VLAN)
	return t, nil
}

// forward is what the bridge makes of a frame that the guard passed
// (br_handle_frame_finish of net/bridge/br_input.c).
func (w *walk) forward() {
	t := &w.trace
	if m := w.members[w.in.Attrs().Index]; !w.gateway && (w.in.Attrs().MasterIndex != w.br.Attrs().Index || !m.carries(t.VLAN)) {
		w.drop(t.Port, "vlan-not-allowed") // somebody changed the bridge
		return
	}
	w.learn()
	s, known := w.station(w.to)
	switch {
	case w.to[0]&1 != 0:
		t.Note(vswitch.StageFDB, "", "%s is a group: to all ports of VLAN %d", w.to, t.VLAN)
		w.flood(true)
	case w.to == w.from:
		t.Note(vswitch.StageFDB, "", "%s is the sender", w.to)
		w.drop(t.Port, "same-port")
	case !known:
		t.Note(vswitch.StageFDB, "", "%s is not known: to all ports of VLAN %d", w.to, t.VLAN)
		w.flood(false)
	case s.permanent:
		t.Note(vswitch.StageFDB, "", "%s is the host", w.to)
		w.host()
	default:
		w.unicast(s)
	}
}

func (w *walk) learn() {
	t := &w.trace
	s, known := w.station(w.from)
	switch {
	case w.gateway:
	case !known:
		t.Note(vswitch.StageLearn, "", "%s is new at %s", w.from, t.Port)
	case s.index == w.in.Attrs().Index:
		t.Note(vswitch.StageLearn, "", "%s is known at %s", w.from, t.Port)
	default:
		t.Note(vswitch.StageLearn, "", "%s would move to %s", w.from, t.Port)
	}
}

// station is the FDB's entry of an address in the frame's VLAN.
func (w *walk) station(mac vswitch.MAC) (station, bool) {
	at := slices.IndexFunc(w.stations, func(s station) bool { return s.vlan == w.trace.VLAN && s.mac == mac && w.ours(s.index) })
	if at < 0 {
		return station{}, false
	}
	return w.stations[at], true
}

// ours tells whether a device is the bridge or one of its ports.
func (w *walk) ours(index int) bool {
	if index == w.br.Attrs().Index {
		return true
	}
	for _, p := range w.sw.Ports {
		if p.Link.Attrs().Index == index {
			return true
		}
	}
	return false
}

func (w *walk) unicast(s station) {
	t := &w.trace
	for name, p := range w.sw.Ports {
		if p.Link.Attrs().Index != s.index {
			continue
		}
		if s.static {
			t.Note(vswitch.StageFDB, "", "%s belongs to %s", w.to, name)
		} else {
			t.Note(vswitch.StageFDB, "", "%s is at %s", w.to, name)
		}
		if e, why := w.egress(name, p.Link); why != "" {
			w.drop(name, why)
		} else {
			t.Deliver([]vswitch.Egress{e})
		}
		return
	}
}

// egress is how the frame leaves through a port, or why it does not
// (should_deliver of net/bridge/br_forward.c).
func (w *walk) egress(name string, l netlink.Link) (vswitch.Egress, string) {
	from, to := w.members[w.in.Attrs().Index], w.members[l.Attrs().Index]
	switch vid := w.trace.VLAN; {
	case l.Attrs().Index == w.in.Attrs().Index:
		return vswitch.Egress{}, "same-port"
	case !to.carries(vid) || to.state != forwarding:
		return vswitch.Egress{}, "no-destination"
	case from.isolated && to.isolated && !w.gateway:
		return vswitch.Egress{}, "isolated"
	case w.size > l.Attrs().MTU+frameOverhead:
		return vswitch.Egress{}, "too-big"
	default:
		return vswitch.Egress{Port: name, Tagged: slices.Contains(to.tagged, vid)}, ""
	}
}

// frameOverhead is what a frame may be longer than a port's MTU: the Ethernet
// header, and a tag that is content (is_skb_forwardable of net/core/dev.c).
const frameOverhead = 14 + 4

// flood sends to all ports of the VLAN, and to the host what goes to a group.
func (w *walk) flood(group bool) {
	t := &w.trace
	var to []vswitch.Egress
	for _, name := range slices.Sorted(maps.Keys(w.sw.Ports)) {
		e, why := w.egress(name, w.sw.Ports[name].Link)
		switch why {
		case "":
			to = append(to, e)
		case "too-big":
			t.Note(vswitch.StageEgress, vswitch.Rule(t.Switch, name, why), "%s: dropped, %s", name, why)
		}
	}
	if g, ok := w.gatewayOf(t.VLAN); ok && group && !w.gateway {
		to = append(to, vswitch.Egress{Port: g})
	}
	if len(to) == 0 {
		w.drop(t.Port, "no-destination")
		return
	}
	t.Deliver(to)
}

// host is a frame to an address of the bridge or of one of its ports.
func (w *walk) host() {
	g, ok := w.gatewayOf(w.trace.VLAN)
	if !ok || w.gateway {
		w.drop(w.trace.Port, "no-destination")
		return
	}
	w.trace.Deliver([]vswitch.Egress{{Port: g}})
}

func (w *walk) gatewayOf(vid uint16) (string, bool) {
	for name, g := range w.sw.Gateways {
		if v, ok := g.Link.(*netlink.Vlan); ok && uint16(v.VlanId) == vid && w.members[w.br.Attrs().Index].carries(vid) {
			return name, true
		}
	}
	return "", false
}

func (w *walk) drop(port, why string) {
	w.trace.Reason = why
	w.trace.Note(vswitch.StageEgress, vswitch.Rule(w.trace.Switch, port, why), "dropped, %s", why)
}
