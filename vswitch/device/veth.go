package device

import (
	"errors"
	"fmt"
	"io/fs"
	"net"

	"github.com/vishvananda/netlink"

	"ripstop/internal/link"
	"ripstop/vswitch"
)

func (d *Devices) createVeth(sw, name string, p vswitch.Port) (netlink.Link, error) {
	l, err := d.makeVethIn(sw, name, p)
	if !errors.Is(err, fs.ErrExist) {
		return l, err
	}
	// Rarely is there something of that name, so that it is looked at only now.
	there, look := d.room(sw, name)
	switch {
	case look != nil:
		return nil, look
	case there != nil:
		return there, d.configure(there, p)
	}
	return d.makeVethIn(sw, name, p)
}

func (d *Devices) makeVethIn(sw, name string, p vswitch.Port) (netlink.Link, error) {
	far, err := link.EnsureNamespace(p.Netns)
	if err != nil {
		return nil, err
	}
	l, err := d.makeVeth(far, sw, name, p)
	if err = errors.Join(err, far.Close()); err != nil {
		// Nothing is left of a port that could not be made.
		return nil, errors.Join(err, link.ReleaseNamespace(p.Netns))
	}
	return l, nil
}

func (d *Devices) makeVeth(far *link.Space, sw, name string, p vswitch.Port) (netlink.Link, error) {
	v := link.Veth{Name: name, Group: link.Group(sw), MTU: mtu(p), Far: far, FarName: p.IfName, FarMAC: d.MAC("port", sw, name)}
	if p.MAC != (vswitch.MAC{}) {
		v.FarMAC = net.HardwareAddr(p.MAC[:])
	}
	if err := d.host.AddVeth(v); err != nil {
		return nil, d.taken(far, name, p, err)
	}
	l, err := d.host.Link(name)
	if err != nil {
		return nil, err
	}
	alias := link.Alias{Switch: sw, Port: name, Netns: p.Netns}
	err = d.furnish(far, l, p, alias)
	if err != nil {
		return nil, errors.Join(err, d.host.Delete(l))
	}
	return l, nil
}

// taken explains which of the two names of a pair was taken; the error is an
// fs.ErrExist when it is the near one's.
func (d *Devices) taken(far *link.Space, name string, p vswitch.Port, err error) error {
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, look := d.host.Link(name); look == nil {
		return err
	}
	if _, look := far.Link(p.IfName); look == nil {
		return fmt.Errorf("namespace %q has an interface %q that is not ripstop's: choose another ifname, or remove it", p.Netns, p.IfName)
	}
	return err
}

// furnish sets a new pair up. The near end's alias comes last: it says that the
// rest is done.
func (d *Devices) furnish(far *link.Space, near netlink.Link, p vswitch.Port, a link.Alias) error {
	if err := link.DisableIPv6(near.Attrs().Name); err != nil {
		return err
	}
	// As new as it is, it is known by its number alone, without another look.
	end := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: p.IfName, Index: near.Attrs().ParentIndex}}
	if err := far.SetAlias(end, a); err != nil {
		return err
	}
	if err := far.SetUp(end, true); err != nil {
		return err
	}
	if err := far.AddAddresses(end, p.Addresses); err != nil {
		return err
	}
	return d.host.SetAlias(near, a)
}

func (d *Devices) configureVeth(near netlink.Link, p vswitch.Port) (err error) {
	far, err := link.OpenNamespace(p.Netns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, far.Close()) }()
	end, err := far.Link(p.IfName)
	if err != nil {
		return err
	}
	if err := d.host.SetMTU(near, mtu(p)); err != nil {
		return err
	}
	if err := far.SetMTU(end, mtu(p)); err != nil {
		return err
	}
	if err := setMAC(far, end, p.MAC); err != nil {
		return err
	}
	if err := far.SetUp(end, true); err != nil {
		return err
	}
	return far.SetAddresses(end, p.Addresses)
}

func setMAC(s *link.Space, l netlink.Link, mac vswitch.MAC) error {
	if mac == (vswitch.MAC{}) || vswitch.MAC(l.Attrs().HardwareAddr) == mac {
		return nil
	}
	if err := s.LinkSetHardwareAddr(l, net.HardwareAddr(mac[:])); err != nil {
		return fmt.Errorf("set MAC address %s: %w", mac, err)
	}
	return nil
}
