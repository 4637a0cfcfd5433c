package config

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"ripstop/vpn"
)

// CheckPeer tells why a peer cannot stand beside those of a tunnel of c. It asks
// what Parse asks of a peer in the file, and that what it may send from is nobody
// else's; the error says what to do.
func CheckPeer(c *Config, tunnel, name string, p Peer) error {
	r := &report{}
	if err := CheckName(name); err != nil {
		return err
	}
	t, ok := c.Tunnels[tunnel]
	if !ok {
		return fmt.Errorf("there is no tunnel %q%s", tunnel, r.hint(tunnel, slices.Collect(maps.Keys(c.Tunnels))))
	}
	if _, awaited := t.Awaited[name]; awaited {
		return fmt.Errorf("host %q of the mesh will be a peer of this name: choose another name", name)
	}
	if _, taken := t.Peers[name]; taken {
		return fmt.Errorf("tunnel %q has a peer of this name: choose another name", tunnel)
	}
	for _, other := range slices.Sorted(maps.Keys(t.Peers)) {
		if theirs := t.Peers[other]; theirs.PublicKey == p.PublicKey || theirs.Next == p.PublicKey || p.Next != (vpn.Key{}) && (theirs.PublicKey == p.Next || theirs.Next == p.Next) {
			return fmt.Errorf("peer %q of tunnel %q has the same public key: give each a key of its own", other, tunnel)
		}
	}
	for _, ip := range p.AllowedIPs {
		if err := t.freeFor(ip); err != nil {
			return err
		}
	}
	return nil
}

// CheckEndpoint tells what is wrong with where a peer listens, "host:port".
func CheckEndpoint(s string) error {
	var v endpoint
	return v.parse(s)
}

// freeFor refuses an allowed IP that is the tunnel's own address, or of another
// peer: WireGuard would take it away from that one. What contains an address of the
// tunnel, as 0.0.0.0/0 does, stands behind every peer and belongs to nobody alone.
func (t Tunnel) freeFor(ip netip.Prefix) error {
	for _, own := range t.Addresses {
		if ip.IsSingleIP() && own.Addr() == ip.Addr() {
			return fmt.Errorf("%s is taken: the tunnel itself has it", ip.Addr())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Peers)) {
		for _, theirs := range t.Peers[name].AllowedIPs {
			switch {
			case theirs == ip:
				return fmt.Errorf("%s is taken: peer %q has it", ip, name)
			case theirs.Bits() < ip.Bits() && theirs.Contains(ip.Addr()) && !t.within(theirs):
				return fmt.Errorf("%s lies in %s, which peer %q has: choose another", ip, theirs, name)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Awaited)) {
		for _, theirs := range t.Awaited[name] {
			if theirs.Contains(ip.Addr()) && theirs.Bits() <= ip.Bits() {
				return fmt.Errorf("%s lies in %s, which host %q will have: choose another", ip, theirs, name)
			}
		}
	}
	return nil
}

// within tells whether a prefix contains an address of the tunnel.
func (t Tunnel) within(p netip.Prefix) bool {
	return slices.ContainsFunc(t.Addresses, func(a netip.Prefix) bool { return p.Contains(a.Addr()) })
}

// FreeAddresses is the lowest address of each of the tunnel's networks that neither
// the tunnel nor a peer has, as an allowed IP. A network that is full is an error.
func FreeAddresses(t Tunnel) ([]netip.Prefix, error) {
	var taken []netip.Prefix
	for _, a := range t.Addresses {
		taken = append(taken, netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
	}
	for _, p := range t.Peers {
		for _, ip := range p.AllowedIPs {
			if !t.within(ip) {
				taken = append(taken, ip)
			}
		}
	}
	for _, ips := range t.Awaited {
		taken = append(taken, ips...)
	}
	slices.SortFunc(taken, comparePrefix)
	seen := map[netip.Prefix]bool{}
	var out []netip.Prefix
	for _, a := range t.Addresses {
		network := a.Masked()
		if seen[network] || network.Addr().IsLinkLocalUnicast() {
			continue
		}
		seen[network] = true
		free, ok := lowestFree(network, taken)
		if !ok {
			return nil, fmt.Errorf("no address of %s is free: say which one it gets", network)
		}
		out = append(out, netip.PrefixFrom(free, free.BitLen()))
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the tunnel has no network to take an address from: say which one it gets")
	}
	return out, nil
}

// lowestFree goes through a network from its second address, over what is taken,
// sorted.
func lowestFree(network netip.Prefix, taken []netip.Prefix) (netip.Addr, bool) {
	a := network.Addr().Next()
	for _, p := range taken {
		for p.Contains(a) {
			a = last(p).Next()
		}
	}
	if !a.IsValid() || !network.Contains(a) || a.Is4() && a == last(network) {
		return netip.Addr{}, false
	}
	return a, true
}

// last is the highest address of a prefix.
func last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
