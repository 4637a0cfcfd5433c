// Package vpn holds the words of ripstop's WireGuard tunnels: what a host's
// tunnels are (State), what differs between two of them (Diff), and the steps
// that turn one into the other. It does no I/O; vpn/wg observes and does.
//
// # Caveats
//
// Private and pre-shared keys are Secret: they print as "(secret)" in every
// format, and only Reveal gives their bytes.
package vpn

import (
	"net/netip"
	"time"
)

// State is all tunnels of one host, wanted or observed.
type State struct {
	Tunnels map[string]Tunnel // by name, which is also the device's name
}

// Tunnel is one WireGuard interface.
type Tunnel struct {
	Listen     uint16         // UDP port; 0 lets the kernel choose
	Addresses  []netip.Prefix // sorted; host part kept
	PrivateKey Secret
	MTU        int // bytes; 0 is computed from the way to the endpoints
	Peers      map[Key]Peer
}

// Peer is one WireGuard peer.
type Peer struct {
	Name         string // the file's name for it; a label, never compared
	PresharedKey Secret
	Endpoint     string         // "host:port" as configured, "" when the peer finds us
	AllowedIPs   []netip.Prefix // sorted, masked
	Keepalive    time.Duration  // whole seconds; 0 is off
}
