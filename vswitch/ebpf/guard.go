package ebpf

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"

	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// Guard is the half of the dataplane that decides what a port may send, for
// switches that another forwards for: the same program up to the choice of
// receivers, over maps of the same kind, at the same place. What passes it goes
// on to others' filters and to whoever the device belongs to. It is safe for
// concurrent use.
type Guard struct {
	d *Driver
}

// NewGuard is the guard of the network namespace in which the process runs. It
// changes nothing: what a process before this one left is found by Observe.
func NewGuard(log *slog.Logger) (*Guard, error) {
	d, err := open(log, planeProgRipstopGuard, "")
	if err != nil {
		return nil, err
	}
	return &Guard{d}, nil
}

// Close lets go of everything. The ports stay guarded.
func (g *Guard) Close() error { return g.d.Close() }

// Observe is the ports of a switch as they are treated, and its gateways whose
// addresses nobody else may have. One that is not, or not rightly, guarded has
// the PVID vswitch.NotAttached, or is not among the gateways.
func (g *Guard) Observe(name string, found device.Switch) (map[string]vswitch.Port, map[string]bool, error) {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	ports, gateways, err := g.observe(name, found)
	if err != nil {
		return nil, nil, fmt.Errorf("guard of switch %q: %w", name, err)
	}
	return ports, gateways, nil
}

func (g *Guard) observe(name string, found device.Switch) (map[string]vswitch.Port, map[string]bool, error) {
	var ports map[string]vswitch.Port
	gateways := map[string]bool{}
	hooks, groups, meters, err := g.d.hooks(found)
	if err != nil {
		return nil, nil, err
	}
	p, err := g.d.adopt(name, hooks)
	if err != nil {
		return nil, nil, err
	}
	if p == nil {
		p = &plane{}
		p.reset()
	} else if err := p.read(); err != nil {
		return nil, nil, err
	}
	if err := g.d.observeGroups(p, groups); err != nil {
		return nil, nil, err
	}
	p.meterHooks = meters
	sound, err := p.sound(g.d.spec, hooks)
	if err != nil {
		return nil, nil, err
	}
	if ports, err = p.portsOf(found, sound); err != nil {
		return nil, nil, err
	}
	for n, gw := range found.Gateways {
		host := gw.Link.Attrs()
		p.keep(uint32(host.Index), place{name: n, gateway: true})
		slot := p.slots[uint32(host.Index)]
		gateways[n] = slot != 0 && slices.Equal(p.macs[slot], ownOf(gw.Link))
	}
	for ifindex := range p.slots {
		if _, ok := p.places[ifindex]; !ok {
			p.vanished = append(p.vanished, ifindex)
		}
	}
	return ports, gateways, nil
}

// ownOf is a device's Ethernet address.
func ownOf(l netlink.Link) []vswitch.MAC {
	var own vswitch.MAC
	copy(own[:], l.Attrs().HardwareAddr)
	return []vswitch.MAC{own}
}

// plane is the switch's, made when it is the first.
func (g *Guard) plane(sw string) (*plane, error) {
	if g.d.planes[sw] == nil {
		if err := g.d.addSwitch(sw); err != nil {
			return nil, err
		}
	}
	return g.d.planes[sw], nil
}

// Prepare has a port that is about to join VLANs follow its groups there.
func (g *Guard) Prepare(sw, name string, l netlink.Link, p vswitch.Port) error {
	if len(p.Filters) == 0 {
		return nil
	}
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	plane, err := g.plane(sw)
	if err != nil {
		return err
	}
	ifindex := l.Attrs().Index
	slot, ok := plane.slots[uint32(ifindex)]
	if !ok {
		if slot, err = plane.put(member{ifindex: ifindex, mtu: l.Attrs().MTU, down: true}); err != nil {
			return fmt.Errorf("port %q: %w", name, err)
		}
		plane.places[uint32(ifindex)] = place{name: name}
	}
	if err := g.d.prepareGroups(plane, ifindex, slot, p.PVID, p.Filters); err != nil {
		return fmt.Errorf("port %q: %w", name, err)
	}
	return nil
}

// SetPort guards the device of a port, or changes how.
func (g *Guard) SetPort(sw, name string, l netlink.Link, p vswitch.Port) error {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	plane, err := g.plane(sw)
	if err != nil {
		return err
	}
	return g.d.joinPort(plane, l, name, p)
}

// SetGateway has no port send from the address of a gateway's device.
func (g *Guard) SetGateway(sw, name string, l netlink.Link, vid uint16) error {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	plane, err := g.plane(sw)
	if err != nil {
		return err
	}
	ifindex := l.Attrs().Index
	if _, err := plane.put(member{ifindex: ifindex, mtu: l.Attrs().MTU, pvid: vid, security: gatewaySecurity, own: ownOf(l)}); err != nil {
		return fmt.Errorf("gateway %q: %w", name, err)
	}
	plane.places[uint32(ifindex)] = place{name: name, gateway: true}
	return nil
}

// Release takes the filter off the interface that was lent to a port, or with
// no name off all that were lent to the switch.
func (g *Guard) Release(sw, name string) error {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	return g.d.unhook(sw, name)
}

// Forget is told that a port's device is gone or given back.
func (g *Guard) Forget(sw, name string) error { return g.forget(sw, place{name: name}) }

// ForgetGateway is told that a gateway's device is gone.
func (g *Guard) ForgetGateway(sw, name string) error {
	return g.forget(sw, place{name: name, gateway: true})
}

func (g *Guard) forget(sw string, at place) error {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	if p := g.d.planes[sw]; p != nil {
		return p.leave(at)
	}
	return nil
}

// ForgetSwitch is told that a switch is gone with its devices.
func (g *Guard) ForgetSwitch(sw string) error {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	p := g.d.planes[sw]
	delete(g.d.planes, sw)
	if p == nil {
		return nil
	}
	return p.close()
}

// Commit writes what the steps of a pass have in common, and puts a newer
// program in the place of that of a process before this one.
func (g *Guard) Commit(ctx context.Context) error { return g.d.Commit(ctx) }

// Counters is as Driver.Counters.
func (g *Guard) Counters(ctx context.Context) (vswitch.Counters, error) {
	c, err := g.d.Counters(ctx)
	// A gateway's frames do not pass here.
	gateways := map[[2]string]bool{}
	g.d.mu.Lock()
	for name, p := range g.d.planes {
		for at := range maps.Values(p.places) {
			gateways[[2]string{name, at.name}] = at.gateway
		}
	}
	g.d.mu.Unlock()
	c.Ports = slices.DeleteFunc(c.Ports, func(p vswitch.PortCounters) bool { return gateways[[2]string{p.Switch, p.Port}] })
	return c, err
}

// Expire is as Driver.Expire.
func (g *Guard) Expire(ctx context.Context) (int, error) { return g.d.Expire(ctx) }
