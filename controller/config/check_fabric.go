package config

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"ripstop/vpn"
)

// noHosts refuses what only several hosts need.
func (c *checker) noHosts() {
	for on := range c.raw.placed() {
		if on.On.given {
			c.errorf(on.On.spot, "says which hosts have it, and the files have no hosts: leave it out, or add hosts")
		}
	}
	for _, t := range c.raw.Tunnels.all() {
		if t.Mesh != nil {
			c.errorf(t.Mesh.spot, "makes peers of the hosts, and the files have none: add hosts, or name peers")
		}
	}
}

// checkFabric checks what is among hosts, and the part of each as a configuration
// of its own.
func (c *checker) checkFabric() {
	hosts := c.raw.Hosts.order
	objects := 0
	for on, in := range c.raw.placed() {
		objects++
		c.checkOn(on, in)
	}
	switch {
	case len(hosts) == 0:
		c.errorf(c.raw.Hosts.spot, "names no host: name one, or leave the key out")
		return
	case len(hosts) > maxHosts || len(hosts)*objects > maxParts:
		c.errorf(c.raw.Hosts.spot, "%d hosts and %d objects are too many: at most %d hosts, and hosts times objects at most %d", len(hosts), objects, maxHosts, maxParts)
		return
	}
	c.checkHosts()
	c.checkAcross()
	c.checkMeshes()
	c.checkParts(hosts)
	c.cfg.fabric = c.raw
}

// checkOn holds the hosts that an object names against those that there are, and
// those of what it lies in.
func (c *checker) checkOn(on, in *rawOn) {
	seen := map[name]bool{}
	for v := range on.On.valid() {
		switch {
		case !known(c.report, c.raw.Hosts, "host", v):
		case seen[v.v]:
			c.errorf(v.spot, "host %q is given twice", v.v)
		case !in.has(string(v.v)):
			c.errorf(v.spot, "what it lies in is on %s alone, by %s: name one of those", in.names(), in.On.spot)
		}
		seen[v.v] = true
	}
}

// checkParts checks each host's part. What is said of every host is said once,
// and what is said of some names them.
func (c *checker) checkParts(hosts []string) {
	said := map[Error]bool{}
	c.faults = slices.DeleteFunc(c.faults, func(f Error) bool { // what two meshes say of one host
		twice := said[f]
		said[f] = true
		return twice
	})
	for _, w := range c.warnings {
		said[Error(w)] = true
	}
	var faults, warnings []Error
	of := map[Error][]string{}
	for _, h := range hosts {
		part := newChecker(&report{broken: c.broken, compared: c.compared, kept: c.kept}, c.raw.forHost(h))
		part.check()
		c.compared, c.more = part.compared, c.more+part.more
		note := func(list *[]Error, e Error) {
			if said[e] {
				return
			}
			if of[e] == nil {
				*list = append(*list, e)
			}
			of[e] = append(of[e], h)
		}
		for _, f := range part.faults {
			note(&faults, f)
		}
		for _, w := range part.warnings {
			note(&warnings, Error(w))
		}
		if len(faults) > maxFaults {
			break
		}
	}
	named := func(e Error) Error {
		if len(of[e]) < len(hosts) {
			e.Message = "on " + few(of[e]) + ": " + e.Message
		}
		return e
	}
	for _, f := range faults {
		if len(c.faults) < maxFaults {
			c.faults = append(c.faults, named(f))
		} else {
			c.more++
		}
	}
	for _, w := range warnings {
		if len(c.warnings) < maxFaults {
			c.warnings = append(c.warnings, Warning(named(w)))
		}
	}
}

// holder is who has something that only one may have.
type holder struct {
	spot
	on []string // its hosts
}

// checkHosts fills in the hosts, and refuses what two of them have.
func (c *checker) checkHosts() {
	c.cfg.Hosts = map[string]Host{}
	keys, ends := map[publicKey]spot{}, map[endpoint]spot{}
	for n, h := range c.raw.Hosts.all() {
		c.objectName(n, c.raw.Hosts.at[n])
		if first, twice := keys[h.PublicKey.v]; h.PublicKey.ok && twice {
			c.errorf(h.PublicKey.spot, "two hosts have one public key: the other is %s at %s", first.path, first)
		} else if h.PublicKey.ok {
			keys[h.PublicKey.v] = h.PublicKey.spot
		}
		if first, twice := keys[h.Next.v]; h.Next.ok && twice {
			c.errorf(h.Next.spot, "a public key is given twice: the other is %s at %s", first.path, first)
		} else if h.Next.ok {
			keys[h.Next.v] = h.Next.spot
		}
		if first, twice := ends[h.Endpoint.v]; h.Endpoint.ok && twice {
			c.errorf(h.Endpoint.spot, "two hosts have one endpoint: the other is %s at %s", first.path, first)
		} else if h.Endpoint.ok {
			ends[h.Endpoint.v] = h.Endpoint.spot
		}
		out := Host{
			Endpoint:  string(h.Endpoint.v),
			PublicKey: vpn.Key(h.PublicKey.v),
			Next:      vpn.Key(h.Next.v),
			Addresses: prefixes(h.Address),
			NAT:       bool(h.NAT.v) || !h.Endpoint.given,
			VTEP:      netip.Addr(h.VTEP.v),
		}
		for v := range h.Subnets.valid() {
			p := c.masked(v)
			if p.Bits() == 0 {
				c.errorf(v.spot, "%s is everything: name the prefixes that are behind the host", p)
			}
			if slices.Contains(out.Subnets, p) {
				c.errorf(v.spot, "%s is given twice", p)
				continue
			}
			out.Subnets = append(out.Subnets, p)
		}
		slices.SortFunc(out.Subnets, comparePrefix)
		if !out.VTEP.IsValid() && len(out.Addresses) > 0 {
			out.VTEP = out.Addresses[0].Addr()
		}
		c.cfg.Hosts[n] = out
	}
	c.checkSubnets()
}

// subnet is a prefix that is behind a host.
type subnet struct {
	spot
	host string
	netip.Prefix
}

// checkSubnets refuses prefixes that lie behind two hosts: nobody could tell to
// which of them a packet goes.
func (c *checker) checkSubnets() {
	var all []subnet
	for n, h := range c.raw.Hosts.all() {
		for v := range h.Subnets.valid() {
			all = append(all, subnet{v.spot, n, netip.Prefix(v.v).Masked()})
		}
	}
	slices.SortStableFunc(all, func(a, b subnet) int { return comparePrefix(a.Prefix, b.Prefix) })
	var around []subnet
	for _, s := range all {
		for len(around) > 0 && !around[len(around)-1].Overlaps(s.Prefix) {
			around = around[:len(around)-1]
		}
		if len(around) > 0 {
			if o := around[len(around)-1]; o.host != s.host {
				c.errorf(s.spot, "%s overlaps %s, which is behind host %q by %s: a prefix has one way: give each host its own", s.Prefix, o.Prefix, o.host, o.spot)
			}
		}
		around = append(around, s)
	}
}

// checkAcross refuses what the objects of several hosts have twice and only one
// may have: the same checks that hold on one host.
func (c *checker) checkAcross() {
	all := c.raw.Hosts.order
	ids := map[vlanID]string{}
	for n, v := range c.raw.VLANs.all() {
		if first, twice := ids[v.ID.v]; v.ID.ok && twice {
			c.errorf(v.ID.spot, "VLAN id %d has two names: the other is %q at %s", v.ID.v, first, c.raw.VLANs.at[first])
		} else if v.ID.ok {
			ids[v.ID.v] = n
		}
	}
	c.checkHostAddresses()
	c.checkPortAddresses()
	names := map[string]holder{}
	for written, t := range c.raw.Targets.all() {
		n, err := iscsiName(written)
		if err != nil {
			continue
		}
		on := t.hosts(all)
		if first, twice := names[n]; twice {
			c.errorf(t.spot, "is given twice, as iSCSI names have no upper case: the first is at %s", first)
		} else if len(on) > 1 {
			c.errorf(t.spot, "would be on %s, and an iSCSI name is one target's: write on: with the host that has its LUNs", few(on))
		}
		names[n] = holder{t.spot, on}
	}
	if b := c.raw.BGP; b != nil && b.RouterID.ok && len(b.hosts(all)) > 1 {
		c.errorf(b.RouterID.spot, "would be the router-id of %s: leave it out, and each has the lowest address of its gateways and tunnels, or write on: with one host", few(b.hosts(all)))
	}
}

// checkHostAddresses refuses one address for two hosts, or for two things of the
// hosts. Link-local ones are each interface's own.
func (c *checker) checkHostAddresses() {
	all := c.raw.Hosts.order
	taken := map[netip.Addr]holder{}
	take := func(v value[hostAddr], on []string, shared bool, how string) {
		a := prefixOf(v).Addr()
		if !v.ok || a.IsLinkLocalUnicast() {
			return
		}
		if first, twice := taken[a]; twice {
			c.errorf(v.spot, "the fabric would have %s twice: the other is %s at %s", a, first.path, first)
			return
		}
		taken[a] = holder{v.spot, on}
		if len(on) > 1 && !shared {
			c.errorf(v.spot, "%s would be the address of %s: %s", a, few(on), how)
		}
	}
	for n, h := range c.raw.Hosts.all() {
		for v := range h.Address.valid() {
			take(v, []string{n}, false, "")
		}
		if h.VTEP.ok {
			own := slices.ContainsFunc(prefixes(h.Address), func(p netip.Prefix) bool { return p.Addr() == netip.Addr(h.VTEP.v) })
			if first, twice := taken[netip.Addr(h.VTEP.v)]; twice && !own {
				c.errorf(h.VTEP.spot, "the fabric would have %s twice: the other is %s at %s", netip.Addr(h.VTEP.v), first.path, first)
			}
			taken[netip.Addr(h.VTEP.v)] = holder{h.VTEP.spot, []string{n}}
		}
	}
	for _, v := range c.raw.VLANs.all() {
		anycast := bool(v.Anycast.v)
		given := map[netip.Addr]bool{}
		for i, a := range v.Gateway.items {
			on := slices.DeleteFunc(v.Gateway.on[i].hosts(all), func(h string) bool { return !v.has(h) })
			if anycast && given[prefixOf(a).Addr()] {
				continue // of another host
			}
			given[prefixOf(a).Addr()] = a.ok
			take(a, on, anycast, "write anycast: true, or which host has it, as in gateway: {address: …, on: "+all[0]+"}")
		}
	}
	for _, t := range c.raw.Tunnels.all() {
		for v := range t.Address.valid() {
			take(v, t.hosts(all), false, "write on: with one of them, or mesh: full, which takes the addresses of the hosts")
		}
	}
}

// checkPortAddresses refuses one address, or one Ethernet address, for ports of
// two hosts in one VLAN.
func (c *checker) checkPortAddresses() {
	all := c.raw.Hosts.order
	taken := map[string]holder{}
	take := func(key, what string, at spot, vlan string, on []string) {
		if first, twice := taken[key]; twice {
			if !overlap(first.on, on) { // else it is said on the host that has both
				c.errorf(at, "%s is taken in VLAN %s: %s at %s has it", what, vlan, first.path, first)
			}
			return
		}
		taken[key] = holder{at, on}
		if len(on) > 1 {
			c.errorf(at, "%s would be on %s: write on: with the host that has the port", what, few(on))
		}
	}
	for n, v := range c.raw.VLANs.all() {
		for i, a := range v.Gateway.items {
			if a.ok {
				on := slices.DeleteFunc(v.Gateway.on[i].hosts(all), func(h string) bool { return !v.has(h) })
				taken[n+" "+prefixOf(a).Addr().String()] = holder{a.spot, on}
			}
		}
	}
	for _, sw := range c.raw.Switches.all() {
		for _, p := range sw.Ports.all() {
			on := slices.DeleteFunc(p.hosts(all), func(h string) bool { return !sw.has(h) })
			untagged := cmp.Or(string(p.VLAN.v), string(p.Native.v))
			if untagged == "" {
				continue
			}
			for a := range p.Address.valid() {
				if ip := prefixOf(a).Addr(); !ip.IsLinkLocalUnicast() {
					take(untagged+" "+ip.String(), ip.String(), a.spot, untagged, on)
				}
			}
			if p.MAC.ok {
				key := fmt.Sprintf("%s %x", untagged, p.MAC.v)
				if first, twice := taken[key]; twice {
					c.errorf(p.MAC.spot, "is taken in VLAN %s: %s at %s has it", untagged, first.path, first)
				} else {
					take(key, "the Ethernet address", p.MAC.spot, untagged, on)
				}
			}
		}
	}
}

func overlap(a, b []string) bool {
	return slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

// checkMeshes checks who is in each mesh, and that they can find one another.
func (c *checker) checkMeshes() {
	in := map[string]spot{} // the mesh of a host
	for n, t := range c.raw.Tunnels.all() {
		if t.Mesh == nil {
			continue
		}
		hosts := t.hosts(c.raw.Hosts.order)
		for _, h := range hosts {
			if first, twice := in[h]; twice {
				c.errorf(t.Mesh.spot, "host %q is in the mesh of %s at %s already: a host is in one, write on: with others", h, first.path, first)
			}
			in[h] = t.Mesh.spot
		}
		if t.Address.given {
			c.errorf(t.Address.spot, "a mesh has the addresses of its hosts: leave it out, and write them under hosts")
		}
		for v := range t.Mesh.Hub.valid() {
			if known(c.report, c.raw.Hosts, "host", v) && !slices.Contains(hosts, string(v.v)) {
				c.errorf(v.spot, "host %q is not in the mesh: %s", v.v, few(hosts))
			}
		}
		c.checkMembersOf(n, t, hosts)
		c.checkEndpoints(t, hosts)
	}
}

// checkMembersOf demands what a host of a mesh must have.
func (c *checker) checkMembersOf(n string, t *rawTunnel, hosts []string) {
	keys, owners := map[publicKey]string{}, map[netip.Prefix][]string{}
	for _, h := range hosts {
		for _, own := range c.cfg.Hosts[h].prefixes() {
			owners[own] = append(owners[own], h)
		}
		host := c.raw.Hosts.items[h]
		switch {
		case host.PublicKey.given:
		case host.Next.given:
			c.errorf(host.Next.spot, "is the key that goes after public-key, which is missing: write this one there")
		default:
			c.warnf(host.spot, "public-key is missing: the mesh of tunnel %q is without the host until it joins with what `ripstop host token %s` prints, or the file has what `ripstop key %s` prints there", n, h, t.PrivateKey.v)
		}
		if !host.Address.given {
			c.errorf(host.spot, "address is missing, as the host is in the mesh of tunnel %q: give it one", n)
		}
		if host.Endpoint.given && !t.Listen.given {
			c.errorf(t.spot, "listen is missing: the endpoints of hosts name a port, and each kernel would choose another one")
		}
		if p, clash := t.Peers.items[h]; clash {
			c.errorf(p.spot, "is called as a host of the mesh, which is a peer: choose another name, or leave it out")
		}
		keys[host.PublicKey.v] = h
		keys[host.Next.v] = h
	}
	for _, p := range t.Peers.all() {
		for _, v := range []value[publicKey]{p.PublicKey, p.Next} {
			if h, clash := keys[v.v]; v.ok && clash {
				c.laterf(v.spot, "is the key of host %q, which the mesh makes a peer: leave this one out", h)
			}
		}
		for v := range p.AllowedIPs.valid() {
			own := netip.Prefix(v.v).Masked()
			for _, h := range owners[own] {
				c.errorf(v.spot, "%s is that of host %q, which the mesh makes a peer: a prefix has one peer", own, h)
			}
		}
	}
}

// prefixes is what the host's peers may be sent from it.
func (h Host) prefixes() []netip.Prefix {
	out := slices.Clone(h.Subnets)
	for _, a := range h.Addresses {
		out = append(out, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
	}
	slices.SortFunc(out, comparePrefix)
	return slices.Compact(out)
}

// checkEndpoints demands that of two hosts which are peers one at least can be
// found, and that no endpoint is reached through the mesh itself.
func (c *checker) checkEndpoints(t *rawTunnel, hosts []string) {
	hubs := t.Mesh.hubs()
	for i, a := range hosts {
		for _, b := range hosts[i+1:] {
			if !joined(hubs, a, b) || c.raw.Hosts.items[a].Endpoint.given || c.raw.Hosts.items[b].Endpoint.given {
				continue
			}
			c.errorf(c.raw.Hosts.items[b].spot, "neither it nor host %q at %s has an endpoint, and they are peers in a mesh: give one of them an endpoint, or let a hub be between them, as in mesh: {hub: HOST}", a, c.raw.Hosts.items[a].spot)
		}
		end := c.raw.Hosts.items[a].Endpoint
		at, err := netip.ParseAddrPort(string(end.v))
		if err != nil {
			continue // a name, which is looked up on each host
		}
		for _, h := range hosts {
			for _, p := range c.cfg.Hosts[h].prefixes() {
				if p.Contains(at.Addr()) {
					c.errorf(end.spot, "%s is inside %s, which is reached through the mesh: the tunnel would lead into itself; take the prefix out of host %q, or give the endpoint's address", at.Addr(), p, h)
				}
			}
		}
	}
}

func (m *rawMesh) hubs() []string {
	var out []string
	for v := range m.Hub.valid() {
		if !slices.Contains(out, string(v.v)) {
			out = append(out, string(v.v))
		}
	}
	return out
}

// joined tells whether two hosts of a mesh are peers.
func joined(hubs []string, a, b string) bool {
	return a != b && (len(hubs) == 0 || slices.Contains(hubs, a) || slices.Contains(hubs, b))
}

// mesh fills in what a tunnel has of the fabric.
func (c *checker) mesh(t *rawTunnel, out *Tunnel) {
	if t.Mesh == nil || c.raw.self == "" {
		return
	}
	out.Mesh = Mesh{Hosts: t.hosts(c.raw.Hosts.order), Hubs: t.Mesh.hubs()}
	self := c.raw.Hosts.items[c.raw.self]
	out.PublicKey, out.Next = vpn.Key(self.PublicKey.v), vpn.Key(self.Next.v)
}

// meshPeers adds the peers that the mesh of each tunnel makes of the other hosts.
func (c *Config) meshPeers() {
	for n, t := range c.Tunnels {
		maps.Copy(t.Peers, t.Mesh.peers(c.Host, c.Hosts))
		t.Awaited = t.Mesh.awaited(c.Host, c.Hosts)
		c.Tunnels[n] = t
	}
}

// awaited is what will be behind the hosts that have no key yet, which nobody else gets.
func (m Mesh) awaited(self string, hosts map[string]Host) map[string][]netip.Prefix {
	var out map[string][]netip.Prefix
	for _, n := range m.Hosts {
		if n == self || hosts[n].PublicKey != (vpn.Key{}) {
			continue
		}
		if out == nil {
			out = map[string][]netip.Prefix{}
		}
		out[n] = hosts[n].prefixes()
	}
	return out
}

// peers is the peers of one host of a mesh, by the other's name: their addresses
// and what is behind them. Of a mesh with hubs the first hub carries, towards all
// others, what is behind hosts that are no peers of theirs.
func (m Mesh) peers(self string, hosts map[string]Host) map[string]Peer {
	out := map[string]Peer{}
	carried := ""
	for _, h := range m.Hubs {
		if h != self {
			carried = h
			break
		}
	}
	var rest []netip.Prefix
	for _, n := range m.Hosts {
		h := hosts[n]
		if n == self || h.PublicKey == (vpn.Key{}) {
			continue
		}
		if !joined(m.Hubs, self, n) {
			rest = append(rest, h.prefixes()...)
			continue
		}
		p := Peer{PublicKey: h.PublicKey, Next: h.Next, Endpoint: h.Endpoint, AllowedIPs: h.prefixes()}
		if hosts[self].NAT {
			p.Keepalive = natKeepalive
		}
		out[n] = p
	}
	if p, ok := out[carried]; ok && len(rest) > 0 {
		p.AllowedIPs = append(p.AllowedIPs, rest...)
		slices.SortFunc(p.AllowedIPs, comparePrefix)
		p.AllowedIPs = slices.Compact(p.AllowedIPs)
		out[carried] = p
	}
	return out
}
