package ebpf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// Observe reads every switch from its devices, filters and maps. It changes
// nothing but what the Driver knows.
func (d *Driver) Observe(ctx context.Context) (vswitch.State, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	found, err := d.devices.Observe(ctx)
	if err != nil {
		return vswitch.State{}, err
	}
	clear(d.orphans)
	state := vswitch.State{Switches: map[string]vswitch.Switch{}}
	for name := range d.planes {
		if _, ok := found[name]; !ok {
			found[name] = device.Switch{}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		if ofBridge(name, found[name]) && d.planes[name] == nil {
			continue
		}
		sw, err := d.observe(name, found[name])
		if err != nil {
			return vswitch.State{}, fmt.Errorf("switch %q: %w", name, err)
		}
		state.Switches[name] = sw
	}
	return state.Canonical(), nil
}

// ofBridge tells whether a switch is one of the kernel's bridges. What is left
// of a switch without its bridge is seen here, so that somebody clears it up.
func ofBridge(name string, s device.Switch) bool {
	return slices.ContainsFunc(s.Others, func(l netlink.Link) bool {
		_, ok := l.(*netlink.Bridge)
		return ok && l.Attrs().Name == name
	})
}

func (d *Driver) observe(name string, found device.Switch) (vswitch.Switch, error) {
	sw := vswitch.Switch{Dataplane: vswitch.EBPF, Ports: map[string]vswitch.Port{}, Gateways: map[string]vswitch.Gateway{}}
	hooks, groups, meters, err := d.hooks(found)
	if err != nil {
		return sw, err
	}
	p, err := d.adopt(name, hooks)
	if err != nil {
		return sw, err
	}
	if p == nil {
		d.orphans[name] = true
		p = &plane{}
		p.reset()
	} else if err := errors.Join(p.read(), p.compare()); err != nil {
		return sw, err
	}
	if err := d.observeGroups(p, groups); err != nil {
		return sw, err
	}
	p.meterHooks = meters
	sound, err := p.sound(d.spec, hooks)
	if err != nil {
		return sw, err
	}
	if sw.Ports, err = p.portsOf(found, sound); err != nil {
		return sw, err
	}
	for n, g := range found.Gateways {
		sw.Gateways[n] = g.Gateway // of VLAN 0: it is made anew
		if far, ok := farEnd(g, found.Others); ok {
			sw.Gateways[n] = p.gateway(n, g, far, sound)
		}
	}
	for ifindex := range p.slots {
		if _, ok := p.places[ifindex]; !ok {
			p.vanished = append(p.vanished, ifindex)
		}
	}
	return sw, nil
}

// hooks is our filters on the devices of a switch, by ifindex, those of groups, and
// the meters of limited ports.
func (d *Driver) hooks(found device.Switch) (map[uint32]hook, map[uint32]groupHooks, map[uint32]meterHooks, error) {
	var all []netlink.Link
	for _, p := range found.Ports {
		all = append(all, p.Link)
	}
	out, groups, meters := map[uint32]hook{}, map[uint32]groupHooks{}, map[uint32]meterHooks{}
	known := verdicts{}
	for _, l := range append(all, found.Others...) {
		h, ok, ingress, err := find(d.host, l.Attrs().Index, known)
		var taken *takenError
		if err != nil && !errors.As(err, &taken) {
			return nil, nil, nil, fmt.Errorf("interface %q: %w", l.Attrs().Name, err)
		}
		if ok {
			out[uint32(l.Attrs().Index)] = h
		}
		g, err := d.findGroupHooks(l.Attrs().Index, ingress)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("interface %q: %w", l.Attrs().Name, err)
		}
		if g != (groupHooks{}) {
			groups[uint32(l.Attrs().Index)] = g
		}
		m, err := d.findMeters(l.Attrs().Index, ingress)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("interface %q: %w", l.Attrs().Name, err)
		}
		if m != (meterHooks{}) {
			meters[uint32(l.Attrs().Index)] = m
		}
	}
	return out, groups, meters, nil
}

// adopt is the kernel's side of a switch: the one in use, or that which the
// switch's filters belong to, or nil.
func (d *Driver) adopt(name string, hooks map[uint32]hook) (*plane, error) {
	if p := d.planes[name]; p != nil {
		return p, nil
	}
	for _, ifindex := range slices.Sorted(maps.Keys(hooks)) {
		p, err := openPlane(d.spec, d.program, hooks[ifindex].program)
		if errors.Is(err, errForeign) || errors.Is(err, fs.ErrNotExist) {
			continue // not to be taken over, or gone since its filter was seen
		}
		if err != nil {
			return nil, err
		}
		if p.name != name {
			if err := p.close(); err != nil {
				return nil, err
			}
			continue
		}
		d.planes[name] = p
		d.log.Info("switch taken over", "switch", name)
		return p, nil
	}
	return d.inherit(name, hooks)
}

// inherit is a copy of the switch that a program of another layout is at work for,
// or nil.
func (d *Driver) inherit(name string, hooks map[uint32]hook) (*plane, error) {
	for _, ifindex := range slices.Sorted(maps.Keys(hooks)) {
		r, err := openRelic(d.spec, d.program, hooks[ifindex].program)
		if errors.Is(err, errForeign) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if r.name != name {
			if err := r.close(); err != nil {
				return nil, err
			}
			continue
		}
		p, err := inheritPlane(d.spec, r, d.program)
		if err != nil {
			// It is made anew from its ports, which is not without a gap.
			d.log.Warn("switch not carried over", "switch", name, "error", err)
			return nil, r.close()
		}
		d.planes[name] = p
		d.log.Info("switch taken over from another layout", "switch", name)
		return p, nil
	}
	return nil, nil
}

// kin tells whether another program does a port's work as well: it works on the
// plane's maps, or on those of another layout of which the plane's are a copy.
func (p *plane) kin(spec *ebpf.CollectionSpec, id ebpf.ProgramID) (bool, error) {
	if same, err := p.shares(id); same || err != nil {
		return same, err
	}
	r, err := openRelic(spec, p.program, id)
	if errors.Is(err, errForeign) || errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return r.name == p.name, r.close()
}

// sound keeps the hooks whose program does the plane's work. One that has still to
// be replaced knows the port under the same slot.
func (p *plane) sound(spec *ebpf.CollectionSpec, hooks map[uint32]hook) (map[uint32]hook, error) {
	out := map[uint32]hook{}
	if p.prog == nil {
		return out, nil
	}
	own, err := p.id()
	if err != nil {
		return nil, err
	}
	known := map[ebpf.ProgramID]bool{own: true}
	for ifindex, h := range hooks {
		same, ok := known[h.program]
		if !ok {
			if same, err = p.kin(spec, h.program); err != nil {
				return nil, err
			}
			known[h.program] = same
		}
		if same && p.slots[ifindex] == h.slot && h.slot != 0 {
			out[ifindex] = h
			p.hooks[ifindex] = h.program
		}
	}
	return out, nil
}

// shares tells whether another program works on the same maps: one of a process
// that died while it replaced the other.
func (p *plane) shares(id ebpf.ProgramID) (bool, error) { return worksOn(id, p.program, p.maps.Ports) }

// worksOn tells whether a program has a name and uses a map.
func worksOn(id ebpf.ProgramID, name string, m *ebpf.Map) (bool, error) {
	prog, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // gone since its filter was seen
	}
	if err != nil {
		return false, fmt.Errorf("open program %d: %w", id, err)
	}
	theirs, err := prog.Info()
	if err = errors.Join(err, prog.Close()); err != nil {
		return false, err
	}
	ours, err := m.Info()
	if err != nil {
		return false, err
	}
	want, _ := ours.ID()
	ids, _ := theirs.MapIDs()
	return theirs.Name == name && slices.Contains(ids, want), nil
}

// portsOf is the ports as the switch treats them, with their faults.
func (p *plane) portsOf(found device.Switch, sound map[uint32]hook) (map[string]vswitch.Port, error) {
	now, err := clock()
	if err != nil {
		return nil, err
	}
	for n, f := range found.Ports { // all of them first: what one says may name another
		p.keep(uint32(f.Link.Attrs().Index), place{name: n})
	}
	out := map[string]vswitch.Port{}
	for n, f := range found.Ports {
		port := p.port(f, sound)
		if h := sound[uint32(f.Link.Attrs().Index)]; h.before != "" {
			port.Fault = fmt.Sprintf("port %q: on %s, %s comes before the switch's, and what it decides passes the switch by: "+
				"give it a priority above %d, end its actions with continue, or remove it", n, f.Link.Attrs().Name, h.before, filterPriority)
		}
		why, err := p.shut(p.slots[uint32(f.Link.Attrs().Index)], now)
		if err != nil {
			return nil, err
		}
		if why != "" {
			port.Fault = fmt.Sprintf("port %q: %s", n, why)
		}
		out[n] = port
	}
	return out, nil
}

// port is a port as the switch treats it.
func (p *plane) port(found device.Port, sound map[uint32]hook) vswitch.Port {
	l, port := found.Link.Attrs(), found.Port
	ifindex := uint32(l.Index)
	slot := p.slots[ifindex]
	have, trunk := p.ports[slot], p.trunks[slot]
	down := have.Flags&planePortFlagPORT_DOWN != 0
	filters, whole := p.filtersOf(slot, ifindex, p.groupHooks[ifindex])
	if _, ok := sound[ifindex]; !ok || !whole || !p.metered(slot, ifindex) || have.MaxFrame != uint32(l.MTU+frameOverhead) || down && !port.Down ||
		have.Flags&(planePortFlagPORT_OVERLAY|planePortFlagPORT_TOLD) != overlayFlags(port) {
		port.PVID = vswitch.NotAttached
		return port
	}
	port.PVID, port.Tagged = have.Pvid, trunk.list()
	port.Isolated = have.Flags&planePortFlagPORT_ISOLATED != 0
	port.Security = p.security(slot)
	port.Filters = filters
	port.Limit = p.limited(slot)
	return port
}

// gateway is a gateway as the switch treats it; far is its end in the switch.
func (p *plane) gateway(name string, found device.Gateway, far *netlink.LinkAttrs, sound map[uint32]hook) vswitch.Gateway {
	g, host := found.Gateway, found.Link.Attrs()
	ifindex := uint32(far.Index)
	p.keep(ifindex, place{name: name, gateway: true})
	have := p.ports[p.slots[ifindex]]
	if g.VLAN = have.Pvid; g.VLAN == 0 {
		g.VLAN = vlanOf(far.Name)
	}
	own := vswitch.MAC{}
	copy(own[:], host.HardwareAddr)
	whole := have.Flags == planePortFlagPORT_TRUSTED && slices.Equal(p.macs[p.slots[ifindex]], []vswitch.MAC{own}) && have.MaxFrame == uint32(far.MTU+frameOverhead) && far.MTU == host.MTU
	if _, ok := sound[ifindex]; !ok || !whole || !isUp(host) || !isUp(far) {
		g.MTU = vswitch.Damaged
	}
	return g
}

// farEnd is the end of a gateway that is in the switch.
func farEnd(g device.Gateway, others []netlink.Link) (*netlink.LinkAttrs, bool) {
	for _, l := range others {
		if l.Attrs().Index == g.Link.Attrs().ParentIndex {
			return l.Attrs(), true
		}
	}
	return nil, false
}

// keep notes what a device is that has a slot.
func (p *plane) keep(ifindex uint32, at place) {
	if _, ok := p.slots[ifindex]; ok {
		p.places[ifindex] = at
	}
}
