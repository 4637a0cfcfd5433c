package vswitch

import (
	"context"
	"time"
)

// FDBEntry is one station that a switch knows.
type FDBEntry struct {
	Switch string
	VLAN   uint16
	MAC    MAC
	Port   string        // the port, or the gateway, behind which the station is
	Static bool          // it never ages and never moves
	Age    time.Duration // since a frame of it was last seen; 0 for a static one
}

// PortCounters is what went through one port since its device was made. Rx is
// what the switch received from the port, Tx what it sent to it.
type PortCounters struct {
	Switch, Port      string
	RxFrames, RxBytes uint64
	TxFrames, TxBytes uint64
	Drops             map[string]uint64            // frames dropped, by reason; as far as the dataplane knows
	VLANDrops         map[uint16]map[string]uint64 // the same by VLAN; 0 is what was dropped before one was known
	Shut              bool                         // nothing is taken from the port for now: its BPDU guard saw one, or it is in a loop
}

// VLANCounters is what entered one VLAN of a switch.
type VLANCounters struct {
	Switch        string
	VLAN          uint16
	Frames, Bytes uint64
}

// Counters is all counters of a dataplane, sorted by switch and then by port or VLAN.
type Counters struct {
	Ports []PortCounters
	VLANs []VLANCounters
}

// Inspector is a Driver that can tell what its switches have learned and
// carried. The results are copies.
type Inspector interface {
	// FDB is every entry that has not aged out, sorted by switch, VLAN and MAC.
	FDB(ctx context.Context) ([]FDBEntry, error)
	Counters(ctx context.Context) (Counters, error)
}
