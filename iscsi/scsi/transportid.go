package scsi

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// transportID is an iSCSI TransportID as it was read (SPC-4 7.6.4.6): of an
// initiator port, or without ISID of a whole initiator.
type transportID struct {
	name string
	isid [6]byte
	port bool
}

// Formats of TransportID, with the protocol identifier of iSCSI.
const (
	transportName = 0x00 | 0x05
	transportPort = 0x40 | 0x05
)

// nexus is the one of the initiator port to the port of like.
func (id transportID) nexus(like Nexus) Nexus {
	like.Initiator, like.ISID = id.name, id.isid
	return like
}

// portsOf is the nexuses that id means beside from: without ISID those of the
// initiator that are logged in.
func (u *Unit) portsOf(id transportID, from Nexus) []Nexus {
	if id.port {
		return []Nexus{id.nexus(from)}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []Nexus
	for a := range u.attached {
		if n := a.nexus(); n.Initiator == id.name && n.Target == from.Target && n.TPGT == from.TPGT {
			all = append(all, n)
		}
	}
	return all
}

// appendTransportID writes that of the nexus' initiator port.
func appendTransportID(b []byte, n Nexus) []byte {
	name := padded(fmt.Sprintf("%s,i,0x%x", n.Initiator, n.ISID))
	for len(name) < 20 {
		name = append(name, 0, 0, 0, 0)
	}
	b = append(b, transportPort, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(name)))
	return append(b, name...)
}

// parseTransportID reads the one at the start of b, which is byte at of the
// parameter list, and says how long it is.
func parseTransportID(b []byte, at int) (transportID, int, error) {
	var id transportID
	wrong := func(field int) (transportID, int, error) { return id, 0, invalidList(uint16(at+field), -1) }
	if len(b) < 4 {
		return id, 0, illegal(codeListLength)
	}
	if b[0] != transportName && b[0] != transportPort {
		return wrong(0)
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < 20 || n%4 != 0 || n > len(b)-4 {
		return wrong(2)
	}
	text, pad, ended := strings.Cut(string(b[4:4+n]), "\x00")
	if !ended || strings.Trim(pad, "\x00") != "" {
		return wrong(4)
	}
	id.port = b[0] == transportPort
	if id.port {
		var ok bool
		if text, ok = id.takeISID(text); !ok {
			return wrong(4)
		}
	}
	if text == "" || len(text) > maxName {
		return wrong(4)
	}
	id.name = strings.ToLower(text)
	return id, 4 + n, nil
}

// maxName is the longest iSCSI name, in bytes (RFC 7143 section 4.2.7.1).
const maxName = 223

// takeISID cuts the separator and at most 12 digits from the end of text.
func (id *transportID) takeISID(text string) (name string, ok bool) {
	name, digits, ok := strings.Cut(text, ",i,0x")
	if !ok || digits == "" || len(digits) > 12 {
		return "", false
	}
	isid, err := hex.DecodeString(strings.Repeat("0", 12-len(digits)) + digits)
	copy(id.isid[:], isid)
	return name, err == nil
}
