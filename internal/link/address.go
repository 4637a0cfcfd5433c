package link

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Addresses is every link's lasting addresses by ifindex, sorted, in one dump.
// What the kernel or a router advertisement gave is not among them.
func (s *Space) Addresses() (map[int][]netip.Prefix, error) {
	list, err := Dump(func() ([]netlink.Addr, error) { return s.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := map[int][]netip.Prefix{}
	for _, a := range list {
		if p, ok := lasting(a); ok {
			out[a.LinkIndex] = append(out[a.LinkIndex], p)
		}
	}
	for _, l := range out {
		slices.SortFunc(l, comparePrefix)
	}
	return out, nil
}

func comparePrefix(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

// lasting is the address unless it was given by the kernel. Of IPv6 link-local
// addresses the kernel's own are those that were checked for duplicates: ours
// are set with IFA_F_NODAD.
func lasting(a netlink.Addr) (netip.Prefix, bool) {
	ip, ok := netip.AddrFromSlice(a.IP)
	if !ok || a.Flags&unix.IFA_F_PERMANENT == 0 {
		return netip.Prefix{}, false
	}
	ip = ip.Unmap()
	if ip.Is6() && ip.IsLinkLocalUnicast() && a.Flags&unix.IFA_F_NODAD == 0 {
		return netip.Prefix{}, false
	}
	bits, _ := a.Mask.Size()
	return netip.PrefixFrom(ip, bits), true
}

// SetAddresses makes the lasting addresses of a link be want: it adds first and
// removes after, and leaves alone what is right. IPv6 addresses come without
// duplicate address detection, so that they work at once.
func (s *Space) SetAddresses(l netlink.Link, want []netip.Prefix) error {
	have, err := s.addressesOf(l)
	if err != nil {
		return err
	}
	if err := s.AddAddresses(l, without(want, have)); err != nil {
		return err
	}
	gone := without(have, want)
	for _, p := range gone {
		err := s.AddrDel(l, address(p))
		if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s from link %q: %w", p, l.Attrs().Name, err)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	// With a primary IPv4 address go the others of its subnet, unless
	// promote_secondaries is on: bring back what went by accident.
	if have, err = s.addressesOf(l); err != nil {
		return err
	}
	return s.AddAddresses(l, without(want, have))
}

func (s *Space) addressesOf(l netlink.Link) ([]netip.Prefix, error) {
	list, err := Dump(func() ([]netlink.Addr, error) { return s.AddrList(l, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses of link %q: %w", l.Attrs().Name, err)
	}
	var out []netip.Prefix
	for _, a := range list {
		if p, ok := lasting(a); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// AddAddresses gives a link addresses that it may have already. It is SetAddresses
// for a new link, without a look at all addresses of the namespace.
func (s *Space) AddAddresses(l netlink.Link, list []netip.Prefix) error {
	for _, p := range list {
		err := s.AddrAdd(l, address(p))
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add address %s to link %q: %w", p, l.Attrs().Name, err)
		}
	}
	return nil
}

func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{
		IP:   p.Addr().AsSlice(),
		Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()),
	}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func without(list, gone []netip.Prefix) []netip.Prefix {
	return slices.DeleteFunc(slices.Clone(list), func(p netip.Prefix) bool { return slices.Contains(gone, p) })
}
