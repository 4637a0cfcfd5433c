package ebpf

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"ripstop/internal/link"
	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// gateway is a veth pair: the host speaks through one end, the other is an
// access port of the switch.
type gateway struct {
	host, port netlink.Link
}

// vlanOf is the VLAN in a name that Gateway.PortName made, 0 when there is none.
func vlanOf(name string) uint16 {
	vid, err := strconv.ParseUint(name[strings.LastIndexByte(name, '.')+1:], 10, 12)
	if err != nil {
		return 0
	}
	return uint16(vid)
}

// setGateway makes a gateway, or mends and changes the one that there is.
func (d *Driver) setGateway(sw, name string, g vswitch.Gateway) error {
	plane, err := d.plane(sw)
	if err != nil {
		return err
	}
	pair, err := d.ensureGateway(sw, name, g)
	if err == nil {
		if err = d.devices.SetGatewayMAC(pair.host, g.MAC); err == nil {
			pair.host, err = d.host.Link(name)
		}
	}
	if err == nil {
		m := member{mtu: gatewayMTU(g), pvid: g.VLAN, security: gatewaySecurity, own: make([]vswitch.MAC, 1)}
		copy(m.own[0][:], pair.host.Attrs().HardwareAddr)
		err = d.join(plane, pair.port, place{name: name, gateway: true}, m)
	}
	if err == nil {
		err = errors.Join(d.host.SetUp(pair.port, true), d.host.SetUp(pair.host, true))
	}
	if err == nil {
		err = d.host.SetAddresses(pair.host, g.Addresses)
	}
	if err != nil {
		return fmt.Errorf("gateway %q: %w", name, err)
	}
	return nil
}

func gatewayMTU(g vswitch.Gateway) int {
	if g.MTU == 0 {
		return vswitch.DefaultMTU
	}
	return g.MTU
}

// ensureGateway is the pair with the right MTU. What is not a whole pair of
// ripstop's own is made anew; what is another's is an error.
func (d *Driver) ensureGateway(sw, name string, g vswitch.Gateway) (gateway, error) {
	l, err := d.host.Link(name)
	if errors.Is(err, fs.ErrNotExist) {
		return d.makeGateway(sw, name, g)
	}
	if err != nil {
		return gateway{}, err
	}
	if !isGateway(l, sw, name) && !link.HalfMade(l, sw) {
		return gateway{}, device.Foreign(l)
	}
	far, err := d.host.LinkByIndex(l.Attrs().ParentIndex)
	if err != nil || !isGateway(l, sw, name) || !isGateway(far, sw, name) || far.Attrs().ParentIndex != l.Attrs().Index {
		if err := d.host.Delete(l); err != nil {
			return gateway{}, err
		}
		return d.makeGateway(sw, name, g)
	}
	mtu := gatewayMTU(g)
	return gateway{l, far}, errors.Join(d.host.SetMTU(far, mtu), d.host.SetMTU(l, mtu))
}

func isGateway(l netlink.Link, sw, name string) bool {
	a, ok := link.ParseAlias(l.Attrs().Alias)
	return ok && a.Switch == sw && a.Gateway == name
}

// makeGateway makes a pair. The host's end is marked last: it says that the
// rest is done.
func (d *Driver) makeGateway(sw, name string, g vswitch.Gateway) (gateway, error) {
	far := g.PortName(sw)
	if err := d.removeOld(sw, name, far); err != nil {
		return gateway{}, err
	}
	v := link.Veth{Name: name, MAC: d.devices.MAC("gateway", sw, name), Group: link.Group(sw), MTU: gatewayMTU(g), FarName: far}
	if err := d.host.AddVeth(v); err != nil {
		if other, look := d.host.Link(far); look == nil && errors.Is(err, fs.ErrExist) {
			return gateway{}, device.Foreign(other)
		}
		return gateway{}, err
	}
	pair, err := d.markGateway(sw, name, far)
	if err != nil {
		return gateway{}, errors.Join(err, d.host.Delete(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}}))
	}
	return pair, nil
}

// removeOld removes a pair of the gateway whose host's end has another name.
func (d *Driver) removeOld(sw, name, far string) error {
	l, err := d.host.Link(far)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil || !isGateway(l, sw, name) {
		return err
	}
	return d.host.Delete(l)
}

func (d *Driver) markGateway(sw, name, far string) (gateway, error) {
	if err := link.DisableIPv6(far); err != nil {
		return gateway{}, err
	}
	var pair gateway
	var err error
	if pair.port, err = d.host.Link(far); err != nil {
		return gateway{}, err
	}
	if pair.host, err = d.host.Link(name); err != nil {
		return gateway{}, err
	}
	alias := link.Alias{Switch: sw, Gateway: name}
	if err := d.host.SetAlias(pair.port, alias); err != nil {
		return gateway{}, err
	}
	return pair, d.host.SetAlias(pair.host, alias)
}

func (d *Driver) delGateway(sw, name string) error {
	l, err := d.host.Link(name)
	if err == nil && (isGateway(l, sw, name) || link.HalfMade(l, sw)) {
		err = d.host.Delete(l)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("gateway %q: %w", name, err)
	}
	if plane := d.planes[sw]; plane != nil {
		return plane.leave(place{name: name, gateway: true})
	}
	return nil
}
