package config

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"

	"ripstop/vswitch"
)

// maxStatic is how many pairs of Ethernet address and VLAN a port may own: each
// is a static entry of the switch's FDB.
const maxStatic = 4096

// checkSecurity is what a port may send. Its own addresses have to be among those
// that it may send from.
func (c *checker) checkSecurity(p *rawPort, port Port) vswitch.Security {
	s := vswitch.Security{
		AllowedMACs:   c.allowedMACs(p),
		AllowedIPs:    c.allowedIPs(p),
		MACLimit:      int(p.MACLimit.v),
		Trusted:       bool(p.Trusted.or(port.Kind == vswitch.Device)),
		BPDUGuard:     bool(p.BPDUGuard.v),
		LoopDetection: bool(p.LoopDetect.v),
	}
	if st := p.StormControl; st != nil {
		s.Storm = vswitch.Storm{
			Broadcast: uint32(st.Broadcast.v), Multicast: uint32(st.Multicast.v), UnknownUnicast: uint32(st.UnknownUnicast.v),
		}
	}
	vlans := len(port.Trunk)
	if port.VLAN != "" || port.Native != "" {
		vlans++
	}
	if n := len(s.AllowedMACs) * vlans; n > maxStatic {
		c.errorf(p.AllowedMACs.spot, "%d addresses in %d VLANs are too many: their product is at most %d", len(s.AllowedMACs), vlans, maxStatic)
	}
	if p.MAC.ok && len(s.AllowedMACs) > 0 && !slices.Contains(s.AllowedMACs, vswitch.MAC(p.MAC.v)) {
		c.errorf(p.MAC.spot, "%s is not among the port's allowed-macs: nothing that it sends would be taken", vswitch.MAC(p.MAC.v))
	}
	for a := range p.Address.valid() {
		addr := prefixOf(a).Addr()
		if len(s.AllowedIPs) > 0 && !slices.ContainsFunc(s.AllowedIPs, func(p netip.Prefix) bool { return p.Contains(addr) }) {
			c.errorf(a.spot, "%s is not among the port's allowed-ips: nothing that it sends would be taken", addr)
		}
	}
	return s
}

func (c *checker) allowedMACs(p *rawPort) []vswitch.MAC {
	var all []vswitch.MAC
	for v := range p.AllowedMACs.valid() {
		m := vswitch.MAC(v.v)
		if slices.Contains(all, m) {
			c.errorf(v.spot, "%s is given twice", m)
			continue
		}
		all = append(all, m)
	}
	slices.SortFunc(all, func(a, b vswitch.MAC) int { return bytes.Compare(a[:], b[:]) })
	return all
}

func (c *checker) allowedIPs(p *rawPort) []netip.Prefix {
	var all []netip.Prefix
	for v := range p.AllowedIPs.valid() {
		written := netip.Prefix(v.v)
		masked := written.Masked()
		if masked != written {
			c.warnf(v.spot, "%s has bits behind its prefix length: it is taken as %s", written, masked)
		}
		if slices.Contains(all, masked) {
			c.errorf(v.spot, "%s is given twice", masked)
			continue
		}
		all = append(all, masked)
	}
	slices.SortFunc(all, comparePrefix)
	return all
}

// owner is who an Ethernet address belongs to.
type owner struct {
	port string
	at   spot
}

// checkOwners refuses an Ethernet address that belongs to one port of a VLAN and
// is another's, too.
func (c *checker) checkOwners() {
	owners := map[string]owner{}
	for n, sw := range c.raw.Switches.all() {
		for port, p := range sw.Ports.all() {
			for v := range p.AllowedMACs.valid() {
				c.own(owners, n, port, v)
			}
		}
	}
	for n, sw := range c.raw.Switches.all() {
		for port, p := range sw.Ports.all() {
			if p.MAC.ok && !p.AllowedMACs.given {
				c.own(owners, n, port, p.MAC)
			}
		}
	}
}

// own takes an address for a port in all its VLANs, or says whose it is.
func (c *checker) own(owners map[string]owner, sw, port string, v value[mac]) {
	var other owner
	for _, vlan := range c.cfg.Switches[sw].Ports[port].vlans() {
		key := fmt.Sprintf("%s %s %x", sw, vlan, v.v)
		if first, taken := owners[key]; taken && first.port != port {
			other = first
			continue
		}
		owners[key] = owner{port, v.spot}
	}
	if other.port != "" {
		c.errorf(v.spot, "%s belongs to another port of the VLAN: see %s at %s", vswitch.MAC(v.v), other.at.path, other.at)
	}
}

// vlans is the names of all VLANs that the port is in.
func (p Port) vlans() []string {
	all := slices.Clone(p.Trunk)
	for _, v := range []string{p.VLAN, p.Native} {
		if v != "" {
			all = append(all, v)
		}
	}
	return all
}
