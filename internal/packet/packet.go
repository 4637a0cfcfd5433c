// Package packet makes the frames of questions like "would a TCP connection from
// here reach there": Ethernet with at most one 802.1Q tag, and in it ARP, or ICMP,
// TCP or UDP over IPv4 or IPv6, with right checksums. It does no I/O.
package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Protocol is what a frame carries.
type Protocol string

// The protocols. TCP is a first segment (SYN), ICMP an echo request, ARP a request
// for the address To.
const (
	ARP  Protocol = "arp"
	ICMP Protocol = "icmp"
	TCP  Protocol = "tcp"
	UDP  Protocol = "udp"
)

// Packet is what a frame says.
type Packet struct {
	Src, Dst         [6]byte
	VLAN             uint16 // of the 802.1Q tag; 0 is none
	Protocol         Protocol
	From, To         netip.Addr // both IPv4 or both IPv6
	FromPort, ToPort uint16     // TCP and UDP
}

const (
	etherARP  = 0x0806
	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd
	etherTag  = 0x8100
)

// Frame is the packet on the wire, without FCS and not filled up to 60 bytes.
func (p Packet) Frame() ([]byte, error) {
	from, to := p.From.Unmap(), p.To.Unmap()
	if !from.IsValid() || !to.IsValid() || from.Is4() != to.Is4() {
		return nil, fmt.Errorf("from %s to %s: give two IPv4 or two IPv6 addresses", p.From, p.To)
	}
	p.From, p.To = from.WithZone(""), to.WithZone("")
	kind, content := uint16(etherIPv6), []byte(nil)
	switch {
	case p.Protocol == ARP && !from.Is4():
		return nil, fmt.Errorf("ARP for %s: it asks for IPv4 addresses alone", p.To)
	case p.Protocol == ARP:
		kind, content = etherARP, p.arp()
	default:
		upper, number, err := p.upper()
		if err != nil {
			return nil, err
		}
		content = p.ipv6(number, upper)
		if from.Is4() {
			kind, content = etherIPv4, p.ipv4(number, upper)
		}
	}
	b := append(p.Dst[:], p.Src[:]...)
	if p.VLAN != 0 {
		b = binary.BigEndian.AppendUint16(b, etherTag)
		b = binary.BigEndian.AppendUint16(b, p.VLAN)
	}
	return append(binary.BigEndian.AppendUint16(b, kind), content...), nil
}

// arp is a request (RFC 826).
func (p Packet) arp() []byte {
	b := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, p.Src[:]...)
	b = append(append(b, p.From.AsSlice()...), make([]byte, 6)...)
	return append(b, p.To.AsSlice()...)
}

// upper is what the IP packet carries, and its protocol number.
func (p Packet) upper() ([]byte, byte, error) {
	ports := binary.BigEndian.AppendUint16(nil, p.FromPort)
	ports = binary.BigEndian.AppendUint16(ports, p.ToPort)
	switch {
	case p.Protocol == TCP: // RFC 9293, 3.1
		b := append(ports, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, 2, 0xff, 0xff, 0, 0, 0, 0)
		return p.checked(b, 16, 6), 6, nil
	case p.Protocol == UDP: // RFC 768
		b := append(ports, 0, 8, 0, 0)
		return p.checked(b, 6, 17), 17, nil
	case p.Protocol == ICMP && p.From.Is4(): // RFC 792
		b := []byte{8, 0, 0, 0, 0, 1, 0, 1}
		binary.BigEndian.PutUint16(b[2:], fold(0, b))
		return b, 1, nil
	case p.Protocol == ICMP: // RFC 4443, 4.1
		return p.checked([]byte{128, 0, 0, 0, 0, 1, 0, 1}, 2, 58), 58, nil
	}
	return nil, 0, fmt.Errorf("protocol %q: give one of %s, %s, %s, %s", p.Protocol, ARP, ICMP, TCP, UDP)
}

// checked sets the checksum over b and the pseudo-header (RFC 8200, 8.1).
func (p Packet) checked(b []byte, at int, protocol byte) []byte {
	sum := uint32(protocol) + uint32(len(b))
	sum = add(add(sum, p.From.AsSlice()), p.To.AsSlice())
	c := fold(sum, b)
	if c == 0 && protocol == 17 { // no checksum, in UDP
		c = 0xffff
	}
	binary.BigEndian.PutUint16(b[at:], c)
	return b
}

// hops is the TTL, and the hop limit.
const hops = 64

// ipv4 is the header of RFC 791, 3.1, and what follows it.
func (p Packet) ipv4(protocol byte, content []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 1, 0x40, 0, hops, protocol, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(20+len(content)))
	b = append(append(b, p.From.AsSlice()...), p.To.AsSlice()...)
	binary.BigEndian.PutUint16(b[10:], fold(0, b))
	return append(b, content...)
}

// ipv6 is the header of RFC 8200, 3, and what follows it.
func (p Packet) ipv6(next byte, content []byte) []byte {
	b := []byte{0x60, 0, 0, 0, 0, 0, next, hops}
	binary.BigEndian.PutUint16(b[4:], uint16(len(content)))
	b = append(append(b, p.From.AsSlice()...), p.To.AsSlice()...)
	return append(b, content...)
}

// add sums b, of even length, as 16-bit words.
func add(sum uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	return sum
}

// fold is the checksum of RFC 1071 over b and what was summed before.
func fold(sum uint32, b []byte) uint16 {
	sum = add(sum, b)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
