package vpn

import (
	"net/netip"
	"time"
)

// NeighborStats is what a neighbor is doing: a copy, taken at one moment.
type NeighborStats struct {
	Name     string
	Address  netip.Addr
	ASN      uint32
	Session  Session
	RouterID string        // its own, "" without a session
	Hold     time.Duration // as both agreed, 0 without a session
	Sent     int           // prefixes that it was told
	Received int           // prefixes that it announced
	Accepted int           // of these, those that the import's filters and the kernel let in
	Used     int           // of these, those by which the kernel sends

	PrefixesSent     int    // by EVPN, of Sent
	PrefixesReceived int    // by EVPN, of Received
	Resets           int    // sessions that ended within seconds
	BFD              string // state of BFD, "" without
	Graceful         bool   // it keeps this host's routes while the daemon restarts
}
