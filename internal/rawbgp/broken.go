package rawbgp

import (
	"bytes"
	"encoding/binary"
)

// Broken is a table of messages in a session that are wrong, by what is wrong. With the
// number of an advisory about gobgp are those that meet what it tells of; those about MRT, BMP
// and RTR are of what no neighbor says.
func Broken() map[string][]byte {
	ok, net16 := WellFormed(), []byte{16, 10, 60}
	with := func(more ...[]byte) []byte { return bytes.Join(append([][]byte{ok}, more...), nil) }
	long := func(kind byte, n int) []byte {
		b := binary.BigEndian.AppendUint16([]byte{0x50, kind}, uint16(n))
		return append(b, make([]byte, n)...)
	}
	reach := func(value ...byte) []byte { return Attribute(0x80, 14, value...) }
	return map[string][]byte{
		"marker":                     append(make([]byte, 16), 0, 19, 4),
		"length 0":                   append(bytes.Repeat([]byte{0xff}, 16), 0, 0, 2),
		"length 18":                  append(bytes.Repeat([]byte{0xff}, 16), 0, 18, 2),
		"length 65535":               append(bytes.Repeat([]byte{0xff}, 16), 0xff, 0xff, 2),
		"unknown kind":               Message(9, nil),             // ends gobgp v4.3.0
		"kind 0":                     Message(0, []byte{1, 2, 3}), // as well
		"second open":                Open(64514, 90, Capabilities()),
		"keepalive with a body":      Message(KindKeepalive, []byte{1}),
		"notification without body":  Message(KindNotification, nil),
		"update of no bytes":         Message(KindUpdate, nil),
		"update of one byte":         Message(KindUpdate, []byte{0}),
		"withdrawn beyond the end":   Message(KindUpdate, []byte{0xff, 0xff, 0, 0}),
		"withdrawn beyond its field": Message(KindUpdate, []byte{0, 1, 24, 10, 1, 2}),        // CVE-2026-37462
		"attribute beyond its field": Message(KindUpdate, []byte{0, 0, 0, 3, 0x40, 1, 1, 0}), // CVE-2026-37462
		"attributes beyond the end":  Message(KindUpdate, []byte{0, 0, 0xff, 0xff}),
		"attribute beyond the end":   Update(nil, []byte{0x40, 1, 200, 0}, net16),
		"attribute header cut":       Update(nil, []byte{0x40}, net16),
		"attribute length cut":       Update(nil, []byte{0x50, 1, 0}, net16),
		"prefix of 33 bits":          Update(nil, ok, []byte{33, 10, 60, 0, 0, 0}),
		"prefix of 255 bits":         Update(nil, ok, []byte{255, 10}),
		"prefix cut":                 Update(nil, ok, []byte{24, 10}),
		"withdrawn prefix cut":       Update([]byte{24, 10}, nil, nil),
		"no attributes":              Update(nil, nil, net16),
		"no next hop":                Update(nil, ok[:11], net16),
		"origin 7":                   Update(nil, append(Attribute(0x40, 1, 7), ok[4:]...), net16),
		"origin not transitive":      Update(nil, append(Attribute(0, 1, 0), ok[4:]...), net16), // CVE-2026-42285
		"origin of no bytes":         Update(nil, append(Attribute(0x40, 1), ok[4:]...), net16),
		"next hop of 3 bytes":        Update(nil, append(ok[:11:11], Attribute(0x40, 3, 10, 30, 0)...), net16), // CVE-2026-30405
		"next hop 0.0.0.0":           Update(nil, append(ok[:11:11], Attribute(0x40, 3, 0, 0, 0, 0)...), net16),
		"next hop multicast":         Update(nil, append(ok[:11:11], Attribute(0x40, 3, 224, 0, 0, 1)...), net16),
		"next hop twice":             Update(nil, with(Attribute(0x40, 3, 10, 30, 0, 9)), net16),
		"path of no bytes":           Update(nil, append(append(ok[:4:4], Attribute(0x40, 2)...), ok[11:]...), net16),              // GHSA-frrj-87jh-2772
		"AS4 path before the path":   Message(KindUpdate, []byte{0, 0, 0, 11, 0x40, 17, 1, 2, 0x40, 2, 4, 0xff, 0xff, 0xde, 0xad}), // CVE-2026-41643
		"path segment beyond":        Update(nil, append(append(ok[:4:4], Attribute(0x40, 2, 2, 255, 1)...), ok[11:]...), net16),
		"path segment of 0":          Update(nil, append(append(ok[:4:4], Attribute(0x40, 2, 2, 0)...), ok[11:]...), net16),
		"path segment kind 9":        Update(nil, append(append(ok[:4:4], Attribute(0x40, 2, 9, 1, 0, 1)...), ok[11:]...), net16),
		"path with the host":         Update(nil, append(append(ok[:4:4], Attribute(0x40, 2, 2, 1, 0xfc, 0)...), ok[11:]...), net16),
		"MED of 1 byte":              Update(nil, with(Attribute(0x80, 4, 1)), net16),
		"local pref of no bytes":     Update(nil, with(Attribute(0x40, 5)), net16),
		"atomic with a value":        Update(nil, with(Attribute(0x40, 6, 1)), net16),
		"aggregator of 1 byte":       Update(nil, with(Attribute(0xc0, 7, 1)), net16),
		"communities of 3 bytes":     Update(nil, with(Attribute(0xc0, 8, 1, 2, 3)), net16),
		"originator of 3 bytes":      Update(nil, with(Attribute(0x80, 9, 1, 2, 3)), net16),
		"cluster list of 3 bytes":    Update(nil, with(Attribute(0x80, 10, 1, 2, 3)), net16),
		"extended communities cut":   Update(nil, with(Attribute(0xc0, 16, 1, 2, 3)), net16),
		"AS4 path cut":               Update(nil, with(Attribute(0xc0, 17, 2, 9, 0)), net16),
		"AS4 aggregator cut":         Update(nil, with(Attribute(0xc0, 18, 1)), net16),
		"PMSI of no bytes":           Update(nil, with(Attribute(0xc0, 22)), net16),
		"tunnel encapsulation cut":   Update(nil, with(Attribute(0xc0, 23, 0, 8, 0, 200, 1)), net16),
		"tunnel encapsulation sub":   Update(nil, with(Attribute(0xc0, 23, 0, 8, 0, 2, 1, 200)), net16),
		"IPv6 extended cut":          Update(nil, with(Attribute(0xc0, 25, 1)), net16),
		"IPv6 extended of 8 bytes":   Update(nil, with(Attribute(0xc0, 25, 0, 2, 0, 0, 0, 0, 0, 0)), net16), // CVE-2026-37461
		"AIGP cut":                   Update(nil, with(Attribute(0x80, 26, 1, 0, 3)), net16),
		"AIGP of no bytes":           Update(nil, with(Attribute(0x80, 26)), net16),
		"AIGP beyond the end":        Update(nil, with(Attribute(0x80, 26, 1, 0, 200, 1)), net16), // CVE-2026-7735
		"AIGP metric of 1 byte":      Update(nil, with(Attribute(0x80, 26, 1, 0, 4, 9)), net16),   // CVE-2026-7735
		"AIGP length 0":              Update(nil, with(Attribute(0x80, 26, 1, 0, 0)), net16),
		"large communities cut":      Update(nil, with(Attribute(0xc0, 32, 1, 2, 3)), net16),
		"link state cut":             Update(nil, with(Attribute(0x80, 29, 4, 2, 0, 200)), net16),
		"prefix SID cut":             Update(nil, with(Attribute(0xc0, 40, 5, 0, 200)), net16),
		"prefix SID sub cut":         Update(nil, with(Attribute(0xc0, 40, 5, 0, 4, 0, 1, 0, 200)), net16),
		"prefix SID unknown sub":     Update(nil, with(Attribute(0xc0, 40, 5, 0, 4, 0, 9, 0, 0)), net16),   // CVE-2026-7734
		"prefix SID sub beyond":      Update(nil, with(Attribute(0xc0, 40, 5, 0, 4, 0, 9, 0, 200)), net16), // CVE-2026-7734
		"unknown well-known":         Update(nil, with(Attribute(0x40, 250, 1)), net16),                    // CVE-2026-41642
		"unknown optional":           Update(nil, with(Attribute(0xc0, 250, 1)), net16),
		"flags of origin wrong":      Update(nil, append(Attribute(0xc0, 1, 0), ok[4:]...), net16),
		"zeroes of 4000 bytes":       Update(nil, long(250, 4000), nil),
		"reach of no bytes":          Update(nil, with(reach()), nil),
		"reach of 3 bytes":           Update(nil, with(reach(0, 1, 1)), nil),
		"reach hop beyond the end":   Update(nil, with(reach(0, 2, 1, 200, 1)), nil),
		"reach hop of 1 byte":        Update(nil, with(reach(0, 2, 1, 1, 1, 0, 64)), nil),
		"reach of another family":    Update(nil, with(reach(0, 25, 70, 4, 10, 30, 0, 254, 0, 2, 33)), nil),
		"reach EVPN cut":             Update(nil, with(reach(0, 25, 70, 4, 10, 30, 0, 254, 0, 2, 2, 1)), nil),
		"reach flow spec cut":        Update(nil, with(reach(0, 1, 133, 0, 0, 0xf0, 0xff)), nil), // GO-2025-3632
		"reach flow spec of 0":       Update(nil, with(reach(0, 1, 133, 0, 0, 0)), nil),
		"reach VPN cut":              Update(nil, with(reach(0, 1, 128, 12, 0, 0, 0, 0, 0, 0, 0, 0, 10, 30, 0, 254, 0, 112, 1)), nil),
		"reach labels without end":   Update(nil, with(reach(0, 1, 4, 4, 10, 30, 0, 254, 0, 200, 0, 0, 0, 0, 0, 0)), nil),
		"reach link state cut":       Update(nil, with(reach(0x40, 4, 71, 4, 10, 30, 0, 254, 0, 0, 1, 0, 200)), nil),
		"reach SR policy cut":        Update(nil, with(reach(0, 1, 73, 4, 10, 30, 0, 254, 0, 96, 1)), nil),
		"reach MUP cut":              Update(nil, with(reach(0, 1, 85, 4, 10, 30, 0, 254, 0, 1, 0, 1, 200)), nil),
		"reach RTC of 3 bits":        Update(nil, with(reach(0, 1, 132, 4, 10, 30, 0, 254, 0, 3)), nil),
		"unreach of 2 bytes":         Update(nil, with(Attribute(0x80, 15, 0, 1)), nil),
		"unreach cut":                Update(nil, Attribute(0x80, 15, 0, 2, 1, 128, 1), nil),
		"route refresh of 1 byte":    Message(5, []byte{1}),
		"route refresh of no family": Message(5, []byte{0xff, 0xff, 0xff, 0xff}),
		"route refresh with ORF":     Message(5, []byte{0, 1, 0, 1, 1, 64, 0xff, 0xff, 1}),
	}
}

// BrokenOpens is messages that begin no session.
func BrokenOpens() [][]byte {
	return [][]byte{
		Open(64514, 90, []byte{2, 3, 75, 1, 0}), // a software version of no bytes: GO-2025-3631
		Open(64999, 90, Capabilities()), Open(64514, 1, nil), Open(64514, 90, []byte{2, 200, 1}),
		Open(64514, 90, []byte{2, 6, 1, 200, 0, 1, 0, 1}), Open(64514, 90, []byte{2, 2, 64, 0}), Open(64514, 90, []byte{255, 255, 2, 0}),
		Open(64514, 90, []byte{2, 4, 65, 2, 0, 1}), Open(64514, 90, []byte{2, 3, 73, 1, 200}), Open(64514, 90, []byte{2, 6, 69, 4, 0, 1, 1, 9}),
		Message(KindOpen, nil), Message(KindOpen, []byte{3, 0xfc, 2, 0, 90, 1, 2, 3, 4, 0}), Message(KindOpen, []byte{4, 0xfc, 2, 0, 90, 0, 0, 0, 0, 0}),
		[]byte("GET / HTTP/1.1\r\nHost: here\r\n\r\n"), {0},
	}
}
