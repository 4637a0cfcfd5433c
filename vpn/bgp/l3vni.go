package bgp

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vpn"
)

// l3Link tells whether a link is the device of the VNI in which the host routes.
func l3Link(l netlink.Link) (*netlink.Vxlan, bool) {
	x, ok := l.(*netlink.Vxlan)
	a, ours := link.ParseAlias(l.Attrs().Alias)
	return x, ok && ours && a.L3VNI != ""
}

// l3 is that device, nil without one.
func (d *Driver) l3() (*netlink.Vxlan, error) {
	links, err := d.kernel.LinksOf("vxlan")
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if x, ok := l3Link(l); ok {
			return x, nil
		}
	}
	return nil, nil
}

// observeL3 is what the device says of the VNI; one of another kind than ours has the VNI
// 0, which nobody wants.
func observeL3(x *netlink.Vxlan) *vpn.L3VNI {
	if x == nil {
		return nil
	}
	local, _ := netip.AddrFromSlice(x.SrcAddr)
	out := &vpn.L3VNI{VNI: uint32(x.VxlanId), VTEP: local.Unmap(), Port: uint16(x.Port), MTU: x.MTU, Down: x.RawFlags&unix.IFF_UP == 0}
	if x.Learning || x.VtepDevIndex != 0 || x.FlowBased || x.MasterIndex != 0 || x.Name != out.Device() {
		out.VNI = 0
	}
	return out
}

// setL3 makes the device, in place of one that cannot be changed into it, and announces in
// it what is announced.
func (d *Driver) setL3(to vpn.L3VNI) error {
	x, err := d.l3()
	if err != nil {
		return err
	}
	if have := observeL3(x); have != nil && !have.Live(to) {
		if err := d.kernel.Delete(x); err != nil {
			return err
		}
		x = nil
	}
	if x == nil {
		if x, err = d.makeL3(to); err != nil {
			return err
		}
	}
	if err := errors.Join(d.kernel.SetMTU(x, to.MTU), d.kernel.SetUp(x, true)); err != nil {
		return err
	}
	var errs []error
	for p := range d.have.Prefixes {
		errs = append(errs, d.engine.prefix(p, to, x.HardwareAddr, false))
	}
	return errors.Join(errs...)
}

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenModeNone = "1"

// makeL3 makes a device that stands on an address and on no other device, as those of
// VLANs do. It has no address: what the host says of a packet has one of another device.
func (d *Driver) makeL3(l vpn.L3VNI) (*netlink.Vxlan, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group, attrs.MTU, attrs.HardwareAddr = l.Device(), link.Group(l.Device()), l.MTU, d.opts.RouterMAC[:]
	if d.opts.RouterMAC == (vpn.MAC{}) {
		attrs.HardwareAddr = nil // the kernel has one
	}
	if half, err := d.kernel.Link(l.Device()); err == nil && link.HalfMade(half, l.Device()) {
		if err := d.kernel.Delete(half); err != nil {
			return nil, err
		}
	}
	err := d.kernel.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: int(l.VNI), SrcAddr: l.VTEP.AsSlice(), Port: int(l.Port), Learning: false, NoAge: true})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil, errors.New("this kernel has no VXLAN: load the module vxlan")
	case errors.Is(err, unix.EEXIST):
		return nil, cmp.Or(d.Free(l), fmt.Errorf("VNI %d is taken by another device of this host: `ip -d link show type vxlan` lists them", l.VNI))
	case err != nil:
		return nil, fmt.Errorf("make VXLAN device: %w", err)
	}
	x, err := d.kernel.Link(l.Device())
	if err != nil {
		return nil, err
	}
	err = os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", l.Device(), "addr_gen_mode"), []byte(addrGenModeNone), 0)
	if errors.Is(err, os.ErrNotExist) {
		err = nil // a kernel without IPv6
	}
	if err := errors.Join(err, d.kernel.SetAlias(x, link.Alias{L3VNI: strconv.Itoa(int(l.VNI))})); err != nil {
		return nil, errors.Join(err, d.kernel.Delete(x))
	}
	made, err := d.l3()
	if err == nil && made == nil {
		err = fmt.Errorf("VXLAN device %s went away while it was made", l.Device())
	}
	return made, err
}

// Free tells which device that is not ripstop's has the VNI or the name of the one that is
// wanted: what the kernel would say when the former one is gone. It is nil where none has.
func (d *Driver) Free(want vpn.L3VNI) error {
	all, err := d.kernel.Links()
	has := func(l netlink.Link) bool { x, ok := l3Link(l); return ok && observeL3(x).Live(want) }
	if err != nil || slices.ContainsFunc(all, has) {
		return err
	}
	for _, other := range all {
		name := other.Attrs().Name
		if _, ours := link.ParseAlias(other.Attrs().Alias); ours || link.HalfMade(other, want.Device()) {
			continue
		}
		x, ok := other.(*netlink.Vxlan)
		switch {
		case ok && x.VxlanId == int(want.VNI) && x.Port == int(want.Port) && ofIPv6(x) == want.VTEP.Is6():
			return fmt.Errorf("VNI %d is that of the device %s, which is not ripstop's: choose another vni, or remove it (ip link del dev %s)", want.VNI, name, name)
		case name == want.Device():
			return fmt.Errorf("the name of its device, %s, is that of a link which is not ripstop's: choose another vni, or rename the link", name)
		}
	}
	return nil
}

// ofIPv6 tells whether a device is one for VTEPs of IPv6, which may have a VNI that one for
// IPv4 has.
func ofIPv6(x *netlink.Vxlan) bool {
	return cmp.Or(len(x.SrcAddr), len(x.Group)) == net.IPv6len
}

// delL3 removes the device, and with it all that goes through it.
func (d *Driver) delL3(l vpn.L3VNI) error {
	x, err := d.l3()
	if err != nil {
		return err
	}
	var errs []error
	if d.engine != nil {
		for p := range d.have.Prefixes {
			errs = append(errs, d.engine.prefix(p, l, nil, true))
		}
	}
	if x != nil {
		errs = append(errs, d.kernel.Delete(x))
	}
	return errors.Join(errs...)
}

// announcePrefix tells neighbors of a prefix of this host by EVPN, or no more.
func (d *Driver) announcePrefix(p netip.Prefix, withdraw bool) error {
	if d.have.L3 == nil {
		if withdraw {
			return nil // it went with the VNI
		}
		return errors.New("there is no l3vni to announce it in: see l3vni in ripstop status")
	}
	if withdraw {
		return d.engine.prefix(p, *d.have.L3, nil, true)
	}
	x, err := d.l3()
	if err != nil {
		return err
	}
	if x == nil {
		return fmt.Errorf("the VXLAN device %s is gone", d.have.L3.Device())
	}
	return d.engine.prefix(p, *d.have.L3, x.HardwareAddr, false)
}

// prefix announces or withdraws a route of type 5 in the interface-less model (RFC 9136,
// 4.4.1): there is neither an Ethernet segment nor a gateway, the label is the VNI, and the
// router's MAC address says to which station of the VNI frames go (RFC 9135, 8.1).
func (e *engine) prefix(p netip.Prefix, l vpn.L3VNI, router net.HardwareAddr, withdraw bool) error {
	rd, err := bgp.NewRouteDistinguisherIPAddressAS(e.speaker.RouterID, vpn.L3RD)
	if err != nil {
		return err
	}
	none := netip.IPv4Unspecified()
	if p.Addr().Is6() {
		none = netip.IPv6Unspecified()
	}
	esi := bgp.EthernetSegmentIdentifier{Type: bgp.ESI_ARBITRARY, Value: make([]byte, 9)}
	route, err := bgp.NewEVPNIPPrefixRoute(rd, esi, 0, uint8(p.Bits()), p.Addr(), none, l.VNI)
	if err != nil {
		return err
	}
	with := e.communities(l.VNI)
	if !withdraw {
		with = append(with, &bgp.RouterMacExtended{Mac: router})
	}
	path, err := pathTo(route, l.VTEP, withdraw, with)
	if err != nil {
		return err
	}
	if withdraw {
		return e.send(nil, []*apiutil.Path{path})
	}
	return e.send([]*apiutil.Path{path}, nil)
}

// prefixes is all learned paths of type 5. Reading them takes a walk through all routes of
// EVPN; so they are read again when the speaker told of some, and now and then.
func (e *engine) prefixes(names map[netip.Addr]string) ([]vpn.Path, error) {
	e.mu.Lock()
	stale := e.stale || time.Since(e.read) >= resync || !maps.Equal(e.names, names)
	e.stale = false
	e.mu.Unlock()
	if !stale {
		return e.learned, nil
	}
	var out []vpn.Path
	err := e.routes(func(n *bgp.EVPNNLRI, p *apiutil.Path) {
		r, ok := n.RouteTypeData.(*bgp.EVPNIPPrefixRoute)
		if name, known := names[p.PeerAddress]; ok && known {
			if path, ok := prefixOfRoute(r, name, p, e.speaker.ASN); ok {
				out = append(out, path)
			}
		}
	})
	if err != nil {
		e.mu.Lock()
		e.stale = true
		e.mu.Unlock()
		return nil, err
	}
	e.learned, e.names, e.read = out, maps.Clone(names), time.Now()
	return out, nil
}

// prefixOfRoute reads a route of type 5; ok is false for one without a prefix.
func prefixOfRoute(r *bgp.EVPNIPPrefixRoute, name string, p *apiutil.Path, own uint32) (vpn.Path, bool) {
	prefix, err := r.IPPrefix.Prefix(int(r.IPPrefixLength))
	if err != nil {
		return vpn.Path{}, false
	}
	out := pathOf(prefix, name, p, own)
	out.NextHop = hop(p)
	out.VNI = r.Label
	switch {
	case r.Label == 0:
		out.VNI, out.Unfit = noVNI, "is in no VNI"
	case r.GWIPAddress.IsValid() && !r.GWIPAddress.IsUnspecified():
		out.Unfit = fmt.Sprintf("names the gateway %s: only prefixes that are at their VTEP are taken (RFC 9136, 4.4.1)", r.GWIPAddress)
	case r.ESI.Type != bgp.ESI_ARBITRARY || slices.ContainsFunc(r.ESI.Value, func(b byte) bool { return b != 0 }):
		out.Unfit = "names an Ethernet segment: only prefixes that are at their VTEP are taken (RFC 9136, 4.4.1)"
	}
	for _, a := range p.Attrs {
		all, ok := a.(*bgp.PathAttributeExtendedCommunities)
		if !ok {
			continue
		}
		for _, c := range all.Value {
			switch c := c.(type) {
			case *bgp.RouterMacExtended:
				copy(out.RouterMAC[:], c.Mac)
			case *bgp.EncapExtended:
				if c.TunnelType != bgp.TUNNEL_TYPE_VXLAN {
					out.Unfit = fmt.Sprintf("is for tunnels of type %d: only VXLAN is spoken", c.TunnelType)
				}
			}
		}
	}
	return out, true
}

// noVNI is above all VNIs: a path of type 5 has one, whatever it says.
const noVNI = 1 << 24

// routers is the entries that the device needs to send to VTEPs, and those that it has.
type routers struct {
	index int
	want  map[entry]bool
	have  map[entry]bool
}

// entry is a neighbor's Ethernet address or, of the FDB, where that is.
type entry struct {
	mac vpn.MAC
	ip  netip.Addr
	fdb bool
}

// key is what there is one entry of.
func (e entry) key() entry {
	if e.fdb {
		e.ip = netip.Addr{}
	} else {
		e.mac = vpn.MAC{}
	}
	return e
}

// routersOf reads what the device has, and works out what it needs: an entry for the way to
// a VTEP of each IP version, and where its router's address is.
func routersOf(s *link.Space, x *netlink.Vxlan, l vpn.L3VNI, want map[netip.Addr]vpn.MAC) (*routers, error) {
	r := &routers{x.Index, map[entry]bool{}, map[entry]bool{}}
	four, six := netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	for vtep, mac := range want {
		r.want[entry{mac, vtep, true}] = true
		r.want[entry{mac, l.Gateway(four, vtep, mac), false}] = true
		r.want[entry{mac, l.Gateway(six, vtep, mac), false}] = true
	}
	for _, family := range []uint8{unix.AF_BRIDGE, unix.AF_INET, unix.AF_INET6} {
		all, err := link.Dump(func() ([]netlink.Neigh, error) {
			return s.NeighListExecute(netlink.Ndmsg{Family: family, Index: uint32(x.Index)})
		})
		if err != nil {
			return nil, fmt.Errorf("list routers of VNI %d: %w", l.VNI, err)
		}
		for _, n := range all {
			ip, ok := netip.AddrFromSlice(n.IP)
			if !ok || n.LinkIndex != x.Index || len(n.HardwareAddr) != len(vpn.MAC{}) || n.State&unix.NUD_PERMANENT == 0 && family != unix.AF_BRIDGE {
				continue
			}
			if ip.IsMulticast() || bytes.Equal(n.HardwareAddr, make([]byte, len(vpn.MAC{}))) && family != unix.AF_BRIDGE {
				continue // the kernel's own
			}
			r.have[entry{vpn.MAC(n.HardwareAddr), ip.Unmap(), family == unix.AF_BRIDGE}] = true
		}
	}
	return r, nil
}

// set makes what is missing, before routes need it.
func (r *routers) set() error {
	var b link.Neighbors
	for e := range r.want {
		if !r.have[e] {
			b.Set(r.neigh(e), func(err error) error { return fmt.Errorf("set router %s at %s: %w", e.mac, e.ip, err) })
		}
	}
	return b.Do()
}

// clear removes what no route needs any more. An entry whose Ethernet address changed has
// been changed in place.
func (r *routers) clear() error {
	var b link.Neighbors
	needed := map[entry]bool{}
	for e := range r.want {
		needed[e.key()] = true
	}
	for e := range r.have {
		if !needed[e.key()] {
			b.Delete(r.neigh(e), func(err error) error { return fmt.Errorf("remove router %s at %s: %w", e.mac, e.ip, err) })
		}
	}
	return b.Do()
}

func (r *routers) neigh(e entry) *netlink.Neigh {
	n := &netlink.Neigh{LinkIndex: r.index, State: netlink.NUD_PERMANENT, HardwareAddr: net.HardwareAddr(e.mac[:]), IP: e.ip.AsSlice()}
	switch {
	case e.fdb:
		n.Family, n.Flags, n.State = unix.AF_BRIDGE, netlink.NTF_SELF|netlink.NTF_EXT_LEARNED, netlink.NUD_PERMANENT|netlink.NUD_NOARP
	case e.ip.Is4():
		n.Family = unix.AF_INET
	default:
		n.Family = unix.AF_INET6
	}
	return n
}
