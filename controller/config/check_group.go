package config

import (
	"fmt"
	"net/netip"
	"slices"

	"ripstop/vswitch"
)

// maxRules is how many rules a group may have, every prefix, port range and type
// of each counted as one.
const maxRules = 20000

// checkGroups fills in the groups. A rule that never decides anything is a
// mistake that nobody would notice: it is refused.
func (c *checker) checkGroups() {
	for n, g := range c.raw.Groups.all() {
		if !c.objectName(n, g.spot) {
			continue
		}
		out := Group{Log: bool(g.Log.v)}
		var all []single
		for i, r := range g.Rules.items {
			rule := c.checkRule(r)
			out.Rules = append(out.Rules, rule)
			if r.sound() {
				all = append(all, rule.singles(i)...)
			}
		}
		if len(all) > maxRules {
			c.errorf(g.Rules.spot, "has %d rules, every prefix, port range and type of each counted as one: a group has at most %d", len(all), maxRules)
		} else if !c.broken {
			c.checkShadows(g.Rules.items, all)
		}
		c.cfg.Groups[n] = out
	}
}

func (c *checker) checkRule(r *rawRule) Rule {
	out := Rule{Deny: r.Deny.given, Protocol: vswitch.AnyProtocol}
	switch {
	case r.Allow.given == r.Deny.given:
		c.errorf(r.spot, "needs either allow or deny, as in allow: in")
	case r.Allow.given:
		out.Direction = vswitch.Direction(r.Allow.v)
	default:
		out.Direction = vswitch.Direction(r.Deny.v)
	}
	if r.Protocol.ok {
		out.Protocol = uint8(r.Protocol.v)
	}
	icmp := r.Protocol.ok && (out.Protocol == protocols["icmp"] || out.Protocol == protocols["icmpv6"])
	if r.Ports.given && (!r.Protocol.ok || !hasPorts(out.Protocol)) {
		c.errorf(r.Ports.spot, "needs a protocol that has ports: tcp, udp, sctp, udplite or dccp")
	}
	if r.Types.given && !icmp {
		c.errorf(r.Types.spot, "needs protocol: icmp or icmpv6")
	}
	for p := range r.Ports.valid() {
		out.Services = append(out.Services, Range(p.v))
	}
	for t := range r.Types.valid() {
		out.Services = append(out.Services, Range(t.v))
	}
	for v := range r.CIDR.valid() {
		p := netip.Prefix(v.v)
		if p != p.Masked() {
			c.warnf(v.spot, "%s has bits behind its prefix length: it is taken as %s", p, p.Masked())
		}
		if icmp && p.Addr().Is4() != (out.Protocol == protocols["icmp"]) {
			c.errorf(v.spot, "icmp is of IPv4 and icmpv6 of IPv6: no packet has it and an address of %s", p)
		}
		out.CIDRs = append(out.CIDRs, p.Masked())
	}
	for v := range r.Group.valid() {
		if known(c.report, c.raw.Groups, "group", v) {
			out.Groups = append(out.Groups, string(v.v))
		}
	}
	for v := range r.VLAN.valid() {
		if known(c.report, c.raw.VLANs, "VLAN", v) {
			out.VLANs = append(out.VLANs, string(v.v))
		}
	}
	return out
}

// sound tells whether a rule means what its author wrote, as far as one can tell.
func (r *rawRule) sound() bool {
	return r.Allow.given != r.Deny.given && r.Allow.ok == r.Allow.given && r.Deny.ok == r.Deny.given && r.Protocol.ok == r.Protocol.given &&
		r.Ports.sound() && r.Types.sound() && r.CIDR.sound() && r.Group.sound() && r.VLAN.sound() &&
		(r.Protocol.ok || !r.Ports.given && !r.Types.given)
}

func hasPorts(protocol uint8) bool {
	return slices.Contains([]string{"tcp", "udp", "sctp", "udplite", "dccp"}, protocolName(protocol))
}

// single is a rule for one remote and one range of services.
type single struct {
	vswitch.FilterRule        // Place is the rule's
	group              string // the remote; "" is that of the FilterRule
	vlans              []string
}

// singles is what a rule says, piece by piece; place is where it stands.
func (r Rule) singles(place int) []single {
	base := single{FilterRule: vswitch.FilterRule{Deny: r.Deny, Direction: r.Direction, Protocol: r.Protocol, Last: 65535, Place: place}, vlans: r.VLANs}
	var remotes []single
	for _, p := range r.CIDRs {
		s := base
		s.Remote = p
		remotes = append(remotes, s)
	}
	for _, g := range r.Groups {
		s := base
		s.group = g
		remotes = append(remotes, s)
	}
	if len(remotes) == 0 {
		remotes = []single{base}
	}
	if len(r.Services) == 0 {
		return remotes
	}
	var out []single
	for _, s := range remotes {
		for _, services := range r.Services {
			s.First, s.Last = services.First, services.Last
			out = append(out, s)
		}
	}
	return out
}

func (s single) covers(o single) bool {
	if s.group != "" && s.group != o.group || s.group == "" && o.group != "" && s.Remote.IsValid() {
		return false
	}
	if len(s.vlans) > 0 && (len(o.vlans) == 0 || slices.ContainsFunc(o.vlans, func(v string) bool { return !slices.Contains(s.vlans, v) })) {
		return false
	}
	return s.Covers(o.FilterRule)
}

// remoteKey is where pieces with the same remote are found.
type remoteKey struct {
	direction vswitch.Direction
	prefix    netip.Prefix
	group     string
}

// checkShadows refuses a rule all of which another one decides: an allow inside a
// deny contradicts it, any rule inside one of its kind says nothing.
func (c *checker) checkShadows(rules []*rawRule, all []single) {
	at := map[remoteKey][]single{}
	lengths := map[int]bool{}
	for _, s := range all {
		k := remoteKey{s.Direction, s.Remote, s.group}
		at[k] = append(at[k], s)
		if s.Remote.IsValid() {
			lengths[s.Remote.Bits()] = true
		}
	}
	left := make([]int, len(rules)) // pieces that the rule decides itself
	by := make([]int, len(rules))   // who decides the rest
	for _, s := range all {
		other := coveredBy(s, at, lengths)
		if by[s.Place] = max(by[s.Place], other+1); other < 0 {
			left[s.Place]++
		}
	}
	for i, r := range rules {
		if left[i] > 0 || by[i] == 0 {
			continue
		}
		other := rules[by[i]-1]
		if r.Allow.given && other.Deny.given {
			c.errorf(r.spot, "allows what %s at %s denies, and a deny beats an allow: it never allows anything", other.path, other.spot)
		} else {
			c.errorf(r.spot, "says nothing that %s at %s does not say: leave it out", other.path, other.spot)
		}
	}
}

// coveredBy is the place of a rule that decides all of a piece, -1 without one.
func coveredBy(s single, at map[remoteKey][]single, lengths map[int]bool) int {
	keys := []remoteKey{{direction: s.Direction}}
	if s.group != "" {
		keys = append(keys, remoteKey{direction: s.Direction, group: s.group})
	}
	for n := range lengths {
		if s.Remote.IsValid() && n <= s.Remote.Bits() {
			p, _ := s.Remote.Addr().Prefix(n) // the length is one of the address's
			keys = append(keys, remoteKey{direction: s.Direction, prefix: p})
		}
	}
	found := -1
	for _, k := range keys {
		for _, o := range at[k] {
			if o.Place == s.Place || !o.covers(s) || s.Deny && !o.Deny {
				continue
			}
			if o.Deny == s.Deny && o.Place > s.Place && s.covers(o) {
				continue // equal: the later one is too much
			}
			found = max(found, o.Place)
		}
	}
	return found
}

// groupsOf is the groups that a port or a VLAN names.
func (c *checker) groupsOf(m many[name]) []string {
	var all []string
	for v := range m.valid() {
		switch {
		case !known(c.report, c.raw.Groups, "group", v):
		case slices.Contains(all, string(v.v)):
			c.errorf(v.spot, "group %q is given twice", v.v)
		default:
			all = append(all, string(v.v))
		}
	}
	slices.Sort(all)
	return all
}

// checkMembers demands that the addresses of a group's ports are known where a
// rule means them.
func (c *checker) checkMembers() {
	if c.broken {
		return
	}
	unknown := map[string]string{} // group to one of its ports
	for n, sw := range c.raw.Switches.all() {
		for portName := range sw.Ports.all() {
			p := c.cfg.Switches[n].Ports[portName]
			if len(p.Addresses) > 0 || len(p.Security.AllowedIPs) > 0 {
				continue
			}
			for _, vlan := range p.vlans() {
				for _, g := range c.cfg.GroupsIn(p, vlan) {
					unknown[g] = fmt.Sprintf("switches.%s.ports.%s", n, portName)
				}
			}
		}
	}
	for _, g := range c.raw.Groups.all() {
		for _, r := range g.Rules.items {
			for v := range r.Group.valid() {
				if port := unknown[string(v.v)]; port != "" {
					c.errorf(v.spot, "the addresses of %s, which is in group %q, are not known: give it allowed-ips", port, v.v)
				}
			}
		}
	}
}

// GroupsIn is the groups of a port in one of its VLANs, by name, sorted.
func (c *Config) GroupsIn(p Port, vlan string) []string {
	all := slices.Concat(p.Groups, c.VLANs[vlan].Groups)
	slices.Sort(all)
	return slices.Compact(all)
}
