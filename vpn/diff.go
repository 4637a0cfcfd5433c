package vpn

import (
	"bytes"
	"maps"
	"net/netip"
	"slices"
)

// Diff is the steps that turn have into want: new guards and tunnels that go first, then each
// tunnel that stays or comes, by name. One that gets a device, or loses it, goes
// and comes. Within a tunnel new peers come before
// changed ones and those before the ones that go, and peers that gain allowed
// IPs before those that only lose some, so that a prefix which moves between two
// peers always has one of them. Filters of what peers reach become narrower before anything and wider after it, and guards go last. No step ends a session but that of a peer or
// tunnel which goes.
func Diff(want, have State) []Step {
	want = want.followed(have)
	have = have.Clone()
	steps, unguard := guardSteps(want, have)
	limit, unlimit := reachSteps(want, have)
	clamp, unclamp := clampSteps(want, have)
	steps, unguard = slices.Concat(steps, limit, clamp), slices.Concat(unclamp, unlimit, unguard)
	for _, name := range slices.Sorted(maps.Keys(have.Tunnels)) {
		if to, ok := want.Tunnels[name]; !ok || to.User != have.Tunnels[name].User {
			steps = append(steps, DelTunnel{name, have.Tunnels[name].User})
			delete(have.Tunnels, name)
		}
	}
	for _, s := range yields(want, have) {
		s.apply(have.Tunnels)
		steps = append(steps, s)
	}
	for _, name := range slices.Sorted(maps.Keys(want.Tunnels)) {
		to := want.Tunnels[name]
		from, ok := have.Tunnels[name]
		if !ok {
			steps = append(steps, AddTunnel{name, bare(to)})
		} else if s := (SetTunnel{name, device(from), to.onPort(from)}); s.String() != "" {
			steps = append(steps, s)
		}
		steps = append(steps, peerSteps(name, to, from)...)
	}
	return append(steps, unguard...)
}

// followed is the wanted state with the next key of each peer that has gone over to
// it.
func (s State) followed(have State) State {
	out := s
	out.Tunnels = maps.Clone(s.Tunnels)
	for name, t := range s.Tunnels {
		cloned := false
		for k, p := range t.Peers {
			if _, there := have.Tunnels[name].Peers[p.Next]; p.Next == (Key{}) || !there {
				continue
			}
			if !cloned {
				t.Peers, cloned = maps.Clone(t.Peers), true
			}
			delete(t.Peers, k)
			next := p.Next
			p.PresharedKey, p.Next, p.NextPresharedKey = p.NextPresharedKey, Key{}, Secret{}
			t.Peers[next] = p
		}
		out.Tunnels[name] = t
	}
	return out
}

// yields makes tunnels let go of UDP ports which others want to have: two
// tunnels can exchange their ports.
func yields(want, have State) []Step {
	var steps []Step
	for _, name := range slices.Sorted(maps.Keys(have.Tunnels)) {
		from := have.Tunnels[name]
		to, stays := want.Tunnels[name]
		if !stays || from.Listen == 0 || from.Listen == to.Listen {
			continue
		}
		for other, o := range want.Tunnels {
			if other != name && o.Listen == from.Listen {
				let := device(from)
				let.Listen = 0
				steps = append(steps, SetTunnel{name, device(from), let})
				break
			}
		}
	}
	return steps
}

// onPort is the wanted tunnel t alone, on the port that it has where any will do.
func (t Tunnel) onPort(have Tunnel) Tunnel {
	t = bare(t)
	if t.Listen == 0 {
		t.Listen = have.Listen
	}
	return t
}

// device is a tunnel without its peers and routes.
func device(t Tunnel) Tunnel {
	t.Peers, t.Routes = nil, nil
	return t
}

func peerSteps(name string, want, have Tunnel) []Step {
	var add, gain, lose, del []Step
	m := moves{}
	now := make(map[Key]Peer, len(have.Peers)) // what additions and gains leave
	for _, k := range sortedPeers(want.Peers) {
		if _, ok := have.Peers[k]; !ok {
			add = append(add, AddPeer{name, k, want.Peers[k]})
			m.take(k, want.Peers[k].AllowedIPs)
		}
	}
	for _, k := range sortedPeers(have.Peers) {
		from, to := m.left(k, have.Peers[k]), want.Peers[k]
		now[k] = from
		if more := without(to.AllowedIPs, from.AllowedIPs); len(more) > 0 {
			to.AllowedIPs = sorted(append(more, from.AllowedIPs...))
			gain = append(gain, SetPeer{name, k, from, to})
			m.take(k, to.AllowedIPs)
			now[k] = to
		}
	}
	for _, k := range sortedPeers(have.Peers) {
		to, stays := want.Peers[k]
		if !stays {
			del = append(del, DelPeer{name, k, have.Peers[k].Name})
		} else if s := (SetPeer{name, k, m.left(k, now[k]), to}); s.String() != "" {
			lose = append(lose, s)
		}
	}
	routes, noRoutes := routeSteps(name, want, have)
	return slices.Concat(add, routes, gain, lose, noRoutes, del)
}

// moves remembers which peer took an allowed IP last.
type moves map[netip.Prefix]Key

func (m moves) take(k Key, ips []netip.Prefix) {
	for _, p := range ips {
		m[p] = k
	}
}

// left is the peer with the allowed IPs that no other has taken.
func (m moves) left(k Key, p Peer) Peer {
	p.AllowedIPs = slices.DeleteFunc(slices.Clone(p.AllowedIPs), func(ip netip.Prefix) bool {
		taker, taken := m[ip]
		return taken && taker != k
	})
	return p
}

// routeSteps is the routes that come and those that go. New ones stand before
// the changes of their peers: the change of one whose endpoint's name is not
// found fails, again and again, and its routes shall not wait for that.
func routeSteps(name string, want, have Tunnel) (add, del []Step) {
	needs := want.Needs()
	if slices.Equal(needs, have.Routes) {
		return nil, nil
	}
	to, from := want.carriers(), have.carriers()
	for _, p := range without(needs, have.Routes) {
		add = append(add, AddRoute{name, p, to[p]})
	}
	for _, p := range without(have.Routes, needs) {
		del = append(del, DelRoute{name, p, from[p]})
	}
	return add, del
}

// Needs is the routes that the tunnel has to have, sorted: the allowed IPs
// of its peers that its own addresses do not cover, but for 0.0.0.0/0 and ::/0.
func (t Tunnel) Needs() []netip.Prefix {
	var out []netip.Prefix
	if t.User {
		return nil
	}
	for _, peer := range t.Peers {
		for _, p := range peer.AllowedIPs {
			if p.Bits() > 0 && !t.covers(p) {
				out = append(out, p)
			}
		}
	}
	return slices.Compact(sorted(out))
}

// covers tells whether the kernel routes p into the tunnel for its addresses' sake.
func (t Tunnel) covers(p netip.Prefix) bool {
	return slices.ContainsFunc(t.Addresses, func(a netip.Prefix) bool {
		return a.Bits() <= p.Bits() && a.Contains(p.Addr())
	})
}

// carriers is the label of the peer that has a prefix.
func (t Tunnel) carriers() map[netip.Prefix]string {
	out := map[netip.Prefix]string{}
	for k, peer := range t.Peers {
		for _, p := range peer.AllowedIPs {
			out[p] = label(k, peer.Name)
		}
	}
	return out
}

func sortedPeers(peers map[Key]Peer) []Key {
	return slices.SortedFunc(maps.Keys(peers), func(a, b Key) int { return bytes.Compare(a[:], b[:]) })
}
