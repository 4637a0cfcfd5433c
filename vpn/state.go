// Package vpn holds the words of ripstop's WireGuard tunnels: what a host's
// tunnels are (State), what differs between two of them (Diff), and the steps
// that turn one into the other. It does no I/O; vpn/wg observes and does.
//
//	                     ┌── tunnel site ──┐
//	10.50.0.0/16 ─route─►│ 10.99.0.1/24    │── peer branch ── endpoint 192.0.2.7:51820
//	10.99.0.0/24 ───────►│ UDP port 51820  │── peer laptop ── wherever it is heard from
//	                     └─────────────────┘
//
// A peer's allowed IPs say both what may come from it and what goes to it. The
// kernel has to bring packets to the tunnel first: for what the tunnel's own
// addresses cover it does so by itself, for the rest there are routes, which
// follow from the allowed IPs (Tunnel.Needs) and stand in no file. What is routed
// into a tunnel goes nowhere else while the tunnel is away (State.Guarded).
//
// # Caveats
//
// Private and pre-shared keys are Secret: they print as "(secret)" in every
// format, and only Reveal gives their bytes.
//
// An allowed IP of 0.0.0.0/0 or ::/0 gets no route: it opens the tunnel for all
// packets that somebody routes into it, and takes over no default route.
//
// Within a tunnel an allowed IP has one peer. A wanted State that gives the same
// prefix to two never converges, for WireGuard takes it from the one for the other.
package vpn

import (
	"net/netip"
	"time"
)

// State is all tunnels of one host, wanted or observed.
type State struct {
	Tunnels map[string]Tunnel // by name, which is also the device's name

	// Guards is for observed states alone: the prefixes that are guarded, sorted.
	// Those that a wanted state has follow from its tunnels (Guarded).
	Guards []netip.Prefix

	// Reach is for observed states alone: the filters of tunnels, sorted. Those that a
	// wanted state has follow from its tunnels (Reaches).
	Reach []Reach

	// Narrower is for wanted states alone: devices that are no tunnels, into which the host
	// forwards and which carry less than what it comes from, and the object of each: gateways
	// of VLANs that span hosts, and the device of an L3 VNI. They are clamped as tunnels are.
	Narrower map[string]string

	// Clamped is for observed states alone: the devices of which TCP segments are clamped,
	// sorted. Those that a wanted state has follow from the above (Clamps).
	Clamped []string
	// Unclamped is for observed states alone: why this host clamps none, "" where it can.
	Unclamped string

	// Narrow is for observed states alone: ways to peers that carry less than they should.
	Narrow []Narrow

	// Blocked is for wanted states alone: tunnels that cannot be made, or not with all
	// of their peers. Nothing is done about them, but their prefixes are guarded.
	Blocked map[string]Tunnel
}

// Tunnel is one WireGuard interface.
type Tunnel struct {
	Listen     uint16         // UDP port; wanted as 0, any will do
	Addresses  []netip.Prefix // sorted; host part kept
	PrivateKey Secret
	MTU        int // bytes; 0 is computed from the way to the endpoints
	// User is a tunnel without a device, addresses and routes on the host: this
	// process has its own network stack at the end of it.
	User  bool
	Peers map[Key]Peer

	// What only an observed tunnel has; Diff does not read it in a wanted one.
	Routes []netip.Prefix // sorted; those into the tunnel that ripstop made
	Down   bool           // somebody set the device down
	// Follows is why its computed MTU is not that any more which it was given: the way
	// carries another. "" when it is, or when somebody gave it one.
	Follows string
}

// Peer is one WireGuard peer.
type Peer struct {
	Name         string // the file's name for it, by which its object is known; wanted as "", any will do
	PresharedKey Secret
	// Endpoint is "host:port" as configured, "" when the peer finds us. Peers
	// roam, so where a peer is now is no part of the State as long as it is heard
	// from: an observed Endpoint is the one configured last. Only that of a silent
	// peer which stands elsewhere is the address where it was last, so that Diff
	// sends it back. Wanted as "", any will do.
	Endpoint   string
	AllowedIPs []netip.Prefix // sorted, masked
	Keepalive  time.Duration  // whole seconds up to 65535; 0 is off

	// Next is the key that the peer goes over to, the zero value for none. Who holds
	// it is let in with all that the peer has as soon as it shakes hands, and is the
	// peer from then on: the former key is gone, and Diff leaves it at that.
	Next             Key
	NextPresharedKey Secret // of the next key

	// Limited says that the peer reaches Reach alone, sorted and masked; else it reaches
	// everything. Both are for wanted peers alone.
	Limited bool
	Reach   []netip.Prefix

	// Heard is for observed peers alone: nobody remembers which endpoint was
	// configured, but the one that it has works. Diff leaves it alone.
	Heard bool
}

// Silence is how long after its last handshake a peer counts as silent:
// REJECT_AFTER_TIME (WireGuard paper, section 6.1), when its session is void.
const Silence = 180 * time.Second

// RouteProtocol is the number that marks the routes which ripstop made, in the
// range of /etc/iproute2/rt_protos that is nobody's.
const RouteProtocol = 114
