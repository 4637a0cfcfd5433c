// Package iscsi holds the words of ripstop's iSCSI targets: which targets a
// host serves, where, with which LUNs and to whom (State), what differs between
// two states (Diff), and the steps that turn one into the other. It does no
// I/O; iscsi/target listens and serves.
package iscsi

import "net/netip"

// State is all targets of one host, wanted or observed.
type State struct {
	Targets map[string]Target // by iSCSI name (RFC 7143 section 4.2.7)
}

// Target is one iSCSI target with one target portal group.
type Target struct {
	Portals    []Portal             // sorted
	LUNs       map[uint16]string    // LUN number, 0–16383, to the name of the logical unit
	Initiators map[string]Initiator // by iSCSI name: nobody but these
	Any        *Initiator           // how initiators that are not named are served; nil refuses them
}

// Portal is an address on which a target is reached.
type Portal struct {
	Address netip.AddrPort
	Device  string // the interface through which connections must come, "" for any
	User    bool   // Device is a tunnel without an interface: connections end inside of it
	Via     string // what the file calls it: "vlan san", "tunnel site" or "address"; a label, never compared
}

// Initiator is what one initiator may do.
type Initiator struct {
	CHAP   *CHAP    // how it proves who it is; nil asks no proof
	Mutual *CHAP    // how the target proves itself when asked; nil cannot
	LUNs   []uint16 // the LUN numbers that it sees, sorted; nil is all

	Places    []Place        // out of one of which it must come, sorted by device; nil is anywhere
	Addresses []netip.Prefix // one of which its address must be in, sorted; nil is any
}

// CHAP is a name and the secret that proves it (RFC 7143 section 12.1.3).
type CHAP struct {
	User   string
	Secret Secret
}
