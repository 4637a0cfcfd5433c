// Package rawbgp says by BGP what no router would: messages of any bytes, for tests of what a
// speaker does about them.
package rawbgp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"ripstop/internal/link"
)

// Kinds of messages (RFC 4271, 4.1).
const (
	KindOpen         = 1
	KindUpdate       = 2
	KindNotification = 3
	KindKeepalive    = 4
)

// Message is a message of a kind.
func Message(kind byte, body []byte) []byte {
	out := bytes.Repeat([]byte{0xff}, 16)
	out = binary.BigEndian.AppendUint16(out, uint16(19+len(body)))
	return append(append(out, kind), body...)
}

// Open begins a session, with a hold time in seconds, as router 10.30.0.254.
func Open(asn uint16, hold uint16, parameters []byte) []byte {
	b := []byte{4}
	b = binary.BigEndian.AppendUint16(b, asn)
	b = binary.BigEndian.AppendUint16(b, hold)
	b = append(b, 10, 30, 0, 254, byte(len(parameters)))
	return Message(KindOpen, append(b, parameters...))
}

// Capabilities is one optional parameter: IPv4 unicast (RFC 5492).
func Capabilities() []byte {
	return []byte{2, 6, 1, 4, 0, 1, 0, 1}
}

// Update is withdrawn routes, path attributes and announced prefixes.
func Update(withdrawn, attributes, nlri []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(withdrawn)))
	b = append(b, withdrawn...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(attributes)))
	return Message(KindUpdate, append(append(b, attributes...), nlri...))
}

// Attribute is one of a path.
func Attribute(flags, kind byte, value ...byte) []byte {
	return append([]byte{flags, kind, byte(len(value))}, value...)
}

// ASN is the autonomous system of WellFormed.
const ASN = 64514

// WellFormed is ORIGIN, AS_PATH 64514 and NEXT_HOP 10.30.0.254.
func WellFormed() []byte { return WithHop(10, 30, 0, 254) }

// WithHop is as WellFormed with another next hop.
func WithHop(hop ...byte) []byte {
	return bytes.Join([][]byte{Attribute(0x40, 1, 0), Attribute(0x40, 2, 2, 1, 0xfc, 0x02), Attribute(0x40, 3, hop...)}, nil)
}

// in does something in a network namespace.
func in(name string, do func() error) error {
	s, err := link.OpenNamespace(name)
	if err != nil {
		return err
	}
	return errors.Join(s.Run(do), s.Close())
}

// Dial connects out of a namespace, from one of its addresses.
func Dial(namespace string, from netip.Addr, to string, limit time.Duration) (c net.Conn, err error) {
	err = in(namespace, func() error {
		d := net.Dialer{Timeout: limit, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
		c, err = d.Dial("tcp", to)
		return err
	})
	return c, err
}

// Listen waits in a namespace for who connects.
func Listen(namespace, at string) (l net.Listener, err error) {
	err = in(namespace, func() error {
		l, err = net.Listen("tcp", at)
		return err
	})
	return l, err
}

// Read is the next message, its kind and its body.
func Read(c net.Conn, limit time.Duration) (byte, []byte, error) {
	c.SetReadDeadline(time.Now().Add(limit))
	head := make([]byte, 19)
	if _, err := io.ReadFull(c, head); err != nil {
		return 0, nil, err
	}
	body := make([]byte, binary.BigEndian.Uint16(head[16:])-19)
	_, err := io.ReadFull(c, body)
	return head[18], body, err
}

// Establish has a session of the autonomous system ASN on a connection; false is a
// connection that the speaker ended.
func Establish(c net.Conn, limit time.Duration) bool {
	c.Write(append(Open(ASN, 90, Capabilities()), Message(KindKeepalive, nil)...)) // its failure is the read's
	for {
		switch kind, _, err := Read(c, limit); {
		case err != nil || kind == KindNotification:
			return false
		case kind == KindKeepalive:
			return true
		}
	}
}
