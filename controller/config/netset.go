package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// checkNets holds the host's own networks, on gateways and tunnels, against one
// another. Two interfaces with one address are a fault; where one network lies
// in another, the kernel's routes lead to one of the two only.
func (c *checker) checkNets(nets []value[hostAddr]) {
	slices.SortStableFunc(nets, func(a, b value[hostAddr]) int {
		return cmp.Or(comparePrefix(prefixOf(a).Masked(), prefixOf(b).Masked()), prefixOf(a).Addr().Compare(prefixOf(b).Addr()))
	})
	type address struct {
		netip.Addr
		where string // link-local ones are taken on their interface only
	}
	taken := map[address]spot{}
	var around []value[hostAddr] // networks that hold the current one, outermost first
	for _, n := range nets {
		p := prefixOf(n)
		key := address{Addr: p.Addr()}
		if p.Addr().IsLinkLocalUnicast() {
			key.where = n.list()
		}
		for len(around) > 0 && !prefixOf(around[len(around)-1]).Overlaps(p) {
			around = around[:len(around)-1]
		}
		first, twice := taken[key]
		taken[key] = n.spot
		switch {
		case twice:
			c.errorf(n.spot, "the host would have %s twice: the other is %s at %s", p.Addr(), first.path, first)
			continue
		case key.where != "":
			continue // their networks overlap by nature
		case len(around) > 0 && around[len(around)-1].list() != n.list():
			other := around[len(around)-1]
			c.warnf(n.spot, "%s overlaps %s of %s at %s: the host reaches its addresses through one of the two only",
				p.Masked(), prefixOf(other).Masked(), other.path, other.spot)
		}
		around = append(around, n)
	}
}

// list is the path of the list that the value stands in, or of the value alone.
func (v value[T]) list() string {
	if i := len(v.shape) - len("[]"); i > 0 && v.shape[i:] == "[]" {
		return v.path[:strings.LastIndexByte(v.path, '[')]
	}
	return v.path
}

func prefixOf(v value[hostAddr]) netip.Prefix { return netip.Prefix(v.v) }
