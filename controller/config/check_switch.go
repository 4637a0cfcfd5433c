package config

import (
	"net/netip"
	"slices"

	"ripstop/vswitch"
)

func (c *checker) checkSwitch(n string, sw *rawSwitch) Switch {
	out := Switch{Dataplane: vswitch.Dataplane(sw.Dataplane.or(dataplane(vswitch.Auto))), Ports: map[string]Port{}}
	out.VXLAN = c.checkEnd(sw.VXLAN)
	for portName, p := range sw.Ports.all() {
		first, twin := c.ports[portName]
		if twin {
			c.errorf(p.spot, "a host has one port of a name: the other is at %s", first)
		}
		c.ports[portName] = p.spot
		out.Ports[portName] = c.checkPort(n, p)
		c.portDevice(portName, p, twin)
	}
	if err := out.Dataplane.Full(len(out.Ports), 0); err != nil {
		c.errorf(sw.spot, "%v", err)
	}
	return out
}

func (c *checker) checkPort(switchName string, p *rawPort) Port {
	out := Port{
		Kind:      c.kindOf(p),
		Netns:     string(p.Netns.v),
		Addresses: prefixes(p.Address),
		MAC:       vswitch.MAC(p.MAC.v),
		Device:    string(p.Device.v),
		Isolated:  bool(p.Isolated.v),
		Down:      !bool(p.State.or(true)),
	}
	out.MTU = c.checkMTU(p.MTU, out.Addresses)
	if out.Kind == vswitch.Veth {
		out.IfName = string(p.IfName.or("eth0"))
	}
	if p.Tap != nil {
		out.TapUser, out.MultiQueue = string(p.Tap.User.v), p.Tap.Queues.v > 1
	}
	c.onlyVeth(p, out.Kind)
	c.checkVLANsOf(switchName, p, &out)
	out.Security = c.checkSecurity(p, out)
	out.Limit = c.checkLimit(p.Limit)
	out.Groups = c.groupsOf(p.Groups)
	return out
}

// portDevice takes the port's interface on the host: one of the port's name, or
// the one that it borrows.
func (c *checker) portDevice(name string, p *rawPort, twin bool) {
	switch {
	case !p.Device.given && !twin:
		c.device(name, p.spot)
	case p.Device.given && c.objectName(name, p.spot) && p.Device.ok:
		c.device(string(p.Device.v), p.Device.spot)
	}
}

// onlyVeth refuses what only a far end in a namespace has.
func (c *checker) onlyVeth(p *rawPort, kind vswitch.Kind) {
	if kind == vswitch.Veth || kind == "" {
		return
	}
	const why = "is of use only with netns: leave it out"
	if p.Address.given {
		c.errorf(p.Address.spot, why)
	}
	if p.IfName.given {
		c.errorf(p.IfName.spot, why)
	}
	if p.MAC.given {
		c.errorf(p.MAC.spot, why)
	}
}

// checkVLANsOf fills in the port's VLANs: either vlan, or trunk and native.
func (c *checker) checkVLANsOf(switchName string, p *rawPort, out *Port) {
	trunk := p.Trunk.given || p.Native.given
	switch {
	case p.VLAN.given && trunk:
		c.errorf(p.spot, "has vlan as well as trunk or native: an access port has vlan alone")
	case !p.VLAN.given && !trunk:
		c.errorf(p.spot, "is in no VLAN: give vlan, or trunk and native")
	}
	if known(c.report, c.raw.VLANs, "VLAN", p.VLAN) {
		out.VLAN = c.join(switchName, p.VLAN)
	}
	if known(c.report, c.raw.VLANs, "VLAN", p.Native) {
		out.Native = c.join(switchName, p.Native)
	}
	seen := map[name]bool{}
	for v := range p.Trunk.valid() {
		switch {
		case !known(c.report, c.raw.VLANs, "VLAN", v):
		case seen[v.v]:
			c.errorf(v.spot, "VLAN %q is given twice", v.v)
		case p.Native.ok && v.v == p.Native.v:
			c.errorf(v.spot, "VLAN %q is native as well: its frames carry either a tag or none", v.v)
		default:
			out.Trunk = append(out.Trunk, c.join(switchName, v))
		}
		seen[v.v] = true
	}
	slices.Sort(out.Trunk)
	if p.Address.given && p.Trunk.given && !p.Native.given {
		c.warnf(p.Address.spot, "the port drops untagged frames, so that nobody reaches this address: give native")
	}
}

// join notes that the switch has a port in the VLAN.
func (c *checker) join(switchName string, v value[name]) string {
	vlan := string(v.v)
	if c.members[vlan] == nil {
		c.members[vlan] = map[string]bool{}
	}
	c.members[vlan][switchName] = true
	return vlan
}

// checkAddresses holds every address against the others of its VLAN and of its
// namespace, and every interface of a namespace against the others there.
func (c *checker) checkAddresses() {
	used := map[string]spot{}
	var nets []value[hostAddr]
	for n, v := range c.raw.VLANs.all() {
		for a := range v.Gateway.valid() {
			nets = append(nets, a)
			used["VLAN "+n+" "+prefixOf(a).Addr().String()] = a.spot
		}
	}
	for _, t := range c.raw.Tunnels.all() {
		nets = slices.AppendSeq(nets, t.Address.valid())
	}
	c.checkNets(nets)
	ends := map[string]spot{}
	for _, sw := range c.raw.Switches.all() {
		for _, p := range sw.Ports.all() {
			c.checkFarEnd(p, used, ends)
		}
	}
}

func (c *checker) checkFarEnd(p *rawPort, used, ends map[string]spot) {
	if !p.Netns.ok {
		return
	}
	end := string(p.IfName.or("eth0"))
	if first, twice := ends[string(p.Netns.v)+" "+end]; twice {
		c.errorf(p.spot, "namespace %q would have two interfaces %q: the other is %s at %s; give one an ifname",
			p.Netns.v, end, first.path, first)
	}
	ends[string(p.Netns.v)+" "+end] = p.spot
	untagged := string(p.VLAN.v) + string(p.Native.v)
	for a := range p.Address.valid() {
		if untagged == "" || c.take(used, a, "VLAN "+untagged) {
			c.take(used, a, "namespace "+string(p.Netns.v))
		}
	}
	c.checkReach(p, untagged)
}

// take takes an address in a VLAN or namespace; false when it is taken.
func (c *checker) take(used map[string]spot, a value[hostAddr], where string) bool {
	key := where + " " + prefixOf(a).Addr().String()
	first, twice := used[key]
	if twice {
		c.errorf(a.spot, "%s is taken in %s: %s at %s has it", prefixOf(a).Addr(), where, first.path, first)
		return false
	}
	used[key] = a.spot
	return true
}

// checkReach warns of a port that has addresses and none of them in a network
// of its VLAN's gateway. A second network beside it is nobody's fault.
func (c *checker) checkReach(p *rawPort, vlan string) {
	gateways := c.cfg.VLANs[vlan].Gateways
	if !p.Address.given || len(gateways) == 0 {
		return
	}
	for a := range p.Address.valid() {
		if slices.ContainsFunc(gateways, func(g netip.Prefix) bool { return g.Masked() == prefixOf(a).Masked() }) {
			return
		}
	}
	c.warnf(p.Address.spot, "is not in the network of VLAN %q, whose gateway is %s", vlan, gateways[0])
}
