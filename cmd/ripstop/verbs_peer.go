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
	if err == nil {
		err = config.CheckPeer(all, ask.Tunnel, ask.Name, p)
	}
	if err != nil {
		return v1.MadePeer{}, unfit(err)
	}
	out := v1.MadePeer{Addresses: texts(addresses), MTU: t.MTU}
	if out.Endpoint, err = d.endpointOf(ctx, ask.Tunnel, t, ask.Endpoint); err != nil {
		return v1.MadePeer{}, unfit(err)
	}
	out.Networks = texts(networksBehind(all, t, out.Endpoint))
	key, err := d.host.PrivateKey(d.inState(t.PrivateKey))
	if err != nil {
		return v1.MadePeer{}, fmt.Errorf("add peer %s: private key of tunnel %s: %w", ask.Name, ask.Tunnel, err)
	}
	if out.PublicKey = key.Public().String(); p.PublicKey == key.Public() {
		return v1.MadePeer{}, unfit(errors.New("its public key is the tunnel's own: give it a key of its own"))
	}
	if ask.PresharedKey != "" {
		p.PresharedKey = filepath.Join("peers", ask.Name+".psk")
		if err := writeSecret(d.inState(p.PresharedKey), ask.PresharedKey); err != nil {
			return v1.MadePeer{}, fmt.Errorf("add peer %s: %w", ask.Name, err)
		}
	}
	out.Applied, err = d.make(ctx, "add peer "+ask.Name, made.WithPeer(ask.Name, beside.Peer{Tunnel: ask.Tunnel, Peer: p}))
	if err != nil {
		return v1.MadePeer{}, errors.Join(err, d.forgetSecret(p.PresharedKey))
	}
	d.log.Info("peer added", "tunnel", ask.Tunnel, "peer", ask.Name)
	return out, nil
}

// peerOfVerb is a peer in the words of the file, and the addresses that it gets.
func peerOfVerb(t config.Tunnel, ask v1.NewPeer) (p config.Peer, addresses []netip.Prefix, err error) {
	p.Keepalive = keepalivePeer
	if p.PublicKey, err = vpn.ParseKey(ask.PublicKey); err != nil {
		return p, nil, fmt.Errorf("public %w", err)
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
// tunnel's own packets would be sent into the tunnel.
func networksBehind(c *config.Config, t config.Tunnel, endpoint string) []netip.Prefix {
	at, _ := netip.ParseAddrPort(endpoint) // a name is none, and may be anywhere
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
	out = slices.DeleteFunc(out, func(p netip.Prefix) bool { return p.Contains(at.Addr()) })
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// endpointOf is where a tunnel is reached, which no host knows of itself: what was
// asked for, with the tunnel's port unless it has one.
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
	p, ok := made.Peers[ask.Name]
	if !ok {
		for name, t := range file.Tunnels {
			if _, named := t.Peers[ask.Name]; named {
				return v1.Applied{}, refused(http.StatusConflict, "remove peer %s: the file has it in tunnel %s: take it out there and apply", ask.Name, name)
			}
		}
		return v1.Applied{}, refused(http.StatusNotFound, "remove peer %s: there is none%s", ask.Name, hintOr(ask.Name, slices.Collect(maps.Keys(made.Peers)), "peer"))
	}
	next := made.WithoutPeer(ask.Name)
	if err := d.beside.Save(next); err != nil {
		return v1.Applied{}, fmt.Errorf("remove peer %s: %w", ask.Name, err)
	}
	rep := d.apply(ctx, file, next, controller.Keep)
	a := applied(rep)
	a.Revision = d.commit.Now().Revision
	d.log.Info("peer removed", "tunnel", p.Tunnel, "peer", ask.Name)
	return a, d.forgetSecret(p.PresharedKey)
}

// inState is the path of a file that is named as in the configuration.
func (d *daemon) inState(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(d.host.StateDir, name)
}

// writeSecret writes a secret into a file of its own: all of it or nothing, with
// mode 0600 from the first moment.
func writeSecret(path, secret string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("keep a secret: %w", err)
	}
	draft := path + ".new"
	if err := os.Remove(draft); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("keep a secret: %w", err)
	}
	f, err := os.OpenFile(draft, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("keep a secret: %w", err)
	}
	_, err = f.WriteString(secret + "\n")
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("keep a secret: %w", err)
	}
	if err := os.Rename(draft, path); err != nil {
		return fmt.Errorf("keep a secret: %w", err)
	}
	return nil
}

// forgetSecret removes a secret that a verb wrote; "" is none.
func (d *daemon) forgetSecret(name string) error {
	if name == "" {
		return nil
	}
	if err := os.Remove(d.inState(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove a pre-shared key: %w", err)
	}
	return nil
}
