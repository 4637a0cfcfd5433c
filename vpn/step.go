package vpn

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Step is one change of the tunnels. The set is closed: AddTunnel, SetTunnel,
// DelTunnel, AddPeer, SetPeer, DelPeer, AddRoute, DelRoute, AddGuard,
// DelGuard, SetReach, WidenReach and Clamp. String is written
// in the words of ip(8) and wg(8), keys that are secret hidden.
type Step interface {
	fmt.Stringer
	// Object is "tunnel/TUNNEL" or "peer/TUNNEL/PEER".
	Object() string
	// Removes tells whether the step takes something away.
	Removes() bool
	// Disturbs says what traffic the step interrupts, empty when none.
	Disturbs() string

	apply(tunnels map[string]Tunnel)
}

// AddTunnel makes a tunnel without its peers and routes.
type AddTunnel struct {
	Name   string
	Tunnel Tunnel
}

// SetTunnel changes a tunnel's port, key, addresses, MTU, or sets it up again.
// Peers and routes are no part of it; both of its tunnels are without.
type SetTunnel struct {
	Name     string
	From, To Tunnel
}

// DelTunnel removes a tunnel with its peers and routes.
type DelTunnel struct {
	Name string
	User bool // it has no device
}

// AddPeer adds a peer. Allowed IPs that another peer of the tunnel has go over
// to it without a gap.
type AddPeer struct {
	Tunnel string
	Key    Key
	Peer   Peer
}

// SetPeer changes what differs between From and To; its session goes on.
type SetPeer struct {
	Tunnel   string
	Key      Key
	From, To Peer
}

// DelPeer removes a peer and ends its session.
type DelPeer struct {
	Tunnel string
	Key    Key
	Name   string // the peer's
}

// AddRoute routes a prefix into a tunnel.
type AddRoute struct {
	Tunnel string
	Prefix netip.Prefix
	Peer   string // the peer's label, "" when none has the prefix
}

// DelRoute routes a prefix into a tunnel no more.
type DelRoute struct {
	Tunnel string
	Prefix netip.Prefix
	Peer   string // the peer's label, "" when none had the prefix
}

// Object is "tunnel/TUNNEL".
func (s AddTunnel) Object() string { return tunnelObject(s.Name) }

// Object is "tunnel/TUNNEL".
func (s SetTunnel) Object() string { return tunnelObject(s.Name) }

// Object is "tunnel/TUNNEL".
func (s DelTunnel) Object() string { return tunnelObject(s.Name) }

// Object is "peer/TUNNEL/PEER".
func (s AddPeer) Object() string { return peerObject(s.Tunnel, label(s.Key, s.Peer.Name)) }

// Object is "peer/TUNNEL/PEER".
func (s SetPeer) Object() string { return peerObject(s.Tunnel, label(s.Key, s.To.Name)) }

// Object is "peer/TUNNEL/PEER".
func (s DelPeer) Object() string { return peerObject(s.Tunnel, label(s.Key, s.Name)) }

// Object is that of the peer which the route leads to.
func (s AddRoute) Object() string { return peerObject(s.Tunnel, s.Peer) }

// Object is that of the peer to which the route led.
func (s DelRoute) Object() string { return peerObject(s.Tunnel, s.Peer) }

// Follows is what the MTU comes after, where the step changes that alone.
func (s SetTunnel) Follows() string {
	from := s.From
	from.MTU = s.To.MTU
	if s.From.Follows == "" || (SetTunnel{s.Name, from, s.To}).String() != "" {
		return ""
	}
	return "the way to its endpoints: " + s.From.Follows
}

func tunnelObject(tunnel string) string { return "tunnel/" + tunnel }

// peerObject is the tunnel itself where there is no peer.
func peerObject(tunnel, peer string) string {
	if peer == "" {
		return tunnelObject(tunnel)
	}
	return "peer/" + tunnel + "/" + peer
}

// label is a peer's name, or its key where nobody knows a name.
func label(k Key, name string) string {
	if name == "" {
		return k.label()
	}
	return name
}

// Removes is false.
func (AddTunnel) Removes() bool { return false }

// Removes is false.
func (SetTunnel) Removes() bool { return false }

// Removes is true.
func (DelTunnel) Removes() bool { return true }

// Removes is false.
func (AddPeer) Removes() bool { return false }

// Removes is false.
func (SetPeer) Removes() bool { return false }

// Removes is true.
func (DelPeer) Removes() bool { return true }

// Removes is false.
func (AddRoute) Removes() bool { return false }

// Removes is true.
func (DelRoute) Removes() bool { return true }

func (s AddTunnel) apply(t map[string]Tunnel) {
	n := bare(s.Tunnel).clone()
	n.Peers = map[Key]Peer{}
	t[s.Name] = n
}

func (s SetTunnel) apply(t map[string]Tunnel) {
	n, old := bare(s.To).clone(), t[s.Name]
	n.Peers, n.Routes = old.Peers, old.Routes
	t[s.Name] = n
}

func (s DelTunnel) apply(t map[string]Tunnel) { delete(t, s.Name) }

func (s AddPeer) apply(t map[string]Tunnel) { put(t, s.Tunnel, s.Key, s.Peer) }
func (s SetPeer) apply(t map[string]Tunnel) { put(t, s.Tunnel, s.Key, s.To) }
func (s DelPeer) apply(t map[string]Tunnel) { delete(t[s.Tunnel].Peers, s.Key) }

// put sets a peer as WireGuard does: an allowed IP that another one has is taken
// from it.
func put(t map[string]Tunnel, tunnel string, key Key, p Peer) {
	n := t[tunnel]
	if n.Peers == nil {
		n.Peers = map[Key]Peer{}
	}
	for k, other := range n.Peers {
		other.AllowedIPs = without(other.AllowedIPs, p.AllowedIPs)
		n.Peers[k] = other
	}
	p = p.clone()
	p.Heard = false
	n.Peers[key] = p
	t[tunnel] = n
}

func (s AddRoute) apply(t map[string]Tunnel) {
	n := t[s.Tunnel]
	n.Routes = sorted(append(without(n.Routes, []netip.Prefix{s.Prefix}), s.Prefix))
	t[s.Tunnel] = n
}

func (s DelRoute) apply(t map[string]Tunnel) {
	n := t[s.Tunnel]
	n.Routes = without(n.Routes, []netip.Prefix{s.Prefix})
	t[s.Tunnel] = n
}

// bare is a tunnel without its peers and what only observed ones have.
func bare(t Tunnel) Tunnel {
	t.Peers, t.Routes, t.Down, t.Follows = nil, nil, false, ""
	return t
}

// without is the prefixes of a that are not in b, in a's order.
func without(a, b []netip.Prefix) []netip.Prefix {
	if len(a) == 0 || len(b) == 0 {
		return slices.Clone(a)
	}
	in := make(map[netip.Prefix]bool, len(b))
	for _, p := range b {
		in[p] = true
	}
	return slices.DeleteFunc(slices.Clone(a), func(p netip.Prefix) bool { return in[p] })
}

func sorted(p []netip.Prefix) []netip.Prefix {
	slices.SortFunc(p, netip.Prefix.Compare)
	return p
}

// Clone is a copy that shares nothing with s.
func (s State) Clone() State {
	c := State{Tunnels: make(map[string]Tunnel, len(s.Tunnels)), Guards: slices.Clone(s.Guards), Reach: slices.Clone(s.Reach), Clamped: slices.Clone(s.Clamped), Unclamped: s.Unclamped, Narrower: maps.Clone(s.Narrower), Narrow: slices.Clone(s.Narrow)}
	for name, t := range s.Tunnels {
		c.Tunnels[name] = t.clone()
	}
	c.Blocked = maps.Clone(s.Blocked)
	for name, t := range c.Blocked {
		c.Blocked[name] = t.clone()
	}
	return c
}

func (t Tunnel) clone() Tunnel {
	t.Addresses, t.Routes, t.Peers = slices.Clone(t.Addresses), slices.Clone(t.Routes), maps.Clone(t.Peers)
	for k, p := range t.Peers {
		t.Peers[k] = p.clone()
	}
	return t
}

func (p Peer) clone() Peer {
	p.AllowedIPs, p.Reach = slices.Clone(p.AllowedIPs), slices.Clone(p.Reach)
	return p
}
