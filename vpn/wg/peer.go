package wg

import (
	"fmt"
	"net/netip"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"ripstop/vpn"
)

// PeerKey is the public key of the peer from which alone packets with a source
// address come out of a tunnel at the moment, the zero key where none has it: of
// all allowed IPs of the tunnel the longest that fits decides (WireGuard paper,
// section 2). It fails where the tunnel is none of ripstop's.
func (d *Driver) PeerKey(tunnel string, from netip.Addr) (vpn.Key, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links == nil {
		return vpn.Key{}, errClosed
	}
	e, err := d.carrier(tunnel)
	if err != nil {
		return vpn.Key{}, err
	}
	w, err := e.device(tunnel)
	if err != nil {
		return vpn.Key{}, fmt.Errorf("find the peer of %s: %w", from, err)
	}
	return holder(w.Peers, from), nil
}

// holder is the peer whose longest allowed IP has the address.
func holder(peers []wgtypes.Peer, a netip.Addr) (key vpn.Key) {
	bits := -1
	for _, p := range peers {
		for _, n := range p.AllowedIPs {
			if ip, ok := prefix(n); ok && ip.Bits() > bits && ip.Contains(a) {
				bits, key = ip.Bits(), vpn.Key(p.PublicKey)
			}
		}
	}
	return key
}
