package bridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
)

func (d *Driver) addPort(s vswitch.AddPort) error {
	br, err := d.bridge(s.Switch)
	if err != nil {
		return err
	}
	l, err := d.devices.Create(s.Switch, s.Name, s.Port)
	if err != nil {
		return err
	}
	if err := d.join(br, l, s.Name, vswitch.Port{}, s.Port); err != nil {
		return fmt.Errorf("port %q: %w", s.Name, err)
	}
	return nil
}

func (d *Driver) setPort(s vswitch.SetPort) error {
	br, err := d.bridge(s.Switch)
	if err != nil {
		return err
	}
	if err := d.repair(br); err != nil {
		return err
	}
	l, err := d.devices.Update(s.Switch, s.Name, s.To)
	if err != nil {
		return err
	}
	if err := d.join(br, l, s.Name, s.From, s.To); err != nil {
		return fmt.Errorf("port %q: %w", s.Name, err)
	}
	return nil
}

// join makes a device a port of the bridge with the VLANs of p, and then brings
// it up. While it becomes an access port the guard comes before the VLANs, and
// while it becomes a trunk after them: in between it drops too much, never too
// little.
func (d *Driver) join(br, l netlink.Link, name string, from, p vswitch.Port) error {
	if err := d.guard.Prepare(br.Attrs().Name, name, l, p); err != nil {
		return err
	}
	if l.Attrs().MasterIndex != br.Attrs().Index {
		if err := d.host.LinkSetMaster(l, br); err != nil {
			return fmt.Errorf("put %q into bridge %q: %w", l.Attrs().Name, br.Attrs().Name, err)
		}
	}
	if len(p.Tagged) == 0 {
		if err := d.guard.SetPort(br.Attrs().Name, name, l, p); err != nil {
			return err
		}
	}
	if err := d.host.LinkSetIsolated(l, p.Isolated); err != nil {
		return fmt.Errorf("set isolation of %q: %w", l.Attrs().Name, err)
	}
	if p.Kind == vswitch.VXLAN {
		if err := d.host.LinkSetLearning(l, !p.Overlay.Told); err != nil {
			return fmt.Errorf("set learning of %q: %w", l.Attrs().Name, err)
		}
	}
	// The kernel finds no entry of a VLAN in which the port is not.
	if err := d.removeStations(l, from, p); err != nil {
		return err
	}
	if err := d.setVLANs(l, p); err != nil {
		return err
	}
	if err := d.addStations(l, p); err != nil {
		return err
	}
	if len(p.Tagged) != 0 {
		if err := d.guard.SetPort(br.Attrs().Name, name, l, p); err != nil {
			return err
		}
	}
	return d.devices.Start(l, p)
}

// seat is a station in a VLAN.
type seat struct {
	vid uint16
	mac vswitch.MAC
}

// seats is where the addresses are that belong to a port.
func seats(p vswitch.Port) []seat {
	var out []seat
	for _, m := range p.Security.AllowedMACs {
		for _, vid := range append(slices.Clone(p.Tagged), p.PVID) {
			if vid != 0 && vid != vswitch.NotAttached {
				out = append(out, seat{vid, m})
			}
		}
	}
	return out
}

// at is the FDB's entry of a station at a port.
func (s seat) at(l netlink.Link) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, State: netlink.NUD_NOARP,
		Vlan: int(s.vid), HardwareAddr: s.mac[:],
	}
}

// addStations makes the addresses that belong to a port static entries of the
// FDB, so that nobody else hears what is for them.
func (d *Driver) addStations(l netlink.Link, p vswitch.Port) error {
	for _, s := range seats(p) {
		if err := d.host.NeighSet(s.at(l)); err != nil {
			return fmt.Errorf("set station %s of %q in VLAN %d: %w", s.mac, l.Attrs().Name, s.vid, err)
		}
	}
	return nil
}

// removeStations takes away the entries of what does not belong to a port any more.
func (d *Driver) removeStations(l netlink.Link, from, to vswitch.Port) error {
	keep := seats(to)
	for _, s := range seats(from) {
		if slices.Contains(keep, s) {
			continue
		}
		if err := d.host.NeighDel(s.at(l)); err != nil && !link.Gone(err) {
			return fmt.Errorf("remove station %s of %q in VLAN %d: %w", s.mac, l.Attrs().Name, s.vid, err)
		}
	}
	return nil
}

// setVLANs adds what is missing, moves the PVID and then takes away the rest.
func (d *Driver) setVLANs(l netlink.Link, p vswitch.Port) error {
	have, err := d.membership(l)
	if err != nil {
		return err
	}
	name := l.Attrs().Name
	if p.PVID != 0 && (have.pvid != p.PVID || !slices.Contains(have.untagged, p.PVID)) {
		if err := d.host.BridgeVlanAdd(l, p.PVID, true, true, false, true); err != nil {
			return fmt.Errorf("add VLAN %d to %q: %w", p.PVID, name, err)
		}
	}
	add := slices.DeleteFunc(slices.Clone(p.Tagged), func(v uint16) bool { return slices.Contains(have.tagged, v) })
	for _, r := range vswitch.Ranges(add) {
		if err := d.vlanRange(l, r, true); err != nil {
			return fmt.Errorf("add VLAN %s to %q: %w", r, name, err)
		}
	}
	gone := slices.DeleteFunc(slices.Concat(have.tagged, have.untagged), func(v uint16) bool {
		return v == p.PVID || slices.Contains(p.Tagged, v)
	})
	slices.Sort(gone)
	for _, r := range vswitch.Ranges(gone) {
		if err := d.vlanRange(l, r, false); err != nil {
			return fmt.Errorf("remove VLAN %s from %q: %w", r, name, err)
		}
	}
	return nil
}

func (d *Driver) vlanRange(l netlink.Link, r vswitch.Range, add bool) error {
	switch {
	case add && r.First == r.Last:
		return d.host.BridgeVlanAdd(l, r.First, false, false, false, true)
	case add:
		return d.host.BridgeVlanAddRange(l, r.First, r.Last, false, false, false, true)
	case r.First == r.Last:
		return d.host.BridgeVlanDel(l, r.First, false, false, false, true)
	}
	return d.host.BridgeVlanDelRange(l, r.First, r.Last, false, false, false, true)
}

func (d *Driver) delPort(s vswitch.DelPort) error {
	if err := d.devices.Replaceable(s); err != nil {
		return err
	}
	if s.Port.Kind == vswitch.Device {
		if err := d.leave(s.Switch, s.Name, s.Port); err != nil {
			return fmt.Errorf("port %q: %w", s.Name, err)
		}
	}
	if err := d.devices.Delete(s.Switch, s.Name, s.Port); err != nil {
		return err
	}
	return d.guard.Forget(s.Switch, s.Name)
}

// delSwitch removes a switch with all that is in it.
func (d *Driver) delSwitch(ctx context.Context, name string) error {
	found, err := d.devices.Observe(ctx)
	if err != nil {
		return fmt.Errorf("switch %q: %w", name, err)
	}
	for n, p := range found[name].Ports {
		if p.Kind != vswitch.Device {
			continue
		}
		if err := d.leave(name, n, p.Port); err != nil {
			return fmt.Errorf("port %q: %w", n, err)
		}
	}
	if err := errors.Join(d.devices.DeleteSwitch(name), d.guard.ForgetSwitch(name)); err != nil {
		return fmt.Errorf("switch %q: %w", name, err)
	}
	return nil
}

// leave takes a lent interface out of the bridge, before it is given back.
func (d *Driver) leave(sw, name string, p vswitch.Port) error {
	l, err := d.devices.Find(sw, name, p)
	if err != nil || l == nil {
		return err
	}
	br, err := d.host.Link(sw)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && l.Attrs().MasterIndex == br.Attrs().Index {
		if err := d.host.LinkSetNoMaster(l); err != nil {
			return fmt.Errorf("take %q out of bridge %q: %w", l.Attrs().Name, sw, err)
		}
	}
	return d.guard.Release(sw, name)
}

func (d *Driver) addGateway(s vswitch.AddGateway) error {
	err := d.makeGateway(s)
	if err != nil {
		return fmt.Errorf("gateway %q: %w", s.Name, err)
	}
	return nil
}
