package bridge

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

func (d *Driver) makeGateway(s vswitch.AddGateway) error {
	br, err := d.bridge(s.Switch)
	if err != nil {
		return err
	}
	if err := d.host.BridgeVlanAdd(br, s.Gateway.VLAN, false, false, true, false); err != nil {
		return fmt.Errorf("add VLAN %d to bridge %q: %w", s.Gateway.VLAN, s.Switch, err)
	}
	mark := link.Alias{Switch: s.Switch, Gateway: s.Name}
	l, err := d.host.Link(s.Name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l, err = d.makeVLANDevice(br, s)
	case err == nil && link.HalfMade(l, s.Switch):
		if err = d.host.Delete(l); err == nil {
			l, err = d.makeVLANDevice(br, s)
		}
	case err == nil && l.Attrs().Alias != mark.String():
		return device.Foreign(l)
	}
	if err != nil {
		return err
	}
	return d.finishGateway(l, mark, s.Gateway)
}

// finishGateway sets what may change of a gateway. The mark says that the rest is done.
func (d *Driver) finishGateway(l netlink.Link, mark link.Alias, g vswitch.Gateway) error {
	was := vswitch.MAC(l.Attrs().HardwareAddr)
	// The guard takes the address from the device, and has it before the device is up.
	if err := d.devices.SetGatewayMAC(l, g.MAC); err != nil {
		return err
	}
	l, err := d.host.Link(l.Attrs().Name)
	if err != nil {
		return err
	}
	if err := d.seatGateway(l.Attrs().ParentIndex, g, was); err != nil {
		return err
	}
	if err := d.guard.SetGateway(mark.Switch, mark.Gateway, l, g.VLAN); err != nil {
		return err
	}
	return d.devices.SetGateway(l, mark, g)
}

// seatGateway has the bridge know the address that an anycast gateway has beside the bridge's
// own, which the VLAN goes with: else what is for the gateway is flooded as for a stranger, and
// the gateways of all other hosts of the VLAN take it, too.
func (d *Driver) seatGateway(bridge int, g vswitch.Gateway, was vswitch.MAC) error {
	at := func(mac vswitch.MAC) *netlink.Neigh {
		return &netlink.Neigh{
			LinkIndex: bridge, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
			Vlan: int(g.VLAN), HardwareAddr: mac[:],
		}
	}
	if was.IsAnycast() && was != g.MAC {
		if err := d.host.NeighDel(at(was)); err != nil && !link.Gone(err) {
			return fmt.Errorf("remove station %s of the gateway in VLAN %d: %w", was, g.VLAN, err)
		}
	}
	if g.MAC == (vswitch.MAC{}) {
		return nil
	}
	if err := d.host.NeighSet(at(g.MAC)); err != nil {
		return fmt.Errorf("set station %s of the gateway in VLAN %d: %w", g.MAC, g.VLAN, err)
	}
	return nil
}

func (d *Driver) makeVLANDevice(br netlink.Link, s vswitch.AddGateway) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group, attrs.ParentIndex = s.Name, link.Group(s.Switch), br.Attrs().Index
	attrs.MTU = vswitch.DefaultMTU
	err := d.host.LinkAdd(&netlink.Vlan{LinkAttrs: attrs, VlanId: int(s.Gateway.VLAN), VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, errors.New("this kernel has no VLAN devices: load the module 8021q, or use `dataplane: ebpf`")
	}
	if errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("VLAN %d of bridge %q has a device already: one gateway a VLAN, and what is not ripstop's is to be removed", s.Gateway.VLAN, s.Switch)
	}
	if err != nil {
		return nil, fmt.Errorf("make VLAN device %q: %w", s.Name, err)
	}
	return d.host.Link(s.Name)
}

func (d *Driver) setGateway(s vswitch.SetGateway) error {
	l, err := d.host.Link(s.Name)
	if err == nil {
		err = d.finishGateway(l, link.Alias{Switch: s.Switch, Gateway: s.Name}, s.To)
	}
	if err != nil {
		return fmt.Errorf("gateway %q: %w", s.Name, err)
	}
	return nil
}

func (d *Driver) delGateway(s vswitch.DelGateway) error {
	if err := d.removeGateway(s); err != nil {
		return fmt.Errorf("gateway %q: %w", s.Name, err)
	}
	return nil
}

func (d *Driver) removeGateway(s vswitch.DelGateway) error {
	l, err := d.host.Link(s.Name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err == nil && l.Attrs().Alias == (link.Alias{Switch: s.Switch, Gateway: s.Name}).String() {
		if err := d.host.Delete(l); err != nil {
			return err
		}
	}
	if err := d.guard.ForgetGateway(s.Switch, s.Name); err != nil {
		return err
	}
	br, err := d.host.Link(s.Switch)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = d.host.BridgeVlanDel(br, s.Gateway.VLAN, false, false, true, false)
	if err != nil && !link.Gone(err) {
		return fmt.Errorf("remove VLAN %d from bridge %q: %w", s.Gateway.VLAN, s.Switch, err)
	}
	return nil
}
