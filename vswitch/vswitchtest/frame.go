package vswitchtest

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"ripstop/vswitch"
)

// EtherTypes of test frames.
const (
	etherTest = 0x88b5 // IEEE 802 local experimental
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
	cTag      = 0x8100
	sTag      = 0x88a8
)

// tag is one VLAN tag: its EtherType and TCI (priority 0).
type tag struct {
	kind, vid uint16
}

func q(vid uint16) tag { return tag{cTag, vid} }

// frame is an Ethernet frame, the outermost tag first.
type frame struct {
	dst, src vswitch.MAC
	tags     []tag
	kind     uint16
	payload  []byte
}

func (f frame) bytes() []byte {
	b := append(slices.Clone(f.dst[:]), f.src[:]...)
	for _, t := range f.tags {
		b = binary.BigEndian.AppendUint16(b, t.kind)
		b = binary.BigEndian.AppendUint16(b, t.vid)
	}
	b = binary.BigEndian.AppendUint16(b, f.kind)
	return append(b, f.payload...)
}

// with is the same frame with these tags.
func (f frame) with(tags ...tag) frame {
	f.tags = tags
	return f
}

// pad makes the payload n bytes long.
func (f frame) pad(n int) frame {
	p := make([]byte, n)
	copy(p, f.payload)
	f.payload = p
	return f
}

// id is what tells one test frame from another and from what kernels send of
// their own.
func id(n uint32) []byte { return append([]byte("ripstop"), binary.BigEndian.AppendUint32(nil, n)...) }

// arpRequest asks who has ip.
func arpRequest(src vswitch.MAC, from, ip netip.Addr) frame {
	p := []byte{0, 1, 8, 0, 6, 4, 0, 1}
	p = append(append(p, src[:]...), from.AsSlice()...)
	p = append(append(p, make([]byte, 6)...), ip.AsSlice()...)
	return frame{dst: broadcast, src: src, kind: etherARP, payload: p}
}

// neighborSolicitation is the IPv6 multicast of RFC 4861, 4.3, without checksum:
// a switch carries it unread.
func neighborSolicitation(src vswitch.MAC, from, ip netip.Addr) frame {
	to := netip.MustParseAddr("ff02::1:ff00:0").As16()
	target := ip.As16()
	copy(to[13:], target[13:])
	solicitation := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target[:]...)
	dst := vswitch.MAC{0x33, 0x33, to[12], to[13], to[14], to[15]}
	return frame{dst: dst, src: src, kind: etherIPv6, payload: ipv6(58, from, netip.AddrFrom16(to), solicitation...)}
}

// ipv4 is a header without checksum (RFC 791, 3.1) with flags and offset of a
// fragment, and n bytes that follow.
func ipv4(protocol byte, fragment uint16, from, to netip.Addr, n int) []byte {
	p := []byte{0x45, 0, 0, byte(20 + n), 0, 7, byte(fragment >> 8), byte(fragment), 64, protocol, 0, 0}
	p = append(append(p, from.AsSlice()...), to.AsSlice()...)
	return append(p, make([]byte, n)...)
}

// snap is the frame's protocol inside IEEE 802.2 (RFC 1042).
func snap(f frame) frame {
	llc := []byte{0xaa, 0xaa, 3, 0, 0, 0, byte(f.kind >> 8), byte(f.kind)}
	f.payload = append(llc, f.payload...)
	f.kind = uint16(len(f.payload))
	return f
}

// ipv6 is a header (RFC 8200, 3) and what follows it.
func ipv6(next byte, from, to netip.Addr, content ...byte) []byte {
	p := []byte{0x60, 0, 0, 0, 0, byte(len(content)), next, 255}
	p = append(append(p, from.AsSlice()...), to.AsSlice()...)
	return append(p, content...)
}
