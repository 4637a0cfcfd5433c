package iscsi

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Place is a tunnel out of which an initiator comes, or one peer of it.
type Place struct {
	Device string // the tunnel's
	Peer   *Peer  // nil is any of its peers
}

// Peer is who holds one key at the other end of a tunnel. A tunnel lets a packet
// in only when its source is among the allowed IPs of the key that encrypted it,
// and the longest of them that fits decides: so the source address of what came
// out of a tunnel tells the key.
type Peer struct {
	Name    string         // the file's; a label, never compared
	Key     [32]byte       // public
	Next    [32]byte       // that it goes over to, zero for none: the tunnel has one of the two
	Allowed []netip.Prefix // that it may send from, sorted
	Others  []netip.Prefix // inside of those, and other peers', sorted
}

// Origin is where a connection comes from.
type Origin struct {
	Device  string // the interface through which it came, "" when the portal is bound to none
	Address netip.Addr
	// Key is of the peer whose packets have this address at the moment, as the
	// tunnel itself says: zero is nobody's, nil is not asked.
	Key *[32]byte
}

// Refuses says why an initiator served as i may not come from o, "" when it may.
func (i Initiator) Refuses(o Origin) string {
	n := slices.IndexFunc(i.Places, func(p Place) bool { return p.Device == o.Device })
	switch {
	case i.Places != nil && n < 0:
		return fmt.Sprintf("it came through %s, and this initiator may come only from %s", through(o.Device), places(i.Places))
	case i.Addresses != nil && !within(i.Addresses, o.Address):
		return fmt.Sprintf("its address %s is none of those that this initiator may have: %s", o.Address, list(i.Addresses))
	case i.Places == nil:
		return ""
	}
	switch p := i.Places[n].Peer; {
	case p == nil:
		return ""
	case !p.Holds(o.Address):
		return fmt.Sprintf("its address %s is not one of peer %s of tunnel %s, from which alone this initiator may come", o.Address, p.Name, o.Device)
	case o.Key != nil && *o.Key == [32]byte{}:
		return fmt.Sprintf("its address %s is no peer's of tunnel %s at the moment", o.Address, o.Device)
	case o.Key != nil && !p.has(*o.Key):
		return fmt.Sprintf("its packets come by the key %s of tunnel %s, and peer %s, from which alone this initiator may come, has %s",
			base64.StdEncoding.EncodeToString(o.Key[:]), o.Device, p.Name, base64.StdEncoding.EncodeToString(p.Key[:]))
	}
	return ""
}

// Bound tells whether the initiator may come out of the tunnel from one peer
// alone, so that it matters by which key its packets come.
func (i Initiator) Bound(device string) bool {
	return slices.ContainsFunc(i.Places, func(p Place) bool { return p.Device == device && p.Peer != nil })
}

func through(device string) string {
	if device == "" {
		return "an address of the host"
	}
	return device
}

func places(all []Place) string {
	if len(all) == 0 {
		return "nowhere"
	}
	words := make([]string, len(all))
	for n, p := range all {
		words[n] = p.String()
	}
	return strings.Join(words, " or ")
}

// String is the tunnel and, where there is one, the peer.
func (p Place) String() string {
	if p.Peer == nil {
		return "tunnel " + p.Device
	}
	return "peer " + p.Peer.Name + " of tunnel " + p.Device
}

// Holds tells whether a packet from the address is the peer's: the longest
// prefix that fits decides, as in the tunnel itself.
func (p Peer) Holds(a netip.Addr) bool { return longest(p.Allowed, a) > longest(p.Others, a) }

// has tells whether the key is one of the peer's.
func (p Peer) has(key [32]byte) bool {
	return key != [32]byte{} && (key == p.Key || key == p.Next)
}

// longest is the length of the longest prefix that has the address, -1 when none has.
func longest(all []netip.Prefix, a netip.Addr) int {
	bits := -1
	for _, p := range all {
		if p.Contains(a) {
			bits = max(bits, p.Bits())
		}
	}
	return bits
}

func within(all []netip.Prefix, a netip.Addr) bool { return longest(all, a) >= 0 }

// sameOrigin compares where two may come from, without labels.
func (i Initiator) sameOrigin(j Initiator) bool {
	return (i.Places == nil) == (j.Places == nil) && slices.EqualFunc(i.Places, j.Places, func(p, q Place) bool {
		return p.Device == q.Device && (p.Peer == q.Peer || p.Peer != nil && q.Peer != nil && p.Peer.same(*q.Peer))
	}) && (i.Addresses == nil) == (j.Addresses == nil) && slices.Equal(i.Addresses, j.Addresses)
}

func (p Peer) same(q Peer) bool {
	return p.Key == q.Key && p.Next == q.Next && slices.Equal(p.Allowed, q.Allowed) && slices.Equal(p.Others, q.Others)
}

// narrows tells whether somebody may come as from and not as to.
func narrows(from, to Initiator) bool {
	if to.Addresses != nil && (from.Addresses == nil || !covered(from.Addresses, to.Addresses)) {
		return true
	}
	if to.Places == nil {
		return false
	}
	return from.Places == nil || slices.ContainsFunc(from.Places, func(p Place) bool {
		return !slices.ContainsFunc(to.Places, p.inside)
	})
}

// inside tells whether all that may come from p may come from q.
func (p Place) inside(q Place) bool {
	if p.Device != q.Device || q.Peer == nil {
		return p.Device == q.Device
	}
	return p.Peer != nil && q.Peer.has(p.Peer.Key) && (p.Peer.Next == [32]byte{} || q.Peer.has(p.Peer.Next)) &&
		covered(p.Peer.Allowed, q.Peer.Allowed) && covered(q.Peer.Others, p.Peer.Others)
}

// covered tells whether each prefix of a lies in one of b.
func covered(a, b []netip.Prefix) bool {
	return !slices.ContainsFunc(a, func(p netip.Prefix) bool {
		return !slices.ContainsFunc(b, func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
	})
}

// list is prefixes in words, single addresses without their length.
func list(all []netip.Prefix) string {
	words := make([]string, len(all))
	for n, p := range all {
		if words[n] = p.String(); p.IsSingleIP() {
			words[n] = p.Addr().String()
		}
	}
	return strings.Join(words, ", ")
}

// origin is where an initiator may come from, in words, "" for anywhere.
func (i Initiator) origin() string {
	var words []string
	if i.Places != nil {
		words = append(words, "from "+places(i.Places))
	}
	if i.Addresses != nil {
		words = append(words, "with address "+list(i.Addresses))
	}
	return strings.Join(words, " ")
}

// alike tells whether two are asked the same proof, and give it.
func (i Initiator) alike(j Initiator) bool { return i.CHAP.equal(j.CHAP) && i.Mutual.equal(j.Mutual) }

// sees tells whether who is served as now by wanted proves and sees what who is
// served as was by from does.
func sees(from, wanted Target, was, now Initiator) bool {
	return was.alike(now) && maps.Equal(from.Visible(was), wanted.Visible(now))
}

// bind is i that may come from where now may. Where now is not served the same,
// it is from where both may: no other tunnel and no other key gets what i has.
func (i Initiator) bind(now Initiator, same bool) Initiator {
	if same {
		i.Places, i.Addresses = now.Places, now.Addresses
		return i
	}
	i.Addresses = shared(i.Addresses, now.Addresses)
	switch {
	case i.Places == nil:
		i.Places = now.Places
	case now.Places != nil:
		both := []Place{} // nowhere, when none is added
		for _, p := range i.Places {
			for _, q := range now.Places {
				if p.Device == q.Device {
					both = append(both, p.meet(q))
				}
			}
		}
		i.Places = both
	}
	return i
}

// meet is where q is of one tunnel with p, for keys that both have.
func (p Place) meet(q Place) Place {
	if q.Peer == nil {
		return p
	}
	if p.Peer == nil {
		return q
	}
	both := *q.Peer
	if !p.Peer.has(both.Key) {
		both.Key = [32]byte{} // nobody's
	}
	if !p.Peer.has(both.Next) {
		both.Next = [32]byte{}
	}
	return Place{q.Device, &both}
}

// shared is the prefixes that have what both have; nil has all.
func shared(a, b []netip.Prefix) []netip.Prefix {
	if a == nil {
		return b
	}
	if b == nil {
		return a
	}
	both := []netip.Prefix{}
	for _, p := range a {
		for _, q := range b {
			switch {
			case q.Bits() <= p.Bits() && q.Contains(p.Addr()):
				both = append(both, p)
			case p.Contains(q.Addr()):
				both = append(both, q)
			}
		}
	}
	slices.SortFunc(both, netip.Prefix.Compare)
	return slices.Compact(both)
}

// Dismissals is the steps that ask initiators to leave before the way is taken
// from them by which they come: those that want binds to other places than have
// does, or to none any more. They are no part of Diff, for they are to be done
// before tunnels change, and what they do Diff's steps contain.
func Dismissals(want, have State) []Step {
	var steps []Step
	for _, name := range sorted(have.Targets) {
		from := have.Targets[name]
		to := from.clone()
		wanted := want.Targets[name]
		for _, initiator := range sorted(from.Initiators) {
			was := from.Initiators[initiator]
			switch now, stays := wanted.Initiators[initiator]; {
			case !stays && was.Places != nil:
				delete(to.Initiators, initiator)
			case stays && narrows(was, now):
				to.Initiators[initiator] = was.bind(now, sees(from, wanted, was, now))
			}
		}
		if from.Any != nil {
			switch {
			case wanted.Any == nil && from.Any.Places != nil:
				to.Any = nil
			case wanted.Any != nil && narrows(*from.Any, *wanted.Any):
				all := from.Any.bind(*wanted.Any, sees(from, wanted, *from.Any, *wanted.Any))
				to.Any = &all
			}
		}
		if !to.Equal(from) {
			steps = append(steps, Dismiss{name, from, to.clone()})
		}
	}
	return steps
}
