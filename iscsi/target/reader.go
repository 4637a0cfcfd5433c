package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"ripstop/iscsi/pdu"
)

// Sizes of the receive buffer, in bytes. Before login it holds one login
// request, after it the longest PDU that was negotiated and then some, so that
// one read brings many commands.
const (
	loginData    = 8192
	loginBuffer  = pdu.BHSLen + loginData + 8
	sessionRoom  = 512 << 10
	maxHeaderLen = pdu.BHSLen + 255*4 + 4
)

// errDigest says that a digest does not match. At error recovery level 0 that
// ends the connection (RFC 7143 section 7.8).
var errDigest = errors.New("digest does not match")

// frame is one PDU, valid until the next one is read.
type frame struct {
	op   pdu.Opcode
	head pdu.Head
	bhs  []byte
	ahs  []byte
	data []byte
}

// reader cuts what a connection brings into PDUs, in place.
type reader struct {
	read                     func(p []byte) (int, error) // waits for input
	digest                   pdu.Digest
	headerDigest, dataDigest bool
	maxData                  int
	buf                      []byte
	r, w                     int // unread bytes are buf[r:w]
}

// grow replaces the buffer by one of n bytes.
func (in *reader) grow(n int) {
	buf := make([]byte, n)
	in.w = copy(buf, in.buf[in.r:in.w])
	in.r, in.buf = 0, buf
}

// need waits until n unread bytes are there, which fit into the buffer.
func (in *reader) need(n int) error {
	if n > len(in.buf) {
		return fmt.Errorf("PDU of %d bytes is longer than was agreed", n)
	}
	if in.r+n > len(in.buf) {
		in.w = copy(in.buf, in.buf[in.r:in.w])
		in.r = 0
	}
	for in.w-in.r < n {
		k, err := in.read(in.buf[in.w:])
		in.w += k
		if err != nil {
			if errors.Is(err, io.EOF) && in.w > in.r {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// next reads one PDU and checks its lengths and digests.
func (in *reader) next() (frame, error) {
	if in.r == in.w {
		in.r, in.w = 0, 0
	}
	if err := in.need(pdu.BHSLen); err != nil {
		return frame{}, err
	}
	op, head := pdu.Peek(in.buf[in.r:])
	if head.DataLen > in.maxData {
		return frame{}, fmt.Errorf("%s with %d bytes of data, %d were agreed", op, head.DataLen, in.maxData)
	}
	headLen := pdu.BHSLen + head.AHSLen
	size := headLen + head.Padded() + in.digests(head.DataLen)
	if err := in.need(size); err != nil {
		return frame{}, err
	}
	p := in.buf[in.r : in.r+size]
	in.r += size
	f := frame{op: op, head: head, bhs: p[:pdu.BHSLen], ahs: p[pdu.BHSLen:headLen]}
	rest := p[headLen:]
	if in.headerDigest {
		if binary.LittleEndian.Uint32(rest) != in.digest.Sum(p[:headLen]) {
			return f, fmt.Errorf("header of %s: %w", op, errDigest)
		}
		rest = rest[4:]
	}
	f.data = rest[:head.DataLen:head.DataLen]
	if in.dataDigest && head.DataLen > 0 {
		padded := rest[:head.Padded()]
		if binary.LittleEndian.Uint32(rest[head.Padded():]) != in.digest.Sum(padded) {
			return f, fmt.Errorf("data of %s: %w", op, errDigest)
		}
	}
	return f, nil
}

// digests is the bytes of the digests of a PDU with n bytes of data.
func (in *reader) digests(n int) int {
	size := 0
	if in.headerDigest {
		size += 4
	}
	if in.dataDigest && n > 0 {
		size += 4
	}
	return size
}
