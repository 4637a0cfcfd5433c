package vpn

import (
	"net/netip"
	"time"
)

// Engine is what carries a tunnel's packets.
type Engine string

// The engines.
const (
	Kernel  Engine = "kernel"  // the kernel's WireGuard
	Process Engine = "process" // WireGuard in this process, on a tun device
	User    Engine = "user"    // WireGuard in this process, which ends the connections as well
)

// TunnelStats is what one tunnel is doing: a copy, taken at one moment.
type TunnelStats struct {
	Name      string
	Engine    Engine
	PublicKey Key
	Listen    uint16 // the UDP port in use
	MTU       int    // bytes, as the device has it
	Why       string // how the MTU comes about
	Peers     []PeerStats
}

// PeerStats is what one peer is doing.
type PeerStats struct {
	Name          string // "" when nobody remembers it
	PublicKey     Key
	Endpoint      netip.AddrPort // where it was heard from last; the zero value when never
	LastHandshake time.Time      // the zero value when there was none
	RxBytes       uint64         // received from the peer, as on the wire inside UDP
	TxBytes       uint64
	AllowedIPs    []netip.Prefix // sorted
	Keepalive     time.Duration
	Passes        int    // bytes of the largest packet that was seen to come back from it, at most the tunnel's MTU; 0 is not known
	Drops         uint64 // packets that it sent where it may not reach, since the tunnel's filters were last set
}
