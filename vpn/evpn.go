package vpn

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Network is a VNI of this host, of which EVPN tells the others (RFC 8365).
type Network struct {
	VLAN uint16     // 1–4094, one network's alone
	VTEP netip.Addr // the host's own
}

// MAC is an Ethernet address.
type MAC [6]byte

// String is the address in colon notation.
func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// StationKey is a station of a VNI.
type StationKey struct {
	VNI uint32
	MAC MAC
}

// Station is a station on this host.
type Station struct {
	StationKey
	IPs   []netip.Addr // that were heard of it, sorted
	Fixed bool         // it is nowhere else, whatever others say
}

// StationPath is what another host says of a station.
type StationPath struct {
	StationKey
	IP    netip.Addr // not valid in what is said of the Ethernet address alone
	VTEP  netip.Addr
	Seq   uint32 // of the MAC mobility extended community (RFC 7432, 7.7)
	Fixed bool   // it says that it is nowhere else
}

// Claim is what this host says of one of its stations.
type Claim struct {
	StationKey
	IP    netip.Addr // not valid in what is said of the Ethernet address alone
	Seq   uint32
	Fixed bool
}

// Flood is a VTEP that gets what is for all of a VNI.
type Flood struct {
	VNI  uint32
	VTEP netip.Addr
}

// AddressKey is an IP address in a VNI.
type AddressKey struct {
	VNI uint32
	IP  netip.Addr
}

// Told is what the switches know of other hosts.
type Told struct {
	Stations  map[StationKey]netip.Addr // and their VTEPs
	Addresses map[AddressKey]MAC        // for which the switches answer
	Floods    map[Flood]bool
}

// NewTold is one that tells nothing.
func NewTold() Told {
	return Told{map[StationKey]netip.Addr{}, map[AddressKey]MAC{}, map[Flood]bool{}}
}

// Empty tells whether there is nothing in it.
func (t Told) Empty() bool { return len(t.Stations)+len(t.Addresses)+len(t.Floods) == 0 }

// DiffTold is what is to be told anew, or otherwise, and what is no more, to turn have
// into want.
func DiffTold(want, have Told) (add, gone Told) {
	add, gone = NewTold(), NewTold()
	diffMap(want.Stations, have.Stations, add.Stations, gone.Stations)
	diffMap(want.Addresses, have.Addresses, add.Addresses, gone.Addresses)
	diffMap(want.Floods, have.Floods, add.Floods, gone.Floods)
	return add, gone
}

func diffMap[K, V comparable](want, have, add, gone map[K]V) {
	for k, v := range want {
		if had, ok := have[k]; !ok || had != v {
			add[k] = v
		}
	}
	for k, v := range have {
		if _, ok := want[k]; !ok {
			gone[k] = v
		}
	}
}

// A station that moves to and fro more often than moveLimit within moveWindow is on two
// hosts, or in a loop: this host leaves it alone until the window is over (RFC 7432,
// 15.1, with its default values).
const (
	moveLimit  = 5
	moveWindow = 180 * time.Second
)

// Roaming remembers which stations this host claims. The zero value claims none.
type Roaming struct {
	seq   map[StationKey]uint32
	moves map[StationKey]movement
}

type movement struct {
	since time.Time
	count int
}

// Settle decides which stations are this host's and which another's, by RFC 7432,
// section 15: who says the higher sequence number has the station, and of two the one
// with the lower VTEP. A station that is seen here, and that another host claims, has
// moved here, unless this host has claimed it before the other did. Local and paths are
// of networks' VNIs alone.
func (r *Roaming) Settle(networks map[uint32]Network, local []Station, paths []StationPath, now time.Time) (claims map[Claim]bool, told Told) {
	best := bestOf(paths)
	was := r.seq
	r.seq, claims, told = map[StationKey]uint32{}, map[Claim]bool{}, NewTold()
	for _, s := range local {
		other, contested := best[s.StationKey]
		seq, claimed := was[s.StationKey]
		switch {
		case s.Fixed:
		case contested && other.Fixed:
			continue
		case contested && claimed && beats(other, seq, networks[s.VNI].VTEP):
			continue // it has gone there
		case contested && !claimed:
			if r.restless(s.StationKey, now) {
				continue
			}
			seq = other.Seq + 1
		}
		r.seq[s.StationKey] = seq
		claims[Claim{StationKey: s.StationKey, Seq: seq, Fixed: s.Fixed}] = true
		for _, ip := range s.IPs {
			claims[Claim{StationKey: s.StationKey, IP: ip, Seq: seq, Fixed: s.Fixed}] = true
		}
	}
	for key, p := range best {
		if _, own := r.seq[key]; !own {
			told.Stations[key] = p.VTEP
		}
	}
	told.addresses(claims, paths)
	r.forget(now)
	return claims, told
}

// addresses has the switches answer for stations of other hosts. An address that two
// stations say is theirs, here or there, has moved, or one of them lies: the question
// goes to all, and who has it answers.
func (t Told) addresses(claims map[Claim]bool, paths []StationPath) {
	contested := map[AddressKey]bool{}
	for c := range claims {
		contested[AddressKey{c.VNI, c.IP}] = true
	}
	for _, p := range paths {
		key := AddressKey{p.VNI, p.IP}
		if vtep, ok := t.Stations[p.StationKey]; !ok || vtep != p.VTEP || !p.IP.IsValid() {
			continue
		}
		if mac, ok := t.Addresses[key]; ok && mac != p.MAC {
			contested[key] = true
		}
		t.Addresses[key] = p.MAC
	}
	for key := range contested {
		delete(t.Addresses, key)
	}
}

// bestOf is the path of each station that counts.
func bestOf(paths []StationPath) map[StationKey]StationPath {
	best := map[StationKey]StationPath{}
	for _, p := range paths {
		have, ok := best[p.StationKey]
		if !ok || p.Fixed && !have.Fixed || p.Fixed == have.Fixed && beats(p, have.Seq, have.VTEP) {
			best[p.StationKey] = p
		}
	}
	return best
}

// beats tells whether a path counts more than a claim.
func beats(p StationPath, seq uint32, vtep netip.Addr) bool {
	return p.Seq > seq || p.Seq == seq && p.VTEP.Less(vtep)
}

// restless counts a station's move to this host, and tells whether it was one too many.
func (r *Roaming) restless(key StationKey, now time.Time) bool {
	if r.moves == nil {
		r.moves = map[StationKey]movement{}
	}
	m := r.moves[key]
	if now.Sub(m.since) > moveWindow {
		m = movement{since: now}
	}
	m.count = min(m.count+1, moveLimit+1)
	r.moves[key] = m
	return m.count > moveLimit
}

// forget drops the moves of long ago.
func (r *Roaming) forget(now time.Time) {
	maps.DeleteFunc(r.moves, func(_ StationKey, m movement) bool { return now.Sub(m.since) > moveWindow })
}

// Restless is the stations that moved too often, and are left alone for that.
func (r *Roaming) Restless() []StationKey {
	var out []StationKey
	for key, m := range r.moves {
		if m.count > moveLimit {
			out = append(out, key)
		}
	}
	slices.SortFunc(out, func(a, b StationKey) int {
		return cmp.Or(cmp.Compare(a.VNI, b.VNI), slices.Compare(a.MAC[:], b.MAC[:]))
	})
	return out
}
