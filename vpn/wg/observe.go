package wg

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"ripstop/vpn"
)

// seen is one tunnel as it was read.
type seen struct {
	name      string
	link      netlink.Link
	user      *stackTun // in place of link, of a tunnel without a device
	device    *wgtypes.Device
	addresses []netip.Prefix
	routes    []netip.Prefix
}

// marked is the tunnels that ripstop made, by name: the kernel's, and those that
// this process carries. One of another process's is not among them.
func (d *Driver) marked() (map[string]netlink.Link, error) {
	out := map[string]netlink.Link{}
	if d.kernel != nil {
		all, err := d.links.kernelMarked()
		if err != nil {
			return nil, err
		}
		for _, link := range all {
			out[link.Attrs().Name] = link
		}
	}
	for name := range d.process.devices {
		link, ok, err := d.links.find(name)
		if err != nil {
			return nil, err
		}
		if ok && isMarked(link) {
			out[name] = link
		}
	}
	return out, nil
}

// look reads all tunnels, sorted by name.
func (d *Driver) look() ([]seen, error) {
	if d.links == nil {
		return nil, errClosed
	}
	all, err := d.marked()
	if err != nil {
		return nil, err
	}
	var out []seen
	for _, name := range slices.Sorted(maps.Keys(all)) {
		s := seen{name: name, link: all[name]}
		ok := false
		if s.device, ok, err = d.device(s.link); err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if s.addresses, err = d.links.addresses(s.link); err != nil {
			return nil, err
		}
		if s.routes, err = d.links.routes(s.link); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	for _, name := range slices.Sorted(maps.Keys(d.user.devices)) {
		s, ok, err := d.seenUsers(name)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b seen) int { return strings.Compare(a.name, b.name) })
	return out, nil
}

// Observe reads the tunnels that ripstop made. It asks DNS for the names of
// silent peers, for at most a few seconds and not more often than every half
// minute; a name that cannot be resolved leaves its peer as it is.
func (d *Driver) Observe(ctx context.Context) (vpn.State, error) {
	state := vpn.State{Tunnels: map[string]vpn.Tunnel{}}
	var silent []silentPeer
	err := func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		all, err := d.look()
		if err != nil {
			return err
		}
		for _, s := range all {
			var quiet []silentPeer
			state.Tunnels[s.name], quiet = d.tunnel(s)
			silent = append(silent, quiet...)
		}
		if state.Reach, _, err = reaches(); err != nil {
			return err
		}
		if state.Clamped, state.Unclamped, err = d.clamps(); err != nil {
			return err
		}
		state.Narrow = d.narrowPaths()
		state.Guards, err = d.links.guards()
		return err
	}()
	if err != nil {
		return vpn.State{}, err
	}
	d.sendBack(ctx, state, silent)
	return state, ctx.Err()
}

// tunnel is the tunnel in the words of package vpn, and its peers that are not
// heard from.
func (d *Driver) tunnel(s seen) (vpn.Tunnel, []silentPeer) {
	t := vpn.Tunnel{
		Listen: uint16(s.device.ListenPort), Addresses: s.addresses, Routes: s.routes,
		PrivateKey: vpn.NewSecret(vpn.Key(s.device.PrivateKey)), User: s.user != nil, Down: s.user == nil && !isUp(s.link),
		MTU: s.mtu(), Peers: make(map[vpn.Key]vpn.Peer, len(s.device.Peers)),
	}
	known, _ := d.memory.tunnel(s.name)
	if known.MTU == 0 {
		switch mtu, why := d.fit(s); t.MTU {
		case mtu:
			t.MTU = 0
			d.memory.fitted(s.name, mtu)
		case known.fitted:
			t.Follows = why
		}
	}
	var silent []silentPeer
	for _, p := range s.device.Peers {
		key := vpn.Key(p.PublicKey)
		if d.memory.waits(s.name, key) {
			continue
		}
		peer, quiet := d.peer(s.name, p)
		t.Peers[key] = peer
		if quiet {
			silent = append(silent, silentPeer{s.name, key, endpoint(p)})
		}
	}
	return t, silent
}

// forgotten stands for the pre-shared key that goes with a next key which another
// process let wait: nobody's, so that Diff has it wait anew, or go.
var forgotten = vpn.NewSecret(vpn.Key{0: 1, vpn.KeyLen - 1: 1})

// peer is a peer with the endpoint that was configured last; silent when it is
// not heard from, so that somebody has to ask where it should be.
func (d *Driver) peer(tunnel string, p wgtypes.Peer) (peer vpn.Peer, silent bool) {
	known, remembered := d.memory.peer(tunnel, vpn.Key(p.PublicKey))
	peer = vpn.Peer{
		Name: known.Name, PresharedKey: vpn.NewSecret(vpn.Key(p.PresharedKey)),
		AllowedIPs: prefixes(p), Keepalive: p.PersistentKeepaliveInterval,
	}
	if psk, ok := d.waiting[next{tunnel, vpn.Key(p.PublicKey), known.Next}]; ok {
		peer.Next, peer.NextPresharedKey = known.Next, psk
	} else if known.Next != (vpn.Key{}) {
		peer.Next, peer.NextPresharedKey = known.Next, forgotten
	}
	at := endpoint(p)
	heard := d.now().Sub(p.LastHandshakeTime) < vpn.Silence
	switch {
	case !at.IsValid(): // and so never given one, or it was not to be resolved
	case remembered && known.Endpoint != "":
		peer.Endpoint = known.Endpoint
		return peer, !heard
	case remembered: // configured without one
	case heard:
		peer.Heard = true
	default:
		peer.Endpoint = at.String()
	}
	return peer, false
}

// silentPeer is a peer that has an endpoint and is not heard from there.
type silentPeer struct {
	tunnel string
	key    vpn.Key
	at     netip.AddrPort
}

// sendBack shows silent peers where they are, when that is not where their
// configured endpoint points, so that Diff sends them there.
func (d *Driver) sendBack(ctx context.Context, state vpn.State, silent []silentPeer) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	for _, s := range silent {
		peers := state.Tunnels[s.tunnel].Peers
		p := peers[s.key]
		should, err := d.resolve.resolve(ctx, p.Endpoint)
		if err != nil {
			d.log.Debug("silent peer's endpoint is not found", "tunnel", s.tunnel, "peer", p.Name, "error", err)
			continue
		}
		if !slices.Contains(should, s.at) {
			p.Endpoint = s.at.String()
			peers[s.key] = p
		}
	}
}

// endpoint is where a peer was heard from last; not valid when never.
func endpoint(p wgtypes.Peer) netip.AddrPort {
	if p.Endpoint == nil {
		return netip.AddrPort{}
	}
	return plain(p.Endpoint.AddrPort())
}

// prefixes is a peer's allowed IPs, sorted.
func prefixes(p wgtypes.Peer) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range p.AllowedIPs {
		if ip, ok := prefix(n); ok {
			out = append(out, ip)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return out
}

// Endpoints is where the peers of all tunnels were heard of last.
func (d *Driver) Endpoints() ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, err := d.look()
	if err != nil {
		return nil, fmt.Errorf("read tunnels: %w", err)
	}
	var out []netip.Addr
	for _, s := range all {
		for _, p := range s.device.Peers {
			if p.Endpoint == nil {
				continue
			}
			if a, ok := netip.AddrFromSlice(p.Endpoint.IP); ok {
				out = append(out, a.Unmap())
			}
		}
	}
	return out, nil
}

// Stats is what every tunnel is doing, sorted by name, its peers by key.
func (d *Driver) Stats(context.Context) ([]vpn.TunnelStats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, err := d.look()
	if err != nil {
		return nil, fmt.Errorf("read tunnels: %w", err)
	}
	_, drops, err := reaches()
	if err != nil {
		return nil, err
	}
	out := make([]vpn.TunnelStats, 0, len(all))
	for _, s := range all {
		t := vpn.TunnelStats{
			Name: s.name, Engine: s.engine(), PublicKey: vpn.Key(s.device.PublicKey),
			Listen: uint16(s.device.ListenPort), MTU: s.mtu(),
		}
		if mtu, why := d.fit(s); mtu == t.MTU {
			t.Why = why
		} else {
			t.Why = fmt.Sprintf("chosen; %d would fit: %s", mtu, why)
		}
		for _, p := range s.device.Peers {
			if !d.memory.waits(s.name, vpn.Key(p.PublicKey)) {
				t.Peers = append(t.Peers, d.peerStats(s.name, p, drops))
			}
		}
		slices.SortFunc(t.Peers, func(a, b vpn.PeerStats) int {
			return bytes.Compare(a.PublicKey[:], b.PublicKey[:])
		})
		out = append(out, t)
	}
	return out, nil
}

func (d *Driver) peerStats(tunnel string, p wgtypes.Peer, drops map[dropper]uint64) vpn.PeerStats {
	known, _ := d.memory.peer(tunnel, vpn.Key(p.PublicKey))
	var dropped uint64
	for _, from := range prefixes(p) {
		dropped += drops[dropper{tunnel, from}]
	}
	return vpn.PeerStats{
		Drops: dropped, Passes: d.paths[way{tunnel, vpn.Key(p.PublicKey)}].passes,
		Name: known.Name, PublicKey: vpn.Key(p.PublicKey), Endpoint: endpoint(p), LastHandshake: p.LastHandshakeTime,
		RxBytes: uint64(p.ReceiveBytes), TxBytes: uint64(p.TransmitBytes),
		AllowedIPs: prefixes(p), Keepalive: p.PersistentKeepaliveInterval,
	}
}
