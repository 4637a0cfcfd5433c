package capture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
)

// Filter chooses frames; each of its fields that is set has to agree. The zero
// value chooses all.
type Filter struct {
	VLAN *int       // id in the outer 802.1Q tag; 0 is no tag, or a priority tag
	MAC  []byte     // of the sender or the receiver
	IP   netip.Addr // of the sender or the receiver, also in ARP
	Port uint16     // of TCP or UDP, of the sender or the receiver
}

// SetHost chooses an Ethernet or an IP address.
func (f *Filter) SetHost(text string) error {
	if m, err := net.ParseMAC(text); err == nil && len(m) == 6 {
		f.MAC = m
		return nil
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		return fmt.Errorf("host %q: it is neither an Ethernet nor an IP address", text)
	}
	f.IP = a.Unmap()
	return nil
}

// Match tells whether a frame is chosen.
func (f Filter) Match(b []byte) bool {
	const header = 14
	if len(b) < header {
		return f.VLAN == nil && f.MAC == nil && !f.IP.IsValid() && f.Port == 0
	}
	if f.MAC != nil && !bytes.Equal(f.MAC, b[:6]) && !bytes.Equal(f.MAC, b[6:12]) {
		return false
	}
	kind, content, vid := binary.BigEndian.Uint16(b[12:]), b[header:], 0
	if kind == 0x8100 && len(content) >= 4 {
		vid = int(binary.BigEndian.Uint16(content) & 0xfff)
		kind, content = binary.BigEndian.Uint16(content[2:]), content[4:]
	}
	if f.VLAN != nil && *f.VLAN != vid {
		return false
	}
	if !f.IP.IsValid() && f.Port == 0 {
		return true
	}
	p, ok := parse(kind, content)
	if !ok || f.IP.IsValid() && f.IP != p.from && f.IP != p.to {
		return false
	}
	return f.Port == 0 || p.ports && (f.Port == p.fromPort || f.Port == p.toPort)
}

type parsed struct {
	from, to         netip.Addr
	fromPort, toPort uint16
	ports            bool
}

// parse reads addresses and ports; the latter not behind IPv6 extension headers
// and in later fragments.
func parse(kind uint16, b []byte) (p parsed, ok bool) {
	var upper []byte
	var protocol byte
	switch {
	case kind == 0x0806 && len(b) >= 28 && b[4] == 6 && b[5] == 4: // RFC 826
		p.from, p.to = netip.AddrFrom4([4]byte(b[14:])), netip.AddrFrom4([4]byte(b[24:]))
		return p, true
	case kind == 0x0800 && len(b) >= 20: // RFC 791, 3.1
		p.from, p.to, protocol = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:])), b[9]
		if length := int(b[0]&15) * 4; length <= len(b) && binary.BigEndian.Uint16(b[6:])&0x1fff == 0 {
			upper = b[length:]
		}
	case kind == 0x86dd && len(b) >= 40: // RFC 8200, 3
		p.from, p.to, protocol = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[6]
		upper = b[40:]
	default:
		return p, false
	}
	if (protocol == 6 || protocol == 17) && len(upper) >= 4 {
		p.fromPort, p.toPort, p.ports = binary.BigEndian.Uint16(upper), binary.BigEndian.Uint16(upper[2:]), true
	}
	return p, true
}
