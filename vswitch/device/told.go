package device

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
)

// Overlay is a VXLAN device that is told who is where.
type Overlay struct {
	Switch, Port string
	VNI          uint32
	Index        int // ifindex
}

// Overlays is all VXLAN devices of the host that are told who is where, by VNI.
func (d *Devices) Overlays() (map[uint32]Overlay, error) {
	links, err := d.host.LinksOf("vxlan")
	if err != nil {
		return nil, err
	}
	out := map[uint32]Overlay{}
	for _, l := range links {
		x, ok := l.(*netlink.Vxlan)
		a, ours := link.ParseAlias(l.Attrs().Alias)
		if ok && ours && a.Port != "" && !x.Learning {
			out[uint32(x.VxlanId)] = Overlay{a.Switch, a.Port, uint32(x.VxlanId), l.Attrs().Index}
		}
	}
	return out, nil
}

// ToldOf is what devices know of stations and of who gets what is for all.
func (d *Devices) ToldOf(overlays map[uint32]Overlay) (vswitch.Told, error) {
	told := vswitch.NewTold()
	vnis := map[int]uint32{}
	for vni, o := range overlays {
		vnis[o.Index] = vni
	}
	if len(vnis) == 0 {
		return told, nil
	}
	all, err := link.Dump(func() ([]netlink.Neigh, error) {
		return d.host.NeighListExecute(netlink.Ndmsg{Family: unix.AF_BRIDGE})
	})
	if err != nil {
		return told, fmt.Errorf("list stations of other hosts: %w", err)
	}
	for _, n := range all {
		vni, ok := vnis[n.LinkIndex]
		vtep, there := netip.AddrFromSlice(n.IP)
		switch {
		case !ok || !there || n.Flags&netlink.NTF_SELF == 0 || len(n.HardwareAddr) != len(everybody):
		case bytes.Equal(n.HardwareAddr, everybody):
			told.Floods[vswitch.FloodKey{VNI: vni, VTEP: vtep.Unmap()}] = true
		default:
			told.Stations[vswitch.StationKey{VNI: vni, MAC: vswitch.MAC(n.HardwareAddr)}] = vtep.Unmap()
		}
	}
	return told, nil
}

// TellFloods changes who gets what is for all.
func (d *Devices) TellFloods(overlays map[uint32]Overlay, add, gone map[vswitch.FloodKey]bool) error {
	var errs []error
	for f := range add {
		if o, ok := overlays[f.VNI]; ok {
			err := d.host.NeighAppend(flood(o.link(), f.VTEP))
			if err != nil && !errors.Is(err, unix.EEXIST) {
				errs = append(errs, fmt.Errorf("VNI %d: add VTEP %s: %w", f.VNI, f.VTEP, err))
			}
		}
	}
	for f := range gone {
		if o, ok := overlays[f.VNI]; ok {
			if err := d.host.NeighDel(flood(o.link(), f.VTEP)); err != nil && !link.Gone(err) {
				errs = append(errs, fmt.Errorf("VNI %d: remove VTEP %s: %w", f.VNI, f.VTEP, err))
			}
		}
	}
	return errors.Join(errs...)
}

func (o Overlay) link() netlink.Link {
	return &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: o.Port, Index: o.Index}}
}

// TellStation has a device send to a VTEP what is for a station; one in a bridge, which
// vlan names, has the bridge know it, too. Vlan is 0 for others. It is done with the
// batch; if it fails, failed is called.
func (o Overlay) TellStation(b *link.Neighbors, mac vswitch.MAC, vtep netip.Addr, vlan uint16, failed func()) {
	b.Set(o.entry(mac, vtep, vlan), func(err error) error {
		failed()
		return fmt.Errorf("VNI %d: set station %s: %w", o.VNI, mac, err)
	})
}

// ForgetStation takes that back.
func (o Overlay) ForgetStation(b *link.Neighbors, mac vswitch.MAC, vtep netip.Addr, vlan uint16) {
	b.Delete(o.entry(mac, vtep, 0), func(err error) error {
		return fmt.Errorf("VNI %d: remove station %s: %w", o.VNI, mac, err)
	})
	if vlan == 0 {
		return
	}
	// Where the station is seen at another port, the bridge has no entry of this one.
	n := &netlink.Neigh{LinkIndex: o.Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER, Vlan: int(vlan), HardwareAddr: net.HardwareAddr(mac[:])}
	b.Delete(n, func(err error) error {
		return fmt.Errorf("VNI %d: remove station %s from its bridge: %w", o.VNI, mac, err)
	})
}

func (o Overlay) entry(mac vswitch.MAC, vtep netip.Addr, vlan uint16) *netlink.Neigh {
	n := &netlink.Neigh{
		LinkIndex: o.Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF | netlink.NTF_EXT_LEARNED, State: netlink.NUD_REACHABLE | netlink.NUD_NOARP,
		HardwareAddr: net.HardwareAddr(mac[:]), IP: vtep.AsSlice(),
	}
	if vlan != 0 {
		n.Flags |= netlink.NTF_MASTER
		n.Vlan = int(vlan)
	}
	return n
}
