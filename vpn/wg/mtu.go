package wg

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

const (
	defaultMTU = 1420 // what Ethernet leaves within IPv6
	leastIPv6  = 1280 // RFC 8200 section 5; the kernel takes IPv6 from a device with less
	largestIP  = 1<<16 - 1
	// What an outer packet adds: its IP header, UDP 8, WireGuard's header and tag 32.
	overheadIPv4 = 60
	overheadIPv6 = 80
)

// fits is the MTU that the ways to the endpoints leave to a tunnel.
func (d *Driver) fits(s seen) int {
	mtu, _ := d.fit(s)
	return mtu
}

// fit is that MTU, and the arithmetic of it.
func (d *Driver) fit(s seen) (mtu int, why string) {
	asked, way := map[netip.Addr]bool{}, ways{d.links, map[int]netlink.LinkAttrs{}}
	for _, p := range s.device.Peers {
		to := endpoint(p).Addr()
		if !to.IsValid() || asked[to] {
			continue
		}
		asked[to] = true
		device, outer, ok := way.to(to)
		if !ok || device == s.index() {
			continue
		}
		if inner := min(outer, largestIP) - overhead(to); mtu == 0 || inner < mtu {
			mtu, why = inner, fmt.Sprintf("%d = %d (%s, to %s) - %s", inner, outer, way.name(device), to, overheadText(to))
		}
	}
	if mtu == 0 {
		return defaultMTU, fmt.Sprintf("%d = %d (Ethernet, as no endpoint is known) - %s", defaultMTU, defaultMTU+overheadIPv6, overheadText(netip.IPv6Unspecified()))
	}
	six := slices.ContainsFunc(s.addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	if six && mtu < leastIPv6 {
		return leastIPv6, fmt.Sprintf("IPv6 needs %d, though %s", leastIPv6, why)
	}
	return mtu, why
}

func overhead(outer netip.Addr) int {
	if outer.Is4() {
		return overheadIPv4
	}
	return overheadIPv6
}

func overheadText(outer netip.Addr) string {
	family := "IPv6"
	if outer.Is4() {
		family = "IPv4"
	}
	return fmt.Sprintf("%d (WireGuard over %s)", overhead(outer), family)
}

// fitMTUs gives every tunnel whose MTU was not chosen the one that fits, and notes
// where the peers are that say so.
func (d *Driver) fitMTUs() error {
	if !d.memory.fits() {
		return nil // which spares a look at all of the host's links
	}
	all, err := d.look()
	if err != nil {
		return err
	}
	for _, s := range all {
		if s.user != nil || !isKernel(s.link) {
			d.memory.saw(s.name, s.device.Peers)
		}
		if known, ok := d.memory.tunnel(s.name); ok && known.MTU == 0 {
			if s.user != nil {
				s.user.setMTU(d.fits(s))
				continue
			}
			err = errors.Join(err, d.links.setMTU(s.link, d.fits(s)))
		}
	}
	return err
}
