package scsi

import "encoding/binary"

// inReply answers a PERSISTENT RESERVE IN: generation, length, data.
func (c *command) inReply(generation uint32, data []byte) error {
	b := make([]byte, 8, 8+len(data))
	binary.BigEndian.PutUint32(b, generation)
	binary.BigEndian.PutUint32(b[4:], uint32(len(data)))
	return c.reply(append(b, data...), uint32(binary.BigEndian.Uint16(c.cdb[7:])))
}

// snapshot is the state as it is now, for readers.
func (u *Unit) snapshot() reservations {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := u.pr
	r.list = append([]registration(nil), r.list...)
	return r
}

// readKeys is READ KEYS (SPC-4).
func readKeys(c *command) error {
	r := c.unit.snapshot()
	var b []byte
	for _, reg := range r.list {
		b = binary.BigEndian.AppendUint64(b, reg.key)
	}
	return c.inReply(r.generation, b)
}

// readReservation is READ RESERVATION (SPC-4).
func readReservation(c *command) error {
	r := c.unit.snapshot()
	if !r.held() {
		return c.inReply(r.generation, nil)
	}
	b := make([]byte, 16)
	if !r.kind.everyone() {
		key, _ := r.key(r.owner)
		binary.BigEndian.PutUint64(b, key)
	}
	b[13] = byte(r.kind)
	return c.inReply(r.generation, b)
}

// reportCapabilities is REPORT CAPABILITIES (SPC-4): all types, and TEST UNIT
// READY allowed under each.
func reportCapabilities(c *command) error {
	const compatible, initiators, ports, persists = 0x10, 0x08, 0x04, 0x01 // CRH, SIP_C, ATP_C, PTPL_C
	const maskValid, testReady, active = 0x80, 0x10, 0x01                  // TMV, ALLOW COMMANDS, PTPL_A
	b := []byte{0, 8, compatible | initiators | ports, maskValid | testReady, 0xea, 0x01, 0, 0}
	if c.unit.keeper != nil {
		b[2] |= persists
	}
	if c.unit.snapshot().persist {
		b[3] |= active
	}
	return c.reply(b, uint32(binary.BigEndian.Uint16(c.cdb[7:])))
}

// readFullStatus is READ FULL STATUS (SPC-4).
func readFullStatus(c *command) error {
	r := c.unit.snapshot()
	var b []byte
	for _, reg := range r.list {
		d := make([]byte, 24)
		binary.BigEndian.PutUint64(d, reg.key)
		if r.holds(reg.nexus) {
			d[12], d[13] = 0x01, byte(r.kind)
		}
		binary.BigEndian.PutUint16(d[18:], portNumber(reg.nexus))
		id := appendTransportID(nil, reg.nexus)
		binary.BigEndian.PutUint32(d[20:], uint32(len(id)))
		b = append(append(b, d...), id...)
	}
	return c.inReply(r.generation, b)
}
