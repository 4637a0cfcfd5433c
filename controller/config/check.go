package config

import (
	"maps"
	"net/netip"
	"slices"

	"ripstop/vswitch"
)

// checker follows the names of a raw configuration from object to object and
// fills in the Config. Values that are wrong alone were reported when they were
// read and are passed over here.
type checker struct {
	*report
	raw     *rawFile
	cfg     *Config
	devices map[string]spot            // interfaces of the host, by name
	ports   map[string]spot            // ports of all switches, by name
	members map[string]map[string]bool // VLAN name to the switches with a port in it
}

func newChecker(r *report, raw *rawFile) *checker {
	return &checker{
		report: r,
		raw:    raw,
		cfg: &Config{
			VLANs: map[string]VLAN{}, Groups: map[string]Group{}, Switches: map[string]Switch{}, Tunnels: map[string]Tunnel{},
			Pools: map[string]Pool{}, LUNs: map[string]LUN{}, Targets: map[string]Target{},
		},
		devices: map[string]spot{},
		ports:   map[string]spot{},
		members: map[string]map[string]bool{},
	}
}

// version demands one version in all files together.
func (c *checker) version(files []File) {
	if !c.raw.Version.given && len(files) > 0 && !c.broken {
		c.errorf(spot{file: files[0].Name, line: 1, col: 1}, "version is missing: write version: 1")
	}
}

// check goes from what others refer to, to what refers to it.
func (c *checker) check() {
	c.checkGroups()
	for n, sw := range c.raw.Switches.all() {
		c.device(n, c.raw.Switches.at[n])
		c.cfg.Switches[n] = c.checkSwitch(n, sw)
	}
	c.checkVLANs()
	for n, t := range c.raw.Tunnels.all() {
		c.device(n, t.spot)
		c.cfg.Tunnels[n] = c.checkTunnel(t)
	}
	c.checkListen()
	c.checkVXLAN()
	c.checkBGP()
	c.checkAddresses()
	c.checkOwners()
	c.checkMembers()
	c.checkStore()
	c.checkTargets()
	c.checkReaches()
}

// objectName refuses a key that is no name.
func (c *checker) objectName(n string, at spot) bool {
	why := badName(n)
	if why != "" {
		c.errorf(at, "%s %s", quoted(n), why)
	}
	return why == ""
}

// device takes an interface's name on the host.
func (c *checker) device(n string, at spot) {
	if why := badIfName(n); why != "" {
		c.errorf(at, "%s %s", quoted(n), why)
		return
	}
	if first, taken := c.devices[n]; taken {
		c.errorf(at, "the host would have two interfaces %q: the other is %s at %s", n, first.path, first)
		return
	}
	c.devices[n] = at
}

// prefixes is a list's valid prefixes, sorted. checkAddresses reports twins.
func prefixes(m many[hostAddr]) []netip.Prefix {
	var all []netip.Prefix
	for v := range m.valid() {
		all = append(all, prefixOf(v))
	}
	slices.SortFunc(all, comparePrefix)
	return all
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// checkMTU holds the MTU against IPv6's least (RFC 8200 section 5).
func (c *checker) checkMTU(v value[mtu], addrs []netip.Prefix) int {
	six := slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr().Is6() })
	if v.ok && v.v < 1280 && six {
		c.errorf(v.spot, "%d is too small: IPv6 needs at least 1280", v.v)
	}
	return int(v.or(0))
}

// checkVLANs checks the VLANs, which switch serves each gateway, and takes the
// gateways' devices.
func (c *checker) checkVLANs() {
	ids := map[vlanID]string{}
	for n, v := range c.raw.VLANs.all() {
		if first, twice := ids[v.ID.v]; v.ID.ok && twice {
			c.errorf(v.ID.spot, "VLAN id %d has two names: the other is %q at %s", v.ID.v, first, c.raw.VLANs.at[first])
		} else if v.ID.ok {
			ids[v.ID.v] = n
		}
		vlan := VLAN{ID: uint16(v.ID.v), Gateways: prefixes(v.Gateway.many), Groups: c.groupsOf(v.Groups), VNI: uint32(v.VNI.v), Anycast: bool(v.Anycast.v)}
		known(c.report, c.raw.Switches, "switch", v.Switch)
		if v.Gateway.given {
			c.device(n, v.spot)
			vlan.Switch = c.servedBy(n, v)
		} else if c.objectName(n, v.spot) && v.Switch.given {
			c.warnf(v.Switch.spot, "says who serves a gateway, and there is none: nothing follows from it")
		}
		c.cfg.VLANs[n] = vlan
	}
}

// servedBy is the switch of a VLAN's gateway: the named one, or the only one
// with a port in the VLAN, or the only one at all.
func (c *checker) servedBy(n string, v *rawVLAN) string {
	if v.Switch.given {
		return string(v.Switch.v)
	}
	with := slices.Sorted(maps.Keys(c.members[n]))
	all := c.raw.Switches.order
	switch {
	case len(with) == 1:
		return with[0]
	case len(all) == 1:
		return all[0]
	case len(all) == 0:
		c.errorf(v.Gateway.spot, "there is no switch that could serve the gateway: add one under switches")
	case len(with) == 0:
		c.errorf(v.Gateway.spot, "no switch has a port in VLAN %q: say which serves the gateway, as in switch: %s", n, all[0])
	default:
		c.errorf(v.Gateway.spot, "several switches have ports in VLAN %q: say which serves the gateway, as in switch: %s", n, with[0])
	}
	return ""
}

// kindOf is what a port is made of, by the one key of the three that is there.
func (c *checker) kindOf(p *rawPort) vswitch.Kind {
	var kinds []vswitch.Kind
	if p.Netns.given {
		kinds = append(kinds, vswitch.Veth)
	}
	if p.Tap != nil {
		kinds = append(kinds, vswitch.Tap)
	}
	if p.Device.given {
		kinds = append(kinds, vswitch.Device)
	}
	if len(kinds) != 1 {
		c.errorf(p.spot, "needs exactly one of netns, tap and device")
		return ""
	}
	return kinds[0]
}
