// Package capture records what passes an interface: a packet socket that sees both
// directions with the tags as they are on the wire, filters, and a writer of
// pcapng (draft-ietf-opsawg-pcapng), which Wireshark and tcpdump read.
package capture

import (
	"encoding/binary"
	"io"
	"time"
)

// Frame is one frame as it was on the wire, without FCS.
type Frame struct {
	Time   time.Time
	Bytes  []byte
	Length int  // on the wire, where Bytes is cut off
	Out    bool // sent to the port, else it came from there
}

// Interface is what a file says of where its frames are from.
type Interface struct {
	Name        string
	Description string
	SnapLength  int // most bytes of a frame
}

// Writer writes one section with one interface. The first error stays.
type Writer struct {
	w   io.Writer
	err error
}

// Block types and options of the format.
const (
	sectionHeader    = 0x0a0d0d0a
	interfaceHeader  = 1
	interfaceStats   = 5
	enhancedPacket   = 6
	byteOrder        = 0x1a2b3c4d
	unknownLength    = ^uint64(0)
	linkEthernet     = 1
	optionApp        = 4 // shb_userappl
	optionName       = 2 // if_name
	optionText       = 3 // if_description
	optionResolution = 9 // if_tsresol
	optionFlags      = 2 // epb_flags
	optionReceived   = 4 // isb_ifrecv
	optionDropped    = 5 // isb_ifdrop
	flagIn, flagOut  = 1, 2
	nanoseconds      = 9
)

// NewWriter writes the headers.
func NewWriter(w io.Writer, i Interface) (*Writer, error) {
	p := &Writer{w: w}
	head := binary.LittleEndian.AppendUint32(nil, byteOrder)
	head = binary.LittleEndian.AppendUint16(head, 1)
	head = binary.LittleEndian.AppendUint16(head, 0)
	head = binary.LittleEndian.AppendUint64(head, unknownLength)
	p.block(sectionHeader, end(option(head, optionApp, []byte("ripstop"))))
	head = binary.LittleEndian.AppendUint16(nil, linkEthernet)
	head = binary.LittleEndian.AppendUint16(head, 0)
	head = binary.LittleEndian.AppendUint32(head, uint32(i.SnapLength))
	head = option(head, optionName, []byte(i.Name))
	head = option(head, optionText, []byte(i.Description))
	p.block(interfaceHeader, end(option(head, optionResolution, []byte{nanoseconds})))
	return p, p.err
}

// Write adds a frame.
func (p *Writer) Write(f Frame) error {
	b := binary.LittleEndian.AppendUint32(nil, 0)
	b = binary.LittleEndian.AppendUint32(stamp(b, f.Time), uint32(len(f.Bytes)))
	b = binary.LittleEndian.AppendUint32(b, uint32(max(f.Length, len(f.Bytes))))
	b = pad(append(b, f.Bytes...))
	flags := uint32(flagIn)
	if f.Out {
		flags = flagOut
	}
	p.block(enhancedPacket, end(option(b, optionFlags, binary.LittleEndian.AppendUint32(nil, flags))))
	return p.err
}

// Stats adds how many frames were seen up to now, and how many of them were lost
// because they came faster than they were written.
func (p *Writer) Stats(now time.Time, received, dropped uint64) error {
	b := stamp(binary.LittleEndian.AppendUint32(nil, 0), now)
	b = option(b, optionReceived, binary.LittleEndian.AppendUint64(nil, received))
	p.block(interfaceStats, end(option(b, optionDropped, binary.LittleEndian.AppendUint64(nil, dropped))))
	return p.err
}

// block writes a block of whole 32-bit words.
func (p *Writer) block(kind uint32, body []byte) {
	const around = 12 // the type, and the length at both ends
	if p.err != nil {
		return
	}
	length := uint32(len(body) + around)
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, length), kind)
	b = append(binary.LittleEndian.AppendUint32(b, length), body...)
	_, p.err = p.w.Write(binary.LittleEndian.AppendUint32(b, length))
}

func stamp(b []byte, t time.Time) []byte {
	ns := uint64(t.UnixNano())
	b = binary.LittleEndian.AppendUint32(b, uint32(ns>>32))
	return binary.LittleEndian.AppendUint32(b, uint32(ns))
}

func option(b []byte, kind uint16, value []byte) []byte {
	b = binary.LittleEndian.AppendUint16(b, kind)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
	return pad(append(b, value...))
}

// end closes a list of options.
func end(b []byte) []byte { return append(b, 0, 0, 0, 0) }

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}
