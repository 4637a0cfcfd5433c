package config

import (
	"net/netip"
	"slices"

	"ripstop/vswitch"
)

// checkEnd is where a switch's VLANs leave the host, nil without such a place.
func (c *checker) checkEnd(x *rawVXLAN) *VXLAN {
	if x == nil {
		return nil
	}
	out := &VXLAN{Address: netip.Addr(x.Address.v), Port: uint16(x.Port.v), MTU: int(x.MTU.v)}
	if x.Tunnel.given == x.Address.given {
		c.errorf(x.spot, "needs exactly one of tunnel and address")
	}
	if known(c.report, c.raw.Tunnels, "tunnel", x.Tunnel) {
		out.Tunnel = string(x.Tunnel.v)
		if t := c.raw.Tunnels.items[out.Tunnel]; !t.Address.given && t.Mesh == nil {
			c.errorf(x.Tunnel.spot, "tunnel %q has no address that could be the VTEP: give it one", out.Tunnel)
		}
	}
	if x.Address.ok && unroutable(out.Address) {
		c.errorf(x.Address.spot, "%s is link-local, loopback or mapped: write an address that the other hosts reach", out.Address)
	}
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
