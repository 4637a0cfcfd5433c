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

// Reaches is the filters that the tunnels have to have, sorted, whether or not they can be
// made. A tunnel without a limited peer has none; in others those who are not
// limited reach everything.
func (s State) Reaches() []Reach {
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
		peers := append(slices.Collect(maps.Values(t.Peers)), slices.Collect(maps.Values(blocked.Peers))...)
		if !slices.ContainsFunc(peers, func(p Peer) bool { return p.Limited }) {
			continue
		}
		for _, p := range peers {
			out = append(out, p.reaches(name)...)
		}
	}
	slices.SortStableFunc(out, Reach.compare)
	return slices.CompactFunc(out, func(a, b Reach) bool { return a.compare(b) == 0 })
}

func (p Peer) reaches(tunnel string) (out []Reach) {
	for _, from := range p.AllowedIPs {
		to := []netip.Prefix{netip.PrefixFrom(from.Addr(), 0).Masked()}
		if p.Limited {
			to = slices.DeleteFunc(slices.Clone(p.Reach), func(to netip.Prefix) bool { return to.Addr().Is4() != from.Addr().Is4() })
		}
		out = append(out, Reach{tunnel, from, to})
	}
	return out
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
	if !ok {
		return have
	}
	out := slices.DeleteFunc(slices.Clone(have), func(r Reach) bool { return r.Tunnel == s.Tunnel })
	out = append(out, s.To...)
	slices.SortFunc(out, Reach.compare)
	return out
}

// reachSteps is the filters that come, before anything else, and those that go, after
// everything: a peer is never without what limits it.
func reachSteps(want, have State) (first, last []Step) {
	needs, has := byTunnel(want.Reaches()), byTunnel(have.Reach)
	names := map[string]bool{}
	for _, all := range []map[string][]Reach{needs, has} {
		for name := range all {
			names[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		both := slices.Clone(needs[name])
		for _, r := range has[name] {
			if r.From.IsValid() && !slices.ContainsFunc(both, func(n Reach) bool { return n.From == r.From }) {
				both = append(both, r)
			}
		}
		slices.SortFunc(both, Reach.compare)
		if !slices.EqualFunc(both, has[name], Reach.equal) {
			first = append(first, SetReach{name, both})
		}
		if !slices.EqualFunc(both, needs[name], Reach.equal) {
			last = append(last, SetReach{name, needs[name]})
		}
	}
	return first, last
}

func byTunnel(all []Reach) map[string][]Reach {
	out := map[string][]Reach{}
	for _, r := range all {
		out[r.Tunnel] = append(out[r.Tunnel], r)
	}
	return out
}
