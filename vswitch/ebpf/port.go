package ebpf

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"

	"ripstop/internal/link"
	"ripstop/vswitch"
)

func (d *Driver) addPort(sw, name string, p vswitch.Port) error {
	plane, err := d.plane(sw)
	if err != nil {
		return err
	}
	l, err := d.devices.Create(sw, name, p)
	if err != nil {
		return err
	}
	if err := d.joinPort(plane, l, name, p); err != nil {
		return err
	}
	// Not before now: what enters a device without the program goes to the host.
	return d.devices.Start(l, p)
}

func (d *Driver) setPort(sw, name string, p vswitch.Port) error {
	plane, err := d.plane(sw)
	if err != nil {
		return err
	}
	l, err := d.devices.Update(sw, name, p)
	if err != nil {
		return err
	}
	return d.joinPort(plane, l, name, p)
}

func (d *Driver) joinPort(plane *plane, l netlink.Link, name string, p vswitch.Port) error {
	mtu := cmp.Or(p.MTU, vswitch.DefaultMTU)
	if p.Kind == vswitch.Device || p.Kind == "" { // whose MTU may be the host's choice
		now, err := d.host.LinkByIndex(l.Attrs().Index)
		if err != nil {
			return fmt.Errorf("port %q: read its device: %w", name, err)
		}
		mtu = now.Attrs().MTU
	}
	m := member{mtu: mtu, pvid: p.PVID, tagged: p.Tagged, isolated: p.Isolated, down: p.Down, security: p.Security, filters: p.Filters, limit: p.Limit,
		overlay: overlayFlags(p)}
	if p.Kind == vswitch.Veth && p.Limit.Receive == 0 { // what is handed over passes no meter
		m.gated = len(p.Filters) > 0
		m.far = cmp.Or(p.MAC, vswitch.MAC(d.devices.MAC("port", plane.name, name)))
	}
	if err := d.join(plane, l, place{name: name}, m); err != nil {
		return fmt.Errorf("port %q: %w", name, err)
	}
	return nil
}

func (d *Driver) delPort(s vswitch.DelPort) error {
	if err := d.devices.Replaceable(s); err != nil {
		return err
	}
	if s.Port.Kind == vswitch.Device {
		if err := d.unhook(s.Switch, s.Name); err != nil {
			return fmt.Errorf("port %q: %w", s.Name, err)
		}
	}
	if err := d.devices.Delete(s.Switch, s.Name, s.Port); err != nil {
		return err
	}
	if plane := d.planes[s.Switch]; plane != nil {
		return plane.leave(place{name: s.Name})
	}
	return nil
}

// unhook takes our filter from the interface lent to a port, or with no name
// from all that were lent to the switch: they outlive it.
func (d *Driver) unhook(sw, name string) error {
	links, err := d.host.Links()
	if err != nil {
		return err
	}
	for _, l := range links {
		a, ok := link.ParseAlias(l.Attrs().Alias)
		if !ok || a.Switch != sw || a.Lent == nil || name != "" && a.Port != name {
			continue
		}
		if err := errors.Join(d.detachMeters(l.Attrs().Index), d.detachGroups(l.Attrs().Index), detach(d.host, l.Attrs().Index)); err != nil {
			return fmt.Errorf("interface %q: %w", l.Attrs().Name, err)
		}
	}
	return nil
}
