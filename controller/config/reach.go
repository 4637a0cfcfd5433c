package config

import (
	"fmt"
	"net/netip"
	"slices"
)

// reachTo is a prefix, or the name of a VLAN.
type reachTo string

func (v *reachTo) parse(s string) error {
	*v = reachTo(s)
	var p anyPrefix
	if p.parse(s) == nil {
		return nil
	}
	var n name
	if n.parse(s) != nil {
		return fmt.Errorf("%s is neither a prefix, as 10.20.0.0/24, nor the name of a VLAN", quoted(s))
	}
	return nil
}

// ReachTo is the prefixes that a word of reach stands for: a prefix, or a VLAN, which is
// the networks of its gateways here.
func (c *Config) ReachTo(word string) ([]netip.Prefix, error) {
	var r reachTo
	if err := r.parse(word); err != nil {
		return nil, err
	}
	if p, err := netip.ParsePrefix(word); err == nil {
		if p != p.Masked() {
			return nil, fmt.Errorf("%s has bits behind its prefix length: write %s", p, p.Masked())
		}
		return []netip.Prefix{p}, nil
	}
	v, ok := c.VLANs[word]
	if !ok {
		return nil, fmt.Errorf("there is no VLAN %q here", word)
	}
	var out []netip.Prefix
	for _, g := range v.Gateways {
		if !g.Addr().IsLinkLocalUnicast() {
			out = append(out, g.Masked())
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("VLAN %q has no gateway here, so that no network of it is behind the tunnel: give it one, or write a prefix", word)
	}
	return out, nil
}

// MergeReach is prefixes as a peer's Reach has them.
func MergeReach(all []netip.Prefix) []netip.Prefix {
	slices.SortFunc(all, comparePrefix)
	return slices.Compact(all)
}

// reach is what a peer may reach, and whether that is limited.
func (c *checker) reach(p *rawPeer) (out []netip.Prefix, limited bool) {
	for v := range p.Reach.valid() {
		to, err := c.cfg.ReachTo(string(v.v))
		if err != nil {
			c.errorf(v.spot, "%v", err)
		}
		out = append(out, to...)
	}
	return MergeReach(out), p.Reach.given
}

// checkReaches refuses limits where there is nothing to limit.
func (c *checker) checkReaches() {
	for n, t := range c.raw.Tunnels.all() {
		for _, p := range t.Peers.all() {
			if p.Reach.given && c.cfg.Tunnels[n].User {
				c.errorf(p.Reach.spot, "tunnel %q has no interface on the host, and leads to the portals in it alone: leave it out, and name the peer at initiators", n)
			}
		}
	}
}
