package vpn

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Reach is what may be sent to from some addresses behind a tunnel, by a filter of the
// host: what it does not hold is dropped, whatever is routed.
type Reach struct {
	Tunnel string
	From   netip.Prefix   // observed as not valid, the filters are not as they were made
	To     []netip.Prefix // sorted, masked, of From's family
}

func (r Reach) equal(o Reach) bool {
	return r.Tunnel == o.Tunnel && r.From == o.From && slices.Equal(r.To, o.To)
}

// compare orders the longer of two prefixes first, as the first that matches decides.
func (r Reach) compare(o Reach) int {
	return cmp.Or(cmp.Compare(r.Tunnel, o.Tunnel), cmp.Compare(o.From.Bits(), r.From.Bits()), r.From.Compare(o.From))
}

// Reaches is the filters that the tunnels have to have beside what is observed, sorted,
// whether or not they can be made. A tunnel without a limited peer has none. In others a
// prefix of a peer that is not limited has one when it lies in a limited peer's.
func (s State) Reaches(have State) []Reach {
	names := map[string]bool{}
	for _, tunnels := range []map[string]Tunnel{s.Blocked, s.Tunnels} {
		for name := range tunnels {
			names[name] = true
		}
	}
	var out []Reach
	for name := range names {
		t, blocked := s.Tunnels[name], s.Blocked[name]
		if t.User || blocked.User {
			continue // the host is not behind it
		}
		out = append(out, reaches(name, t, blocked, have.Tunnels[name])...)
	}
	slices.SortFunc(out, Reach.compare)
	return out
}

func reaches(name string, t, blocked, have Tunnel) []Reach {
	all := map[netip.Prefix][]netip.Prefix{}
	add := func(from netip.Prefix, to []netip.Prefix) {
		if other, twice := all[from]; twice {
			to = meet(other, to)
		}
		all[from] = to
	}
	waits := map[netip.Prefix]bool{} // of peers that cannot be made, and are not there
	for k, p := range blocked.Peers {
		for _, from := range p.AllowedIPs {
			_, twice := t.Peers[k]
			waits[from] = !twice && !slices.Contains(have.Peers[k].AllowedIPs, from)
		}
	}
	for _, p := range slices.Concat(slices.Collect(maps.Values(t.Peers)), slices.Collect(maps.Values(blocked.Peers))) {
		for _, from := range p.AllowedIPs {
			if p.Limited {
				add(from, slices.DeleteFunc(slices.Clone(p.Reach), func(to netip.Prefix) bool { return to.Addr().Is4() != from.Addr().Is4() }))
			}
		}
	}
	limited := slices.Collect(maps.Keys(all))
	for _, p := range slices.Concat(slices.Collect(maps.Values(t.Peers)), slices.Collect(maps.Values(blocked.Peers))) {
		for _, from := range p.AllowedIPs {
			if !p.Limited && slices.ContainsFunc(limited, func(l netip.Prefix) bool { return contains(l, from) }) {
				add(from, everything(from))
			}
		}
	}
	var out []Reach
	for from, to := range all {
		out = append(out, Reach{name, from, to})
	}
	slices.SortFunc(out, Reach.compare)
	return within(out, func(from netip.Prefix) bool { return waits[from] })
}

// within is filters where what is sent from some prefixes is sent by the peer in whose
// prefix they lie. The longest prefixes come first.
func within(filters []Reach, lies func(netip.Prefix) bool) []Reach {
	out := slices.Clone(filters)
	for i := range out {
		r := filters[i]
		for _, wide := range filters[i+1:] {
			if !lies(r.From) {
				break
			}
			if contains(wide.From, r.From) {
				out[i].To = meet(out[i].To, wide.To)
				r = wide
			}
		}
	}
	return out
}

// everything is all addresses of a prefix's family.
func everything(from netip.Prefix) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(from.Addr(), 0).Masked()}
}

// contains tells whether a prefix is as wide as another one at least, and has it.
func contains(wide, p netip.Prefix) bool { return wide.Bits() <= p.Bits() && wide.Contains(p.Addr()) }

// meet is what two lists of prefixes of one family both hold.
func meet(a, b []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, x := range a {
		for _, y := range b {
			switch {
			case contains(x, y):
				out = append(out, y)
			case contains(y, x):
				out = append(out, x)
			}
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// reach is what is reached from a prefix behind a tunnel whose filters these are, the
// longest first.
func reach(filters []Reach, from netip.Prefix) []netip.Prefix {
	for _, r := range filters {
		if r.From.IsValid() && contains(r.From, from) {
			return r.To
		}
	}
	return everything(from)
}

// SetReach makes the filters of a tunnel these, all at one moment.
type SetReach struct {
	Tunnel string
	To     []Reach
}

// Object is "tunnel/TUNNEL".
func (s SetReach) Object() string { return tunnelObject(s.Tunnel) }

// Removes tells whether no filter is left.
func (s SetReach) Removes() bool { return len(s.To) == 0 }

// Disturbs is empty: who is cut off is told by what he may reach.
func (SetReach) Disturbs() string { return "" }

func (SetReach) apply(map[string]Tunnel) {}

// WidenReach is a SetReach that comes when peers have what it lets through, and others
// have it no more.
type WidenReach struct {
	SetReach
	after []string
}

// After is the objects of these peers.
func (s WidenReach) After() []string { return s.after }

// ReachTable is the name of the nftables table with the filters of a tunnel.
func ReachTable(tunnel string) string { return "ripstop-" + tunnel }

// String is what nft(8) would be told about each address.
func (s SetReach) String() string {
	table := "inet " + ReachTable(s.Tunnel)
	if len(s.To) == 0 {
		return "nft delete table " + table
	}
	var lines []string
	for _, r := range s.To {
		family, to := "ip", ""
		if r.From.Addr().Is6() {
			family = "ip6"
		}
		if len(r.To) > 0 {
			to = fmt.Sprintf(" %s daddr != { %s }", family, joined(r.To, ", "))
		}
		lines = append(lines, fmt.Sprintf("nft add rule %s reach iifname %s %s saddr %s%s counter drop", table, s.Tunnel, family, r.From, to))
	}
	return strings.Join(lines, "\n")
}

// reached is the filters after a step.
func reached(have []Reach, step Step) []Reach {
	s, ok := step.(SetReach)
	if w, wide := step.(WidenReach); wide {
		s, ok = w.SetReach, true
	}
	if !ok {
		return have
	}
	out := slices.DeleteFunc(slices.Clone(have), func(r Reach) bool { return r.Tunnel == s.Tunnel })
	out = append(out, s.To...)
	slices.SortFunc(out, Reach.compare)
	return out
}

// reachSteps is the filters that come before anything else, which let through what is let
// through both before and after, and those that come after everything: a peer is never
// without what limits it.
func reachSteps(want, have State) (first, last []Step) {
	needs, has := byTunnel(want.Reaches(have)), byTunnel(have.Reach)
	names := map[string]bool{}
	for _, all := range []map[string][]Reach{needs, has} {
		for name := range all {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		to, from := want.wished(name), have.Tunnels[name]
		both := narrower(unsettled(needs[name], to, from), unsettled(has[name], from, to))
		if !slices.EqualFunc(both, has[name], Reach.equal) {
			first = append(first, SetReach{name, both})
		}
		if !slices.EqualFunc(both, needs[name], Reach.equal) {
			last = append(last, WidenReach{SetReach{name, needs[name]}, passes(name, both, needs[name], to, from)})
		}
	}
	return first, last
}

// wished is a tunnel with those of its peers, too, that cannot be made.
func (s State) wished(name string) Tunnel {
	t := s.Tunnels[name]
	t.Peers = maps.Clone(t.Peers)
	for k, p := range s.Blocked[name].Peers {
		if _, there := t.Peers[k]; !there {
			if t.Peers == nil {
				t.Peers = map[Key]Peer{}
			}
			t.Peers[k] = p
		}
	}
	return t
}

// unsettled is the filters of a tunnel while it is becoming another, or was one: a prefix
// that its peer does not have in both is meanwhile that of the peer in whose it lies.
func unsettled(filters []Reach, is, other Tunnel) []Reach {
	type holder struct {
		name string
		ip   netip.Prefix
	}
	stays, named := map[netip.Prefix]bool{}, map[holder]bool{}
	for k, p := range other.Peers {
		for _, ip := range p.AllowedIPs {
			named[holder{label(k, p.Name), ip}] = true
		}
	}
	for k, p := range is.Peers {
		for _, ip := range p.AllowedIPs {
			stays[ip] = named[holder{label(k, p.Name), ip}] || slices.Contains(other.Peers[k].AllowedIPs, ip)
		}
	}
	return within(filters, func(from netip.Prefix) bool { return !stays[from] })
}

// narrower is the filters of a tunnel that let through what both of two let through.
func narrower(a, b []Reach) []Reach {
	var out []Reach
	for _, r := range slices.Concat(a, b) {
		if r.From.IsValid() {
			out = append(out, Reach{r.Tunnel, r.From, meet(reach(a, r.From), reach(b, r.From))})
		}
	}
	slices.SortFunc(out, Reach.compare)
	return slices.CompactFunc(out, Reach.equal)
}

// passes is the peers of a tunnel that get or leave a prefix from which filters let through
// other than others.
func passes(name string, filters, others []Reach, want, have Tunnel) []string {
	to := map[netip.Prefix]bool{}
	for _, r := range slices.Concat(filters, others) {
		if !slices.Equal(reach(filters, r.From), reach(others, r.From)) {
			to[r.From] = true
		}
	}
	var out []string
	for _, change := range [][2]Tunnel{{want, have}, {have, want}} {
		for _, k := range sortedPeers(change[0].Peers) {
			p, other := change[0].Peers[k], change[1].Peers[k]
			if slices.ContainsFunc(without(p.AllowedIPs, other.AllowedIPs), func(ip netip.Prefix) bool { return to[ip] }) {
				out = append(out, peerObject(name, label(k, p.Name)))
			}
		}
	}
	return out
}

func byTunnel(all []Reach) map[string][]Reach {
	out := map[string][]Reach{}
	for _, r := range all {
		out[r.Tunnel] = append(out[r.Tunnel], r)
	}
	return out
}
