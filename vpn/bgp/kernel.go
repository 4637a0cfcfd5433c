package bgp

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vpn"
)

// seen is the kernel's routes at one moment.
type seen struct {
	own    map[vpn.Destination][]vpn.Way // those that ripstop learned
	others []vpn.KernelRoute
	index  map[string]int // of devices, by name
	l3     *netlink.Vxlan // of the VNI in which the host routes, nil without one
}

// look reads all routes of all tables.
func look(s *link.Space) (*seen, error) {
	links, err := s.Links()
	if err != nil {
		return nil, err
	}
	out := &seen{own: map[vpn.Destination][]vpn.Way{}, index: map[string]int{}}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index], out.index[l.Attrs().Name] = l.Attrs().Name, l.Attrs().Index
		if x, ok := l3Link(l); ok {
			out.l3 = x
		}
	}
	all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := link.Dump(func() ([]netlink.Route, error) { return s.RouteListFiltered(family, all, netlink.RT_FILTER_TABLE) })
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range list {
			out.take(r, family, names)
		}
	}
	return out, nil
}

func (s *seen) take(r netlink.Route, family int, names map[int]string) {
	d := vpn.Destination{Table: uint32(r.Table), Prefix: prefixOf(r.Dst, family)}
	if !d.Prefix.IsValid() {
		return
	}
	ways := waysOf(r, names)
	if r.Protocol == vpn.BGPRouteProtocol {
		s.own[d] = ways
		return
	}
	k := vpn.KernelRoute{Prefix: d.Prefix, Table: d.Table, Connected: r.Protocol == unix.RTPROT_KERNEL}
	switch r.Type {
	case unix.RTN_LOCAL:
		k.Local = true
	case unix.RTN_UNICAST:
		k.Ways = ways
	case unix.RTN_BROADCAST, unix.RTN_ANYCAST, unix.RTN_MULTICAST:
		return
	}
	s.others = append(s.others, k)
}

// prefixOf is a route's prefix; the default route has none in netlink.
func prefixOf(n *net.IPNet, family int) netip.Prefix {
	if n == nil {
		if family == netlink.FAMILY_V4 {
			return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		}
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	ip, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	if family == netlink.FAMILY_V4 {
		ip = ip.Unmap()
	}
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(ip, bits).Masked()
}

func waysOf(r netlink.Route, names map[int]string) []vpn.Way {
	if len(r.MultiPath) == 0 {
		return []vpn.Way{{Gateway: gateway(r.Gw, r.Via), Device: names[r.LinkIndex]}}
	}
	var out []vpn.Way
	for _, h := range r.MultiPath {
		out = append(out, vpn.Way{Gateway: gateway(h.Gw, h.Via), Device: names[h.LinkIndex]})
	}
	slices.SortFunc(out, vpn.Way.Compare)
	return out
}

// gateway is a route's; via is one of the other IP version.
func gateway(ip net.IP, via netlink.Destination) netip.Addr {
	if v, ok := via.(*netlink.Via); ok {
		ip = v.Addr
	}
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

// route is a learned route in netlink's words.
func (s *seen) route(d vpn.Destination, ways []vpn.Way) (*netlink.Route, error) {
	r := &netlink.Route{Table: int(d.Table), Protocol: vpn.BGPRouteProtocol, Priority: vpn.BGPMetric, Dst: ipNet(d.Prefix)}
	for _, w := range ways {
		index, ok := s.index[w.Device]
		if !ok {
			return nil, fmt.Errorf("device %s is gone", w.Device)
		}
		hop := &netlink.NexthopInfo{LinkIndex: index, Gw: w.Gateway.AsSlice()}
		if s.l3 != nil && index == s.l3.Index {
			hop.Flags = int(netlink.FLAG_ONLINK) // a VTEP is in no network of the device
		}
		if w.Gateway.Is6() && d.Prefix.Addr().Is4() {
			hop.Gw, hop.Via = nil, &netlink.Via{AddrFamily: netlink.FAMILY_V6, Addr: w.Gateway.AsSlice()}
		}
		if len(ways) == 1 {
			r.LinkIndex, r.Gw, r.Via, r.Flags = index, hop.Gw, hop.Via, hop.Flags
			return r, nil
		}
		r.MultiPath = append(r.MultiPath, hop)
	}
	return r, nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// put makes a route that is not there, or changes ours in place. It never takes
// the place of somebody else's.
func (s *seen) put(h *link.Space, d vpn.Destination, ways []vpn.Way) error {
	r, err := s.route(d, ways)
	if err != nil {
		return err
	}
	set := h.RouteAdd
	if _, ours := s.own[d]; ours {
		set = h.RouteReplace
	}
	if err := set(r); err != nil {
		return fmt.Errorf("route %s: %w", d.Prefix, err)
	}
	return nil
}

// del removes a route that is ours unless it is gone.
func (s *seen) del(h *link.Space, d vpn.Destination) error {
	err := h.RouteDel(&netlink.Route{Table: int(d.Table), Protocol: vpn.BGPRouteProtocol, Priority: vpn.BGPMetric, Dst: ipNet(d.Prefix)})
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove route %s: %w", d.Prefix, err)
	}
	return nil
}
