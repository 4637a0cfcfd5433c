package vpn

import (
	"fmt"
	"net/netip"
)

// L3VNI is the VNI in which hosts route to each other's prefixes, of which EVPN tells by
// routes of type 5: the interface-less model of RFC 9136, section 4.4.1. Its VXLAN device
// is in no bridge and has no address; it sends to the router MAC of a VTEP.
type L3VNI struct {
	VNI  uint32     // 1–16777215, no network's
	VTEP netip.Addr // the host's own
	Port uint16     // UDP port of all VTEPs
	MTU  int        // bytes of a packet in it

	Down bool // of an observed one: its device does not forward
}

// Device is the name of the VNI's VXLAN device.
func (l L3VNI) Device() string { return fmt.Sprintf("vx%d", l.VNI) }

// Live tells whether l can become to in place.
func (l L3VNI) Live(to L3VNI) bool {
	l.MTU, l.Down = to.MTU, to.Down
	return l == to
}

// Gateway is by which address on the VNI's device the kernel sends to a VTEP what is for
// a prefix: its own where both are of IPv4. The kernel's IPv6 takes no IPv4 gateway, and
// none that it reaches by another device, as it does a VTEP. So it is a link-local address
// otherwise, which nobody has: one with an IPv4 VTEP in its last bytes, or that of an IPv6
// VTEP's router (RFC 4291, appendix A), as no other VTEP has the same router.
func (L3VNI) Gateway(prefix netip.Prefix, vtep netip.Addr, router MAC) netip.Addr {
	switch {
	case vtep.Is4() && prefix.Addr().Is4():
		return vtep
	case vtep.Is4():
		four := vtep.As4()
		return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 12: four[0], 13: four[1], 14: four[2], 15: four[3]})
	}
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: router[0] ^ 2, 9: router[1], 10: router[2], 11: 0xff, 12: 0xfe, 13: router[3], 14: router[4], 15: router[5]})
}

// AddL3VNI has the host route in a VNI.
type AddL3VNI struct{ L3VNI }

// SetL3VNI changes that VNI, or its device.
type SetL3VNI struct{ From, To L3VNI }

// DelL3VNI ends that: with the device go all routes through it.
type DelL3VNI struct{ L3VNI }

// AnnouncePrefix tells all neighbors of a prefix by EVPN.
type AnnouncePrefix struct {
	Prefix netip.Prefix
	What   string
}

// WithdrawPrefix takes that back.
type WithdrawPrefix struct {
	Prefix netip.Prefix
	What   string
}

// SetL3Import changes which prefixes that come by EVPN the kernel gets.
type SetL3Import struct{ From, To []Filter }

const l3ImportObject = "l3vni/import"

// L3Object is "l3vni/VNI".
func L3Object(vni uint32) string { return fmt.Sprintf("l3vni/%d", vni) }

func prefixObject(p netip.Prefix) string { return "prefix/" + p.String() }

// Object is "l3vni/VNI".
func (s AddL3VNI) Object() string { return L3Object(s.VNI) }

// Object is "l3vni/VNI".
func (s SetL3VNI) Object() string { return L3Object(s.To.VNI) }

// Object is "l3vni/VNI".
func (s DelL3VNI) Object() string { return L3Object(s.VNI) }

// Object is "prefix/PREFIX".
func (s AnnouncePrefix) Object() string { return prefixObject(s.Prefix) }

// Object is "prefix/PREFIX".
func (s WithdrawPrefix) Object() string { return prefixObject(s.Prefix) }

// Object is "l3vni/import".
func (SetL3Import) Object() string { return l3ImportObject }

// Removes is false.
func (AddL3VNI) Removes() bool { return false }

// Removes is false.
func (SetL3VNI) Removes() bool { return false }

// Removes is true.
func (DelL3VNI) Removes() bool { return true }

// Removes is false.
func (AnnouncePrefix) Removes() bool { return false }

// Removes is true.
func (WithdrawPrefix) Removes() bool { return true }

// Removes is false.
func (SetL3Import) Removes() bool { return false }

// Disturbs is empty.
func (AddL3VNI) Disturbs() string { return "" }

// Disturbs says what a new device costs.
func (s SetL3VNI) Disturbs() string {
	if s.From.Live(s.To) {
		return ""
	}
	return fmt.Sprintf("interrupts what is routed through VNI %d", s.From.VNI)
}

// Disturbs says that nothing is routed any more.
func (s DelL3VNI) Disturbs() string {
	return fmt.Sprintf("ends what is routed through VNI %d, and removes the routes learned in it", s.VNI)
}

// Disturbs is empty.
func (AnnouncePrefix) Disturbs() string { return "" }

// Disturbs says that nobody sends to the prefix any more.
func (s WithdrawPrefix) Disturbs() string {
	return fmt.Sprintf("other hosts send packets to %s here by VXLAN no more", s.Prefix)
}

// Disturbs is empty: which routes go depends on what neighbors announce.
func (SetL3Import) Disturbs() string { return "" }

func (s AddL3VNI) applyBGP(b *BGP) { b.L3 = &s.L3VNI }
func (s SetL3VNI) applyBGP(b *BGP) { b.L3 = &s.To }
func (DelL3VNI) applyBGP(b *BGP)   { b.L3 = nil }

func (s AnnouncePrefix) applyBGP(b *BGP) {
	if b.Prefixes == nil {
		b.Prefixes = map[netip.Prefix]string{}
	}
	b.Prefixes[s.Prefix] = s.What
}

func (s WithdrawPrefix) applyBGP(b *BGP) { delete(b.Prefixes, s.Prefix) }
func (s SetL3Import) applyBGP(b *BGP)    { b.L3Import = cloneFilters(s.To) }

// String is the ip commands.
func (s AddL3VNI) String() string { return s.add() }

// String is the ip commands.
func (s SetL3VNI) String() string {
	if !s.From.Live(s.To) {
		return DelL3VNI{s.From}.String() + "\n" + s.To.add()
	}
	out := ""
	if s.From.MTU != s.To.MTU {
		out = fmt.Sprintf("ip link set dev %s mtu %d", s.To.Device(), s.To.MTU)
	}
	if s.From.Down {
		if out != "" {
			out += "\n"
		}
		out += fmt.Sprintf("ip link set dev %s up", s.To.Device())
	}
	return out
}

// String is the ip command.
func (s DelL3VNI) String() string { return "ip link del dev " + s.Device() }

func (l L3VNI) add() string {
	return fmt.Sprintf("ip link add name %s mtu %d type vxlan id %d local %s dstport %d nolearning\nip link set dev %s up",
		l.Device(), l.MTU, l.VNI, l.VTEP, l.Port, l.Device())
}

// String is the gobgp command.
func (s AnnouncePrefix) String() string { return "gobgp global rib add" + prefixWords(s.Prefix) }

// String is the gobgp command.
func (s WithdrawPrefix) String() string { return "gobgp global rib del" + prefixWords(s.Prefix) }

func prefixWords(p netip.Prefix) string {
	return fmt.Sprintf(" -a evpn prefix %s etag 0 label L3VNI rd ROUTER-ID:%d rt ASN:L3VNI encap vxlan router-mac MAC", p, L3RD)
}

// L3RD is the number behind the router-id in the route distinguisher of prefixes, which
// is that of no VLAN.
const L3RD = 4095

// String is a comment, as that of SetImport.
func (s SetL3Import) String() string { return "# import by EVPN" + filterWords(s.To) }

// describeL3 is one line for each object of the L3 VNI.
func (b BGP) describeL3(out map[string]string) {
	if b.L3 == nil {
		return
	}
	out[L3Object(b.L3.VNI)] = fmt.Sprintf("routed from %s, %d bytes", b.L3.VTEP, b.L3.MTU)
	for p, what := range b.Prefixes {
		out[prefixObject(p)] = what
	}
	if len(b.L3Import) > 0 {
		out[l3ImportObject] = SetL3Import{To: b.L3Import}.String()[len("# import by EVPN: "):]
	}
}
