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

// tunnelMTU is what a tunnel has whose MTU the file does not say, on Ethernet.
const tunnelMTU = 1420

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
	local, underlay := r.vtep(x)
	if !local.IsValid() {
		r.problem("switch/"+name, fmt.Errorf("vxlan: tunnel %q has no address on this host that could be its VTEP: give the host one, or a vtep", x.Tunnel))
		return
	}
	inner := cmp.Or(x.MTU, underlay-overhead(local))
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
		out.Ports[vswitch.OverlayPort(v.VNI)] = vswitch.Port{
			Kind: vswitch.VXLAN, PVID: v.ID, MTU: inner,
			// What comes out of it was let in by the switch of another host.
			Security: vswitch.Security{Trusted: true, MACLimit: mostStations},
			Overlay:  vswitch.Overlay{VNI: v.VNI, Local: local, Port: x.Port, Told: r.evpn(), Peers: r.vteps(x, local)},
		}
	}
	fit(out, spans, inner)
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
	local, underlay := r.vtep(&c.End)
	if !local.IsValid() {
		r.problem(vpn.L3Object(c.VNI), fmt.Errorf("tunnel %q has no address on this host that could be its VTEP: give the host one, or a vtep", c.End.Tunnel))
		return nil
	}
	return &vpn.L3VNI{VNI: c.VNI, VTEP: local, Port: cmp.Or(c.End.Port, vswitch.VXLANPort), MTU: cmp.Or(c.End.MTU, underlay-overhead(local))}
}

// evpn tells whether hosts tell each other where stations are.
func (r *resolver) evpn() bool { return r.cfg.BGP != nil && r.cfg.BGP.EVPN }

// vtep is this host's end of VXLAN, and the MTU of the way from it: what the switch
// says, else what the fabric says of the host, else the tunnel's first address.
func (r *resolver) vtep(x *config.VXLAN) (netip.Addr, int) {
	if x.Tunnel == "" {
		return x.Address, vswitch.DefaultMTU
	}
	t := r.cfg.Tunnels[x.Tunnel]
	local := r.cfg.Hosts[r.cfg.Host].VTEP
	if !local.IsValid() && len(t.Addresses) > 0 {
		local = t.Addresses[0].Addr()
	}
	if slices.ContainsFunc(t.Addresses, func(p netip.Prefix) bool { return p.Addr() == local }) {
		return local, cmp.Or(t.MTU, tunnelMTU)
	}
	return local, vswitch.DefaultMTU
}

// vteps is those of the other hosts: of the fabric, where the switch names none.
func (r *resolver) vteps(x *config.VXLAN, local netip.Addr) []netip.Addr {
	if len(x.Peers) > 0 || r.evpn() {
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
// of its own. A lent device keeps the host's.
func fit(sw vswitch.Switch, spans map[uint16]bool, mtu int) {
	in := func(id uint16) bool { return spans[id] }
	for name, p := range sw.Ports {
		if p.MTU == 0 && p.Kind != vswitch.Device && (in(p.PVID) || slices.ContainsFunc(p.Tagged, in)) {
			p.MTU = mtu
			sw.Ports[name] = p
		}
	}
	for name, g := range sw.Gateways {
		if g.MTU == 0 && spans[g.VLAN] {
			g.MTU = mtu
			sw.Gateways[name] = g
		}
	}
}
