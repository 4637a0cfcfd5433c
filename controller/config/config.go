package config

import (
	"net/netip"
	"time"

	"ripstop/vpn"
	"ripstop/vswitch"
)

// Config is everything that the files ask for. It is valid by construction:
// every reference leads somewhere, every value is in its range, every list is
// sorted unless its order has a meaning. Maps are never nil.
type Config struct {
	Host  string          // which of Hosts it is the part of; "" without hosts
	Hosts map[string]Host // all of the fabric; nil when the files are for one host alone

	VLANs    map[string]VLAN
	Groups   map[string]Group
	Switches map[string]Switch
	Tunnels  map[string]Tunnel
	BGP      *BGP // nil without the section
	Pools    map[string]Pool
	LUNs     map[string]LUN
	Targets  map[string]Target // by iSCSI name in lower case

	fabric *rawFile // what ForHost takes a part of; nil in a part
}

// Host is one host of the fabric.
type Host struct {
	Endpoint  string // "host:port", "" when the others learn it
	PublicKey vpn.Key
	Next      vpn.Key        // the public key that it goes over to, zero for none
	Addresses []netip.Prefix // in the mesh, host part kept
	Subnets   []netip.Prefix // masked, sorted
	NAT       bool           // the host has to keep a NAT's memory alive
	VTEP      netip.Addr     // not valid without one and without an address in the mesh
}

// VLAN is a name for an 802.1Q id.
type VLAN struct {
	ID       uint16         // 1–4094
	Gateways []netip.Prefix // the host's own addresses in the VLAN, host part kept
	Switch   string         // the switch that serves the gateway, "" without one
	Groups   []string       // of every port, for its frames in the VLAN
	Anycast  bool           // every host of the VLAN has the same gateways
	VNI      uint32         // 0 without one
}

// Group is a security group: which connections may begin at a port that has it.
type Group struct {
	Log   bool
	Rules []Rule // in the file's order, which has no meaning

	// Away is the addresses of the group's ports on other hosts, by VLAN.
	Away map[string][]netip.Prefix
}

// Rule is one rule of a group. What it does not name is any.
type Rule struct {
	Deny      bool
	Direction vswitch.Direction
	Protocol  uint8          // or vswitch.AnyProtocol
	Services  []Range        // of ports, or of 256 times a type of ICMP plus its code
	CIDRs     []netip.Prefix // of the other side, masked
	Groups    []string       // of the other side
	VLANs     []string
}

// Range is First to Last, both included.
type Range struct {
	First, Last uint16
}

// Switch is one VLAN-aware switch.
type Switch struct {
	Dataplane vswitch.Dataplane // Auto when the file leaves the choice
	VXLAN     *VXLAN            // nil when its VLANs end at the host
	Ports     map[string]Port
}

// VXLAN is where a switch's VLANs with a VNI leave the host. Exactly one of Tunnel and
// Address is set.
type VXLAN struct {
	Tunnel  string
	Address netip.Addr
	Peers   []netip.Addr // sorted
	Port    uint16       // 0 when the file does not say
	MTU     int          // bytes, 0 when the file does not say
}

// Port is one port of a switch. Fields of other kinds than its own are zero.
type Port struct {
	Kind vswitch.Kind

	Netns      string         // Veth: the far end's network namespace
	IfName     string         // Veth: the far end's device name
	Addresses  []netip.Prefix // Veth: the far end's addresses, host part kept
	MAC        vswitch.MAC    // Veth: the far end's; zero when not chosen
	TapUser    string         // Tap: user name or decimal uid, "" for root
	MultiQueue bool           // Tap: of several queues; the kernel has no number of them
	Device     string         // Device: the interface's name

	VLAN     string   // the access port's VLAN, "" on other ports
	Trunk    []string // VLANs carried with a tag
	Native   string   // VLAN of a trunk's untagged frames, "" drops them
	MTU      int      // bytes, 0 leaves the kernel's default
	Isolated bool
	Down     bool

	Security vswitch.Security // what the port may send
	Limit    vswitch.Limit    // most traffic; Burst is 0 when the file does not say
	Groups   []string         // security groups, sorted
}

// Tunnel is one WireGuard interface.
type Tunnel struct {
	Listen     uint16 // UDP port, 0 lets the kernel choose
	Addresses  []netip.Prefix
	PrivateKey string  // name of the key's file
	PublicKey  vpn.Key // that the private key must have; zero when the file does not say
	Next       vpn.Key // that it may have as well; zero for none
	MTU        int     // bytes, 0 computes it
	Peers      map[string]Peer
	Mesh       Mesh
	Awaited    map[string][]netip.Prefix // hosts of the mesh without a key yet, and what will be behind them; nil for none
	User       bool                      // no interface on the host: portals are served inside of it
}

// Mesh is how the hosts of a fabric are the tunnel's peers.
type Mesh struct {
	Hosts []string // that the tunnel joins, in the file's order; none is no mesh
	Hubs  []string // through the first of which the others reach one another; none is a full mesh
}

// Peer is one WireGuard peer.
type Peer struct {
	PublicKey    vpn.Key
	PresharedKey string  // name of the key's file, "" without one
	Next         vpn.Key // the public key that the peer goes over to, zero for none
	NextPSK      string  // name of the file of the pre-shared key that goes with it, "" for the same
	Endpoint     string  // "host:port", "" when the peer finds us
	AllowedIPs   []netip.Prefix
	Keepalive    time.Duration  // whole seconds, 0 is off
	Limited      bool           // it reaches Reach alone
	Reach        []netip.Prefix // masked, sorted
}

// BGP is the host's BGP speaker.
type BGP struct {
	ASN       uint32
	RouterID  netip.Addr // IPv4
	Neighbors map[string]Neighbor
	Announced
	Import    []vpn.Filter  // in the file's order, which decides
	Restart   time.Duration // whole seconds, 0 is off
	Multipath int           // 1–64
	EVPN      bool
	L3        *L3VNI // nil without one
}

// Announced is what neighbors are told of.
type Announced struct {
	VLANs    bool           // the gateways' prefixes
	Portals  bool           // the addresses of portals
	Prefixes []netip.Prefix // masked, sorted
}

// L3VNI is the VNI in which hosts route to each other's prefixes.
type L3VNI struct {
	VNI uint32
	End VXLAN // without peers
	Announced
	Import []vpn.Filter // in the file's order, which decides
}

// Neighbor is one BGP neighbor.
type Neighbor struct {
	Address     netip.Addr
	ASN         uint32
	Source      netip.Addr // not valid when the kernel chooses
	Password    string     // name of the password's file, "" without one
	Hops        uint8      // 0 without TTL security
	Multihop    uint8      // 0 on the link
	Hold        time.Duration
	PrefixLimit uint32
	Client      bool
	BFD         time.Duration // 0 is off
	Passive     bool          // it connects
}

// Pool is where LUNs take their space from.
type Pool struct {
	Kind       string // raw or thin, "" when the file leaves the choice
	Path       string // directory or device as written; relative ones are under the state directory
	Size       int64  // bytes
	Overcommit float64
	Direct     bool // data go past the page cache

	Encryption Encryption // of its LUNs that say nothing else
}

// LUN is one logical unit.
type LUN struct {
	Pool   string
	Mirror string // the second pool of one that is mirrored, "" of any other
	Size   int64  // bytes, a multiple of Block
	Block  int    // 512 or 4096
	Thick  bool   // room for all of it is kept

	Encryption *Encryption // nil is as the pool says

	Snapshots Schedule
	Copy      *Copy // nil for none
	QoS       QoS
}

// Encryption is the key files of what is encrypted on the disk; zero is nothing.
type Encryption struct {
	Key    string // name of the key's file
	Former string // name of the file of the key that was, "" without one
}

// QoS is what a LUN or a target is promised and allowed; zero is nothing.
type QoS struct {
	Limit       Rate
	Burst       time.Duration // that the limit may be saved for, whole seconds
	Reservation Rate
	Shares      int // 1–10000, 0 when the file does not say
}

// Rate is accesses and bytes a second, each 0 where the file does not say.
type Rate struct{ IOPS, Bandwidth int64 }

// Schedule is the snapshots of a LUN that are made by time; zero is none.
type Schedule struct {
	Every time.Duration // whole seconds
	Keep  int           // 1–1000
}

// Target is one iSCSI target.
type Target struct {
	Portals    []Portal          // in the file's order
	LUNs       map[uint16]string // LUN number, 0–16383, to the LUN's name, or to LUN@SNAPSHOT
	Initiators map[string]Initiator
	Any        *Initiator // everyone else; nil refuses them
	QoS        QoS        // of all its LUNs together
}

// Portal is one place where a target is reached. Exactly one of VLAN, Tunnel
// and Address is set.
type Portal struct {
	VLAN    string // on every gateway address of the VLAN
	Tunnel  string // on every address of the tunnel
	Port    uint16 // TCP port of a VLAN's or a tunnel's portal
	User    bool   // the tunnel has no interface: connections end inside of it
	Address netip.AddrPort
}

// Initiator is what one initiator may do.
type Initiator struct {
	CHAP   *CHAP
	Mutual *CHAP    // how the target proves itself
	LUNs   []uint16 // LUN numbers, sorted; nil is all

	Tunnels   []string       // out of one of which it must come, sorted; nil is anywhere
	Peer      string         // of each of the tunnels, from which it must come; "" is any
	Addresses []netip.Prefix // one of which its address must be in, masked, sorted; nil is any
}

// CHAP is a name and the file that holds its secret.
type CHAP struct {
	User   string
	Secret string // name of the secret's file
}
