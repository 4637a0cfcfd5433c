package scsi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sense keys of SPC-4.
const (
	keyNone           = 0x0
	keyNotReady       = 0x2
	keyMedium         = 0x3
	keyHardware       = 0x4
	keyIllegalRequest = 0x5
	keyUnitAttention  = 0x6
	keyDataProtect    = 0x7
	keyCopyAborted    = 0xa
	keyAborted        = 0xb
	keyMiscompare     = 0xe
)

// Additional sense codes, ASC in the high byte and ASCQ in the low one
// (SPC-4, ASC and ASCQ assignments).
const (
	codeNone              = 0x0000
	codeInProgress        = 0x0016 // OPERATION IN PROGRESS
	codeSanitizing        = 0x041b // LOGICAL UNIT NOT READY, SANITIZE IN PROGRESS
	codeUnreachable       = 0x0804 // UNREACHABLE COPY TARGET
	codeWriteError        = 0x0c00
	codeInvalidIU         = 0x0e03 // INVALID FIELD IN COMMAND INFORMATION UNIT
	codeUnrecoveredRead   = 0x1100
	codeListLength        = 0x1a00 // PARAMETER LIST LENGTH ERROR
	codeMiscompare        = 0x1d00
	codeInvalidOpcode     = 0x2000
	codeLBAOutOfRange     = 0x2100
	codeInvalidCDB        = 0x2400
	codeNoSuchLUN         = 0x2500
	codeInvalidParameter  = 0x2600
	codeInvalidRelease    = 0x2604
	codeManyDevices       = 0x2606 // TOO MANY TARGET DESCRIPTORS
	codeDeviceType        = 0x2607 // UNSUPPORTED TARGET DESCRIPTOR TYPE CODE
	codeManySegments      = 0x2608 // TOO MANY SEGMENT DESCRIPTORS
	codeSegmentType       = 0x2609 // UNSUPPORTED SEGMENT DESCRIPTOR TYPE CODE
	codeInexactSegment    = 0x260a
	codeInlineLength      = 0x260b // INLINE DATA LENGTH EXCEEDED
	codeWriteProtected    = 0x2700
	codeSoftwareProtected = 0x2702
	codeNoSpace           = 0x2707 // SPACE ALLOCATION FAILED WRITE PROTECT
	codeModeChanged       = 0x2a01
	codeResPreempted      = 0x2a03
	codeResReleased       = 0x2a04
	codeRegPreempted      = 0x2a05
	codeCapacityChanged   = 0x2a09
	codePowerOn           = 0x2900
	codeTargetReset       = 0x2902
	codeUnitReset         = 0x2903
	codeCleared           = 0x2f00 // COMMANDS CLEARED BY ANOTHER INITIATOR
	codePreviousConflict  = 0x2c09 // PREVIOUS RESERVATION CONFLICT STATUS
	codeSanitizeFailed    = 0x3103
	codeThreshold         = 0x3807 // THIN PROVISIONING SOFT THRESHOLD REACHED
	codeNoRegistration    = 0x5504 // INSUFFICIENT REGISTRATION RESOURCES
	codeNoSaving          = 0x3900 // SAVING PARAMETERS NOT SUPPORTED
	codeSelfTest          = 0x3e03 // LOGICAL UNIT FAILED SELF-TEST
	codeInquiryChanged    = 0x3f03
	codeLUNsChanged       = 0x3f0e
	codeInternal          = 0x4400
	codeInvalidMessage    = 0x4900
)

// errConflict ends a command with RESERVATION CONFLICT, without sense data.
var errConflict = errors.New("reservation conflict")

// Where a field pointer points to.
const (
	pointNowhere = iota
	pointCDB
	pointList
	pointProgress // field is the part that is done, of 65536
)

// sense is why a command ended with CHECK CONDITION.
type sense struct {
	key   byte
	code  uint16 // ASC, ASCQ
	info  uint64 // INFORMATION, when valid
	valid bool

	special    uint64 // COMMAND-SPECIFIC INFORMATION, if any
	hasSpecial bool

	point byte   // pointNowhere, pointCDB or pointList
	field uint16 // byte that is wrong
	bit   int8   // highest wrong bit of it, -1 for the whole byte
}

// Error names key and code.
func (s *sense) Error() string {
	return fmt.Sprintf("sense key %xh, code %02xh/%02xh", s.key, s.code>>8, s.code&0xff)
}

func illegal(code uint16) error { return &sense{key: keyIllegalRequest, code: code} }

// invalidCDB says which byte of the CDB is refused; bit -1 means all of it.
func invalidCDB(field uint16, bit int8) error {
	return &sense{key: keyIllegalRequest, code: codeInvalidCDB, point: pointCDB, field: field, bit: bit}
}

// invalidList says which byte of the parameter list is refused.
func invalidList(field uint16, bit int8) error {
	return &sense{key: keyIllegalRequest, code: codeInvalidParameter, point: pointList, field: field, bit: bit}
}

// invalidMessage refuses a task attribute (SAM-5 table 37: INVALID MESSAGE ERROR).
func invalidMessage() *sense { return &sense{key: keyAborted, code: codeInvalidMessage} }

func outOfRange(lba uint64) error {
	return &sense{key: keyIllegalRequest, code: codeLBAOutOfRange, info: lba, valid: true}
}

// bytes is s in fixed or in descriptor format (SPC-4).
func (s *sense) bytes(descriptor bool) []byte {
	if descriptor {
		return s.descriptor()
	}
	b := make([]byte, 18)
	b[0] = 0x70
	b[2] = s.key
	b[7] = 10
	binary.BigEndian.PutUint16(b[12:], s.code)
	if s.valid && s.info <= 0xffffffff {
		b[0] |= 0x80
		binary.BigEndian.PutUint32(b[3:], uint32(s.info))
	}
	binary.BigEndian.PutUint32(b[8:], uint32(s.special))
	if s.point != pointNowhere {
		s.putPointer(b[15:18])
	}
	return b
}

func (s *sense) descriptor() []byte {
	b := make([]byte, 8, 8+12+12+8)
	b[0] = 0x72
	b[1] = s.key
	binary.BigEndian.PutUint16(b[2:], s.code)
	if s.valid {
		b = append(b, 0x00, 0x0a, 0x80, 0)
		b = binary.BigEndian.AppendUint64(b, s.info)
	}
	if s.hasSpecial {
		b = append(b, 0x01, 0x0a, 0, 0)
		b = binary.BigEndian.AppendUint64(b, s.special)
	}
	if s.point != pointNowhere {
		d := [8]byte{0x02, 0x06}
		s.putPointer(d[4:7])
		b = append(b, d[:]...)
	}
	b[7] = byte(len(b) - 8)
	return b
}

// putPointer writes the sense-key specific bytes of SPC-4.
func (s *sense) putPointer(b []byte) {
	b[0] = 0x80
	if s.point == pointCDB {
		b[0] |= 0x40
	}
	if s.bit >= 0 && s.point != pointProgress {
		b[0] |= 0x08 | byte(s.bit)
	}
	binary.BigEndian.PutUint16(b[1:], s.field)
}

// senseOf is the one place where an error becomes sense data.
func senseOf(err error, writing bool, blockSize int64) *sense {
	var (
		own    *sense
		medium *MediumError
		differ *Miscompare
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.As(err, &differ):
		return &sense{key: keyMiscompare, code: codeMiscompare, info: uint64(differ.Offset), valid: true}
	case errors.Is(err, ErrNoSpace):
		return &sense{key: keyDataProtect, code: codeNoSpace}
	case errors.Is(err, ErrReadOnly):
		return &sense{key: keyDataProtect, code: codeWriteProtected}
	case errors.Is(err, ErrGone):
		return &sense{key: keyIllegalRequest, code: codeNoSuchLUN}
	case errors.As(err, &medium):
		s := &sense{key: keyMedium, code: codeUnrecoveredRead, info: uint64(medium.Offset / blockSize), valid: true}
		if writing {
			s.code = codeWriteError
		}
		return s
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &sense{key: keyAborted, code: codeNone}
	default:
		return &sense{key: keyHardware, code: codeInternal}
	}
}
