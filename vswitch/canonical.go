package vswitch

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// DefaultMTU is what the kernel gives a new veth or tap: MTU 0 of such a port,
// and of a gateway, is this.
const DefaultMTU = 1500

// Canonical is a copy of s that shares nothing with it but policies, and in which what means
// the same is the same: lists sorted and without repetition, the default IfName
// and MTU spelled one way, no nil maps. Drivers observe canonical states.
func (s State) Canonical() State {
	c := State{Switches: make(map[string]Switch, len(s.Switches))}
	for name, sw := range s.Switches {
		d := Switch{
			Dataplane: sw.Dataplane,
			Ports:     make(map[string]Port, len(sw.Ports)),
			Gateways:  make(map[string]Gateway, len(sw.Gateways)),
		}
		for n, p := range sw.Ports {
			d.Ports[n] = p.canonical()
		}
		for n, g := range sw.Gateways {
			d.Gateways[n] = g.canonical()
		}
		c.Switches[name] = d
	}
	return c
}

func (p Port) canonical() Port {
	if p.Kind == Veth && p.IfName == "" {
		p.IfName = "eth0"
	}
	if p.Kind != Device && p.MTU == DefaultMTU {
		p.MTU = 0
	}
	if p.User == "0" {
		p.User = ""
	}
	p.Addresses = sorted(p.Addresses, comparePrefix)
	p.Overlay = p.Overlay.canonical()
	p.Security = p.Security.canonical()
	p.Limit = p.Limit.canonical()
	if p.Filters = maps.Clone(p.Filters); len(p.Filters) == 0 {
		p.Filters = nil
	}
	p.Tagged = sorted(without(p.Tagged, []uint16{p.PVID}), cmp.Compare)
	return p
}

func (o Overlay) canonical() Overlay {
	if o.Port == VXLANPort {
		o.Port = 0
	}
	o.Peers = sorted(o.Peers, netip.Addr.Compare)
	if o.Told {
		o.Peers = nil
	}
	return o
}

func (g Gateway) canonical() Gateway {
	if g.MTU == DefaultMTU {
		g.MTU = 0
	}
	g.Addresses = sorted(g.Addresses, comparePrefix)
	return g
}

func sorted[T comparable](list []T, by func(a, b T) int) []T {
	return slices.Compact(slices.SortedFunc(slices.Values(list), by))
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// DeviceName is the name of the port's device on the host: that of the lent
// interface, or the port's own.
func (p Port) DeviceName(port string) string {
	if p.Kind == Device {
		return p.Device
	}
	return port
}

// same compares canonical ports.
func (p Port) same(q Port) bool {
	return p.identity() == q.identity() && p.setting() == q.setting() &&
		p.Security.same(q.Security) && sameFilters(p.Filters, q.Filters) && slices.Equal(p.Addresses, q.Addresses) && slices.Equal(p.Tagged, q.Tagged) &&
		slices.Equal(p.Overlay.Peers, q.Overlay.Peers)
}

// identity is what a port cannot change and stay the same port.
type identity struct {
	kind                        Kind
	netns, ifName, user, device string
	multiQueue                  bool

	vni   uint32
	local netip.Addr
	port  uint16
	told  bool
}

func (p Port) identity() identity {
	o := p.Overlay
	return identity{p.Kind, p.Netns, p.IfName, p.User, p.Device, p.MultiQueue, o.VNI, o.Local, o.Port, o.Told}
}

type setting struct {
	mac            MAC
	pvid           uint16
	isolated, down bool
	mtu            int
	limit          Limit
}

func (p Port) setting() setting {
	return setting{p.MAC, p.PVID, p.Isolated, p.Down, p.MTU, p.Limit}
}

// same compares canonical gateways.
func (g Gateway) same(h Gateway) bool {
	return g.VLAN == h.VLAN && g.MTU == h.MTU && g.MAC == h.MAC && slices.Equal(g.Addresses, h.Addresses)
}

// wantedNames is every name of a port or gateway in s, whatever its switch:
// names of devices, of which the host has only one each.
func (s State) wantedNames() map[string]bool {
	all := map[string]bool{}
	for _, sw := range s.Switches {
		for n := range maps.Keys(sw.Ports) {
			all[n] = true
		}
		for n := range maps.Keys(sw.Gateways) {
			all[n] = true
		}
	}
	return all
}
