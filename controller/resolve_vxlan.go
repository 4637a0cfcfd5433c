package controller

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"ripstop/controller/config"
	"ripstop/vpn"
	"ripstop/vswitch"
)

// leastIPv6 is the least MTU with which a device has IPv6 (RFC 8200 section 5).
const leastIPv6 = 1280

// mostStations is the most that a port can have.
const mostStations = 65535

// overlays gives a switch the ways to other hosts: a port for each VLAN with a VNI
// that the switch has a port or a gateway in. What stands in such a VLAN and says no
// MTU gets the one that VXLAN leaves.
func (r *resolver) overlays(name string, out vswitch.Switch) {
	x := r.cfg.Switches[name].VXLAN
	if x == nil {
		return
	}
	local := r.vtep(x)
	if !local.IsValid() {
		r.problem("switch/"+name, fmt.Errorf("vxlan: tunnel %q has no address on this host that could be its VTEP: give the host one, or a vtep", x.Tunnel))
		return
	}
	inner, why := r.inner(x, r.hasIPv6(name))
	spans := map[uint16]bool{}
	for _, vlan := range byName(r.cfg.VLANs) {
		v := r.cfg.VLANs[vlan]
		if v.VNI == 0 || !carries(out, v.ID) {
			continue
		}
		if other, taken := r.spanned[v.VNI]; taken {
			r.problem("switch/"+name, fmt.Errorf("vxlan: VLAN %q spans hosts on switch %q already: have ports in it on one switch with vxlan alone", vlan, other))
			continue
		}
		r.spanned[v.VNI] = name
		spans[v.ID] = true
		if r.evpn() {
			r.networks[v.VNI] = vpn.Network{VLAN: v.ID, VTEP: local}
		}
		r.follow("port/"+name+"/"+vswitch.OverlayPort(v.VNI), x, why)
		out.Ports[vswitch.OverlayPort(v.VNI)] = vswitch.Port{
			Kind: vswitch.VXLAN, PVID: v.ID, MTU: inner,
			// What comes out of it was let in by the switch of another host.
			Security: vswitch.Security{Trusted: true, MACLimit: mostStations},
			Overlay:  vswitch.Overlay{VNI: v.VNI, Local: local, Port: x.Port, Told: r.evpn(), Peers: r.vteps(x, local)},
		}
	}
	for gateway, g := range out.Gateways {
		if spans[g.VLAN] {
			r.clamped[gateway] = "gateway/" + name + "/" + gateway
		}
	}
	for _, object := range fit(name, out, spans, inner) {
		r.follow(object, x, why)
	}
}

// follow notes that the MTU of an object is that of the way that VXLAN takes, and changes
// with it; one that the file chooses does not.
func (r *resolver) follow(object string, x *config.VXLAN, why string) {
	if x.MTU != 0 {
		return
	}
	way := "the way to other hosts"
	if x.Tunnel != "" {
		way = "tunnel " + x.Tunnel
	}
	r.follows[object] = "the MTU of " + way + ": " + why
}

// overhead is what VXLAN takes of a packet that comes from a VTEP.
func overhead(vtep netip.Addr) int {
	if vtep.Is6() {
		return vswitch.OverheadIPv6
	}
	return vswitch.OverheadIPv4
}

// l3 is the VNI in which the host routes, nil without one.
func (r *resolver) l3(c *config.L3VNI) *vpn.L3VNI {
	if c == nil {
		return nil
	}
	local := r.vtep(&c.End)
	if !local.IsValid() {
		r.problem(vpn.L3Object(c.VNI), fmt.Errorf("tunnel %q has no address on this host that could be its VTEP: give the host one, or a vtep", c.End.Tunnel))
		return nil
	}
	out := &vpn.L3VNI{VNI: c.VNI, VTEP: local, Port: cmp.Or(c.End.Port, vswitch.VXLANPort)}
	// Said before a VNI that works is left for one that cannot be had.
	if err := r.host.VNIFree(*out); err != nil {
		r.problem(vpn.L3Object(c.VNI), err)
		return nil
	}
	mtu, why := r.inner(&c.End, true)
	r.follow(vpn.L3Object(c.VNI), &c.End, why)
	out.MTU = mtu
	return out
}

// evpn tells whether hosts tell each other where stations are.
func (r *resolver) evpn() bool { return r.cfg.BGP != nil && r.cfg.BGP.EVPN }

// vtep is this host's end of VXLAN: what the switch says, else what the fabric says of the
// host, else the tunnel's first address.
func (r *resolver) vtep(x *config.VXLAN) netip.Addr {
	if x.Tunnel == "" {
		return x.Address
	}
	if local := r.cfg.Hosts[r.cfg.Host].VTEP; local.IsValid() {
		return local
	}
	if on := r.cfg.Tunnels[x.Tunnel].Addresses; len(on) > 0 {
		return on[0].Addr()
	}
	return netip.Addr{}
}

// inner is the MTU of what leaves the host by VXLAN, and how it comes about: what the file
// says, else what the way leaves, and at most what any VLAN has. A host knows nothing of
// the far ends of longer frames. Where there may be IPv6, it is enough for that.
func (r *resolver) inner(x *config.VXLAN, six bool) (mtu int, why string) {
	local := r.vtep(x)
	family := "IPv4"
	if local.Is6() {
		family = "IPv6"
	}
	underlay, way := r.underlay(x, local)
	fits := underlay - overhead(local)
	sum := fmt.Sprintf("%d = %s - %d (VXLAN over %s)", fits, way, overhead(local), family)
	switch {
	case x.MTU != 0 && x.MTU == fits:
		return x.MTU, sum
	case x.MTU != 0:
		return x.MTU, fmt.Sprintf("chosen for the VLANs; %d would fit: %s", fits, sum)
	case fits > vswitch.DefaultMTU:
		return vswitch.DefaultMTU, fmt.Sprintf("%d, as any port; %d would fit: %s", vswitch.DefaultMTU, fits, sum)
	case fits < leastIPv6 && six:
		return leastIPv6, fmt.Sprintf("IPv6 needs %d, though %s", leastIPv6, sum)
	}
	return fits, sum
}

// underlay is the MTU of the way that VXLAN takes, and how it comes about.
func (r *resolver) underlay(x *config.VXLAN, local netip.Addr) (mtu int, why string) {
	t := r.cfg.Tunnels[x.Tunnel]
	if x.Tunnel == "" || !slices.ContainsFunc(t.Addresses, func(p netip.Prefix) bool { return p.Addr() == local }) {
		return r.host.Carries(local, r.farEnds(x, local))
	}
	as := vpn.Tunnel{MTU: t.MTU, Addresses: t.Addresses, Peers: map[vpn.Key]vpn.Peer{}}
	for _, p := range t.Peers {
		as.Peers[p.PublicKey] = vpn.Peer{Endpoint: p.Endpoint}
	}
	mtu, why = r.host.TunnelMTU(x.Tunnel, as)
	return mtu, fmt.Sprintf("%d (tunnel %s: %s)", mtu, x.Tunnel, why)
}

// hasIPv6 tells whether anything with an address of IPv6 stands on a switch.
func (r *resolver) hasIPv6(name string) bool {
	six := func(p netip.Prefix) bool { return p.Addr().Is6() }
	for _, p := range r.cfg.Switches[name].Ports {
		if slices.ContainsFunc(p.Addresses, six) {
			return true
		}
	}
	for _, v := range r.cfg.VLANs {
		if v.Switch == name && slices.ContainsFunc(v.Gateways, six) {
			return true
		}
	}
	return false
}

// InnerMTU is the MTU of VLANs that leave the host by a switch, and how it comes about; ok
// is false where none does.
func InnerMTU(c *config.Config, h Host, name string) (mtu int, why string, ok bool) {
	r := &resolver{host: h, cfg: c}
	x := c.Switches[name].VXLAN
	if x == nil || !r.vtep(x).IsValid() {
		return 0, "", false
	}
	mtu, why = r.inner(x, r.hasIPv6(name))
	return mtu, why, true
}

// vteps is those of the other hosts that the kernel is told of: where EVPN does it, none.
func (r *resolver) vteps(x *config.VXLAN, local netip.Addr) []netip.Addr {
	if r.evpn() {
		return slices.Clone(x.Peers)
	}
	return r.farEnds(x, local)
}

// farEnds is the VTEPs of the other hosts as far as the file knows them: of the fabric,
// where the switch names none.
func (r *resolver) farEnds(x *config.VXLAN, local netip.Addr) []netip.Addr {
	if len(x.Peers) > 0 {
		return slices.Clone(x.Peers)
	}
	var out []netip.Addr
	for name, h := range r.cfg.Hosts {
		if name != r.cfg.Host && h.VTEP.IsValid() && h.VTEP != local && h.VTEP.Is4() == local.Is4() {
			out = append(out, h.VTEP)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// carries tells whether a switch has anybody in a VLAN.
func carries(sw vswitch.Switch, id uint16) bool {
	for _, p := range sw.Ports {
		if p.PVID == id || slices.Contains(p.Tagged, id) {
			return true
		}
	}
	for _, g := range sw.Gateways {
		if g.VLAN == id {
			return true
		}
	}
	return false
}

// fit gives what stands in VLANs that span hosts the MTU that fits, where it has none
// of its own, and tells which objects these are. A lent device keeps the host's.
func fit(name string, sw vswitch.Switch, spans map[uint16]bool, mtu int) (fitted []string) {
	in := func(id uint16) bool { return spans[id] }
	for n, p := range sw.Ports {
		if p.MTU == 0 && p.Kind != vswitch.Device && (in(p.PVID) || slices.ContainsFunc(p.Tagged, in)) {
			p.MTU = mtu
			sw.Ports[n] = p
			fitted = append(fitted, "port/"+name+"/"+n)
		}
	}
	for n, g := range sw.Gateways {
		if g.MTU == 0 && spans[g.VLAN] {
			g.MTU = mtu
			sw.Gateways[n] = g
			fitted = append(fitted, "gateway/"+name+"/"+n)
		}
	}
	return fitted
}
