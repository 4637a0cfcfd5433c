package controller

import (
	"fmt"
	"net/netip"

	"ripstop/controller/config"
	"ripstop/iscsi"
	"ripstop/vpn"
)

// bgp leaves out a neighbor whose password cannot be read: without it the session
// would be weaker than the file says. Only targets that are served announce their
// portals.
func (r *resolver) bgp(targets iscsi.State) vpn.BGP {
	c := r.cfg.BGP
	if c == nil {
		return vpn.BGP{}
	}
	b := vpn.BGP{
		Speaker:   &vpn.Speaker{ASN: c.ASN, RouterID: c.RouterID, Restart: c.Restart, Multipath: c.Multipath, EVPN: c.EVPN},
		Neighbors: map[string]vpn.Neighbor{},
		Announced: r.announced(c.Announced, targets),
		Import:    c.Import,
		Networks:  r.networks,
	}
	if l3 := r.l3(c.L3); l3 != nil {
		b.L3, b.Prefixes, b.L3Import = l3, r.announced(c.L3.Announced, targets), c.L3.Import
	}
	for _, name := range byName(c.Neighbors) {
		n := c.Neighbors[name]
		password, err := r.password(n.Password)
		if err != nil {
			r.problem("neighbor/"+name, fmt.Errorf("password: %w", err))
			continue
		}
		b.Neighbors[name] = vpn.Neighbor{
			Address: n.Address, ASN: n.ASN, Source: n.Source, Password: password, Hops: n.Hops, Multihop: n.Multihop,
			Hold: n.Hold, PrefixLimit: n.PrefixLimit, Client: n.Client, BFD: n.BFD, Passive: n.Passive,
		}
	}
	return b
}

// announced is each announced prefix, and what it is.
func (r *resolver) announced(c config.Announced, targets iscsi.State) map[netip.Prefix]string {
	out := map[netip.Prefix]string{}
	if c.VLANs {
		for _, name := range byName(r.cfg.VLANs) {
			for _, p := range r.cfg.VLANs[name].Gateways {
				if !p.Addr().IsLinkLocalUnicast() {
					out[p.Masked()] = "vlan " + name
				}
			}
		}
	}
	if c.Portals {
		for _, name := range byName(targets.Targets) {
			for _, p := range targets.Targets[name].Portals {
				a := p.Address.Addr()
				if !a.IsUnspecified() && !a.IsLoopback() && !a.IsLinkLocalUnicast() {
					out[netip.PrefixFrom(a.WithZone(""), a.BitLen())] = "portal"
				}
			}
		}
	}
	for _, p := range c.Prefixes {
		out[p] = "the file"
	}
	return out
}

// password reads the file of a neighbor's password; no name is no password.
func (r *resolver) password(name string) (vpn.Password, error) {
	if name == "" {
		return "", nil
	}
	path := r.path(name)
	text, err := r.host.ReadSecret(path)
	if err != nil {
		return "", err
	}
	if len(text) > vpn.MaxPassword {
		return "", fmt.Errorf("%s: the password has %d bytes: TCP MD5 takes at most %d", path, len(text), vpn.MaxPassword)
	}
	return vpn.Password(text), nil
}
