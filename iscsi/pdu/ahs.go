package pdu

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Additional header segment types (RFC 7143 section 11.2.2.1).
const (
	ahsExtendedCDB = 1
	ahsReadLength  = 2
)

// maxExtendedCDB is the longest tail of a CDB that is taken: SPC-4 knows no
// CDB over 260 bytes.
const maxExtendedCDB = 260 - 16

// ErrBidirectional says that a command wants to read and write at once.
var ErrBidirectional = errors.New("bidirectional commands are not supported")

// AHS is what the additional header segments of a SCSI command say.
type AHS struct {
	CDB           []byte // the bytes after the 16th, nil for none; part of what was parsed
	Bidirectional bool   // ReadLength was there
	ReadLength    uint32 // bytes that a bidirectional command is expected to read
}

// ParseAHS reads the additional header segments of a SCSI command.
func ParseAHS(p []byte) (AHS, error) {
	var out AHS
	for len(p) > 0 {
		if len(p) < 4 {
			return AHS{}, fmt.Errorf("additional header segment: %w", ErrShort)
		}
		// The length counts the byte after the type, not the three before it.
		n, kind := int(binary.BigEndian.Uint16(p)), p[2]&0x3f
		size := (3 + n + 3) &^ 3
		if n < 1 || size > len(p) {
			return AHS{}, fmt.Errorf("additional header segment of %d bytes: %w", n, ErrShort)
		}
		if err := out.segment(kind, p[4:3+n]); err != nil {
			return AHS{}, err
		}
		p = p[size:]
	}
	return out, nil
}

// segment takes one segment, each kind once.
func (a *AHS) segment(kind byte, p []byte) error {
	switch {
	case kind == ahsExtendedCDB && a.CDB == nil && len(p) <= maxExtendedCDB:
		a.CDB = p
	case kind == ahsReadLength && !a.Bidirectional && len(p) == 4:
		a.Bidirectional, a.ReadLength = true, binary.BigEndian.Uint32(p)
	default:
		return fmt.Errorf("additional header segment of type %d with %d bytes is not expected", kind, len(p))
	}
	return nil
}

// Append appends the segments that say what a says.
func (a AHS) Append(p []byte) []byte {
	if a.CDB != nil {
		p = AppendExtendedCDB(p, a.CDB)
	}
	if a.Bidirectional {
		p = binary.BigEndian.AppendUint32(append(p, 0, 5, ahsReadLength, 0), a.ReadLength)
	}
	return p
}

// ExtendedCDB gives the bytes of the CDB after its 16th, nil when there are
// none. The result is part of ahs.
func ExtendedCDB(ahs []byte) ([]byte, error) {
	a, err := ParseAHS(ahs)
	if err == nil && a.Bidirectional {
		err = ErrBidirectional
	}
	return a.CDB, err
}

// AppendExtendedCDB appends the segment that carries a CDB's bytes after its 16th.
func AppendExtendedCDB(p, tail []byte) []byte {
	p = binary.BigEndian.AppendUint16(p, uint16(len(tail)+1))
	p = append(p, ahsExtendedCDB, 0)
	p = append(p, tail...)
	for range -len(tail) & 3 {
		p = append(p, 0)
	}
	return p
}
