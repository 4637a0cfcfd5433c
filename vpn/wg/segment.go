package wg

import (
	"encoding/binary"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// outgoing is a packet of the stack. Its bytes are its own: the stack writes into the
// headers of a segment again when it sends it again.
type outgoing struct {
	bytes   []byte
	network int // bytes of the network's header
	head    int // of that and the transport's
	mss     int // of the packets that it is cut into; 0 is none
}

// take copies a packet.
func (o *outgoing) take(pkt *stack.PacketBuffer) {
	o.bytes = o.bytes[:0]
	for _, p := range pkt.AsSlices() {
		o.bytes = append(o.bytes, p...)
	}
	o.network = len(pkt.NetworkHeader().Slice())
	o.head = o.network + len(pkt.TransportHeader().Slice())
	o.mss = 0
	if pkt.GSOOptions.Type != stack.GSONone {
		o.mss = int(pkt.GSOOptions.MSS)
		if o.mss == 0 {
			o.mss = len(o.bytes) - o.head
		}
	}
}

// pieces is into how many packets it is cut.
func (o *outgoing) pieces() int {
	data := len(o.bytes) - o.head
	if o.mss == 0 || data <= o.mss {
		return 1
	}
	return (data + o.mss - 1) / o.mss
}

// cut makes the packets, and their checksums.
func (o *outgoing) cut(bufs [][]byte, sizes []int, offset int) {
	if o.mss == 0 {
		sizes[0] = copy(bufs[0][offset:], o.bytes)
		return
	}
	head, data := o.bytes[:o.head], o.bytes[o.head:]
	seq := binary.BigEndian.Uint32(head[o.network+4:])
	flags := head[o.network+header.TCPFlagsOffset]
	id := binary.BigEndian.Uint16(head[4:])
	for i := range bufs {
		n := len(data)
		if i < len(bufs)-1 {
			n = min(o.mss, n)
		}
		p := bufs[i][offset:][:o.head+n]
		copy(p, head)
		copy(p[o.head:], data[:n])
		data = data[n:]
		sizes[i] = len(p)
		binary.BigEndian.PutUint32(p[o.network+4:], seq+uint32(i*o.mss))
		if i < len(bufs)-1 {
			p[o.network+header.TCPFlagsOffset] = flags &^ uint8(header.TCPFlagFin|header.TCPFlagPsh)
		}
		seal(p, o.network, id+uint16(i))
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
