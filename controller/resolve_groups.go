package controller

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"ripstop/controller/config"
	"ripstop/vswitch"
)

// maxPolicy is how many rules the groups of a port may have together in a VLAN,
// each remote counted as one.
const maxPolicy = 65536

// filters is what the groups of a port say in each of its VLANs.
func (r *resolver) filters(p config.Port) (map[uint16]*vswitch.Policy, error) {
	var out map[uint16]*vswitch.Policy
	for _, vlan := range slices.Concat([]string{p.VLAN, p.Native}, p.Trunk) {
		groups := r.cfg.GroupsIn(p, vlan)
		if vlan == "" || len(groups) == 0 {
			continue
		}
		policy, err := r.policy(groups, vlan)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[uint16]*vswitch.Policy{}
		}
		out[r.vlanID(vlan)] = policy
	}
	return out, nil
}

// policy is the rules of some groups in a VLAN. Ports share it.
func (r *resolver) policy(groups []string, vlan string) (*vswitch.Policy, error) {
	key := vlan + " " + strings.Join(groups, " ")
	if p, ok := r.policies[key]; ok {
		return p, nil
	}
	var rules []vswitch.FilterRule
	log := false
	for _, g := range groups {
		log = log || r.cfg.Groups[g].Log
		for i, rule := range r.cfg.Groups[g].Rules {
			if len(rule.VLANs) == 0 || slices.Contains(rule.VLANs, vlan) {
				rules = append(rules, r.rules(rule, vlan, vswitch.FilterRule{Deny: rule.Deny, Direction: rule.Direction, Protocol: rule.Protocol, Last: 65535, Group: g, Place: i})...)
			}
		}
	}
	if len(rules) > maxPolicy {
		return nil, fmt.Errorf("groups %s have %d rules in VLAN %q, the addresses of each other side counted: at most %d: name prefixes instead of groups",
			strings.Join(groups, ", "), len(rules), vlan, maxPolicy)
	}
	if r.policies == nil {
		r.policies = map[string]*vswitch.Policy{}
	}
	r.policies[key] = vswitch.NewPolicy(groups, log, rules)
	return r.policies[key], nil
}

// rules is one rule for each remote and range of services.
func (r *resolver) rules(rule config.Rule, vlan string, base vswitch.FilterRule) []vswitch.FilterRule {
	remotes := slices.Clone(rule.CIDRs)
	for _, g := range rule.Groups {
		remotes = append(remotes, r.members(g, vlan)...)
	}
	if len(rule.CIDRs) == 0 && len(rule.Groups) == 0 {
		remotes = []netip.Prefix{{}}
	}
	services := rule.Services
	if len(services) == 0 {
		services = []config.Range{{First: base.First, Last: base.Last}}
	}
	var out []vswitch.FilterRule
	for _, remote := range remotes {
		for _, s := range services {
			one := base
			one.Remote, one.First, one.Last = remote, s.First, s.Last
			out = append(out, one)
		}
	}
	return out
}

// members is the addresses of a group's ports in a VLAN, on all hosts, sorted: those that each
// may send from, or else those that its far end has.
func (r *resolver) members(group, vlan string) []netip.Prefix {
	key := group + " " + vlan
	if list, ok := r.groups[key]; ok {
		return list
	}
	all := slices.Clone(r.cfg.Groups[group].Away[vlan])
	for _, sw := range r.cfg.Switches {
		for _, p := range sw.Ports {
			if !slices.Contains(append([]string{p.VLAN, p.Native}, p.Trunk...), vlan) || !slices.Contains(r.cfg.GroupsIn(p, vlan), group) {
				continue
			}
			if len(p.Security.AllowedIPs) > 0 {
				all = append(all, p.Security.AllowedIPs...)
				continue
			}
			for _, a := range p.Addresses {
				all = append(all, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
			}
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int { return strings.Compare(a.String(), b.String()) })
	if r.groups == nil {
		r.groups = map[string][]netip.Prefix{}
	}
	r.groups[key] = slices.Compact(all)
	return r.groups[key]
}
