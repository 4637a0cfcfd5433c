package wg

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/ipc"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"ripstop/vpn"
)

// Do carries out one step. A step whose endpoint cannot be resolved does the
// rest and then fails.
func (d *Driver) Do(ctx context.Context, step vpn.Step) error {
	to, unresolved := d.destination(ctx, step)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.links == nil {
		return errClosed
	}
	if err := d.do(step, to); err != nil {
		return err
	}
	d.log.Debug("tunnel changed", "step", step.String())
	return unresolved
}

func (d *Driver) do(step vpn.Step, to *net.UDPAddr) error {
	if ok, err := d.doUser(step); ok {
		return err
	}
	switch s := step.(type) {
	case vpn.AddTunnel:
		return d.addTunnel(s.Name, s.Tunnel)
	case vpn.SetTunnel:
		return d.setTunnel(s.Name, s.To)
	case vpn.DelTunnel:
		return d.delTunnel(s.Name)
	case vpn.AddPeer:
		return d.addPeer(s, to)
	case vpn.SetPeer:
		return d.setPeer(s, to)
	case vpn.DelPeer:
		return d.delPeer(s)
	case vpn.AddRoute:
		return d.onRoute(s.Tunnel, s.Prefix, d.links.addRoute)
	case vpn.DelRoute:
		return d.onRoute(s.Tunnel, s.Prefix, d.links.delRoute)
	case vpn.SetReach:
		return setReach(s.Tunnel, s.To)
	case vpn.WidenReach:
		return setReach(s.Tunnel, s.To)
	case vpn.Clamp:
		return d.setClamp(s)
	case vpn.AddGuard:
		return d.links.addGuard(s.Prefix)
	case vpn.DelGuard:
		return d.links.delGuard(s.Prefix)
	}
	return fmt.Errorf("step %T is not known here", step)
}

// destination is the address of the endpoint that a step sets, nil for none.
func (d *Driver) destination(ctx context.Context, step vpn.Step) (*net.UDPAddr, error) {
	endpoint := ""
	switch s := step.(type) {
	case vpn.AddPeer:
		endpoint = s.Peer.Endpoint
	case vpn.SetPeer:
		if s.To.Moves(s.From) {
			endpoint = s.To.Endpoint
		}
	}
	if endpoint == "" {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	addrs, err := d.resolve.resolve(ctx, endpoint)
	if err != nil {
		return nil, fmt.Errorf("peer stays without an endpoint: %w", err)
	}
	return net.UDPAddrFromAddrPort(addrs[0]), nil
}

// addTunnel makes a tunnel anew, or finishes one that is there.
func (d *Driver) addTunnel(name string, t vpn.Tunnel) error {
	link, ok, err := d.links.find(name)
	if err != nil {
		return err
	}
	if ok && !isMarked(link) {
		return fmt.Errorf("tunnel %s: %w", name, errForeign)
	}
	if ok {
		is, carried, err := d.device(link)
		if err != nil {
			return err
		}
		if carried && t.Listen == 0 {
			t.Listen = uint16(is.ListenPort)
		}
		if carried {
			return d.setTunnel(name, t)
		}
		return fmt.Errorf("tunnel %s: its device belongs to another process: stop that one", name)
	}
	e := d.chosen()
	if err := e.make(name, defaultMTU); err != nil {
		return err
	}
	d.memory.start(name)
	if _, err = d.links.prepare(name); err == nil {
		err = d.setTunnel(name, t)
	}
	if err != nil {
		d.memory.drop(name)
		return errors.Join(err, d.unmake(e, name))
	}
	return nil
}

// unmake removes a device that was made a moment ago, whose alias may be missing.
func (d *Driver) unmake(e engine, name string) error {
	if e == engine(d.process) {
		return e.remove(name)
	}
	link, ok, err := d.links.find(name)
	if err != nil || !ok {
		return err
	}
	return d.links.remove(link)
}

// setTunnel brings the device to what the tunnel says, whatever it was.
func (d *Driver) setTunnel(name string, t vpn.Tunnel) error {
	link, err := d.links.own(name)
	if err != nil {
		return err
	}
	e := d.of(link)
	is, err := e.device(name)
	if err != nil {
		return err
	}
	if err := d.setPort(e, is, t); err != nil {
		return err
	}
	d.memory.setMTU(name, t.MTU)
	mtu := t.MTU
	if mtu == 0 {
		mtu = d.fits(seen{name: name, link: link, device: is, addresses: t.Addresses})
		d.memory.fitted(name, mtu)
	}
	// A device with less than IPv6 needs takes no address of IPv6 (RFC 8200 section 5).
	if err := d.links.setMTU(link, max(mtu, link.Attrs().MTU)); err != nil {
		return err
	}
	if err := d.links.setAddresses(link, t.Addresses); err != nil {
		return err
	}
	if err := d.links.setMTU(link, mtu); err != nil {
		return err
	}
	return d.raise(e, link, t.Listen)
}

// setPort sets the tunnel's key and port where they differ: setting a port
// opens it anew, even the same.
func (d *Driver) setPort(e engine, is *wgtypes.Device, t vpn.Tunnel) error {
	cfg := wgtypes.Config{}
	// The same key may have been written in several ways; its public one is one.
	if is.PublicKey != wgtypes.Key(t.PrivateKey.Public()) {
		key := wgtypes.Key(t.PrivateKey.Reveal())
		cfg.PrivateKey = &key
	}
	if port := int(t.Listen); port != is.ListenPort {
		cfg.ListenPort = &port
	}
	if cfg.PrivateKey == nil && cfg.ListenPort == nil {
		return nil
	}
	delete(d.own, is.Name)
	return refused(is.Name, t.Listen, e.configure(is.Name, cfg))
}

// ownKey is the public key of a tunnel. It is kept: to read it, an engine lists all peers.
func (d *Driver) ownKey(e engine, tunnel string) (vpn.Key, error) {
	if k, ok := d.own[tunnel]; ok {
		return k, nil
	}
	is, err := e.device(tunnel)
	if err != nil {
		return vpn.Key{}, err
	}
	d.own[tunnel] = vpn.Key(is.PublicKey)
	return d.own[tunnel], nil
}

// raise sets the device up and opens its port. WireGuard in a process opens it
// by itself, too, when it hears that the device is up; where the port is taken it
// forgets which it was, and the next attempt gets any other.
func (d *Driver) raise(e engine, link netlink.Link, port uint16) error {
	name := link.Attrs().Name
	if !isUp(link) {
		if err := d.links.plain.LinkSetUp(link); err != nil {
			return refused(name, port, err)
		}
	}
	return d.openPort(e, name, port)
}

// openPort opens the port of a tunnel that has been set up.
func (d *Driver) openPort(e engine, name string, port uint16) error {
	if err := e.up(name); err != nil {
		return refused(name, port, err)
	}
	is, err := e.device(name)
	if err != nil || port == 0 || is.ListenPort == int(port) {
		return err
	}
	again := int(port)
	return refused(name, port, e.configure(name, wgtypes.Config{ListenPort: &again}))
}

// refused says what to do about a port that is taken.
func refused(tunnel string, port uint16, err error) error {
	var said *device.IPCError
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EADDRINUSE), errors.As(err, &said) && said.ErrorCode() == ipc.IpcErrorPortInUse:
		return fmt.Errorf("tunnel %s: UDP port %d is taken: stop who has it (ss -lunp) or choose another for listen: %w", tunnel, port, unix.EADDRINUSE)
	}
	return fmt.Errorf("configure tunnel %s: %w", tunnel, err)
}

// delTunnel leaves a device alone that is not ours.
func (d *Driver) delTunnel(name string) error {
	link, ok, err := d.links.find(name)
	if err != nil {
		return err
	}
	if ok && isMarked(link) && isKernel(link) {
		err = d.links.remove(link)
	} else {
		err = d.process.remove(name)
	}
	d.memory.drop(name)
	d.memory.forget(name)
	return err
}

// carrier is the engine of a tunnel that is ours.
func (d *Driver) carrier(name string) (engine, error) {
	if d.user.has(name) {
		return d.user, nil
	}
	link, err := d.links.own(name)
	if err != nil {
		return nil, err
	}
	return d.of(link), nil
}

func (d *Driver) addPeer(s vpn.AddPeer, to *net.UDPAddr) error {
	e, err := d.carrier(s.Tunnel)
	if err != nil {
		return err
	}
	own, err := d.ownKey(e, s.Tunnel)
	if err != nil {
		return err
	}
	if own == s.Key {
		return fmt.Errorf("peer %s of tunnel %s: it has the tunnel's own key: give it the public key of the other end", s.Peer.Name, s.Tunnel)
	}
	d.memory.dropPeer(s.Tunnel, s.Key)
	if d.memory.over(s.Tunnel, s.Key, s.Peer.Next) {
		s.Key, s.Peer.PresharedKey = s.Peer.Next, s.Peer.NextPresharedKey
		s.Peer.Next, s.Peer.NextPresharedKey = vpn.Key{}, vpn.Secret{}
		d.memory.dropPeer(s.Tunnel, s.Key)
	}
	d.memory.stays(s.Tunnel, s.Key)
	psk, keepalive := wgtypes.Key(s.Peer.PresharedKey.Reveal()), s.Peer.Keepalive
	// The other end holds a session with the process that was here before, and
	// would miss an answer for 15 s before it asked for a new one.
	was, known := d.memory.Seen[s.Tunnel][s.Key]
	if known && s.Peer.Endpoint == "" {
		to = net.UDPAddrFromAddrPort(was)
	}
	greets := known && to != nil && keepalive == 0
	if greets {
		keepalive = time.Minute // to begin with it sends something
	}
	err = d.configurePeer(e, s.Tunnel, s.Peer, wgtypes.PeerConfig{
		PublicKey: wgtypes.Key(s.Key), PresharedKey: &psk, Endpoint: to,
		PersistentKeepaliveInterval: &keepalive, ReplaceAllowedIPs: true, AllowedIPs: ipNets(s.Peer.AllowedIPs),
	})
	if err == nil && greets {
		err = d.configurePeer(e, s.Tunnel, s.Peer, wgtypes.PeerConfig{
			PublicKey: wgtypes.Key(s.Key), UpdateOnly: true, PersistentKeepaliveInterval: &s.Peer.Keepalive,
		})
	}
	if err != nil || s.Peer.Next == (vpn.Key{}) {
		return err
	}
	return d.await(e, s.Tunnel, s.Key, s.Peer)
}

// setPeer hands over what differs and nothing else. Allowed IPs are replaced
// only when some go.
func (d *Driver) setPeer(s vpn.SetPeer, to *net.UDPAddr) error {
	e, err := d.carrier(s.Tunnel)
	if err != nil {
		return err
	}
	p := wgtypes.PeerConfig{PublicKey: wgtypes.Key(s.Key), UpdateOnly: true, Endpoint: to}
	if s.From.PresharedKey != s.To.PresharedKey {
		psk := wgtypes.Key(s.To.PresharedKey.Reveal())
		p.PresharedKey = &psk
	}
	if s.From.Keepalive != s.To.Keepalive {
		p.PersistentKeepaliveInterval = &s.To.Keepalive
	}
	p.ReplaceAllowedIPs = loses(s.From.AllowedIPs, s.To.AllowedIPs)
	if p.ReplaceAllowedIPs || loses(s.To.AllowedIPs, s.From.AllowedIPs) {
		p.AllowedIPs = ipNets(s.To.AllowedIPs)
	}
	if err := d.configurePeer(e, s.Tunnel, s.To, p); err != nil {
		return err
	}
	if !s.To.Awaits(s.From) {
		return nil
	}
	return d.await(e, s.Tunnel, s.Key, s.To)
}

// configurePeer remembers the peer as configured; its endpoint only when it has it.
func (d *Driver) configurePeer(e engine, tunnel string, p vpn.Peer, cfg wgtypes.PeerConfig) error {
	if err := e.configure(tunnel, wgtypes.Config{Peers: []wgtypes.PeerConfig{cfg}}); err != nil {
		return fmt.Errorf("configure peer %s of tunnel %s: %w", p.Name, tunnel, err)
	}
	known, _ := d.memory.peer(tunnel, vpn.Key(cfg.PublicKey))
	known.Name = p.Name
	if cfg.Endpoint != nil {
		known.Endpoint = p.Endpoint
	}
	d.memory.setPeer(tunnel, vpn.Key(cfg.PublicKey), known)
	return nil
}

// delPeer finds nothing to do where the tunnel is gone.
func (d *Driver) delPeer(s vpn.DelPeer) error {
	e, err := d.carrier(s.Tunnel)
	if errors.Is(err, errGone) {
		return nil
	}
	if err != nil {
		return err
	}
	gone := []wgtypes.PeerConfig{{PublicKey: wgtypes.Key(s.Key), Remove: true}}
	if known, _ := d.memory.peer(s.Tunnel, s.Key); d.memory.waits(s.Tunnel, known.Next) {
		gone = append(gone, wgtypes.PeerConfig{PublicKey: wgtypes.Key(known.Next), Remove: true})
		delete(d.waiting, next{s.Tunnel, s.Key, known.Next})
	}
	if err := e.configure(s.Tunnel, wgtypes.Config{Peers: gone}); err != nil {
		return fmt.Errorf("remove peer %s of tunnel %s: %w", s.Name, s.Tunnel, err)
	}
	d.memory.dropPeer(s.Tunnel, s.Key)
	return nil
}

func (d *Driver) onRoute(tunnel string, p netip.Prefix, do func(netlink.Link, netip.Prefix) error) error {
	link, err := d.links.own(tunnel)
	if err != nil {
		return err
	}
	return do(link, p)
}

// loses tells whether from has a prefix that to has not.
func loses(from, to []netip.Prefix) bool {
	in := make(map[netip.Prefix]bool, len(to))
	for _, p := range to {
		in[p] = true
	}
	for _, p := range from {
		if !in[p] {
			return true
		}
	}
	return false
}

func ipNets(prefixes []netip.Prefix) []net.IPNet {
	out := make([]net.IPNet, len(prefixes))
	for i, p := range prefixes {
		out[i] = ipNet(p)
	}
	return out
}
