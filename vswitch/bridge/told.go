package bridge

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// toldPort is a bridge's port to other hosts that is told who is there.
type toldPort struct {
	device.Overlay
	vlan    uint16
	gateway int // ifindex of the VLAN's gateway, 0 without one
}

// toldPorts is those of all bridges, by VNI.
func (d *Driver) toldPorts(ctx context.Context) (map[uint32]toldPort, map[string]device.Switch, error) {
	if none, err := d.noSwitch(); err != nil || none {
		return nil, nil, err
	}
	overlays, err := d.devices.Overlays()
	if err != nil || len(overlays) == 0 {
		return nil, nil, err
	}
	found, err := d.devices.Observe(ctx)
	if err != nil {
		return nil, nil, err
	}
	members, err := d.memberships()
	if err != nil {
		return nil, nil, err
	}
	out := map[uint32]toldPort{}
	for vni, o := range overlays {
		m, ok := members[o.Index]
		if !ok || m.pvid == 0 {
			continue // of the other dataplane, or not in its VLAN yet
		}
		p := toldPort{Overlay: o, vlan: m.pvid}
		for _, g := range found[o.Switch].Gateways {
			if v, ok := g.Link.(*netlink.Vlan); ok && v.VlanId == int(m.pvid) {
				p.gateway = v.Index
			}
		}
		out[vni] = p
	}
	return out, found, nil
}

// News is another number whenever a bridge may have learned something.
func (d *Driver) News(ctx context.Context) (uint64, error) {
	if none, err := d.noSwitch(); err != nil || none {
		return 0, err
	}
	heard, err := d.guard.News(ctx)
	if err != nil {
		return 0, err
	}
	learned, err := d.fdb.news()
	return heard + learned, err
}

// Stations is those behind ports and gateways of VLANs that are told who is elsewhere.
func (d *Driver) Stations(ctx context.Context) ([]vswitch.Station, error) {
	ports, found, err := d.toldPorts(ctx)
	if err != nil || len(ports) == 0 {
		return nil, err
	}
	var all []station
	if err := d.fdb.look(d.stations, func(s station) { all = append(all, s) }); err != nil {
		return nil, err
	}
	vnis := map[[2]any]uint32{} // by switch and VLAN
	away := map[int]bool{}
	for vni, p := range ports {
		vnis[[2]any{p.Switch, p.vlan}] = vni
		away[p.Index] = true
	}
	heard := map[string]map[int]map[vswitch.StationKey][]netip.Addr{}
	places := placesOf(found)
	var out []vswitch.Station
	for _, s := range all {
		at, ok := places[place{s.index, 0}]
		if s.permanent { // the devices' own addresses: of those, gateways are stations
			at, ok = places[place{s.index, s.vlan}]
		}
		vni, spans := vnis[[2]any{at[0], s.vlan}]
		if !ok || !spans || away[s.index] || s.permanent && found[at[0]].Gateways[at[1]].MAC.IsAnycast() {
			continue // nor is the bridge's own address that of an anycast gateway
		}
		if heard[at[0]] == nil {
			if heard[at[0]], err = d.guard.Heard(ctx, at[0]); err != nil {
				return nil, err
			}
		}
		ips := heard[at[0]][s.index][vswitch.StationKey{VNI: uint32(s.vlan), MAC: s.mac}]
		if s.permanent {
			ips = addressesOf(found[at[0]].Gateways[at[1]].Gateway)
		}
		out = append(out, vswitch.Station{StationKey: vswitch.StationKey{VNI: vni, MAC: s.mac}, Fixed: s.static, IPs: ips})
	}
	return out, nil
}

func addressesOf(g vswitch.Gateway) []netip.Addr {
	var out []netip.Addr
	for _, p := range g.Addresses {
		if !p.Addr().IsLinkLocalUnicast() {
			out = append(out, p.Addr())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// Told is what devices and bridges both know.
func (d *Driver) Told(ctx context.Context) (vswitch.Told, error) {
	ports, _, err := d.toldPorts(ctx)
	if err != nil || len(ports) == 0 {
		return vswitch.NewTold(), err
	}
	told, err := d.devices.ToldOf(overlaysOf(ports))
	if err != nil {
		return told, err
	}
	type seat struct {
		index int
		vlan  uint16
		mac   vswitch.MAC
	}
	known := map[seat]bool{}
	d.fdb.doubt()
	if err := d.fdb.look(d.stations, func(s station) { known[seat{s.index, s.vlan, s.mac}] = true }); err != nil {
		return told, err
	}
	for key := range told.Stations {
		if p := ports[key.VNI]; !known[seat{p.Index, p.vlan, key.MAC}] {
			delete(told.Stations, key)
		}
	}
	for vni, p := range ports {
		if err := d.guard.Neighbors(ctx, p.Switch, vni, p.vlan, told.Addresses); err != nil {
			return told, err
		}
	}
	return told, nil
}

func overlaysOf(ports map[uint32]toldPort) map[uint32]device.Overlay {
	out := map[uint32]device.Overlay{}
	for vni, p := range ports {
		out[vni] = p.Overlay
	}
	return out
}

// Tell changes that. The guard answers ARP for a station at the ports; for gateways,
// whose frames do not pass it, the kernel's neighbor table has the station.
func (d *Driver) Tell(ctx context.Context, add, gone vswitch.Told) error {
	ports, _, err := d.toldPorts(ctx)
	if err != nil || len(ports) == 0 {
		return err
	}
	errs := []error{d.devices.TellFloods(overlaysOf(ports), add.Floods, gone.Floods)}
	var batch link.Neighbors
	for key, vtep := range add.Stations {
		if p, ok := ports[key.VNI]; ok {
			p.TellStation(&batch, key.MAC, vtep, p.vlan, func() {})
		}
	}
	for key, vtep := range gone.Stations {
		if p, ok := ports[key.VNI]; ok {
			p.ForgetStation(&batch, key.MAC, vtep, p.vlan)
		}
	}
	for vni, p := range ports {
		errs = append(errs, d.guard.Tell(ctx, p.Switch, vni, p.vlan, add.Addresses, gone.Addresses))
	}
	for key, mac := range add.Addresses {
		if p, ok := ports[key.VNI]; ok && p.gateway != 0 {
			batch.Set(neighborOf(p.gateway, key.IP, mac), func(err error) error {
				return fmt.Errorf("VNI %d: set neighbor %s: %w", key.VNI, key.IP, err)
			})
		}
	}
	for key, mac := range gone.Addresses {
		if p, ok := ports[key.VNI]; ok && p.gateway != 0 {
			batch.Delete(neighborOf(p.gateway, key.IP, mac), func(err error) error {
				return fmt.Errorf("VNI %d: remove neighbor %s: %w", key.VNI, key.IP, err)
			})
		}
	}
	return errors.Join(append(errs, batch.Do())...)
}

// neighborOf is an entry that the kernel does not verify, and that leaves room for what
// it learns itself.
func neighborOf(ifindex int, ip netip.Addr, mac vswitch.MAC) *netlink.Neigh {
	n := &netlink.Neigh{
		LinkIndex: ifindex, Family: unix.AF_INET, State: netlink.NUD_NOARP, Flags: netlink.NTF_EXT_LEARNED,
		IP: ip.AsSlice(), HardwareAddr: net.HardwareAddr(mac[:]),
	}
	if ip.Is6() {
		n.Family = unix.AF_INET6
	}
	return n
}
