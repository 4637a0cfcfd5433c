package config

import (
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// What a fabric may have at most. Each host has its part checked by itself, so
// that hosts times objects is what a configuration costs.
const (
	maxHosts = 1000
	maxParts = 4_000_000
)

// natKeepalive is how often a host behind a NAT sends something: wg(8) finds 25 s
// to be less than what most NATs remember.
const natKeepalive = 25 * time.Second

// ForHost is the part of one host: what is on it, and the peers that its mesh
// makes of the others. Files without hosts are for whoever reads them. A host
// that is not there is Errors that name those that are.
func (c *Config) ForHost(name string) (*Config, error) {
	if c.fabric == nil {
		return c, nil
	}
	at, hosts := c.fabric.Hosts.spot, few(c.fabric.Hosts.order)
	if name == "" {
		return nil, Errors{at.says("the files are for several hosts: say with --host which of them this one is: %s", hosts)}
	}
	if _, ok := c.Hosts[name]; !ok {
		hint := ": the hosts are " + hosts
		if near := nearest(name, c.fabric.Hosts.order); near != "" {
			hint = fmt.Sprintf(": did you mean %q?", near)
		}
		return nil, Errors{at.says("there is no host %q%s", name, hint)}
	}
	part := newChecker(&report{}, c.fabric.forHost(name))
	part.check()
	part.cfg.Host, part.cfg.Hosts = name, maps.Clone(c.Hosts)
	part.cfg.meshPeers()
	for group, away := range c.fabric.away(name) {
		if g, ok := part.cfg.Groups[group]; ok {
			g.Away = away
			part.cfg.Groups[group] = g
		}
	}
	return part.cfg, nil
}

// ParseFor is Parse and ForHost.
func ParseFor(files []File, host string) (*Config, []Warning, error) {
	c, warnings, err := Parse(files)
	if err != nil {
		return nil, warnings, err
	}
	part, err := c.ForHost(host)
	return part, warnings, err
}

// few is names in a message, the first ones when there are many.
func few(names []string) string {
	const most = 8
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}

// where gives the object's own on to what goes through tables.
func (o *rawOn) where() *rawOn { return o }

// has tells whether a host is among those that an object is on.
func (o rawOn) has(host string) bool {
	return !o.On.given || slices.ContainsFunc(o.On.items, func(v value[name]) bool { return string(v.v) == host })
}

// hosts is those of all that an object is on.
func (o rawOn) hosts(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(h string) bool { return !o.has(h) })
}

func (o rawOn) names() string {
	var all []string
	for v := range o.On.valid() {
		all = append(all, string(v.v))
	}
	return few(all)
}

// onHost is the objects of a table that one host has.
func onHost[T any](t table[T], host string) table[T] {
	out := table[T]{spot: t.spot, given: t.given, items: map[string]*T{}, at: map[string]spot{}, away: map[string]rawOn{}}
	for n, item := range t.all() {
		if o := any(item).(interface{ where() *rawOn }).where(); !o.has(host) {
			out.away[n] = *o
			continue
		}
		out.order, out.at[n], out.items[n] = append(out.order, n), t.at[n], item
	}
	return out
}

// forHost is what one host has. What is in it is shared and is not to be changed.
func (f *rawFile) forHost(host string) *rawFile {
	out := *f
	out.VLANs, out.Groups, out.Switches, out.Tunnels = onHost(f.VLANs, host), onHost(f.Groups, host), onHost(f.Switches, host), onHost(f.Tunnels, host)
	out.Pools, out.LUNs, out.Targets = onHost(f.Pools, host), onHost(f.LUNs, host), onHost(f.Targets, host)
	for n, v := range out.VLANs.all() {
		part := *v
		part.Gateway = v.Gateway.onHost(host)
		out.VLANs.items[n] = &part
	}
	for n, s := range out.Switches.all() {
		part := *s
		part.Ports = onHost(s.Ports, host)
		out.Switches.items[n] = &part
	}
	for n, t := range out.Tunnels.all() {
		part := *t
		part.Peers = onHost(t.Peers, host)
		if self := f.Hosts.items[host]; t.Mesh != nil && self != nil {
			part.Address = self.Address
		}
		out.Tunnels.items[n] = &part
	}
	if f.BGP != nil && !f.BGP.has(host) {
		out.BGP = nil
	} else if f.BGP != nil {
		part := *f.BGP
		part.Neighbors = onHost(f.BGP.Neighbors, host)
		out.BGP = &part
	}
	out.self = host
	return &out
}

// away is the addresses of ports that a host does not have, by group and VLAN: its
// rules mean them as well where a VLAN spans hosts.
func (f *rawFile) away(host string) map[string]map[string][]netip.Prefix {
	out := map[string]map[string][]netip.Prefix{}
	for _, sw := range f.Switches.all() {
		for _, p := range sw.Ports.all() {
			if sw.has(host) && p.has(host) {
				continue
			}
			addresses := p.addresses()
			for _, vlan := range append([]value[name]{p.VLAN, p.Native}, p.Trunk.items...) {
				groups := p.Groups.items
				if v := f.VLANs.items[string(vlan.v)]; v != nil {
					groups = slices.Concat(groups, v.Groups.items)
				}
				for _, g := range groups {
					of := string(g.v)
					if vlan.ok && out[of] == nil {
						out[of] = map[string][]netip.Prefix{}
					}
					if vlan.ok {
						out[of][string(vlan.v)] = append(out[of][string(vlan.v)], addresses...)
					}
				}
			}
		}
	}
	return out
}

// addresses is what a port may send from, as far as the file says.
func (p *rawPort) addresses() []netip.Prefix {
	var out []netip.Prefix
	for v := range p.AllowedIPs.valid() {
		out = append(out, netip.Prefix(v.v).Masked())
	}
	if len(out) > 0 {
		return out
	}
	for v := range p.Address.valid() {
		a := prefixOf(v).Addr()
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// placed goes through the `on` of every object, and that of what it lies in.
func (f *rawFile) placed() iter.Seq2[*rawOn, *rawOn] {
	return func(yield func(on, in *rawOn) bool) {
		every := &rawOn{}
		ok := eachOn(f.VLANs, every, yield) && eachOn(f.Groups, every, yield) && eachOn(f.Switches, every, yield) && eachOn(f.Tunnels, every, yield) &&
			eachOn(f.Pools, every, yield) && eachOn(f.LUNs, every, yield) && eachOn(f.Targets, every, yield)
		if ok && f.BGP != nil {
			ok = yield(&f.BGP.rawOn, every) && eachOn(f.BGP.Neighbors, &f.BGP.rawOn, yield)
		}
		for _, v := range f.VLANs.all() {
			for i := range v.Gateway.on {
				ok = ok && yield(&v.Gateway.on[i], &v.rawOn)
			}
		}
		for _, s := range f.Switches.all() {
			ok = ok && eachOn(s.Ports, &s.rawOn, yield)
		}
		for _, t := range f.Tunnels.all() {
			ok = ok && eachOn(t.Peers, &t.rawOn, yield)
		}
	}
}

func eachOn[T any](t table[T], in *rawOn, yield func(on, in *rawOn) bool) bool {
	for _, item := range t.all() {
		if !yield(any(item).(interface{ where() *rawOn }).where(), in) {
			return false
		}
	}
	return true
}
