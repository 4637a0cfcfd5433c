package scsi

import (
	"bytes"
	"encoding/binary"
)

// What RECEIVE COPY RESULTS and VPD page 8Fh announce of EXTENDED COPY.
const (
	maxCopyDevices  = 16  // CSCD descriptors
	maxCopySegments = 256 // segment descriptors
	maxCopyLength   = maxCopyDevices*cscdLength + maxCopySegments*segmentLength
	maxCopySegment  = 0xffff * 4096 // bytes of one segment
)

// Lengths in bytes, and the descriptor types that are known (SPC-4 6.4.5, 6.4.6).
const (
	copyHeader    = 16
	cscdLength    = 32
	segmentLength = 28

	cscdIdentification  = 0xe4
	segmentBlockToBlock = 0x02
)

// LIST ID USAGE of the parameter list (SPC-4 table 114).
const (
	listHeld      = 0 // results are kept
	listReserved  = 1
	listDiscarded = 2 // data that was read is not held, results are
	listNone      = 3 // there is no list identifier
)

// copyList is the parameter list of EXTENDED COPY(LID1), taken apart.
type copyList struct {
	id, usage byte
	devices   []*attachment // by CSCD descriptor, nil where it cannot be reached
	segments  []copySegment
}

// copySegment is a segment descriptor from block device to block device.
type copySegment struct {
	from, to       int // CSCD descriptors
	byDestination  bool
	blocks         uint64
	fromLBA, toLBA uint64
}

// copyList reads the parameter list. Nothing is copied unless all of it is
// well formed; whether its devices can be reached shows when they are used.
func (c *command) copyList(list []byte) (copyList, error) {
	if len(list) < copyHeader {
		return copyList{}, illegal(codeListLength)
	}
	devices, segments := int(binary.BigEndian.Uint16(list[2:])), binary.BigEndian.Uint32(list[8:])
	inline := binary.BigEndian.Uint32(list[12:])
	l := copyList{id: list[0], usage: list[1] >> 3 & 3}
	switch {
	case l.usage == listReserved:
		return l, invalidList(1, 4)
	case l.usage == listNone && l.id != 0:
		return l, invalidList(0, -1)
	case uint64(devices)+uint64(segments) > maxCopyLength:
		return l, illegal(codeListLength)
	case inline != 0:
		return l, illegal(codeInlineLength)
	case len(list) < copyHeader+devices+int(segments):
		return l, illegal(codeListLength)
	}
	end := copyHeader + devices
	if err := c.copyDevices(&l, list[:end]); err != nil {
		return l, err
	}
	return l, l.readSegments(list[:end+int(segments)], end)
}

// copyDevices reads the CSCD descriptors. Of the byte with the device type the
// other bits mean nothing here (SPC-4 6.4.5.2).
func (c *command) copyDevices(l *copyList, list []byte) error {
	for at := copyHeader; at < len(list); at += cscdLength {
		d := list[at:]
		switch {
		case d[0] != cscdIdentification:
			return pointing(codeDeviceType, at, -1)
		case len(d) < cscdLength:
			return illegal(codeListLength)
		case len(l.devices) == maxCopyDevices:
			return pointing(codeManyDevices, at, -1)
		case d[1]&0x1f != 0: // no direct access block device
			return pointing(codeInvalidParameter, at+1, 4)
		}
		l.devices = append(l.devices, c.at.session.named(d[4]&0x0f, d[5]&0x3f, d[8:8+min(20, int(d[7]))]))
	}
	return nil
}

// readSegments reads the segment descriptors at list[at:].
func (l *copyList) readSegments(list []byte, at int) error {
	for ; at < len(list); at += segmentLength {
		d := list[at:]
		switch {
		case d[0] != segmentBlockToBlock:
			return pointing(codeSegmentType, at, -1)
		case len(d) < segmentLength:
			return illegal(codeListLength)
		case len(l.segments) == maxCopySegments:
			return pointing(codeManySegments, at, -1)
		case binary.BigEndian.Uint16(d[2:]) != segmentLength-4:
			return invalidList(uint16(at+2), -1)
		}
		l.segments = append(l.segments, copySegment{
			byDestination: d[1]&0x02 != 0,
			from:          int(binary.BigEndian.Uint16(d[4:])),
			to:            int(binary.BigEndian.Uint16(d[6:])),
			blocks:        uint64(binary.BigEndian.Uint16(d[10:])),
			fromLBA:       binary.BigEndian.Uint64(d[12:]),
			toLBA:         binary.BigEndian.Uint64(d[20:]),
		})
	}
	return nil
}

// pointing is an error in byte at of the parameter list.
func pointing(code uint16, at int, bit int8) error {
	return &sense{key: keyIllegalRequest, code: code, point: pointList, field: uint16(at), bit: bit}
}

// device is what CSCD descriptor i means, if that can be reached.
func (l *copyList) device(i int) *attachment {
	if i >= len(l.devices) {
		return nil
	}
	return l.devices[i]
}

// named is the place of the session at the unit with a designator of page 83h.
// What the session does not see has no name for it.
func (s *Session) named(codeSet, kind byte, value []byte) *attachment {
	if len(value) == 0 {
		return nil
	}
	for _, a := range *s.luns.Load() {
		for _, d := range a.unit.names {
			if d.codeSet == codeSet && d.kind == kind && bytes.Equal(d.value, value) {
				return a
			}
		}
	}
	return nil
}
