package config

import (
	"net/netip"
	"slices"
	"time"

	"ripstop/vpn"
)

func (c *checker) checkTunnel(t *rawTunnel) Tunnel {
	out := Tunnel{
		Listen:     uint16(t.Listen.v),
		Addresses:  prefixes(t.Address),
		PrivateKey: string(t.PrivateKey.v),
		Peers:      map[string]Peer{},
	}
	out.MTU = c.checkMTU(t.MTU, out.Addresses)
	c.mesh(t, &out)
	keys, routes := map[publicKey]spot{}, map[netip.Prefix]spot{}
	for n, p := range t.Peers.all() {
		c.objectName(n, p.spot)
		if first, twice := keys[p.PublicKey.v]; p.PublicKey.ok && twice {
			c.errorf(p.PublicKey.spot, "two peers have one public key: the other is %s at %s", first.path, first)
		} else if p.PublicKey.ok {
			keys[p.PublicKey.v] = p.PublicKey.spot
		}
		if first, twice := keys[p.Next.v]; p.Next.ok && twice {
			c.errorf(p.Next.spot, "a public key is given twice: the other is %s at %s", first.path, first)
		} else if p.Next.ok {
			keys[p.Next.v] = p.Next.spot
		}
		reach, limited := c.reach(p)
		out.Peers[n] = Peer{
			Limited:      limited,
			Reach:        reach,
			PublicKey:    vpn.Key(p.PublicKey.v),
			Next:         vpn.Key(p.Next.v),
			PresharedKey: string(p.PresharedKey.v),
			Endpoint:     string(p.Endpoint.v),
			AllowedIPs:   c.allowed(p, routes),
			Keepalive:    time.Duration(p.Keepalive.v),
		}
	}
	return out
}

// allowed is a peer's allowed IPs, masked and sorted. WireGuard gives a prefix
// to one peer only.
func (c *checker) allowed(p *rawPeer, routes map[netip.Prefix]spot) []netip.Prefix {
	var all []netip.Prefix
	for v := range p.AllowedIPs.valid() {
		written := netip.Prefix(v.v)
		masked := written.Masked()
		if masked != written {
			c.warnf(v.spot, "%s has bits behind its prefix length: it is taken as %s", written, masked)
		}
		if first, taken := routes[masked]; taken {
			c.errorf(v.spot, "%s is given twice in this tunnel: the first is %s at %s", masked, first.path, first)
			continue
		}
		routes[masked] = v.spot
		all = append(all, masked)
	}
	slices.SortFunc(all, comparePrefix)
	return all
}

// checkListen refuses one UDP port for two tunnels.
func (c *checker) checkListen() {
	ports := map[portNumber]spot{}
	for _, t := range c.raw.Tunnels.all() {
		if !t.Listen.ok {
			continue
		}
		if first, taken := ports[t.Listen.v]; taken {
			c.errorf(t.Listen.spot, "two tunnels listen on port %d: the other is at %s", t.Listen.v, first)
			continue
		}
		ports[t.Listen.v] = t.Listen.spot
	}
}
