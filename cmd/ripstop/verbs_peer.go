package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	v1 "ripstop/api/v1"
	"ripstop/controller"
	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/internal/disk"
	"ripstop/vpn"
)

// keepalivePeer is how often a peer that a verb made is sent something: never. Such
// peers are behind NAT, this host is not, and theirs keeps the way open.
const keepalivePeer = 0

// addPeer makes a peer beside those of the file.
func (d *daemon) addPeer(ctx context.Context, ask v1.NewPeer) (v1.MadePeer, error) {
	d.change.Lock()
	defer d.change.Unlock()
	made := d.made()
	all, _ := made.Merge(d.config())
	t, ok := all.Tunnels[ask.Tunnel]
	if !ok {
		return v1.MadePeer{}, refused(http.StatusNotFound, "add peer %s: there is no tunnel %q%s", ask.Name, ask.Tunnel, hintOr(ask.Tunnel, slices.Collect(maps.Keys(all.Tunnels)), "tunnel"))
	}
	if have, there := made.Peers[ask.Name]; there {
		return v1.MadePeer{}, refused(http.StatusConflict, "add peer %s: tunnel %s has it: choose another name, or run `ripstop peer remove %s` first", ask.Name, have.Tunnel, ask.Name)
	}
	unfit := func(err error) error {
		return refused(http.StatusUnprocessableEntity, "add peer %s: %v", ask.Name, err)
	}
	p, addresses, err := peerOfVerb(t, ask)
	if err == nil && len(ask.Reach) > 0 {
		p.Limited, p.Reach, err = true, nil, nil
		if t.User {
			err = errors.New("--reach: the tunnel has no interface on the host, and leads to the portals in it alone: leave the flag out")
		}
		for _, word := range ask.Reach {
			to, bad := all.ReachTo(word)
			p.Reach, err = append(p.Reach, to...), errors.Join(err, bad)
		}
		p.Reach = config.MergeReach(p.Reach)
	}
	if err == nil {
		err = config.CheckPeer(all, ask.Tunnel, ask.Name, p)
	}
	if err != nil {
		return v1.MadePeer{}, unfit(err)
	}
	peer := beside.Peer{Tunnel: ask.Tunnel, Peer: p}
	if ask.Endpoint == "" && slices.Contains(t.Mesh.Hosts, all.Host) {
		ask.Endpoint = all.Hosts[all.Host].Endpoint
	}
	if peer.At, err = d.endpointOf(ctx, ask.Tunnel, t, ask.Endpoint); err != nil {
		return v1.MadePeer{}, unfit(err)
	}
	out, err := d.toldPeer(all, peer, addresses)
	if err != nil {
		return v1.MadePeer{}, fmt.Errorf("add peer %s: %w", ask.Name, err)
	}
	if out.PublicKey == p.PublicKey.String() {
		return v1.MadePeer{}, unfit(errOwnKey)
	}
	if peer.PresharedKey, err = d.keepSecret(ask.Name, p.PublicKey, ask.PresharedKey); err != nil {
		return v1.MadePeer{}, fmt.Errorf("add peer %s: %w", ask.Name, err)
	}
	out.Applied, err = d.make(ctx, "add peer "+ask.Name, made.WithPeer(ask.Name, peer))
	if err != nil {
		return v1.MadePeer{}, errors.Join(err, d.forgetSecrets(peer.PresharedKey))
	}
	d.log.Info("peer added", "tunnel", ask.Tunnel, "peer", ask.Name)
	return out, nil
}

var errOwnKey = errors.New("its public key is the tunnel's own: give it a key of its own")

// toldPeer is what a peer has to know of its tunnel, and has as addresses.
func (d *daemon) toldPeer(c *config.Config, p beside.Peer, addresses []netip.Prefix) (v1.MadePeer, error) {
	t := c.Tunnels[p.Tunnel]
	key, err := d.host.PrivateKey(d.inState(t.PrivateKey))
	if err != nil {
		return v1.MadePeer{}, fmt.Errorf("private key of tunnel %s: %w", p.Tunnel, err)
	}
	return v1.MadePeer{
		Addresses: texts(addresses), MTU: t.MTU, Endpoint: p.At, Networks: texts(networksBehind(c, t, p)), PublicKey: key.Public().String(),
	}, nil
}

// rotatePeer gives a peer that add made other keys. It goes on with those that it
// has until it uses the others.
func (d *daemon) rotatePeer(ctx context.Context, ask v1.RotatePeer) (v1.MadePeer, error) {
	d.change.Lock()
	defer d.change.Unlock()
	file, made := d.config(), d.made()
	p, err := d.madePeer("rotate", ask.Name)
	if err != nil {
		return v1.MadePeer{}, err
	}
	unfit := func(err error) error {
		return refused(http.StatusUnprocessableEntity, "rotate peer %s: %v", ask.Name, err)
	}
	next, err := publicKey(ask.PublicKey)
	if err != nil {
		return v1.MadePeer{}, unfit(err)
	}
	if _, err := vpn.ParseKey(ask.PresharedKey); ask.PresharedKey != "" && err != nil {
		return v1.MadePeer{}, unfit(fmt.Errorf("pre-shared %w", err))
	}
	was := p
	if gone, err := d.hasGoneOver(ctx, ask.Name, p); err != nil {
		return v1.MadePeer{}, err
	} else if gone {
		p.PublicKey, p.PresharedKey = p.Next, p.NextPSK
	}
	if next == p.PublicKey {
		return v1.MadePeer{}, unfit(errors.New("it has this key already: give it another one"))
	}
	p.Next = next
	others, _ := made.WithoutPeer(ask.Name).Merge(file)
	if err := config.CheckPeer(others, p.Tunnel, ask.Name, p.Peer); err != nil {
		return v1.MadePeer{}, unfit(err)
	}
	out, err := d.toldPeer(others, p, slices.DeleteFunc(slices.Clone(p.AllowedIPs), func(ip netip.Prefix) bool { return !ip.IsSingleIP() }))
	if err != nil {
		return v1.MadePeer{}, fmt.Errorf("rotate peer %s: %w", ask.Name, err)
	}
	if out.PublicKey == next.String() {
		return v1.MadePeer{}, unfit(errOwnKey)
	}
	if p.NextPSK, err = d.keepSecret(ask.Name, next, ask.PresharedKey); err != nil {
		return v1.MadePeer{}, fmt.Errorf("rotate peer %s: %w", ask.Name, err)
	}
	if out.Applied, err = d.make(ctx, "rotate peer "+ask.Name, made.WithPeer(ask.Name, p)); err != nil {
		return v1.MadePeer{}, errors.Join(err, d.forgetSecrets(p.NextPSK))
	}
	d.log.Info("peer gets other keys", "tunnel", p.Tunnel, "peer", ask.Name)
	var old []string
	for _, name := range []string{was.PresharedKey, was.NextPSK} {
		if name != p.PresharedKey && name != p.NextPSK {
			old = append(old, name)
		}
	}
	return out, d.forgetSecrets(old...)
}

// hasGoneOver tells whether a peer uses its next key already. Where its tunnel is away
// nobody knows, and to guess would let its former key in again, or lock it out.
func (d *daemon) hasGoneOver(ctx context.Context, name string, p beside.Peer) (bool, error) {
	if p.Next == (vpn.Key{}) {
		return false, nil
	}
	have, err := d.drivers.vpn.Observe(ctx)
	if err != nil {
		return false, err
	}
	gone, known := goneOver(have, p)
	if !known {
		return false, refused(http.StatusConflict, "rotate peer %s: it has a next key, and tunnel %s, which knows whether that is in use, is away: put right what `ripstop status` says of it first", name, p.Tunnel)
	}
	return gone, nil
}

// goneOver is hasGoneOver for what the host has; known is false when it has neither key.
func goneOver(have vpn.State, p beside.Peer) (gone, known bool) {
	peers := have.Tunnels[p.Tunnel].Peers
	_, gone = peers[p.Next]
	_, former := peers[p.PublicKey]
	return gone, gone || former
}

// madePeer is a peer that add made, or why it is none.
func (d *daemon) madePeer(verb, name string) (beside.Peer, error) {
	all := d.made().Peers
	p, ok := all[name]
	if ok {
		return p, nil
	}
	for tunnel, t := range d.config().Tunnels {
		if _, named := t.Peers[name]; named {
			return p, refused(http.StatusConflict, "%s peer %s: the file has it in tunnel %s: change it there and apply", verb, name, tunnel)
		}
	}
	return p, refused(http.StatusNotFound, "%s peer %s: there is none%s", verb, name, hintOr(name, slices.Collect(maps.Keys(all)), "peer"))
}

// publicKey reads a peer's. Nobody has the zero key, which means none elsewhere.
func publicKey(text string) (vpn.Key, error) {
	k, err := vpn.ParseKey(text)
	if err != nil {
		return k, fmt.Errorf("public %w", err)
	}
	if k == (vpn.Key{}) {
		return k, errors.New("public key is the zero key: no peer has it")
	}
	return k, nil
}

// peerOfVerb is a peer in the words of the file, and the addresses that it gets.
func peerOfVerb(t config.Tunnel, ask v1.NewPeer) (p config.Peer, addresses []netip.Prefix, err error) {
	p.Keepalive = keepalivePeer
	if p.PublicKey, err = publicKey(ask.PublicKey); err != nil {
		return p, nil, err
	}
	if ask.PresharedKey != "" {
		if _, err := vpn.ParseKey(ask.PresharedKey); err != nil {
			return p, nil, fmt.Errorf("pre-shared %w", err)
		}
	}
	for _, text := range ask.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return p, nil, fmt.Errorf("address %q: write it without a length, as 10.99.0.3", text)
		}
		addresses = append(addresses, netip.PrefixFrom(a, a.BitLen()))
	}
	if len(addresses) == 0 {
		if addresses, err = config.FreeAddresses(t); err != nil {
			return p, nil, err
		}
	}
	p.AllowedIPs = slices.Clone(addresses)
	for _, text := range ask.AllowedIPs {
		ip, err := netip.ParsePrefix(text)
		if err != nil {
			return p, nil, fmt.Errorf("allowed IP %q: write it with its length, as 10.60.0.0/16", text)
		}
		if ip != ip.Masked() {
			return p, nil, fmt.Errorf("allowed IP %s has bits behind its prefix length: write %s", ip, ip.Masked())
		}
		p.AllowedIPs = append(p.AllowedIPs, ip)
	}
	slices.SortFunc(p.AllowedIPs, netip.Prefix.Compare)
	if twice := slices.Compact(slices.Clone(p.AllowedIPs)); len(twice) != len(p.AllowedIPs) {
		return p, nil, errors.New("an address or allowed IP is given twice")
	}
	return p, addresses, nil
}

// networksBehind is what a peer finds behind a tunnel: the tunnel's own networks and
// those of the gateways. The one in which the endpoint lies is not among them: the
// tunnel's own packets would be sent into the tunnel. One that is limited is told what it
// reaches.
func networksBehind(c *config.Config, t config.Tunnel, p beside.Peer) []netip.Prefix {
	at, _ := netip.ParseAddrPort(p.At) // a name is none, and may be anywhere
	var out []netip.Prefix
	for _, a := range t.Addresses {
		out = append(out, a.Masked())
	}
	for _, v := range c.VLANs {
		for _, g := range v.Gateways {
			if !g.Addr().IsLinkLocalUnicast() {
				out = append(out, g.Masked())
			}
		}
	}
	if p.Limited {
		out = slices.Clone(p.Reach)
	}
	out = slices.DeleteFunc(out, func(p netip.Prefix) bool { return p.Contains(at.Addr()) })
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// endpointOf is where a tunnel is reached, which no host knows of itself: what was
// asked for, or what a fabric's file says of the host, with the tunnel's port unless
// it has one.
func (d *daemon) endpointOf(ctx context.Context, name string, t config.Tunnel, asked string) (string, error) {
	if asked == "" {
		return "", errors.New("nobody said where it reaches this host: write --endpoint HOST or HOST:PORT")
	}
	if _, _, err := net.SplitHostPort(asked); err == nil {
		return asked, config.CheckEndpoint(asked)
	}
	port := t.Listen
	if port == 0 {
		stats, err := d.drivers.vpn.Stats(ctx)
		if err != nil {
			return "", err
		}
		for _, s := range stats {
			if s.Name == name {
				port = s.Listen
			}
		}
	}
	whole := net.JoinHostPort(strings.Trim(asked, "[]"), strconv.Itoa(int(port)))
	return whole, config.CheckEndpoint(whole)
}

// removePeer takes away a peer that add made. Its session ends now, and a restart
// does not bring it back, even where the rest of the configuration cannot be
// carried out.
func (d *daemon) removePeer(ctx context.Context, ask v1.Name) (v1.Applied, error) {
	d.change.Lock()
	defer d.change.Unlock()
	ctx = context.WithoutCancel(ctx)
	file, made := d.config(), d.made()
	p, err := d.madePeer("remove", ask.Name)
	if err != nil {
		return v1.Applied{}, err
	}
	next := made.WithoutPeer(ask.Name)
	if err := d.beside.Save(next); err != nil {
		return v1.Applied{}, fmt.Errorf("remove peer %s: %w", ask.Name, err)
	}
	rep := d.apply(ctx, file, next, controller.Keep)
	a := applied(rep)
	a.Revision = d.commit.Now().Revision
	d.log.Info("peer removed", "tunnel", p.Tunnel, "peer", ask.Name)
	return a, d.forgetSecrets(p.PresharedKey, p.NextPSK)
}

// inState is the path of a file that is named as in the configuration.
func (d *daemon) inState(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(d.host.StateDir, name)
}

// keepSecret keeps the pre-shared key of a peer's key in a file, whose name it gives;
// "" is none.
func (d *daemon) keepSecret(peer string, key vpn.Key, secret string) (string, error) {
	if secret == "" {
		return "", nil
	}
	name := filepath.Join("peers", fmt.Sprintf("%s-%x.psk", peer, key[:4]))
	return name, writeSecret(d.inState(name), secret)
}

// writeSecret writes a secret into a file of its own: all of it or nothing, with
// mode 0600 from the first moment.
func writeSecret(path, secret string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep a secret: %w", err)
	}
	err := disk.Replace(path, []byte(secret+"\n"))
	if err == nil { // what names the file is on stable storage soon: its directory shall be there before
		err = disk.SyncDir(filepath.Dir(filepath.Dir(path)))
	}
	if err != nil {
		return fmt.Errorf("keep a secret: %w", err)
	}
	return nil
}

// forgetSecrets removes secrets that verbs wrote; "" is none.
func (d *daemon) forgetSecrets(names ...string) error {
	for _, name := range names {
		if name == "" {
			continue
		}
		if err := os.Remove(d.inState(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove a pre-shared key: %w", err)
		}
	}
	return nil
}
