package config

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// checkNets holds the host's own networks, on gateways and tunnels, against one
// another. Two interfaces with one address are a fault, and so are a VLAN and another
// VLAN or a tunnel with one network, or one in the other: the kernel's routes lead to one of the two only, so that
// what is meant for a host of the VLAN goes out elsewhere. A tunnel may have one address
// of a VLAN's network, which is no network of its own, and lie in that of another tunnel,
// where its peers' allowed IPs say what goes to it.
func (c *checker) checkNets(all []value[hostAddr]) {
	var nets []network
	for _, v := range all {
		nets = append(nets, network{v})
	}
	slices.SortStableFunc(nets, func(a, b network) int {
		return cmp.Or(comparePrefix(a.prefix().Masked(), b.prefix().Masked()), a.prefix().Addr().Compare(b.prefix().Addr()))
	})
	type address struct {
		netip.Addr
		where string // link-local ones are taken on their interface only
	}
	taken := map[address]spot{}
	var around nest
	for _, n := range nets {
		p := n.prefix()
		key := address{Addr: p.Addr()}
		if p.Addr().IsLinkLocalUnicast() {
			key.where = n.list()
		}
		around.leave(p)
		first, twice := taken[key]
		taken[key] = n.spot
		switch {
		case twice:
			c.errorf(n.spot, "the host would have %s twice: the other is %s at %s", p.Addr(), first.path, first)
			continue
		case key.where != "":
			continue // their networks overlap by nature
		case !n.ofVLAN() && p.IsSingleIP():
			continue // the host's own, whatever is around
		}
		if other, ok := around.holding(n); ok && n.ofVLAN() && other.ofVLAN() {
			c.laterf(n.spot, "%s overlaps %s of %s at %s: the host has one routing table, and would send into one VLAN what is meant for the other: "+
				"give the VLANs networks of their own", p.Masked(), other.prefix().Masked(), other.path, other.spot)
		} else if ok && (n.ofVLAN() || other.ofVLAN()) {
			c.laterf(n.spot, "%s overlaps %s of %s at %s: the host has one routing table, and would send into one of the two what is meant for the other: "+
				"give the tunnel a network of its own, or one address with all of its bits",
				p.Masked(), other.prefix().Masked(), other.path, other.spot)
		} else if ok {
			c.warnf(n.spot, "%s overlaps %s of %s at %s: the host reaches its addresses through one of the two only",
				p.Masked(), other.prefix().Masked(), other.path, other.spot)
		}
		around.add(n)
	}
}

// network is one of the host's, as a gateway or a tunnel has it.
type network struct{ value[hostAddr] }

func (n network) prefix() netip.Prefix { return prefixOf(n.value) }

// list is the path of the list that the value stands in, or of the value alone.
func (n network) list() string {
	if i := len(n.shape) - len("[]"); i > 0 && n.shape[i:] == "[]" {
		return n.path[:strings.LastIndexByte(n.path, '[')]
	}
	return n.path
}

// nest is the networks that hold the current one, the widest first, those that are equal
// in one. It keeps of equal ones what can be asked for: with as many as a file may have, a
// list of all would be searched for minutes.
type nest []equal

// equal is networks of one prefix: the last one, and the last one of another list than that.
type equal struct {
	prefix    netip.Prefix
	all, vlan [2]network
}

// leave drops the networks that do not hold p.
func (n *nest) leave(p netip.Prefix) {
	for len(*n) > 0 && !(*n)[len(*n)-1].prefix.Overlaps(p) {
		*n = (*n)[:len(*n)-1]
	}
}

// add takes a network that all of them hold.
func (n *nest) add(one network) {
	p := one.prefix().Masked()
	if len(*n) == 0 || (*n)[len(*n)-1].prefix != p {
		*n = append(*n, equal{prefix: p})
	}
	e := &(*n)[len(*n)-1]
	put(&e.all, one)
	if one.ofVLAN() {
		put(&e.vlan, one)
	}
}

func put(last *[2]network, one network) {
	if last[0].path != "" && last[0].list() != one.list() {
		last[1] = last[0]
	}
	last[0] = one
}

// holding is the narrowest of the networks that hold one and stand in another list; of
// a gateway's the narrowest of another gateway, if there is one.
func (n nest) holding(one network) (other network, ok bool) {
	find := func(last [2]network) bool {
		for _, a := range last {
			if a.path != "" && a.list() != one.list() {
				other, ok = a, true
				return true
			}
		}
		return false
	}
	if one.ofVLAN() {
		for _, e := range slices.Backward(n) {
			if find(e.vlan) {
				return other, ok
			}
		}
	}
	for _, e := range slices.Backward(n) {
		if find(e.all) {
			break
		}
	}
	return other, ok
}

// ofVLAN tells whether the value is a gateway's.
func (n network) ofVLAN() bool { return strings.HasPrefix(n.path, "vlans.") }

func prefixOf(v value[hostAddr]) netip.Prefix { return netip.Prefix(v.v) }
