package controller

import (
	"fmt"
	"slices"

	"ripstop/controller/config"
	"ripstop/vpn"
)

func (r *resolver) vpn() vpn.State {
	s := vpn.State{Tunnels: map[string]vpn.Tunnel{}, Blocked: map[string]vpn.Tunnel{}}
	for _, name := range byName(r.cfg.Tunnels) {
		told := len(r.problems)
		if t, ok := r.tunnel(name, r.cfg.Tunnels[name]); ok {
			s.Tunnels[name] = t
		}
		if len(r.problems) > told {
			s.Blocked[name] = withoutKeys(r.cfg.Tunnels[name])
		}
	}
	return s
}

func (r *resolver) tunnel(name string, t config.Tunnel) (vpn.Tunnel, bool) {
	key, err := r.host.PrivateKey(r.path(t.PrivateKey))
	if err != nil {
		r.problem("tunnel/"+name, fmt.Errorf("private key: %w", err))
		return vpn.Tunnel{}, false
	}
	if public := key.Public(); t.PublicKey != (vpn.Key{}) && public != t.PublicKey && public != t.Next {
		r.problem("tunnel/"+name, fmt.Errorf("private key %s has the public key %s, and the file says %s of host %s: write the former into the file, or bring the private key of the latter here",
			r.path(t.PrivateKey), public, t.PublicKey, r.cfg.Host))
		return vpn.Tunnel{}, false
	}
	return vpn.Tunnel{
		Listen:     t.Listen,
		Addresses:  slices.Clone(t.Addresses),
		PrivateKey: key,
		MTU:        t.MTU,
		User:       t.User,
		Peers:      r.peers(name, t.Peers),
	}, true
}

// withoutKeys is a tunnel as far as no key's file is needed for it.
func withoutKeys(t config.Tunnel) vpn.Tunnel {
	out := vpn.Tunnel{Addresses: slices.Clone(t.Addresses), User: t.User, Peers: map[vpn.Key]vpn.Peer{}}
	for name, p := range t.Peers {
		out.Peers[p.PublicKey] = vpn.Peer{Name: name, AllowedIPs: slices.Clone(p.AllowedIPs), Limited: p.Limited, Reach: slices.Clone(p.Reach)}
	}
	return out
}

// peers leaves out whose pre-shared key, or that of the next key, cannot be read:
// without it the tunnel would be weaker than the file says, and a peer that has gone
// over would get its former key back. One that runs goes on.
func (r *resolver) peers(tunnel string, peers map[string]config.Peer) map[vpn.Key]vpn.Peer {
	out := map[vpn.Key]vpn.Peer{}
	for _, name := range byName(peers) {
		p, object := peers[name], "peer/"+tunnel+"/"+name
		psk, err := r.presharedKey(p.PresharedKey)
		if err != nil {
			r.problem(object, fmt.Errorf("pre-shared key: %w", err))
			continue
		}
		peer := vpn.Peer{
			Name:         name,
			PresharedKey: psk,
			Endpoint:     p.Endpoint,
			AllowedIPs:   slices.Clone(p.AllowedIPs),
			Keepalive:    p.Keepalive,
			Limited:      p.Limited,
			Reach:        slices.Clone(p.Reach),
		}
		if p.Next != (vpn.Key{}) {
			peer.Next, peer.NextPresharedKey = p.Next, psk
			if p.NextPSK != "" {
				if peer.NextPresharedKey, err = r.presharedKey(p.NextPSK); err != nil {
					r.problem(object, fmt.Errorf("pre-shared key of its next key: %w", err))
					continue
				}
			}
		}
		out[p.PublicKey] = peer
	}
	return out
}

// presharedKey reads a pre-shared key's file; no name is no key.
func (r *resolver) presharedKey(name string) (vpn.Secret, error) {
	if name == "" {
		return vpn.Secret{}, nil
	}
	path := r.path(name)
	text, err := r.host.ReadSecret(path)
	if err != nil {
		return vpn.Secret{}, err
	}
	key, err := vpn.ParseKey(text)
	if err != nil || key == (vpn.Key{}) {
		return vpn.Secret{}, fmt.Errorf("%s: not a key: write one with wg genpsk", path)
	}
	return vpn.NewSecret(key), nil
}
