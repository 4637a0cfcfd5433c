// Package vswitch holds the words of ripstop's virtual switches: what a host's
// switches are (State), what differs between two of them (Diff), and the steps
// that turn one into the other. It does no I/O; the dataplanes below it
// (vswitch/bridge, vswitch/ebpf) observe and do.
//
//	       ┌────────── switch lab ──────────┐
//	web ───┤ access, VLAN 10                │
//	db  ───┤ access, VLAN 10       gateway  ├── blue 10.10.0.1/24 (the host)
//	up  ───┤ trunk 10,30  native 20         │
//	       └────────────────────────────────┘
//
// # Caveats
//
// A State is complete: what it does not name shall not be there (among what
// ripstop made; what others made is never in an observed State).
//
// Zero values: a MAC that is zero is whatever it is, and no difference to any
// other (a device made for it has the same one each time on a host), and so are
// the addresses of a port that names none; MTU 0 is DefaultMTU for a veth, a tap
// and a gateway, and what it was before for a lent device; PVID 0 takes no
// untagged frame; IfName "" is eth0.
package vswitch

import (
	"fmt"
	"net/netip"
)

// Dataplane names the engine that forwards a switch's frames.
type Dataplane string

// The dataplanes. Auto is a word of the file only; a State names an engine.
const (
	Auto   Dataplane = "auto"
	Bridge Dataplane = "bridge" // the kernel's VLAN-aware bridge
	EBPF   Dataplane = "ebpf"   // ripstop's own, on tc
)

// MaxPorts is how many ports and gateways a switch can have: BR_MAX_PORTS of the
// kernel's net/bridge/br_private.h, where gateways are none, or the slots of our
// own program. Of Auto it is the most of all.
func (d Dataplane) MaxPorts() int {
	if d == Bridge {
		return 1<<10 - 1
	}
	return 1<<12 - 1
}

// Full tells why a switch of so many ports and gateways cannot be, nil when it can.
func (d Dataplane) Full(ports, gateways int) error {
	if d == Bridge {
		gateways = 0
	}
	if ports+gateways <= d.MaxPorts() {
		return nil
	}
	hint := "use a second switch"
	if d == Bridge && ports <= EBPF.MaxPorts() {
		hint = "use `dataplane: ebpf`, which has " + fmt.Sprint(EBPF.MaxPorts()) + ", or a second switch"
	}
	return fmt.Errorf("%d ports and %d gateways are more than the %d of dataplane %s: %s", ports, gateways, d.MaxPorts(), d, hint)
}

// State is all switches of one host, wanted or observed.
type State struct {
	Switches map[string]Switch // by name
}

// Switch is one VLAN-aware layer-2 switch.
type Switch struct {
	Dataplane Dataplane
	Ports     map[string]Port    // by name, which is also the host-side device's name unless Device is set
	Gateways  map[string]Gateway // by VLAN name, which is also the device's name
}

// Kind is what a port is made of.
type Kind string

// The kinds of port.
const (
	Veth   Kind = "veth"   // a veth pair whose far end stands in a network namespace
	Tap    Kind = "tap"    // a persistent tap for a VM
	Device Kind = "device" // an existing interface of the host, lent to the switch
	VXLAN  Kind = "vxlan"  // the way to the same VLAN on other hosts (RFC 7348)
)

// MAC is an Ethernet address; the zero value means "not chosen".
type MAC [6]byte

// String is the address in colon notation, empty for the zero value.
func (m MAC) String() string {
	if m == (MAC{}) {
		return ""
	}
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// What no configuration wants, so that Diff mends what is observed with it.
const (
	// NotAttached is the PVID of a port whose device does not, or not rightly,
	// work for its switch. IEEE 802.1Q reserves the number.
	NotAttached uint16 = 4095
	// Damaged is the MTU of a gateway that is not whole.
	Damaged = -1
)

// Port is one port of a switch. Fields of other kinds than its own are zero. A
// port whose Kind, Netns, IfName, User, MultiQueue, Device or Overlay changes is another
// port; an Overlay's Peers are not meant by that.
type Port struct {
	Kind Kind

	Netns     string         // Veth: name of the namespace of the far end (/run/netns), made if absent
	IfName    string         // Veth: the far end's device name, "eth0" unless chosen
	Addresses []netip.Prefix // Veth: the far end's addresses, sorted; host part kept; none leaves them alone
	MAC       MAC            // Veth: the far end's; Tap and Device: not used

	User       string // Tap: numeric uid that may open it, "" for root
	MultiQueue bool   // Tap: opened once for each of the VM's queues, however many; else it has one

	Device string // Device: the interface's name

	Overlay Overlay // VXLAN

	PVID     uint16   // VLAN of untagged frames, 1–4094; 0 drops them; observed, it may be NotAttached
	Tagged   []uint16 // VLANs carried with an 802.1Q tag, sorted, without PVID
	Isolated bool     // exchanges no frames with other isolated ports
	MTU      int      // bytes of layer-3 payload; 0 is the kernel's default, or a lent device's own
	Down     bool     // administratively down

	Security Security
	Limit    Limit
	// Filters is what the port's groups say in each of its VLANs in which it has
	// some; without a policy everything passes.
	Filters map[uint16]*Policy

	// Fault is why the port as observed takes no frames though it is up, and what
	// to do about it; "" while it does. No configuration wants one, and no step
	// mends it.
	Fault string
}

// Overlay is a VLAN's way to the same VLAN on other hosts.
type Overlay struct {
	VNI   uint32     // 1 to MaxVNI
	Local netip.Addr // this host's VTEP
	Port  uint16     // UDP port of all VTEPs, 0 is VXLANPort
	// Told says that EVPN tells who is where: neither the device nor the switch
	// learns from frames out of it, and Peers is not part of a State.
	Told  bool
	Peers []netip.Addr // VTEPs that get what is for all and for nobody known, sorted
}

const (
	// VXLANPort is the UDP port that IANA has assigned to VXLAN.
	VXLANPort = 4789
	// MaxVNI is the highest VXLAN network identifier.
	MaxVNI = 1<<24 - 1
)

// Headers of VXLAN: what a packet becomes longer by, over IPv4 and over IPv6 (RFC
// 7348, section 5): the inner Ethernet header, VXLAN, UDP and IP.
const (
	OverheadIPv4 = 14 + 8 + 8 + 20
	OverheadIPv6 = 14 + 8 + 8 + 40
)

// OverlayPort is the name of a VNI's port and of its device.
func OverlayPort(vni uint32) string { return fmt.Sprintf("vx%d", vni) }

// AnycastMAC is the Ethernet address that a VNI's gateway has on all hosts: a
// locally administered one with the VNI in it.
func AnycastMAC(vni uint32) MAC { return MAC{2, 'r', 's', byte(vni >> 16), byte(vni >> 8), byte(vni)} }

// IsAnycast tells whether m is a VNI's AnycastMAC.
func (m MAC) IsAnycast() bool { return m[0] == 2 && m[1] == 'r' && m[2] == 's' }

// Gateway is the host's own presence in a VLAN.
type Gateway struct {
	VLAN      uint16         // observed, 0 is one that is not whole
	MAC       MAC            // zero is one that only this host has
	Addresses []netip.Prefix // sorted; host part kept
	MTU       int            // 0 is the kernel's default; observed, it may be Damaged
}
