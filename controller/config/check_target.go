package config

import (
	"iter"
	"net/netip"
	"slices"
	"strconv"
)

// anyInitiator is the key for initiators that have no key of their own.
const anyInitiator = "any"

func (c *checker) checkTargets() {
	names, served := map[string]spot{}, map[lunRef]spot{}
	var targets []*rawTarget
	for written, t := range c.raw.Targets.all() {
		n, ok := c.takeIQN(names, written, t.spot)
		out := Target{
			Portals:    c.portals(t),
			LUNs:       c.lunMap(t, served),
			Initiators: map[string]Initiator{},
		}
		c.initiators(t, &out)
		out.QoS = c.qos(&t.rawQoS)
		targets = append(targets, t)
		if ok {
			c.cfg.Targets[n] = out
		}
	}
	c.checkListeners()
	c.checkStacks()
	c.checkShared(targets)
}

// checkListeners refuses an address portal where a VLAN's or tunnel's portal
// listens: the kernel gives a port to sockets bound to devices, or to one that
// is not.
func (c *checker) checkListeners() {
	bound, ports := map[netip.AddrPort]*rawPortal{}, map[uint16]*rawPortal{}
	for p := range c.eachPortal() {
		on := c.raw.VLANs.items[string(p.VLAN.v)].gateways()
		if p.Tunnel.ok {
			on = c.raw.Tunnels.items[string(p.Tunnel.v)].addresses()
		}
		for v := range on.valid() {
			at := netip.AddrPortFrom(prefixOf(v).Addr(), uint16(p.Port.or(iscsiPort)))
			bound[at], ports[at.Port()] = p, p
		}
	}
	for p := range c.eachPortal() {
		at := netip.AddrPort(p.Address.v)
		other, clash := bound[at]
		if at.Addr().IsValid() && at.Addr().IsUnspecified() {
			other, clash = ports[at.Port()]
		}
		if clash {
			c.errorf(p.Address.spot, "%s is listened on already, for %s at %s: leave one of the two out", at, other.path, other.spot)
		}
	}
}

// checkStacks refuses host and user portals of one tunnel.
func (c *checker) checkStacks() {
	user := map[name]*rawPortal{}
	for p := range c.eachPortal() {
		if p.Tunnel.ok && bool(p.Stack.v) {
			user[p.Tunnel.v] = p
		}
	}
	for p := range c.eachPortal() {
		if other := user[p.Tunnel.v]; p.Tunnel.ok && other != nil && !bool(p.Stack.v) {
			c.errorf(p.spot, "tunnel %q has no interface on the host, for %s at %s says `stack: user`: say it here, too, or there no more", p.Tunnel.v, other.path, other.Stack.spot)
		}
	}
	for n := range user {
		if t, ok := c.cfg.Tunnels[string(n)]; ok {
			t.User = true
			c.cfg.Tunnels[string(n)] = t
		}
	}
}

// origin is where an initiator must come from.
func (c *checker) origin(t *rawTarget, i *rawInitiator, out *Initiator) {
	if i.Peer.given && !i.Tunnel.given {
		c.errorf(i.Peer.spot, "is a peer of no tunnel: name the tunnel as well, as in {tunnel: site, peer: branch}")
	}
	for v := range i.Tunnel.valid() {
		if !known(c.report, c.raw.Tunnels, "tunnel", v) {
			continue
		}
		if slices.Contains(out.Tunnels, string(v.v)) {
			c.errorf(v.spot, "tunnel %q is given twice", v.v)
			continue
		}
		out.Tunnels = append(out.Tunnels, string(v.v))
		if !slices.ContainsFunc(t.Portals.items, func(p *rawPortal) bool { return !p.Tunnel.ok && p.Tunnel.given || p.Tunnel.v == v.v }) {
			c.errorf(v.spot, "the target has no portal in tunnel %q, so that this initiator could never log in: give it one", v.v)
		}
		c.peerOf(string(v.v), i.Peer)
	}
	slices.Sort(out.Tunnels)
	out.Peer = string(i.Peer.v)
	for v := range i.Address.valid() {
		p := netip.Prefix(v.v).Masked()
		if p != netip.Prefix(v.v) {
			c.warnf(v.spot, "%s has bits behind its prefix length: it is taken as %s", netip.Prefix(v.v), p)
		}
		out.Addresses = append(out.Addresses, p)
	}
	slices.SortFunc(out.Addresses, comparePrefix)
	out.Addresses = slices.Compact(out.Addresses)
	c.checkSources(i, out)
}

// peerOf demands that a tunnel has the peer, or that the mesh may make it one.
func (c *checker) peerOf(tunnel string, peer value[name]) {
	if !peer.ok || c.broken {
		return
	}
	if t := c.raw.Tunnels.items[tunnel]; t.Mesh != nil && slices.Contains(t.hosts(c.raw.Hosts.order), string(peer.v)) {
		return
	}
	known(c.report, c.raw.Tunnels.items[tunnel].Peers, "peer of tunnel "+strconv.Quote(tunnel), peer)
}

// checkSources refuses addresses that the peer may not send from.
func (c *checker) checkSources(i *rawInitiator, out *Initiator) {
	if c.broken || out.Peer == "" {
		return
	}
	for v := range i.Address.valid() {
		p := netip.Prefix(v.v).Masked()
		for _, tunnel := range out.Tunnels {
			peer := c.raw.Tunnels.items[tunnel].Peers.items[out.Peer]
			if peer == nil {
				return
			}
			reaches := false
			for a := range peer.AllowedIPs.valid() {
				reaches = reaches || netip.Prefix(a.v).Overlaps(p)
			}
			if !reaches && len(out.Tunnels) == 1 {
				c.errorf(v.spot, "peer %q of tunnel %q may not send from %s, so that this initiator could never log in: see its allowed-ips", out.Peer, tunnel, p)
			}
		}
	}
}

// eachPortal goes through the portals of all targets.
func (c *checker) eachPortal() iter.Seq[*rawPortal] {
	return func(yield func(*rawPortal) bool) {
		for _, t := range c.raw.Targets.all() {
			for _, p := range t.Portals.items {
				if !yield(p) {
					return
				}
			}
		}
	}
}

func (v *rawVLAN) gateways() many[hostAddr] {
	if v == nil {
		return many[hostAddr]{}
	}
	return v.Gateway.many
}

func (t *rawTunnel) addresses() many[hostAddr] {
	if t == nil {
		return many[hostAddr]{}
	}
	return t.Address
}

// takeIQN is the normal form of an iSCSI name that nothing else has.
func (c *checker) takeIQN(names map[string]spot, written string, at spot) (string, bool) {
	n, err := iscsiName(written)
	if err != nil {
		c.errorf(at, "%s", err)
		return "", false
	}
	if first, twice := names[n]; twice {
		c.errorf(at, "is given twice, as iSCSI names have no upper case: the first is at %s", first)
		return "", false
	}
	names[n] = at
	return n, true
}

func (c *checker) portals(t *rawTarget) []Portal {
	var all []Portal
	seen := map[Portal]spot{}
	for _, p := range t.Portals.items {
		out := Portal{
			VLAN:    string(p.VLAN.v),
			Tunnel:  string(p.Tunnel.v),
			Address: netip.AddrPort(p.Address.v),
			User:    bool(p.Stack.v),
		}
		c.checkPortal(p)
		if !p.Address.given {
			out.Port = uint16(p.Port.or(iscsiPort))
		}
		if first, twice := seen[out]; twice && out != (Portal{Port: out.Port}) {
			c.errorf(p.spot, "is given twice: the first is at %s", first)
		}
		seen[out] = p.spot
		all = append(all, out)
	}
	return all
}

func (c *checker) checkPortal(p *rawPortal) {
	given := 0
	for _, g := range []bool{p.VLAN.given, p.Tunnel.given, p.Address.given} {
		if g {
			given++
		}
	}
	if given != 1 {
		c.errorf(p.spot, "needs exactly one of vlan, tunnel and address")
	}
	if p.Address.given && p.Port.given {
		c.errorf(p.Port.spot, "goes with vlan and tunnel: an address has its port behind the colon")
	}
	if p.Stack.given && !p.Tunnel.given {
		c.errorf(p.Stack.spot, "goes with a tunnel: other portals are the host's")
	}
	if p.Address.ok && netip.AddrPort(p.Address.v).Addr().IsUnspecified() {
		c.warnf(p.Address.spot, "listens on every address of the host: whoever reaches one of them reaches the target")
	}
	if known(c.report, c.raw.VLANs, "VLAN", p.VLAN) && !c.raw.VLANs.items[string(p.VLAN.v)].Gateway.given {
		c.errorf(p.VLAN.spot, "VLAN %q has no gateway to listen on: give it one", p.VLAN.v)
	}
	if known(c.report, c.raw.Tunnels, "tunnel", p.Tunnel) && !c.raw.Tunnels.items[string(p.Tunnel.v)].Address.given {
		c.errorf(p.Tunnel.spot, "tunnel %q has no address to listen on: give it one", p.Tunnel.v)
	}
}

// lunMap is the target's LUN numbers. One LUN behind two numbers is legal, and
// its initiators must know of one another.
func (c *checker) lunMap(t *rawTarget, served map[lunRef]spot) map[uint16]string {
	out := map[uint16]string{}
	for text, v := range t.LUNs.all() {
		var n lunNumber
		if err := n.parse(text); err != nil {
			c.errorf(t.LUNs.at[text], "LUN number %s", err)
		}
		if !v.ok || c.broken {
			continue
		}
		lun := v.v.lun()
		if _, ok := c.raw.LUNs.items[string(lun)]; !ok {
			hint := missing(c.report, c.raw.LUNs, string(lun))
			if _, away := c.raw.LUNs.away[string(lun)]; !away && nearest(string(lun), c.raw.LUNs.order) == "" {
				hint += "; one that a command made is served when luns names it, too"
			}
			c.errorf(v.spot, "there is no LUN %q%s", lun, hint)
			continue
		}
		if name(v.v) != lun {
			c.takesSnapshots(v.spot, c.raw.LUNs.items[string(lun)].Pool)
		}
		if first, twice := served[v.v]; twice && name(v.v) == lun {
			c.warnf(v.spot, "LUN %q is served twice, the other is %s at %s: two hosts that mount it destroy its file system", v.v, first.path, first)
		}
		served[v.v] = v.spot
		out[uint16(n)] = string(v.v)
	}
	return out
}

func (c *checker) initiators(t *rawTarget, out *Target) {
	names := map[string]spot{}
	for written, i := range t.Initiators.all() {
		one := c.initiator(t, i)
		if written == anyInitiator {
			out.Any = &one
			continue
		}
		if n, ok := c.takeIQN(names, written, i.spot); ok {
			out.Initiators[n] = one
		}
	}
	if !t.Initiators.given || len(t.Initiators.order) == 0 {
		c.warnf(t.spot, "names no initiators: nobody can log in")
	}
}

func (c *checker) initiator(t *rawTarget, i *rawInitiator) Initiator {
	var out Initiator
	seen := map[uint16]bool{}
	for v := range i.LUNs.valid() {
		n := uint16(v.v)
		if _, ok := t.LUNs.items[strconv.Itoa(int(n))]; !ok {
			c.errorf(v.spot, "the target has no LUN %d%s", n, c.hint(strconv.Itoa(int(n)), t.LUNs.order))
		} else if seen[n] {
			c.errorf(v.spot, "LUN %d is given twice", n)
		} else {
			out.LUNs = append(out.LUNs, n)
		}
		seen[n] = true
	}
	slices.Sort(out.LUNs)
	c.origin(t, i, &out)
	if i.CHAP == nil {
		return out
	}
	out.CHAP, out.Mutual = c.chap(i.CHAP)
	return out
}
