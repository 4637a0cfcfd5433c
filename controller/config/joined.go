package config

import (
	"fmt"
	"maps"
	"slices"

	"ripstop/vpn"
)

// Joined is what a host tells of itself that joins by a token.
type Joined struct {
	PublicKey vpn.Key
	Endpoint  string // "host:port", "" when it does not say
}

// Awaits tells why a host of the fabric cannot join by a token: it can where a mesh
// that it has in common with this one is without its public key.
func (c *Config) Awaits(host string) error {
	h, ok := c.Hosts[host]
	switch {
	case c.Host == "":
		return fmt.Errorf("the configuration has no hosts: apply one that names it under hosts")
	case !ok:
		r := &report{}
		return fmt.Errorf("the configuration has no host %q%s", host, r.hint(host, slices.Collect(maps.Keys(c.Hosts))))
	case host == c.Host:
		return fmt.Errorf("this is host %q itself: run it on another host", host)
	case h.PublicKey != (vpn.Key{}):
		return fmt.Errorf("the file has a public-key of host %q: take it out and apply, and the host can join anew", host)
	}
	for _, t := range c.Tunnels {
		if slices.Contains(t.Mesh.Hosts, host) && joined(t.Mesh.Hubs, c.Host, host) {
			return nil
		}
	}
	return fmt.Errorf("host %q is no peer of this one in a mesh: run it on a host that is", host)
}

// WithJoined is c with a host that the file has without public-key. The file's own
// endpoint of it goes before what the host says. It tells why that cannot be.
func (c *Config) WithJoined(host string, j Joined) (*Config, error) {
	if err := c.Awaits(host); err != nil {
		return nil, err
	}
	if j.PublicKey == (vpn.Key{}) {
		return nil, fmt.Errorf("the public key of host %q is the zero key: nobody has it", host)
	}
	if j.Endpoint != "" {
		if err := CheckEndpoint(j.Endpoint); err != nil {
			return nil, fmt.Errorf("the endpoint of host %q: %w", host, err)
		}
	}
	for n, h := range c.Hosts {
		if h.PublicKey == j.PublicKey || h.Next == j.PublicKey {
			return nil, fmt.Errorf("host %q has the public key of host %q: give each a key of its own", host, n)
		}
	}
	all := *c
	all.Hosts, all.Tunnels = maps.Clone(c.Hosts), maps.Clone(c.Tunnels)
	h := all.Hosts[host]
	h.PublicKey = j.PublicKey
	if h.Endpoint == "" {
		h.Endpoint = j.Endpoint
	}
	all.Hosts[host] = h
	for n, t := range all.Tunnels {
		for peer, p := range t.Peers {
			if p.PublicKey == j.PublicKey || p.Next == j.PublicKey {
				return nil, fmt.Errorf("host %q has the public key of peer %q of tunnel %q: give each a key of its own", host, peer, n)
			}
		}
		if _, awaited := t.Awaited[host]; awaited {
			t.Peers = maps.Clone(t.Peers)
			maps.Copy(t.Peers, t.Mesh.peers(c.Host, all.Hosts))
			t.Awaited = t.Mesh.awaited(c.Host, all.Hosts)
			all.Tunnels[n] = t
		}
	}
	return &all, nil
}
