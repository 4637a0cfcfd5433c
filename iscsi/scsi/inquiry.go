package scsi

import (
	"encoding/binary"
	"fmt"
)

// Vendor and product of the standard INQUIRY data, padded to their fields.
const (
	vendor  = "RIPSTOP "
	product = "LUN             "
	version = "1.0 "
)

// inquiry is INQUIRY (SPC-4).
func inquiry(c *command) error {
	allocation := uint32(binary.BigEndian.Uint16(c.cdb[3:]))
	if c.cdb[1]&1 == 0 {
		if c.cdb[2] != 0 {
			return invalidCDB(2, -1)
		}
		return c.reply(standardInquiry(0x00), allocation)
	}
	for _, p := range vitalPages() {
		if p.code == c.cdb[2] {
			body := p.body(c)
			page := make([]byte, 4, 4+len(body))
			page[1] = p.code
			binary.BigEndian.PutUint16(page[2:], uint16(len(body)))
			return c.reply(append(page, body...), allocation)
		}
	}
	return invalidCDB(2, -1)
}

// standardInquiry is the standard INQUIRY data for a peripheral qualifier and
// device type.
func standardInquiry(device byte) []byte {
	b := make([]byte, 96)
	b[0] = device
	b[2] = 6        // SPC-4
	b[3] = 0x10 | 2 // HISUP, response data format
	b[4] = 96 - 5   // additional length
	b[5] = 0x10 | 8 // TPGS: implicit only, 3PC
	b[6] = 0x10     // MULTIP
	b[7] = 0x02     // CMDQUE
	copy(b[8:], vendor+product+version)
	for i, v := range []uint16{0x00a0, 0x0960, 0x0460, 0x04c0} { // SAM-5, iSCSI, SPC-4, SBC-3
		binary.BigEndian.PutUint16(b[58+2*i:], v)
	}
	return b
}

// absent answers for a LUN that is not there (SAM-5, SPC-4):
// INQUIRY and REQUEST SENSE work, REPORT LUNS does at LUN 0.
func (s *Session) absent(t *Task) {
	missing := &sense{key: keyIllegalRequest, code: codeNoSuchLUN}
	if len(t.CDB) < 6 {
		t.fail(missing, false)
		return
	}
	var err error
	switch {
	case t.CDB[0] == 0x12 && t.CDB[1]&1 == 0 && t.CDB[2] == 0:
		err = t.reply(standardInquiry(0x7f), uint32(binary.BigEndian.Uint16(t.CDB[3:])))
	case t.CDB[0] == 0x03:
		err = t.reply(missing.bytes(t.CDB[1]&1 != 0), uint32(t.CDB[4]))
	case t.CDB[0] == 0xa0 && t.LUN == 0 && len(t.CDB) >= 12:
		err = s.listLUNs(t)
	default:
		err = missing
	}
	if err != nil {
		t.fail(senseOf(err, false, 512), false)
	}
}

// serial is the unit serial number: the identifier as 32 hexadecimal digits.
func (c *command) serial() string { return fmt.Sprintf("%x", c.info.ID) }
