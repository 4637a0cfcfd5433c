package scsi

import (
	"encoding/binary"
	"maps"
	"slices"
)

// testUnitReady is TEST UNIT READY (SPC-4): a unit always is.
func testUnitReady(*command) error { return nil }

// requestSense is REQUEST SENSE (SPC-4): the unit attention that waits, as
// data, or nothing to report.
func requestSense(c *command) error {
	s, ok := c.at.attentions.take()
	if !ok {
		s = &sense{key: keyNone, code: codeNone}
		if state, is := c.unit.sanitize.blocks().(*sense); is {
			s = state
		}
	}
	return c.reply(s.bytes(c.cdb[1]&1 != 0), uint32(c.cdb[4]))
}

// reportLUNs is REPORT LUNS (SPC-4). What it says ends the unit attention
// that asked for it, on all units of the session.
func reportLUNs(c *command) error { return c.at.session.listLUNs(c.task) }

func (s *Session) listLUNs(t *Task) error {
	allocation := binary.BigEndian.Uint32(t.CDB[6:])
	luns := *s.luns.Load()
	var numbers []uint16
	switch t.CDB[2] {
	case 0, 2:
		numbers = slices.Sorted(maps.Keys(luns))
	case 1: // well known logical units only: there are none
	default:
		return invalidCDB(2, -1)
	}
	if allocation < 16 {
		return invalidCDB(6, -1)
	}
	b := make([]byte, 8, 8+8*len(numbers))
	binary.BigEndian.PutUint32(b, uint32(8*len(numbers)))
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, lunField(n))
	}
	for _, a := range luns {
		a.attentions.remove(attnLUNs)
	}
	return t.reply(b, allocation)
}

// lunField is the LUN field that initiators use: peripheral addressing up to
// 255, flat above.
func lunField(n uint16) uint64 {
	if n > 255 {
		n |= 0x4000
	}
	return uint64(n) << 48
}

// startStop is START STOP UNIT (SBC-3). There is nothing to spin and no
// power to save; a stop puts what was written on stable storage.
func startStop(c *command) error {
	if c.cdb[4]&0xf5 != 0 { // POWER CONDITION, NO_FLUSH or START
		return nil
	}
	return c.unit.dev.Flush(&c.ctx)
}

// sendDiagnostic is SEND DIAGNOSTIC (SPC-4) for the default self-test:
// the first block can be read.
func sendDiagnostic(c *command) error {
	if outDiagnostic(c.cdb, c.bs) != 0 {
		return invalidCDB(3, -1)
	}
	if other := c.cdb[1] & 0xe3; other != 0 { // SELF-TEST CODE, DEVOFFL, UNITOFFL
		return invalidCDB(1, highBit(other))
	}
	if c.cdb[1]&0x04 == 0 || c.info.Size < c.bs {
		return nil
	}
	if err := c.verifyMedium(extent{off: 0, n: c.bs}); err != nil {
		return &sense{key: keyHardware, code: codeSelfTest}
	}
	return nil
}

func outDiagnostic(cdb []byte, _ int64) int64 { return int64(binary.BigEndian.Uint16(cdb[3:])) }
