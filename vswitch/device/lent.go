package device

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
)

// borrow marks an interface of the host as a port, with how it was.
func (d *Devices) borrow(sw, name string, p vswitch.Port) (netlink.Link, error) {
	l, err := d.lendable(p.Device)
	if err != nil {
		return nil, err
	}
	if isPort(l, sw, name) {
		return l, d.configure(l, p)
	}
	if err := free(l); err != nil {
		return nil, err
	}
	lent := &link.Lent{
		Alias:   l.Attrs().Alias,
		Up:      l.Attrs().RawFlags&unix.IFF_UP != 0,
		Promisc: l.Attrs().RawFlags&unix.IFF_PROMISC != 0,
	}
	if p.MTU != 0 {
		lent.MTU = l.Attrs().MTU
	}
	if err := d.host.SetAlias(l, link.Alias{Switch: sw, Port: name, Lent: lent}); err != nil {
		return nil, err
	}
	if l, err = d.host.Link(p.Device); err != nil {
		return nil, err
	}
	return l, d.configure(l, p)
}

func (d *Devices) lendable(name string) (netlink.Link, error) {
	l, err := d.host.Link(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no interface named %s: the host has none now: plug it in or correct `device` (ip link shows what there is)", name)
	}
	return l, err
}

// free refuses an interface that serves somebody else.
func free(l netlink.Link) error {
	if _, ours := link.ParseAlias(l.Attrs().Alias); ours {
		return Foreign(l)
	}
	if name := l.Attrs().Name; l.Attrs().MasterIndex != 0 {
		return fmt.Errorf("interface %s is in another bridge or bond already: take it out first (ip link set dev %s nomaster)", name, name)
	}
	return nil
}

// Replaceable tells why a port cannot give up its interface for the next one. One that
// was renamed is not the one that the file names either, and works on.
func (d *Devices) Replaceable(s vswitch.DelPort) error {
	if s.Next == "" {
		return nil
	}
	l, err := d.lendable(s.Next)
	if err == nil {
		err = free(l)
	}
	if err != nil {
		return fmt.Errorf("port %q: it keeps interface %s: %w", s.Name, s.Port.Device, err)
	}
	return nil
}

func (d *Devices) configureLent(l netlink.Link, p vswitch.Port) error {
	if err := d.setPromisc(l, true); err != nil {
		return err
	}
	a, ok := link.ParseAlias(l.Attrs().Alias)
	if !ok || a.Lent == nil {
		return fmt.Errorf("interface %q has lost its mark %q", l.Attrs().Name, "ripstop")
	}
	was := a.Lent.MTU
	switch {
	case p.MTU == 0 && was != 0:
		if err := d.host.SetMTU(l, was); err != nil {
			return err
		}
		a.Lent.MTU = 0
	case p.MTU != 0 && was == 0:
		a.Lent.MTU = l.Attrs().MTU
	}
	if err := d.host.SetAlias(l, a); err != nil || p.MTU == 0 {
		return err
	}
	return d.host.SetMTU(l, p.MTU)
}

func (d *Devices) setPromisc(l netlink.Link, on bool) error {
	if (l.Attrs().RawFlags&unix.IFF_PROMISC != 0) == on {
		return nil
	}
	set := d.host.SetPromiscOff
	if on {
		set = d.host.SetPromiscOn
	}
	if err := set(l); err != nil {
		return fmt.Errorf("set promiscuous mode of interface %q to %t: %w", l.Attrs().Name, on, err)
	}
	return nil
}

// giveBack makes an interface as it was. The alias goes last: until then the
// next pass knows that something is left to do.
func (d *Devices) giveBack(l netlink.Link, was link.Lent) error {
	if err := d.setPromisc(l, was.Promisc); err != nil {
		return err
	}
	if was.MTU != 0 {
		if err := d.host.SetMTU(l, was.MTU); err != nil {
			return err
		}
	}
	if !was.Up {
		if err := d.host.SetUp(l, false); err != nil {
			return err
		}
	}
	return d.host.RestoreAlias(l, was.Alias)
}
