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
	var around []network // networks that hold the current one, outermost first
	for _, n := range nets {
		p := n.prefix()
		key := address{Addr: p.Addr()}
		if p.Addr().IsLinkLocalUnicast() {
			key.where = n.list()
		}
		for len(around) > 0 && !around[len(around)-1].prefix().Overlaps(p) {
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
		case !n.ofVLAN() && p.IsSingleIP():
			continue // the host's own, whatever is around
		}
		if other, ok := n.within(around); ok && n.ofVLAN() && other.ofVLAN() {
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
		around = append(around, n)
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

// within is the narrowest of the networks around n that stands in another list; of
// a gateway's the narrowest of another gateway, if there is one.
func (n network) within(around []network) (other network, ok bool) {
	for _, a := range slices.Backward(around) {
		if a.list() == n.list() {
			continue
		}
		if !ok {
			other, ok = a, true
		}
		if n.ofVLAN() && a.ofVLAN() {
			return a, true
		}
	}
	return other, ok
}

// ofVLAN tells whether the value is a gateway's.
func (n network) ofVLAN() bool { return strings.HasPrefix(n.path, "vlans.") }

func prefixOf(v value[hostAddr]) netip.Prefix { return netip.Prefix(v.v) }
