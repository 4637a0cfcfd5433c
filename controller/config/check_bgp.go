package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"ripstop/vpn"
)

// What holds when the file does not say.
const (
	defaultRestart     = restart(120 * time.Second)
	defaultHold        = hold(90 * time.Second)
	defaultPrefixLimit = prefixLimit(10_000)
	defaultMultipath   = multipath(8)
)

func (c *checker) checkBGP() {
	b := c.raw.BGP
	if b == nil {
		return
	}
	out := &BGP{
		ASN:       uint32(b.ASN.v),
		RouterID:  netip.Addr(b.RouterID.v),
		Neighbors: map[string]Neighbor{},
		Restart:   time.Duration(b.Restart.or(defaultRestart)),
		Multipath: int(b.Multipath.or(defaultMultipath)),
		EVPN:      bool(b.EVPN.v),
	}
	if b.Restart.given {
		out.Restart = time.Duration(b.Restart.v)
	}
	if !b.RouterID.given {
		if out.RouterID = c.lowestIPv4(); !out.RouterID.IsValid() {
			c.errorf(b.spot, "router-id is missing, and no gateway and no tunnel has an IPv4 address that could be it: write one")
		}
	}
	addresses := map[netip.Addr]spot{}
	for n, raw := range b.Neighbors.all() {
		if !c.objectName(n, b.Neighbors.at[n]) {
			continue
		}
		out.Neighbors[n] = c.checkNeighbor(raw, b)
		if first, twice := addresses[netip.Addr(raw.Address.v)]; raw.Address.ok && twice {
			c.errorf(raw.Address.spot, "two neighbors have one address: the other is %s at %s", first.path, first)
		} else if raw.Address.ok {
			addresses[netip.Addr(raw.Address.v)] = raw.Address.spot
		}
	}
	c.checkHostNeighbors(b, out)
	out.Announced = c.checkAnnounced(b.Announce)
	out.Import = c.checkImports(b.Import, b)
	out.L3 = c.checkL3VNI(b)
	c.cfg.BGP = out
}

// checkHostNeighbors makes neighbors of the other hosts.
func (c *checker) checkHostNeighbors(b *rawBGP, out *BGP) {
	h := b.Hosts
	if h == nil || !known(c.report, c.raw.Tunnels, "tunnel", h.Tunnel) {
		return
	}
	t := c.raw.Tunnels.items[string(h.Tunnel.v)]
	if t.Mesh == nil {
		c.errorf(h.Tunnel.spot, "tunnel %q has no mesh, so that it joins no hosts: write mesh: full there, or the neighbors one by one", h.Tunnel.v)
		return
	}
	self := c.raw.Hosts.items[c.raw.self]
	if self == nil || !t.has(c.raw.self) {
		return
	}
	for _, name := range t.hosts(b.hosts(c.raw.Hosts.order)) {
		if name == c.raw.self || !c.raw.Hosts.items[name].PublicKey.given {
			continue // without a key it is nobody's peer yet
		}
		if n, twice := b.Neighbors.items[name]; twice {
			c.errorf(n.spot, "is a host's name, and hosts: makes a neighbor of it: leave this one out, or call it otherwise")
			continue
		}
		n := Neighbor{ASN: out.ASN, Hold: time.Duration(h.Hold.or(defaultHold)), PrefixLimit: uint32(defaultPrefixLimit), BFD: time.Duration(h.BFD.v)}
		if n.Source, n.Address = sameVersion(self, c.raw.Hosts.items[name]); n.Address.IsValid() {
			n.Passive = waits(c.raw.self, self, name, c.raw.Hosts.items[name])
			out.Neighbors[name] = n
		} else if !c.broken {
			c.errorf(h.spot, "hosts %s and %s have no address of one IP version in the mesh: give both an IPv4 or both an IPv6 one", c.raw.self, name)
		}
	}
}

// waits tells whether of two hosts the first waits for the other to connect, so that they do
// not connect at one time: the one that is found more easily, or else the later name.
func waits(name string, host *rawHost, otherName string, other *rawHost) bool {
	found := func(h *rawHost) int {
		switch {
		case !h.Endpoint.given:
			return 0
		case bool(h.NAT.v):
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(found(host), found(other)), cmp.Compare(name, otherName)) > 0
}

// sameVersion is an address of each of two hosts, IPv4 ones where both have some.
func sameVersion(a, b *rawHost) (of, to netip.Addr) {
	for _, four := range []bool{true, false} {
		first := func(h *rawHost) netip.Addr {
			for v := range h.Address.valid() {
				if p := prefixOf(v).Addr(); p.Is4() == four && !p.IsLinkLocalUnicast() {
					return p
				}
			}
			return netip.Addr{}
		}
		if of, to = first(a), first(b); of.IsValid() && to.IsValid() {
			return of, to
		}
	}
	return netip.Addr{}, netip.Addr{}
}

// lowestIPv4 is the lowest address that the file gives to the host itself and to
// no other.
func (c *checker) lowestIPv4() netip.Addr {
	var all []netip.Addr
	for _, v := range c.cfg.VLANs {
		if v.Anycast {
			continue
		}
		for _, p := range v.Gateways {
			all = append(all, p.Addr())
		}
	}
	for _, t := range c.cfg.Tunnels {
		for _, p := range t.Addresses {
			all = append(all, p.Addr())
		}
	}
	all = slices.DeleteFunc(all, func(a netip.Addr) bool { return !a.Is4() })
	if len(all) == 0 {
		return netip.Addr{}
	}
	return slices.MinFunc(all, netip.Addr.Compare)
}

// hostHas is where the file gives an address to the host itself, "" where it does not.
func (c *checker) hostHas(a netip.Addr) string {
	for n, v := range c.cfg.VLANs {
		if slices.ContainsFunc(v.Gateways, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return fmt.Sprintf("the gateway of VLAN %q", n)
		}
	}
	for n, t := range c.cfg.Tunnels {
		if slices.ContainsFunc(t.Addresses, func(p netip.Prefix) bool { return p.Addr() == a }) {
			return fmt.Sprintf("an address of tunnel %q", n)
		}
	}
	return ""
}

func (c *checker) checkNeighbor(n *rawNeighbor, b *rawBGP) Neighbor {
	address, source := netip.Addr(n.Address.v), netip.Addr(n.Source.v)
	internal := n.ASN.ok && b.ASN.ok && n.ASN.v == b.ASN.v
	if what := c.hostHas(address); n.Address.ok && what != "" {
		c.errorf(n.Address.spot, "%s is %s, this host itself: write the neighbor's address", address, what)
	}
	if n.Address.ok && (address.IsLinkLocalUnicast() || address.IsLoopback() || address.Is4In6()) {
		c.errorf(n.Address.spot, "%s is link-local, loopback or mapped: write an address that both hosts have in one network", address)
	}
	if n.Source.ok && n.Address.ok && source.Is4() != address.Is4() {
		c.errorf(n.Source.spot, "%s is of another IP version than the neighbor's %s", source, address)
	}
	if n.TTLSecurity.given && n.Multihop.given {
		c.errorf(n.Multihop.spot, "goes with no ttl-security: leave multihop out and write the number of hops into ttl-security")
	}
	if n.Multihop.given && internal {
		c.warnf(n.Multihop.spot, "is for neighbors of other autonomous systems: sessions within one cross as many hops as it takes")
	}
	if bool(n.Client.v) && n.ASN.ok && b.ASN.ok && !internal {
		c.errorf(n.Client.spot, "the neighbor is in autonomous system %d and this host in %d: routes are reflected within one only", n.ASN.v, b.ASN.v)
	}
	if n.BFD.given && n.Multihop.given {
		c.errorf(n.BFD.spot, "BFD is for neighbors on the link: leave bfd or multihop out")
	}
	return Neighbor{
		Address:     address,
		ASN:         uint32(n.ASN.v),
		Source:      source,
		Password:    string(n.Password.v),
		Hops:        uint8(n.TTLSecurity.v),
		Multihop:    uint8(n.Multihop.v),
		Hold:        time.Duration(n.Hold.or(defaultHold)),
		PrefixLimit: uint32(n.PrefixLimit.or(defaultPrefixLimit)),
		Client:      bool(n.Client.v),
		BFD:         time.Duration(n.BFD.v),
	}
}

func (c *checker) checkAnnounced(all many[announced]) (out Announced) {
	for v := range all.valid() {
		switch v.v.kind {
		case "vlans":
			out.VLANs = true
		case "portals":
			out.Portals = true
		default:
			p := c.masked(value[anyPrefix]{spot: v.spot, v: v.v.prefix})
			if p.Bits() == 0 || p.Addr().IsMulticast() || p.Addr().IsLoopback() || p.Addr().IsLinkLocalUnicast() {
				c.errorf(v.spot, "%s is nothing that a host may announce", p)
			}
			if !slices.Contains(out.Prefixes, p) {
				out.Prefixes = append(out.Prefixes, p)
			}
		}
	}
	slices.SortFunc(out.Prefixes, comparePrefix)
	return out
}

// masked is a prefix without what stands behind its length, which is warned of.
func (c *checker) masked(v value[anyPrefix]) netip.Prefix {
	written := netip.Prefix(v.v)
	if m := written.Masked(); m != written {
		c.warnf(v.spot, "%s has bits behind its prefix length: it is taken as %s", written, m)
		return m
	}
	return written
}

func (c *checker) checkImports(all list[rawImport], b *rawBGP) (out []vpn.Filter) {
	for _, raw := range all.items {
		out = append(out, c.checkImport(raw, b))
	}
	return out
}

func (c *checker) checkImport(r *rawImport, b *rawBGP) vpn.Filter {
	f := vpn.Filter{Reject: r.Reject.given, Default: bool(r.Default.v), Table: uint32(r.Table.or(vpn.Main))}
	if r.Accept.given == r.Reject.given {
		c.errorf(r.spot, "needs exactly one of accept and reject")
		return f
	}
	v := r.Accept
	if f.Reject {
		v = r.Reject
	}
	if f.Reject && r.Table.given {
		c.errorf(r.Table.spot, "what is rejected goes to no table: leave it out")
	}
	if v.ok {
		f.Prefix = c.masked(v)
		f.Longest = f.Prefix.Addr().BitLen()
	}
	if r.Longest.ok && v.ok {
		if n := int(r.Longest.v); n < f.Prefix.Bits() || n > f.Longest {
			c.errorf(r.Longest.spot, "%d is not in %d–%d: nothing would match", n, f.Prefix.Bits(), f.Longest)
		}
		f.Longest = int(r.Longest.v)
	}
	for n := range r.From.valid() {
		if known(c.report, b.Neighbors, "neighbor", n) && !slices.Contains(f.From, string(n.v)) {
			f.From = append(f.From, string(n.v))
		}
	}
	slices.Sort(f.From)
	return f
}
