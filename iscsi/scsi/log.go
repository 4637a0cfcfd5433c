package scsi

import "encoding/binary"

// logPage is a log page: its parameters, and whether the unit has it.
type logPage struct {
	code byte
	list func(*command) []byte // nil: the unit has no such page
}

// logPages is sorted by code. Page 00h is made of it.
var logPages = []logPage{
	{0x0c, provisioningLog},
	{0x0d, func(*command) []byte { return logParameter(nil, 0, 0x03, 0, 0xff) }},       // temperature: not available
	{0x2f, func(*command) []byte { return logParameter(nil, 0, 0x03, 0, 0, 0xff, 0) }}, // informational exceptions: none
}

// logParameter appends one parameter (SPC-4 7.3.1).
func logParameter(b []byte, code uint16, control byte, value ...byte) []byte {
	b = binary.BigEndian.AppendUint16(b, code)
	return append(append(b, control, byte(len(value))), value...)
}

// logSense is LOG SENSE (SPC-4). Counters are never reset and have no
// thresholds of their own, so page control makes no difference.
func logSense(c *command) error {
	page, subpage := c.cdb[2]&0x3f, c.cdb[3]
	pointer := binary.BigEndian.Uint16(c.cdb[5:])
	list, known := c.logPage(page, subpage)
	switch {
	case !known && subpage != 0:
		return invalidCDB(3, -1)
	case !known:
		return invalidCDB(2, 5)
	}
	if page != 0 {
		var ok bool
		if list, ok = fromParameter(list, pointer); !ok {
			return invalidCDB(5, -1)
		}
	} else if pointer != 0 {
		return invalidCDB(5, -1)
	}
	b := []byte{page, subpage, 0, 0}
	if subpage != 0 {
		b[0] |= 0x40 // SPF
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(list)))
	return c.reply(append(b, list...), uint32(binary.BigEndian.Uint16(c.cdb[7:])))
}

// logPage is the content of a page after its header.
func (c *command) logPage(page, subpage byte) ([]byte, bool) {
	switch {
	case page == 0 && subpage == 0:
		return c.logCodes(false), true
	case page == 0 && subpage == 0xff:
		return c.logCodes(true), true
	case subpage != 0:
		return nil, false
	}
	for _, p := range logPages {
		if p.code == page {
			list := p.list(c)
			return list, list != nil
		}
	}
	return nil, false
}

// logCodes is the pages that the unit has, or the pages and subpages.
func (c *command) logCodes(subpages bool) []byte {
	b := []byte{0x00}
	if subpages {
		b = []byte{0x00, 0x00, 0x00, 0xff}
	}
	for _, p := range logPages {
		if p.list(c) == nil {
			continue
		}
		b = append(b, p.code)
		if subpages {
			b = append(b, 0x00)
		}
	}
	return b
}

// fromParameter is the parameters from the one of code pointer on (SPC-4 6.8.1).
func fromParameter(list []byte, pointer uint16) ([]byte, bool) {
	for len(list) > 0 {
		if binary.BigEndian.Uint16(list) >= pointer {
			return list, true
		}
		list = list[4+int(list[3]):]
	}
	return nil, false
}

// provisioningLog is the logical block provisioning log page (SBC-3): what the
// pool still has, for all its LUNs, and what this one takes.
func provisioningLog(c *command) []byte {
	const available, used = 0x0001, 0x0002
	const dedicated, shared = 0x01, 0x02 // scope
	now, ok := c.unit.usage()
	if !ok {
		return nil
	}
	var b []byte
	for _, p := range []struct {
		code  uint16
		bytes int64
		scope byte
	}{{available, now.PoolSize - now.PoolUsed, shared}, {used, now.Used, dedicated}} {
		value := [8]byte{4: p.scope}
		binary.BigEndian.PutUint32(value[:], c.sets(p.bytes))
		b = logParameter(b, p.code, 0x03, value[:]...)
	}
	return b
}
