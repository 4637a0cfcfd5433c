package bridge

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// Observe is the switches whose bridges ripstop made. A port that somebody took
// out of its bridge, or whose guard is not what its role needs, and every port
// of a bridge that does not filter, is seen as not attached, so that Diff sets
// it anew.
func (d *Driver) Observe(ctx context.Context) (vswitch.State, error) {
	state := vswitch.State{Switches: map[string]vswitch.Switch{}}
	if none, err := d.noSwitch(); err != nil || none {
		return state, err
	}
	found, err := d.devices.Observe(ctx)
	if err != nil {
		return state, err
	}
	members, err := d.memberships()
	if err != nil {
		return state, err
	}
	for name, sw := range found {
		at := slices.IndexFunc(sw.Others, func(l netlink.Link) bool { return isSwitch(l, name) })
		if at < 0 {
			continue // of another dataplane
		}
		seen, err := d.switchSeen(name, sw, sw.Others[at].(*netlink.Bridge), members)
		if err != nil {
			return state, err
		}
		state.Switches[name] = seen
	}
	return state.Canonical(), nil
}

// noSwitch tells whether there is no bridge that ripstop made, which spares a look
// at the ports of other dataplanes.
func (d *Driver) noSwitch() (bool, error) {
	links, err := d.host.LinksOf("bridge")
	if err != nil {
		return false, err
	}
	return !slices.ContainsFunc(links, func(l netlink.Link) bool {
		a, ok := link.ParseAlias(l.Attrs().Alias)
		return ok && isSwitch(l, a.Switch)
	}), nil
}

func (d *Driver) switchSeen(name string, sw device.Switch, br *netlink.Bridge, members map[int]membership) (vswitch.Switch, error) {
	guarded, gateways, err := d.guard.Observe(name, sw)
	if err != nil {
		return vswitch.Switch{}, err
	}
	out := vswitch.Switch{Dataplane: vswitch.Bridge, Ports: map[string]vswitch.Port{}, Gateways: map[string]vswitch.Gateway{}}
	filters := br.VlanFiltering != nil && *br.VlanFiltering
	for name, found := range sw.Ports {
		p := found.Port
		p.PVID = vswitch.NotAttached
		m := members[found.Link.Attrs().Index]
		if filters && found.Link.Attrs().MasterIndex == br.Index {
			if g := guarded[name]; m.like(g) && m.learning != p.Overlay.Told {
				p.Tagged, p.Isolated, p.PVID, p.Security, p.Fault = m.tagged, m.isolated, m.pvid, g.Security, g.Fault
				p.Filters, p.Limit = g.Filters, g.Limit
			}
		}
		out.Ports[name] = p
	}
	known, err := d.seated(br, sw)
	if err != nil {
		return vswitch.Switch{}, err
	}
	for name, found := range sw.Gateways {
		g := found.Gateway
		v, ok := found.Link.(*netlink.Vlan)
		if ok && v.ParentIndex == br.Index && slices.Contains(members[br.Index].tagged, uint16(v.VlanId)) {
			g.VLAN = uint16(v.VlanId)
			if !gateways[name] {
				g.MTU = vswitch.Damaged
			}
			if g.MAC.IsAnycast() && !known[seat{g.VLAN, g.MAC}] {
				g.MAC = vswitch.MAC{} // the bridge does not have it, though the device does
			}
		}
		out.Gateways[name] = g
	}
	return out, nil
}

// seated is which addresses a bridge knows as its own; none where no gateway has one that it
// has to be told.
func (d *Driver) seated(br *netlink.Bridge, sw device.Switch) (map[seat]bool, error) {
	known := map[seat]bool{}
	if !slices.ContainsFunc(slices.Collect(maps.Values(sw.Gateways)), func(g device.Gateway) bool { return g.MAC.IsAnycast() }) {
		return known, nil
	}
	all, err := link.Dump(func() ([]netlink.Neigh, error) {
		return d.host.NeighListExecute(netlink.Ndmsg{Family: unix.AF_BRIDGE, Index: uint32(br.Index)})
	})
	if err != nil {
		return nil, fmt.Errorf("list the addresses of bridge %q: %w", br.Name, err)
	}
	for _, n := range all {
		if len(n.HardwareAddr) == len(vswitch.MAC{}) && n.LinkIndex == br.Index {
			known[seat{uint16(n.Vlan), vswitch.MAC(n.HardwareAddr)}] = true
		}
	}
	return known, nil
}

// like tells whether a port's VLANs are those that the guard lets in, and its
// only untagged one is the PVID.
func (m membership) like(g vswitch.Port) bool {
	if m.pvid == 0 && len(m.untagged) > 0 || m.pvid != 0 && !slices.Equal(m.untagged, []uint16{m.pvid}) {
		return false
	}
	return g.PVID == m.pvid && slices.Equal(g.Tagged, m.tagged)
}

// membership is the VLANs of one port of a bridge, or of a bridge itself.
type membership struct {
	pvid             uint16
	untagged, tagged []uint16 // sorted
	isolated         bool
	learning         bool
	state            byte // of the bridge's port: forwarding, or not
}

// carries tells whether the port is a member of a VLAN.
func (m membership) carries(vid uint16) bool {
	return slices.Contains(m.untagged, vid) || slices.Contains(m.tagged, vid)
}

func (d *Driver) membership(l netlink.Link) (membership, error) {
	all, err := d.memberships()
	return all[l.Attrs().Index], err
}

// memberships is that of every port of every bridge by ifindex, in one dump.
func (d *Driver) memberships() (map[int]membership, error) {
	messages, err := link.Dump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_BRIDGE))
		req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(uint32(nl.RTEXT_FILTER_BRVLAN_COMPRESSED))))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	})
	if err != nil {
		return nil, fmt.Errorf("list bridge VLANs: %w", err)
	}
	out := map[int]membership{}
	for _, m := range messages {
		index, seen, err := parseMembership(m)
		if err != nil {
			return nil, fmt.Errorf("read bridge VLANs: %w", err)
		}
		out[index] = seen
	}
	return out, nil
}

// parseMembership reads an RTM_NEWLINK of AF_BRIDGE.
func parseMembership(b []byte) (index int, m membership, err error) {
	if len(b) < unix.SizeofIfInfomsg {
		return 0, m, fmt.Errorf("message of %d bytes", len(b))
	}
	index = int(nl.DeserializeIfInfomsg(b).Index)
	attrs, err := parseAttributes(b[unix.SizeofIfInfomsg:])
	if err != nil {
		return 0, m, err
	}
	for _, v := range attrs[unix.IFLA_AF_SPEC] {
		spec, err := parseAttributes(v)
		if err != nil {
			return 0, m, err
		}
		m.takeVLANs(spec[nl.IFLA_BRIDGE_VLAN_INFO])
	}
	for _, v := range attrs[unix.IFLA_PROTINFO] {
		info, err := parseAttributes(v)
		if err != nil {
			return 0, m, err
		}
		for _, on := range info[nl.IFLA_BRPORT_ISOLATED] {
			m.isolated = len(on) > 0 && on[0] != 0
		}
		for _, on := range info[nl.IFLA_BRPORT_LEARNING] {
			m.learning = len(on) > 0 && on[0] != 0
		}
		for _, state := range info[nl.IFLA_BRPORT_STATE] {
			if len(state) > 0 {
				m.state = state[0]
			}
		}
	}
	slices.Sort(m.untagged)
	slices.Sort(m.tagged)
	return index, m, nil
}

// parseAttributes reads netlink attributes (struct nlattr of linux/netlink.h), by
// type. The last one may come without padding.
func parseAttributes(b []byte) (map[uint16][][]byte, error) {
	out := map[uint16][][]byte{}
	for len(b) >= unix.SizeofNlAttr {
		n, kind := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])&typeMask
		if n < unix.SizeofNlAttr || n > len(b) {
			return nil, fmt.Errorf("attribute of %d bytes, where %d are left", n, len(b))
		}
		out[kind] = append(out[kind], b[unix.SizeofNlAttr:n])
		b = b[min(len(b), (n+3)&^3):]
	}
	return out, nil
}

// takeVLANs reads struct bridge_vlan_info of linux/if_bridge.h, single or as the
// two ends of a range.
func (m *membership) takeVLANs(values [][]byte) {
	first := uint16(0)
	for _, v := range values {
		if len(v) < 4 {
			continue
		}
		flags, vid := binary.NativeEndian.Uint16(v), binary.NativeEndian.Uint16(v[2:])
		if vid > lastVLAN {
			continue
		}
		if flags&nl.BRIDGE_VLAN_INFO_RANGE_BEGIN != 0 {
			first = vid
			continue
		}
		if flags&nl.BRIDGE_VLAN_INFO_RANGE_END == 0 || first == 0 {
			first = vid
		}
		for n := uint32(first); n <= uint32(vid); n++ {
			m.add(uint16(n), flags)
		}
		first = 0
	}
}

func (m *membership) add(vid, flags uint16) {
	if flags&nl.BRIDGE_VLAN_INFO_PVID != 0 {
		m.pvid = vid
	}
	if flags&nl.BRIDGE_VLAN_INFO_UNTAGGED != 0 {
		m.untagged = append(m.untagged, vid)
	} else {
		m.tagged = append(m.tagged, vid)
	}
}

// lastVLAN is the highest VLAN that is not reserved (IEEE 802.1Q, table 9-2).
const lastVLAN = 4094

// typeMask is NLA_TYPE_MASK of linux/netlink.h: an attribute's type without its flags.
const typeMask = 0x3fff
