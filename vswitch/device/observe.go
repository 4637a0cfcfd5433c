package device

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
)

// Port is a port's device as it was found.
type Port struct {
	vswitch.Port              // without PVID, Tagged and Isolated
	Link         netlink.Link // the near end
}

// Gateway is a gateway's device as it was found.
type Gateway struct {
	vswitch.Gateway // without VLAN
	Link            netlink.Link
}

// Switch is what was found of one switch.
type Switch struct {
	Ports    map[string]Port
	Gateways map[string]Gateway // links marked with a gateway and named like it
	Others   []netlink.Link     // links marked with the switch that are neither
}

// Observe is everything in the kernel that is marked as a switch's, by switch. A
// port that is not whole (half made, renamed, its far end gone or moved) is in
// it with a Port that no configuration wants, so that Diff makes it anew.
func (d *Devices) Observe(ctx context.Context) (map[string]Switch, error) {
	links, err := d.host.Links()
	if err != nil {
		return nil, err
	}
	addresses, err := d.host.Addresses()
	if err != nil {
		return nil, err
	}
	o := observer{host: d.host, own: d.gatewayMAC, found: map[string]Switch{}, ends: map[string]ends{}}
	for _, l := range links {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		a, ok := link.ParseAlias(l.Attrs().Alias)
		if !ok || a.Switch == "" {
			continue
		}
		if err := o.add(l, a, addresses[l.Attrs().Index]); err != nil {
			return nil, err
		}
	}
	o.addHalfMade(links)
	return o.found, nil
}

type observer struct {
	host   *link.Space
	own    func(netlink.Link, link.Alias) vswitch.MAC
	floods map[int][]netip.Addr // nil before somebody asked

	found map[string]Switch
	ends  map[string]ends // by namespace
}

// ends is the links of a namespace with their addresses.
type ends struct {
	links     []netlink.Link
	addresses map[int][]netip.Prefix
}

func (o *observer) at(name string) Switch {
	s, ok := o.found[name]
	if !ok {
		s = Switch{Ports: map[string]Port{}, Gateways: map[string]Gateway{}}
	}
	return s
}

func (o *observer) add(l netlink.Link, a link.Alias, addresses []netip.Prefix) error {
	s := o.at(a.Switch)
	switch {
	case a.Port != "":
		p, err := o.port(l, a)
		if err != nil {
			return err
		}
		s.Ports[a.Port] = p
	case a.Gateway == l.Attrs().Name:
		g := vswitch.Gateway{Addresses: addresses, MTU: seenMTU(l)}
		if mac := l.Attrs().HardwareAddr; len(mac) == len(g.MAC) && vswitch.MAC(mac).IsAnycast() && vswitch.MAC(mac) != o.own(l, a) {
			g.MAC = vswitch.MAC(mac)
		}
		s.Gateways[a.Gateway] = Gateway{g, l}
	default:
		s.Others = append(s.Others, l)
	}
	o.found[a.Switch] = s
	return nil
}

func (o *observer) addHalfMade(links []netlink.Link) {
	for _, l := range links {
		for _, sw := range slices.Sorted(maps.Keys(o.found)) {
			name := l.Attrs().Name
			if _, ok := o.found[sw].Ports[name]; !ok && name != sw && link.HalfMade(l, sw) {
				o.found[sw].Ports[name] = Port{Link: l}
				break
			}
		}
	}
}

func (o *observer) port(l netlink.Link, a link.Alias) (Port, error) {
	p := vswitch.Port{Down: l.Attrs().RawFlags&unix.IFF_UP == 0, MTU: seenMTU(l)}
	if a.Lent != nil {
		p.Kind, p.Device = vswitch.Device, l.Attrs().Name
		p.MTU = 0
		if a.Lent.MTU != 0 {
			p.MTU = l.Attrs().MTU
		}
		return Port{p, l}, nil
	}
	if l.Attrs().Name != a.Port {
		return Port{Link: l}, nil
	}
	switch dev := l.(type) {
	case *netlink.Tuntap:
		p.Kind, p.MultiQueue = vswitch.Tap, isMultiQueue(dev)
		if dev.Owner != 0 {
			p.User = strconv.FormatUint(uint64(dev.Owner), 10)
		}
	case *netlink.Vxlan:
		p.Kind = vswitch.VXLAN
		var err error
		if p.Overlay, err = o.overlay(dev); err != nil {
			return Port{}, err
		}
	case *netlink.Veth:
		p.Kind = vswitch.Veth
		return Port{p, l}.withFarEnd(o, a)
	}
	return Port{p, l}, nil
}

func seenMTU(l netlink.Link) int {
	if l.Attrs().MTU == vswitch.DefaultMTU {
		return 0
	}
	return l.Attrs().MTU
}

// withFarEnd adds what is to be seen in the namespace. The far end is the one
// that says of the near end that it is its peer.
func (p Port) withFarEnd(o *observer, a link.Alias) (Port, error) {
	e, err := o.namespace(a.Netns)
	if err != nil {
		return p, err
	}
	for _, l := range e.links {
		at := l.Attrs()
		if at.Index != p.Link.Attrs().ParentIndex || at.ParentIndex != p.Link.Attrs().Index || at.Alias != a.String() {
			continue
		}
		p.Netns, p.IfName, p.Addresses = a.Netns, at.Name, e.addresses[at.Index]
		if len(at.HardwareAddr) == len(p.MAC) {
			p.MAC = vswitch.MAC(at.HardwareAddr)
		}
	}
	return p, nil
}

func (o *observer) namespace(name string) (e ends, err error) {
	if e, ok := o.ends[name]; ok {
		return e, nil
	}
	s, err := link.OpenNamespace(name)
	if errors.Is(err, fs.ErrNotExist) {
		return ends{}, nil
	}
	if err != nil {
		return ends{}, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if e.links, err = s.Links(); err != nil {
		return ends{}, err
	}
	if e.addresses, err = s.Addresses(); err != nil {
		return ends{}, err
	}
	o.ends[name] = e
	return e, nil
}
