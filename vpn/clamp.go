package vpn

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Clamp has the host make the segments of TCP connections that it forwards into a tunnel
// and out of it as small as the way is, or leave them. What holds of a tunnel holds of any
// device that is narrower than what the host forwards from.
type Clamp struct {
	Tunnel string // or the name of the other device
	Of     string // the object of the other device, "" of a tunnel
	Off    bool
}

// Object is "tunnel/TUNNEL", or that of the other device.
func (s Clamp) Object() string { return cmp.Or(s.Of, tunnelObject(s.Tunnel)) }

// Removes tells whether it ends.
func (s Clamp) Removes() bool { return s.Off }

// Disturbs is empty: connections keep the size with which they began.
func (Clamp) Disturbs() string { return "" }

func (Clamp) apply(map[string]Tunnel) {}

// ClampTable is the nftables table of the clamp, for all tunnels.
const ClampTable = "ripstop"

// String is the nft command about the set of the clamped tunnels.
func (s Clamp) String() string {
	verb := "add"
	if s.Off {
		verb = "delete"
	}
	return "nft " + verb + " element inet " + ClampTable + " tunnels { " + s.Tunnel + " } # its chain mss: tcp flags syn tcp option maxseg size set rt mtu"
}

// Clamps is the devices that have to be clamped, sorted: the tunnels through which the host
// forwards, and those that are narrower.
func (s State) Clamps() []string {
	out := slices.Collect(maps.Keys(s.Narrower))
	for name, t := range s.Tunnels {
		if !t.User {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// clampSteps is what is clamped from now on, and what no longer is. One that cannot be
// made keeps what it has.
func clampSteps(want, have State) (first, last []Step) {
	if have.Unclamped != "" {
		return nil, nil
	}
	needs := want.Clamps()
	for _, name := range needs {
		if !slices.Contains(have.Clamped, name) {
			first = append(first, Clamp{Tunnel: name, Of: want.Narrower[name]})
		}
	}
	for _, name := range have.Clamped {
		if _, blocked := want.Blocked[name]; !blocked && !slices.Contains(needs, name) {
			last = append(last, Clamp{Tunnel: name, Off: true})
		}
	}
	return first, last
}

// clamped is the clamped tunnels after a step.
func clamped(have []string, step Step) []string {
	s, ok := step.(Clamp)
	if !ok {
		return have
	}
	out := slices.DeleteFunc(slices.Clone(have), func(name string) bool { return name == s.Tunnel })
	if !s.Off {
		out = append(out, s.Tunnel)
	}
	slices.Sort(out)
	return out
}

// Narrow is a way to a peer that does not carry what the tunnel's MTU says, though the
// peer answers smaller packets.
type Narrow struct {
	Tunnel string
	Key    Key // the peer's
	To     netip.Addr
	MTU    int // which does not pass
	Passes int // the largest that was seen to pass
}

// Waiting is what tunnels and their peers lack that this host cannot give them, by object.
func (s State) Waiting() map[string]string {
	out := map[string]string{}
	for name, t := range s.Tunnels {
		if !t.User && s.Unclamped != "" {
			out[tunnelObject(name)] = "TCP connections that are forwarded may hang, as their segments are not made to fit: " + s.Unclamped +
				": have the kernel's nftables (nf_tables), and start ripstop anew, or give the machines behind the tunnel its MTU"
		}
	}
	for _, n := range s.Narrow {
		peer, ok := s.Tunnels[n.Tunnel].Peers[n.Key]
		if !ok {
			continue
		}
		out[peerObject(n.Tunnel, label(n.Key, peer.Name))] = fmt.Sprintf(
			"packets of %d bytes to %s are lost on the way and those of %d pass: let the way carry what the tunnel's are in, or write `mtu: %d` at the tunnel, here and at the peer",
			n.MTU, n.To, n.Passes, n.Passes)
	}
	return out
}
