package pdu

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Additional header segment types (RFC 7143 section 11.2.2.1).
const (
	ahsExtendedCDB = 1
	ahsBidiRead    = 2
)

// maxExtendedCDB is the longest tail of a CDB that is taken: SPC-4 knows no
// CDB over 260 bytes.
const maxExtendedCDB = 260 - 16

// ErrBidirectional says that a command wants to read and write at once.
var ErrBidirectional = errors.New("bidirectional commands are not supported")

// ExtendedCDB reads the additional header segments of a SCSI command and gives
// the bytes of the CDB after its 16th, nil when there are none. The result is
// part of ahs.
func ExtendedCDB(ahs []byte) ([]byte, error) {
	var tail []byte
	for len(ahs) > 0 {
		if len(ahs) < 4 {
			return nil, fmt.Errorf("additional header segment: %w", ErrShort)
		}
		// The length counts the byte after the type, not the three before it.
		n, kind := int(binary.BigEndian.Uint16(ahs)), ahs[2]&0x3f
		size := (3 + n + 3) &^ 3
		if n < 1 || size > len(ahs) {
			return nil, fmt.Errorf("additional header segment of %d bytes: %w", n, ErrShort)
		}
		switch {
		case kind == ahsBidiRead:
			return nil, ErrBidirectional
		case kind != ahsExtendedCDB || tail != nil:
			return nil, fmt.Errorf("additional header segment of type %d is not expected", kind)
		case n-1 > maxExtendedCDB:
			return nil, fmt.Errorf("extended CDB of %d bytes is too long", n-1)
		}
		tail, ahs = ahs[4:3+n], ahs[size:]
	}
	return tail, nil
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
