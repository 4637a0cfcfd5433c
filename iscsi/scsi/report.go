package scsi

import "encoding/binary"

// reportOpcodes is REPORT SUPPORTED OPERATION CODES (SPC-4).
func reportOpcodes(c *command) error {
	timeouts := c.cdb[2]&0x80 != 0
	allocation := binary.BigEndian.Uint32(c.cdb[6:])
	if c.cdb[2]&7 == 0 {
		return c.reply(c.unit.table.describeAll(timeouts), allocation)
	}
	op, err := c.unit.table.asked(c.cdb)
	if err != nil {
		return err
	}
	return c.reply(describeOne(op, timeouts), allocation)
}

// asked is the command that options 1 to 3 ask for, nil if there is none.
func (t *table) asked(cdb []byte) (*opcode, error) {
	ops := t.of(cdb[3])
	actions := len(ops) > 0 && ops[0].action
	action := binary.BigEndian.Uint16(cdb[4:])
	switch option := cdb[2] & 7; {
	case option > 3:
		return nil, invalidCDB(2, 2)
	case option == 1 && actions, option == 2 && len(ops) > 0 && !actions:
		return nil, invalidCDB(2, 2)
	case option == 3 && len(ops) > 0 && !actions && action != 0:
		return nil, nil
	}
	for i := range ops {
		if !actions || uint16(ops[i].serviceAction()) == action {
			return &ops[i], nil
		}
	}
	return nil, nil
}

func (t *table) describeAll(timeouts bool) []byte {
	b := make([]byte, 4)
	for i := range t.ops {
		op := &t.ops[i]
		d := [8]byte{0: op.code(), 7: byte(len(op.usage))}
		if op.action {
			d[3], d[5] = op.serviceAction(), 0x01 // SERVACTV
		}
		if timeouts {
			d[5] |= 0x02 // CTDP
		}
		b = append(b, d[:]...)
		if timeouts {
			b = append(b, noTimeouts[:]...)
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// noTimeouts is a command timeouts descriptor that names none (SPC-4).
var noTimeouts = [12]byte{1: 0x0a}

func describeOne(op *opcode, timeouts bool) []byte {
	if op == nil {
		return []byte{0, 0x01, 0, 0} // not supported
	}
	b := []byte{0, 0x03, 0, byte(len(op.usage))}
	b = append(b, op.usage...)
	if timeouts {
		b[1] |= 0x80
		b = append(b, noTimeouts[:]...)
	}
	return b
}

// reportFunctions is REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-4).
func reportFunctions(c *command) error {
	const abortTask, abortTaskSet, clearTaskSet, lunReset, targetReset = 0x80, 0x40, 0x10, 0x08, 0x02
	allocation := binary.BigEndian.Uint32(c.cdb[6:])
	if allocation < 4 {
		return invalidCDB(6, -1)
	}
	b := make([]byte, 4, 16)
	b[0] = abortTask | abortTaskSet | clearTaskSet | lunReset | targetReset
	if c.cdb[2]&0x80 != 0 {
		b = b[:16]
		b[3] = 12
	}
	return c.reply(b, allocation)
}

// reportGroups is REPORT TARGET PORT GROUPS (SPC-4): one group, with the
// port of the nexus, active and optimized.
func reportGroups(c *command) error {
	var b []byte
	switch c.cdb[1] >> 5 {
	case 0:
		b = make([]byte, 4)
	case 1:
		b = []byte{0, 0, 0, 0, 0x10, 0, 0, 0}
	default:
		return invalidCDB(1, 7)
	}
	number := portNumber(c.at.nexus())
	b = append(b, 0x00, 0x01) // active/optimized, AO_SUP
	b = binary.BigEndian.AppendUint16(b, number)
	b = append(b, 0, 0, 0, 1, 0, 0) // no status, one port
	b = binary.BigEndian.AppendUint16(b, number)
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return c.reply(b, binary.BigEndian.Uint32(c.cdb[6:]))
}
