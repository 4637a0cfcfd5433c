package device

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
)

// everybody is the address under which a VXLAN device's FDB has whoever gets what
// is for all, and for nobody known: one entry for each VTEP.
var everybody = net.HardwareAddr{0, 0, 0, 0, 0, 0}

func (d *Devices) createVXLAN(sw, name string, p vswitch.Port) (netlink.Link, error) {
	l, err := d.room(sw, name)
	if err != nil {
		return nil, err
	}
	if l == nil {
		if l, err = d.makeVXLAN(sw, name, p); err != nil {
			return nil, err
		}
	}
	return l, d.configure(l, p)
}

// makeVXLAN makes a device that stands on an address and on no other device: it
// stays when a tunnel is made anew. So the kernel does not know the MTU of the way.
func (d *Devices) makeVXLAN(sw, name string, p vswitch.Port) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group, attrs.MTU = name, link.Group(sw), mtu(p)
	attrs.HardwareAddr = d.MAC("port", sw, name)
	o := p.Overlay
	err := d.host.LinkAdd(&netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: int(o.VNI), SrcAddr: o.Local.AsSlice(),
		Port: int(cmp.Or(o.Port, vswitch.VXLANPort)), Learning: !o.Told, NoAge: o.Told,
	})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil, errors.New("this kernel has no VXLAN: load the module vxlan")
	case errors.Is(err, unix.EEXIST):
		return nil, fmt.Errorf("VNI %d is taken by another VXLAN device of this host: `ip -d link show type vxlan` lists them", o.VNI)
	case err != nil:
		return nil, fmt.Errorf("make VXLAN device: %w", err)
	}
	if err := link.DisableIPv6(name); err != nil {
		return nil, err
	}
	l, err := d.host.Link(name)
	if err != nil {
		return nil, err
	}
	if err := d.host.SetAlias(l, link.Alias{Switch: sw, Port: name}); err != nil {
		return nil, errors.Join(err, d.host.Delete(l))
	}
	return d.host.Link(name)
}

// configureVXLAN sets the MTU and, where nobody else does, who gets what is for all.
func (d *Devices) configureVXLAN(l netlink.Link, p vswitch.Port) error {
	if err := d.host.SetMTU(l, mtu(p)); err != nil {
		return err
	}
	if p.Overlay.Told {
		return nil
	}
	all, err := floodsOf(d.host)
	if err != nil {
		return err
	}
	have := all[l.Attrs().Index]
	for _, a := range p.Overlay.Peers {
		if slices.Contains(have, a) {
			continue
		}
		if err := d.host.NeighAppend(flood(l, a)); err != nil {
			return fmt.Errorf("add VTEP %s: %w", a, err)
		}
	}
	for _, a := range have {
		if slices.Contains(p.Overlay.Peers, a) {
			continue
		}
		if err := d.host.NeighDel(flood(l, a)); err != nil && !link.Gone(err) {
			return fmt.Errorf("remove VTEP %s: %w", a, err)
		}
	}
	return nil
}

// flood is the entry that has a VTEP get what is for all.
func flood(l netlink.Link, vtep netip.Addr) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_NOARP | netlink.NUD_PERMANENT,
		HardwareAddr: everybody, IP: vtep.AsSlice(),
	}
}

// floodsOf is the VTEPs that get what is for all, by ifindex, each sorted.
func floodsOf(h *link.Space) (map[int][]netip.Addr, error) {
	all, err := link.Dump(func() ([]netlink.Neigh, error) {
		return h.NeighListExecute(netlink.Ndmsg{Family: unix.AF_BRIDGE})
	})
	if err != nil {
		return nil, fmt.Errorf("list VTEPs: %w", err)
	}
	out := map[int][]netip.Addr{}
	for _, n := range all {
		a, ok := netip.AddrFromSlice(n.IP)
		if ok && n.Flags&netlink.NTF_SELF != 0 && bytes.Equal(n.HardwareAddr, everybody) {
			out[n.LinkIndex] = append(out[n.LinkIndex], a.Unmap())
		}
	}
	for _, list := range out {
		slices.SortFunc(list, netip.Addr.Compare)
	}
	return out, nil
}

// overlay is what a VXLAN device is; one of another kind than ours is damaged.
func (o *observer) overlay(l *netlink.Vxlan) (vswitch.Overlay, error) {
	local, _ := netip.AddrFromSlice(l.SrcAddr)
	out := vswitch.Overlay{VNI: uint32(l.VxlanId), Local: local.Unmap(), Told: !l.Learning}
	if l.Port != vswitch.VXLANPort {
		out.Port = uint16(l.Port)
	}
	if l.VtepDevIndex != 0 || l.FlowBased {
		out.VNI = 0 // no configuration wants it
	}
	if out.Told {
		return out, nil
	}
	if o.floods == nil {
		all, err := floodsOf(o.host)
		if err != nil {
			return out, err
		}
		o.floods = all
	}
	out.Peers = o.floods[l.Index]
	return out, nil
}
