package config

import "net/netip"

// netSet is networks and the places that named them. Asking for an overlap
// costs one look-up for each possible prefix length, however many there are.
type netSet struct {
	addrs map[netip.Addr]spot
	exact map[netip.Prefix]spot // masked
	above map[netip.Prefix]spot // every network that holds one of exact
}

func newNetSet() *netSet {
	return &netSet{map[netip.Addr]spot{}, map[netip.Prefix]spot{}, map[netip.Prefix]spot{}}
}

// overlap is a network of the set that shares addresses with p.
func (s *netSet) overlap(p netip.Prefix) (spot, bool) {
	if at, ok := s.above[p.Masked()]; ok {
		return at, true
	}
	for bits := p.Bits(); bits >= 0; bits-- {
		if at, ok := s.exact[netip.PrefixFrom(p.Addr(), bits).Masked()]; ok {
			return at, true
		}
	}
	return spot{}, false
}

func (s *netSet) add(p netip.Prefix, at spot) {
	s.exact[p.Masked()] = at
	for bits := p.Bits(); bits >= 0; bits-- {
		s.above[netip.PrefixFrom(p.Addr(), bits).Masked()] = at
	}
}

// takeNet notes a network of the host itself and warns when two interfaces
// would lead to the same addresses.
func (c *checker) takeNet(a value[hostAddr]) {
	p := prefixOf(a)
	if p.Addr().IsLinkLocalUnicast() {
		return
	}
	if first, ok := c.nets.addrs[p.Addr()]; ok {
		if first != a.spot {
			c.errorf(a.spot, "the host would have %s twice: the other is %s at %s", p.Addr(), first.path, first)
		}
		return
	}
	if first, ok := c.nets.overlap(p); ok {
		c.warnf(a.spot, "%s overlaps %s at %s: the host reaches its addresses through one of the two only", p.Masked(), first.path, first)
	}
	c.nets.addrs[p.Addr()] = a.spot
	c.nets.add(p, a.spot)
}

func prefixOf(v value[hostAddr]) netip.Prefix { return netip.Prefix(v.v) }
