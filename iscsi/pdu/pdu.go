package pdu

import (
	"encoding/binary"
	"fmt"
)

// BHSLen is the length of a basic header segment in bytes.
const BHSLen = 48

// Reserved is the value of a task tag that names no task (RFC 7143 section 11.2.1.8).
const Reserved uint32 = 0xffffffff

// MaxDataLen is the longest data segment that a header can name, in bytes.
const MaxDataLen = 1<<24 - 1

// Opcode tells PDUs apart (RFC 7143 section 11.2.1.2).
type Opcode uint8

// The opcodes of initiators, then those of targets.
const (
	OpNOPOut      Opcode = 0x00
	OpSCSICommand Opcode = 0x01
	OpTaskRequest Opcode = 0x02
	OpLogin       Opcode = 0x03
	OpText        Opcode = 0x04
	OpDataOut     Opcode = 0x05
	OpLogout      Opcode = 0x06
	OpSNACK       Opcode = 0x10

	OpNOPIn          Opcode = 0x20
	OpSCSIResponse   Opcode = 0x21
	OpTaskResponse   Opcode = 0x22
	OpLoginResponse  Opcode = 0x23
	OpTextResponse   Opcode = 0x24
	OpDataIn         Opcode = 0x25
	OpLogoutResponse Opcode = 0x26
	OpR2T            Opcode = 0x31
	OpAsync          Opcode = 0x32
	OpReject         Opcode = 0x3f
)

var opcodeNames = map[Opcode]string{
	OpNOPOut: "NOP-Out", OpSCSICommand: "SCSI-Command", OpTaskRequest: "Task-Request", OpLogin: "Login",
	OpText: "Text", OpDataOut: "Data-Out", OpLogout: "Logout", OpSNACK: "SNACK",
	OpNOPIn: "NOP-In", OpSCSIResponse: "SCSI-Response", OpTaskResponse: "Task-Response",
	OpLoginResponse: "Login-Response", OpTextResponse: "Text-Response", OpDataIn: "Data-In",
	OpLogoutResponse: "Logout-Response", OpR2T: "R2T", OpAsync: "Async", OpReject: "Reject",
}

// String is the PDU's name, or its number for an opcode that nobody defined.
func (o Opcode) String() string {
	if n, ok := opcodeNames[o]; ok {
		return n
	}
	return fmt.Sprintf("opcode-%#02x", uint8(o))
}

// Head is what the headers of all PDUs have in common.
type Head struct {
	Immediate bool   // deliver at once, outside the command window
	AHSLen    int    // bytes of additional header segments, a multiple of 4, at most 1020
	DataLen   int    // bytes of the data segment without padding, at most MaxDataLen
	ITT       uint32 // initiator task tag
}

// Padded is the length of the data segment with its padding.
func (h *Head) Padded() int { return (h.DataLen + 3) &^ 3 }

// Common gives access to the common part of any PDU.
func (h *Head) Common() *Head { return h }

// Message is one kind of PDU.
type Message interface {
	// Op is the opcode of this kind.
	Op() Opcode
	// Common is the part that all kinds share.
	Common() *Head

	fields(w *walker)
}

// Peek reads what is needed to frame a PDU. The header has BHSLen bytes at least.
func Peek(bhs []byte) (Opcode, Head) {
	return Opcode(bhs[0] & 0x3f), Head{
		Immediate: bhs[0]&0x40 != 0,
		AHSLen:    int(bhs[4]) * 4,
		DataLen:   int(bhs[5])<<16 | int(bhs[6])<<8 | int(bhs[7]),
		ITT:       binary.BigEndian.Uint32(bhs[16:]),
	}
}

// Coder decodes and encodes headers without allocating. Its zero value is
// ready; it serves one goroutine.
type Coder struct{ w walker }

// Decode reads a header into m. It is wrong for a header of another kind and
// for one shorter than BHSLen.
func (c *Coder) Decode(bhs []byte, m Message) error {
	if len(bhs) < BHSLen {
		return fmt.Errorf("decode %s: %w", m.Op(), ErrShort)
	}
	op, head := Peek(bhs)
	if op != m.Op() {
		return fmt.Errorf("decode %s: the header is of %s", m.Op(), op)
	}
	*m.Common() = head
	c.w = walker{mode: decoding, p: bhs[:BHSLen]}
	m.fields(&c.w)
	return c.w.err
}

// Encode writes m's header over the first BHSLen bytes of p.
func (c *Coder) Encode(p []byte, m Message) {
	p = p[:BHSLen]
	clear(p)
	h := m.Common()
	p[0] = byte(m.Op())
	if h.Immediate {
		p[0] |= 0x40
	}
	p[4] = byte(h.AHSLen / 4)
	p[5], p[6], p[7] = byte(h.DataLen>>16), byte(h.DataLen>>8), byte(h.DataLen)
	binary.BigEndian.PutUint32(p[16:], h.ITT)
	c.w = walker{mode: encoding, p: p}
	m.fields(&c.w)
}

// Decode reads one header as Coder.Decode does.
func Decode(bhs []byte, m Message) error { return new(Coder).Decode(bhs, m) }

// Encode writes one header as Coder.Encode does.
func Encode(p []byte, m Message) { new(Coder).Encode(p, m) }

// Format is m on one line: its name, the flags that are set, and its fields.
func Format(m Message) string {
	h := m.Common()
	w := walker{mode: printing, out: []byte(m.Op().String())}
	w.flag(0, 0x40, "I", &h.Immediate)
	w.u32(0, "itt", &h.ITT)
	m.fields(&w)
	if h.AHSLen > 0 {
		w.print("ahs", h.AHSLen)
	}
	if h.DataLen > 0 {
		w.print("data", h.DataLen)
	}
	return string(w.out)
}
