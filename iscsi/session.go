package iscsi

import (
	"net/netip"
	"time"
)

// SessionInfo is what one session of a target is doing: a copy, taken at one moment.
type SessionInfo struct {
	Initiator    string         // iSCSI name
	ISID         [6]byte        // with Initiator and Target it names the nexus (RFC 7143 section 4.4.3)
	Target       string         // iSCSI name, "" for a discovery session
	Portal       netip.AddrPort // the target's side
	Device       string         // the interface through which the session came, "" when the portal is bound to none
	Remote       netip.AddrPort // the initiator's side
	Since        time.Time      // when the login ended
	DigestErrors uint64         // PDUs whose header or data digest was wrong
	Stats        Stats
	LUNs         []uint16 // the LUN numbers that it sees, sorted
}
