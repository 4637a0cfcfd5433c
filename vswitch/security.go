package vswitch

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Security is what a port may send. The zero value is what a port of somebody
// else's should have: any address, as many stations as MACLimit has by default,
// and no DHCP server nor router. Frames that break it are dropped and counted.
type Security struct {
	// AllowedMACs is the Ethernet addresses that the port may send from, and that
	// no other port may send from in the port's VLANs; sorted, none is any.
	AllowedMACs []MAC
	// AllowedIPs is the IPv4 and IPv6 addresses that the port may send from, also
	// as the sender of ARP and as what neighbor discovery advertises; sorted, host
	// part zero, none is any. With an IPv6 one among them, the link-local address
	// made of the sender's Ethernet address (RFC 4291, appendix A) is one, too.
	AllowedIPs []netip.Prefix
	// MACLimit is how many stations are learned at the port, in all its VLANs
	// together, 1 to 65535; frames of further ones are dropped. 0 is
	// DefaultMACLimit. Static entries do not count.
	MACLimit  int
	Storm     Storm
	Trusted   bool // may serve DHCP and DHCPv6, and send router advertisements and redirects
	BPDUGuard bool // a bridge protocol data unit shuts the port for 300 s
	// LoopDetection has probes sent to the port, and the port shut while one comes
	// back to the switch in its VLAN.
	LoopDetection bool
}

// DefaultMACLimit leaves room for many ports in a switch's FDB of 262,144 stations.
const DefaultMACLimit = 4096

// Storm is how many frames a second may come from a port, of each kind that goes
// to all ports of a VLAN; 0 is no limit. A second begins with the first frame.
type Storm struct {
	Broadcast, Multicast, UnknownUnicast uint32
}

func (s Security) canonical() Security {
	if s.MACLimit == DefaultMACLimit {
		s.MACLimit = 0
	}
	s.AllowedMACs = sorted(s.AllowedMACs, func(a, b MAC) int { return bytes.Compare(a[:], b[:]) })
	s.AllowedIPs = slices.Clone(s.AllowedIPs)
	for i, p := range s.AllowedIPs {
		s.AllowedIPs[i] = p.Masked()
	}
	s.AllowedIPs = sorted(s.AllowedIPs, comparePrefix)
	return s
}

// same compares canonical ones.
func (s Security) same(o Security) bool {
	return s.MACLimit == o.MACLimit && s.Storm == o.Storm && s.Trusted == o.Trusted && s.BPDUGuard == o.BPDUGuard && s.LoopDetection == o.LoopDetection &&
		slices.Equal(s.AllowedMACs, o.AllowedMACs) && slices.Equal(s.AllowedIPs, o.AllowedIPs)
}

// Six tells whether an IPv6 address is allowed by name.
func (s Security) Six() bool {
	return slices.ContainsFunc(s.AllowedIPs, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// String is empty for the zero value.
func (s Security) String() string {
	var words []string
	add := func(on bool, format string, args ...any) {
		if on {
			words = append(words, fmt.Sprintf(format, args...))
		}
	}
	add(len(s.AllowedMACs) > 0, "macs %s", join(s.AllowedMACs))
	add(len(s.AllowedIPs) > 0, "ips %s", join(s.AllowedIPs))
	add(s.MACLimit != 0, "mac-limit %d", s.MACLimit)
	add(s.Storm.Broadcast != 0, "broadcast %d/s", s.Storm.Broadcast)
	add(s.Storm.Multicast != 0, "multicast %d/s", s.Storm.Multicast)
	add(s.Storm.UnknownUnicast != 0, "unknown-unicast %d/s", s.Storm.UnknownUnicast)
	add(s.BPDUGuard, "bpdu-guard")
	add(s.LoopDetection, "loop-detection")
	add(s.Trusted, "trusted")
	return strings.Join(words, " ")
}

func join[T fmt.Stringer](list []T) string {
	out := make([]string, len(list))
	for i, v := range list {
		out[i] = v.String()
	}
	return strings.Join(out, ",")
}

// tightens says what of the port's frames is dropped from now on.
func (s Security) tightens(from Security, port string) []string {
	var out []string
	add := func(on bool, format string, args ...any) {
		if on {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	lost := func(n, before int, gone bool) bool { return n > 0 && (before == 0 || gone) }
	add(lost(len(s.AllowedMACs), len(from.AllowedMACs), len(without(from.AllowedMACs, s.AllowedMACs)) > 0),
		"drops what %s sends from other Ethernet addresses than %s", port, join(s.AllowedMACs))
	add(lost(len(s.AllowedIPs), len(from.AllowedIPs), len(without(from.AllowedIPs, s.AllowedIPs)) > 0),
		"drops what %s sends from other addresses than %s", port, join(s.AllowedIPs))
	limit, before := cmp.Or(s.MACLimit, DefaultMACLimit), cmp.Or(from.MACLimit, DefaultMACLimit)
	add(limit < before, "learns no more than %d stations at %s", limit, port)
	add(s.Storm.tighter(from.Storm), "limits the floods of %s", port)
	add(from.Trusted && !s.Trusted, "lets %s serve no DHCP and be no router", port)
	return out
}

func (s Storm) tighter(from Storm) bool {
	less := func(a, b uint32) bool { return a != 0 && (b == 0 || a < b) }
	return less(s.Broadcast, from.Broadcast) || less(s.Multicast, from.Multicast) || less(s.UnknownUnicast, from.UnknownUnicast)
}
