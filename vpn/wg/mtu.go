package wg

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"

	"ripstop/vpn"
)

const (
	defaultMTU = 1420 // what Ethernet leaves within IPv6
	ethernet   = 1500
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
	ends := make([]netip.Addr, len(s.device.Peers))
	for i, p := range s.device.Peers {
		ends[i] = endpoint(p).Addr()
	}
	return d.fitTo(ends, s.index(), s.addresses)
}

// fitTo is the MTU of a tunnel to these endpoints; a way that leads into the tunnel's own
// device is none.
func (d *Driver) fitTo(ends []netip.Addr, own int, addresses []netip.Prefix) (mtu int, why string) {
	asked, way := map[netip.Addr]bool{}, ways{d.links, map[int]netlink.LinkAttrs{}}
	for _, to := range ends {
		if !to.IsValid() || asked[to] {
			continue
		}
		asked[to] = true
		device, outer, ok := way.to(to)
		if !ok || own != 0 && device == own {
			continue
		}
		if inner := min(outer, largestIP) - overhead(to); mtu == 0 || inner < mtu {
			mtu, why = inner, fmt.Sprintf("%d = %d (%s, to %s) - %s", inner, outer, way.name(device), to, overheadText(to))
		}
	}
	if mtu == 0 {
		return defaultMTU, fmt.Sprintf("%d = %d (Ethernet, as no endpoint is known) - %s", defaultMTU, defaultMTU+overheadIPv6, overheadText(netip.IPv6Unspecified()))
	}
	six := slices.ContainsFunc(addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	if six && mtu < leastIPv6 {
		return leastIPv6, fmt.Sprintf("IPv6 needs %d, though %s", leastIPv6, why)
	}
	return mtu, why
}

// Fit is the MTU that a tunnel gets, be it there or not yet, and how that comes about: of t
// its MTU, its addresses, and its peers' endpoints are looked at. A peer that is heard from
// elsewhere is where it is heard from. It asks DNS as Observe does.
func (d *Driver) Fit(ctx context.Context, name string, t vpn.Tunnel) (mtu int, why string) {
	if t.MTU != 0 {
		return t.MTU, fmt.Sprintf("%d (chosen)", t.MTU)
	}
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	at, own := d.endpoints(name)
	var ends []netip.Addr
	for key, p := range t.Peers {
		end, ok := at[key]
		if !ok || !end.at.IsValid() || p.Endpoint != "" && p.Endpoint != end.configured {
			if p.Endpoint == "" {
				continue
			}
			if should, err := d.resolve.resolve(ctx, p.Endpoint); err == nil {
				ends = append(ends, should[0].Addr())
			}
			continue
		}
		ends = append(ends, end.at)
	}
	slices.SortFunc(ends, netip.Addr.Compare) // so that of equal ways one and the same is told
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links == nil {
		return defaultMTU, ""
	}
	return d.fitTo(ends, own, t.Addresses)
}

// end is where a peer is, and what endpoint was configured last.
type end struct {
	at         netip.Addr
	configured string
}

// endpoints is where the peers of a tunnel are, and the index of its device: 0 of none.
func (d *Driver) endpoints(name string) (at map[vpn.Key]end, own int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, err := d.look()
	if err != nil {
		return nil, 0 // Observe says so
	}
	for _, s := range all {
		if s.name != name {
			continue
		}
		at = make(map[vpn.Key]end, len(s.device.Peers))
		for _, p := range s.device.Peers {
			known, _ := d.memory.peer(name, vpn.Key(p.PublicKey))
			at[vpn.Key(p.PublicKey)] = end{endpoint(p).Addr(), known.Endpoint}
		}
		return at, s.index()
	}
	return nil, 0
}

// Carries is the least MTU of the ways to other hosts and which way has it; where no way is
// known, that of the device that has the address from, or of Ethernet.
func (d *Driver) Carries(from netip.Addr, to []netip.Addr) (mtu int, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links == nil {
		return ethernet, ""
	}
	way := ways{d.links, map[int]netlink.LinkAttrs{}}
	for _, a := range to {
		if device, outer, ok := way.to(a); ok && (mtu == 0 || outer < mtu) {
			mtu, why = outer, fmt.Sprintf("%d (%s, to %s)", outer, way.name(device), a)
		}
	}
	if mtu != 0 {
		return mtu, why
	}
	if l, ok := d.links.having(from); ok {
		return l.MTU, fmt.Sprintf("%d (%s)", l.MTU, l.Name)
	}
	return ethernet, fmt.Sprintf("%d (Ethernet, as no way is known)", ethernet)
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
			mtu := d.fits(s)
			d.memory.fitted(s.name, mtu)
			if s.user != nil {
				s.user.setMTU(mtu)
				continue
			}
			err = errors.Join(err, d.links.setMTU(s.link, mtu))
		}
	}
	return err
}
