package config

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"ripstop/vswitch"
)

// CheckPort tells why an access port cannot stand beside those of c. It asks
// what Parse asks of a port in the file; the error says what to do.
func CheckPort(c *Config, switchName, name string, p Port) error {
	r := &report{}
	if why := badIfName(name); why != "" {
		return fmt.Errorf("%s %s", quoted(name), why)
	}
	if _, ok := c.Switches[switchName]; !ok {
		return fmt.Errorf("there is no switch %q%s", switchName, r.hint(switchName, slices.Collect(maps.Keys(c.Switches))))
	}
	if _, ok := c.VLANs[p.VLAN]; !ok {
		return fmt.Errorf("there is no VLAN %q%s", p.VLAN, r.hint(p.VLAN, slices.Collect(maps.Keys(c.VLANs))))
	}
	if err := checkKind(p); err != nil {
		return err
	}
	device := name
	if p.Kind == vswitch.Device {
		device = p.Device
	}
	if owner := c.deviceOwner(device); owner != "" {
		return fmt.Errorf("the host would have two interfaces %q: the other is that of %s", device, owner)
	}
	return c.farEndFree(p)
}

// checkKind holds a port's fields against its kind.
func checkKind(p Port) error {
	var far name
	var user userName
	switch p.Kind {
	case vswitch.Veth:
		if err := far.parse(p.Netns); err != nil {
			return fmt.Errorf("netns: %w", err)
		}
		var end ifName
		return end.parse(p.IfName)
	case vswitch.Tap:
		if p.TapUser != "" {
			return user.parse(p.TapUser)
		}
	case vswitch.Device:
		var device ifName
		return device.parse(p.Device)
	default:
		return errors.New("a port is a tap, has a far end in a namespace, or is a device of the host: say which")
	}
	return nil
}

// deviceOwner is what has an interface of the host, "" for nothing in c.
func (c *Config) deviceOwner(device string) string {
	if _, ok := c.Switches[device]; ok {
		return "switch " + device
	}
	if _, ok := c.Tunnels[device]; ok {
		return "tunnel " + device
	}
	if v, ok := c.VLANs[device]; ok && len(v.Gateways) > 0 {
		return "VLAN " + device
	}
	for n, v := range c.VLANs {
		if v.VNI != 0 && vswitch.OverlayPort(v.VNI) == device {
			return "VXLAN of VLAN " + n
		}
	}
	for sw, s := range c.Switches {
		for name, p := range s.Ports {
			if name == device || p.Device == device {
				return "port " + name + " of switch " + sw
			}
		}
	}
	return ""
}

// farEndFree refuses a second interface of one name, and an address that is
// taken, in a namespace or VLAN.
func (c *Config) farEndFree(p Port) error {
	for _, a := range p.Addresses {
		for _, g := range c.VLANs[p.VLAN].Gateways {
			if g.Addr() == a.Addr() {
				return fmt.Errorf("%s is taken: it is the gateway of VLAN %q", a.Addr(), p.VLAN)
			}
		}
	}
	for _, s := range c.Switches {
		for name, other := range s.Ports {
			if p.Netns != "" && other.Netns == p.Netns && other.IfName == p.IfName {
				return fmt.Errorf("namespace %q would have two interfaces %q: the other is that of port %s", p.Netns, p.IfName, name)
			}
			for _, a := range other.Addresses {
				if (other.VLAN == p.VLAN || other.Netns == p.Netns) && slices.ContainsFunc(p.Addresses, func(b netip.Prefix) bool { return a.Addr() == b.Addr() }) {
					return fmt.Errorf("%s is taken: port %s has it", a.Addr(), name)
				}
			}
		}
	}
	return nil
}
