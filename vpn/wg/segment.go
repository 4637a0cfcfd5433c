package wg

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// pieces is into how many packets a packet of the stack is cut.
func pieces(pkt *stack.PacketBuffer) int {
	mss := int(pkt.GSOOptions.MSS)
	data := pkt.Data().Size()
	if pkt.GSOOptions.Type == stack.GSONone || mss == 0 || data <= mss {
		return 1
	}
	return (data + mss - 1) / mss
}

// cut makes the packets of a packet of the stack, and their checksums.
func cut(pkt *stack.PacketBuffer, bufs [][]byte, sizes []int, offset int) {
	all := cursor{pkt.AsSlices()}
	if pkt.GSOOptions.Type == stack.GSONone {
		sizes[0] = all.read(bufs[0][offset:][:pkt.Size()])
		return
	}
	network := len(pkt.NetworkHeader().Slice())
	head := network + len(pkt.TransportHeader().Slice())
	data, mss := pkt.Data().Size(), int(pkt.GSOOptions.MSS)
	if len(bufs) == 1 {
		mss = data
	}
	first := bufs[0][offset:]
	all.read(first[:head])
	seq := binary.BigEndian.Uint32(first[network+4:])
	flags := first[network+header.TCPFlagsOffset]
	id := binary.BigEndian.Uint16(first[4:])
	for i := range bufs {
		p := bufs[i][offset:]
		n := min(mss, data-i*mss)
		if i > 0 {
			copy(p, first[:head])
		}
		p = p[:head+n]
		all.read(p[head:])
		sizes[i] = len(p)
		binary.BigEndian.PutUint32(p[network+4:], seq+uint32(i*mss))
		p[network+header.TCPFlagsOffset] = flags
		if i < len(bufs)-1 {
			p[network+header.TCPFlagsOffset] = flags &^ uint8(header.TCPFlagFin|header.TCPFlagPsh)
		}
		seal(p, network, id+uint16(i))
	}
}

// seal fills in lengths and checksums of a packet of TCP.
func seal(p []byte, network int, id uint16) {
	if p[0]>>4 == 4 {
		ip := header.IPv4(p)
		ip.SetTotalLength(uint16(len(p)))
		ip.SetID(id)
		ip.SetChecksum(0)
		ip.SetChecksum(^ip.CalculateChecksum())
	} else {
		header.IPv6(p).SetPayloadLength(uint16(len(p) - header.IPv6MinimumSize))
	}
	segment := p[network:]
	binary.BigEndian.PutUint16(segment[header.TCPChecksumOffset:], 0)
	sum := checksum.Checksum(segment, pseudo(p, header.TCPProtocolNumber, len(segment)))
	binary.BigEndian.PutUint16(segment[header.TCPChecksumOffset:], ^sum)
}

// pseudo is the sum of the addresses, protocol and length that TCP's and UDP's
// checksums have in them (RFC 9293 section 3.1, RFC 8200 section 8.1).
func pseudo(p []byte, protocol tcpip.TransportProtocolNumber, length int) uint16 {
	addresses := p[12:20]
	if p[0]>>4 == 6 {
		addresses = p[8:40]
	}
	return checksum.Combine(checksum.Checksum(addresses, uint16(protocol)), uint16(length))
}

// sound is the protocol of a packet whose lengths and checksums are right; one of
// another protocol than TCP is left to the stack to check. Fragments are not: what
// TCP sends has none.
func sound(p []byte) (tcpip.NetworkProtocolNumber, bool) {
	if len(p) == 0 {
		return 0, false
	}
	protocol, head := tcpip.TransportProtocolNumber(0), header.IPv6MinimumSize
	network := tcpip.NetworkProtocolNumber(header.IPv6ProtocolNumber)
	switch p[0] >> 4 {
	case 4:
		ip := header.IPv4(p)
		if !ip.IsValid(len(p)) || int(ip.TotalLength()) != len(p) || ip.More() || ip.FragmentOffset() != 0 || !ip.IsChecksumValid() {
			return 0, false
		}
		network, protocol, head = header.IPv4ProtocolNumber, ip.TransportProtocol(), int(ip.HeaderLength())
	case 6:
		ip := header.IPv6(p)
		if !ip.IsValid(len(p)) || int(ip.PayloadLength())+header.IPv6MinimumSize != len(p) {
			return 0, false
		}
		protocol = ip.TransportProtocol()
	default:
		return 0, false
	}
	switch protocol {
	case header.TCPProtocolNumber:
		return network, len(p)-head >= header.TCPMinimumSize &&
			checksum.Checksum(p[head:], pseudo(p, protocol, len(p)-head)) == 0xffff
	case header.ICMPv4ProtocolNumber, header.ICMPv6ProtocolNumber:
		return network, true // the stack checks it always
	}
	return network, false // nobody in the stack listens to it
}

// cursor reads several slices as one.
type cursor struct{ rest [][]byte }

func (c *cursor) read(to []byte) int {
	n := 0
	for n < len(to) && len(c.rest) > 0 {
		k := copy(to[n:], c.rest[0])
		n += k
		if c.rest[0] = c.rest[0][k:]; len(c.rest[0]) == 0 {
			c.rest = c.rest[1:]
		}
	}
	return n
}
