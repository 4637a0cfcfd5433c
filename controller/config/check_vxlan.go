package config

import (
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"ripstop/vswitch"
)

// checkEnd is where a switch's VLANs leave the host, nil without such a place.
func (c *checker) checkEnd(x *rawVXLAN) *VXLAN {
	if x == nil {
		return nil
	}
	out := &VXLAN{Port: uint16(x.Port.v), MTU: int(x.MTU.v)}
	out.Tunnel, out.Address = c.checkVTEP(x.spot, x.Tunnel, x.Address)
	for p := range x.Peers.valid() {
		a := netip.Addr(p.v)
		switch {
		case unroutable(a):
			c.errorf(p.spot, "%s is link-local, loopback or mapped: write the address of another host", a)
		case a == out.Address:
			c.errorf(p.spot, "%s is this host's own VTEP: write those of the others", a)
		case slices.Contains(out.Peers, a):
			c.errorf(p.spot, "%s is given twice", a)
		case x.Address.ok && a.Is4() != out.Address.Is4():
			c.errorf(p.spot, "%s is of another IP version than this host's VTEP %s", a, out.Address)
		default:
			out.Peers = append(out.Peers, a)
		}
	}
	slices.SortFunc(out.Peers, netip.Addr.Compare)
	if b := c.raw.BGP; x.Peers.given && b != nil && bool(b.EVPN.v) {
		c.errorf(x.Peers.spot, "with bgp.evpn the VTEPs tell each other: leave peers out")
	}
	return out
}

// checkVTEP is where this host's end of VXLAN is: one of both.
func (c *checker) checkVTEP(at spot, tunnel value[name], address value[ipAddr]) (string, netip.Addr) {
	if tunnel.given == address.given {
		c.errorf(at, "needs exactly one of tunnel and address")
	}
	n, a := "", netip.Addr(address.v)
	if known(c.report, c.raw.Tunnels, "tunnel", tunnel) {
		n = string(tunnel.v)
		if t := c.raw.Tunnels.items[n]; !t.Address.given && t.Mesh == nil {
			c.errorf(tunnel.spot, "tunnel %q has no address that could be the VTEP: give it one", n)
		}
	}
	if address.ok && unroutable(a) {
		c.errorf(address.spot, "%s is link-local, loopback or mapped: write an address that the other hosts reach", a)
	}
	return n, a
}

// checkL3VNI is the VNI in which hosts route, nil without one.
func (c *checker) checkL3VNI(b *rawBGP) *L3VNI {
	x := b.L3VNI
	if x == nil {
		return nil
	}
	if !bool(b.EVPN.v) {
		c.errorf(x.spot, "its prefixes go by EVPN: write evpn: true under bgp, or leave l3vni out")
	}
	out := &L3VNI{VNI: uint32(x.VNI.v), Announced: c.checkAnnounced(x.Announce), Import: c.checkImports(x.Import, b)}
	c.checkMTU(x.MTU, c.routes(out))
	for n, v := range c.raw.VLANs.all() {
		if v.VNI.ok && x.VNI.ok && v.VNI.v == x.VNI.v {
			c.errorf(x.VNI.spot, "VNI %d is that of VLAN %q, too, at %s: what is routed needs one of its own", x.VNI.v, n, v.VNI.spot)
			return out
		}
	}
	if x.VNI.ok {
		c.device(vswitch.OverlayPort(out.VNI), x.VNI.spot)
	}
	if x.Tunnel.given || x.Address.given {
		out.End.Port, out.End.MTU = uint16(x.Port.v), int(x.MTU.v)
		out.End.Tunnel, out.End.Address = c.checkVTEP(x.spot, x.Tunnel, x.Address)
	} else {
		out.End = c.sharedEnd(x)
	}
	return out
}

// routes is the prefixes that go through a VNI in which hosts route, as far as the file says.
func (c *checker) routes(l *L3VNI) []netip.Prefix {
	out := slices.Clone(l.Prefixes)
	for _, f := range l.Import {
		if f.Prefix.IsValid() && !f.Reject {
			out = append(out, f.Prefix)
		}
	}
	for _, v := range c.cfg.VLANs {
		if l.VLANs {
			out = append(out, v.Gateways...)
		}
	}
	return out
}

// sharedEnd is the end of VXLAN that all switches have.
func (c *checker) sharedEnd(x *rawL3VNI) VXLAN {
	var end *VXLAN
	for _, n := range slices.Sorted(maps.Keys(c.cfg.Switches)) {
		e := c.cfg.Switches[n].VXLAN
		if e == nil {
			continue
		}
		its := *e
		its.Peers = nil
		if end != nil && !reflect.DeepEqual(*end, its) {
			c.errorf(x.spot, "the switches' vxlan differ, so that it is unknown where its end is: write tunnel or address")
			return VXLAN{}
		}
		end = &its
	}
	if end == nil {
		c.errorf(x.spot, "no switch has vxlan whose end could be its own: write tunnel or address")
		return VXLAN{}
	}
	if x.Port.given {
		end.Port = uint16(x.Port.v)
	}
	if x.MTU.given {
		end.MTU = int(x.MTU.v)
	}
	return *end
}

func unroutable(a netip.Addr) bool { return a.IsLinkLocalUnicast() || a.IsLoopback() || a.Is4In6() }

// checkVXLAN holds the VNIs of VLANs against each other and takes their devices.
func (c *checker) checkVXLAN() {
	ends := false
	for _, sw := range c.cfg.Switches {
		ends = ends || sw.VXLAN != nil
	}
	evpn := c.raw.BGP != nil && bool(c.raw.BGP.EVPN.v)
	first := map[vni]string{}
	for n, v := range c.raw.VLANs.all() {
		if v.VNI.ok && bool(v.Anycast.v) && !evpn {
			c.warnf(v.Anycast.spot, "without `evpn: true` under bgp a gateway reaches its own host's stations alone: answers to its questions end at the nearest gateway")
		}
		if !v.VNI.ok {
			continue
		}
		if other, twice := first[v.VNI.v]; twice {
			c.errorf(v.VNI.spot, "VNI %d is that of VLAN %q, too, at %s: each VLAN needs one of its own", v.VNI.v, other, c.raw.VLANs.items[other].VNI.spot)
			continue
		}
		first[v.VNI.v] = n
		if !ends {
			c.warnf(v.VNI.spot, "no switch has vxlan: the VLAN ends at this host")
			continue
		}
		c.device(vswitch.OverlayPort(uint32(v.VNI.v)), v.VNI.spot)
	}
}
