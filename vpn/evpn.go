package vpn

import (
	"fmt"
	"net/netip"
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
	DiffOf(want, want, have, add, gone)
	DiffOf(have, want, have, add, gone)
}

// DiffOf adds to add and gone how want and have differ in some keys.
func DiffOf[K, V comparable, X any](keys map[K]X, want, have, add, gone map[K]V) {
	for k := range keys {
		w, wanted := want[k]
		h, had := have[k]
		switch {
		case wanted && !(had && h == w):
			add[k] = w
		case had && !wanted:
			gone[k] = h
		}
	}
}
