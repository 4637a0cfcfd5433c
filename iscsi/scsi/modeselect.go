package scsi

import "encoding/binary"

// modeSelect6 is MODE SELECT(6) (SPC-4).
func modeSelect6(c *command) error { return c.modeSelect(int(c.cdb[4]), 4) }

// modeSelect10 is MODE SELECT(10) (SPC-4).
func modeSelect10(c *command) error { return c.modeSelect(int(outList10(c.cdb, c.bs)), 8) }

// modeSelect reads a parameter list of n bytes. Nothing changes unless all of
// it is right; then the other sessions get MODE PARAMETERS CHANGED.
func (c *command) modeSelect(n, header int) error {
	if c.cdb[1]&0x01 != 0 {
		return invalidCDB(1, 0) // SP: pages are not saved
	}
	if n == 0 {
		return nil
	}
	if c.cdb[1]&0x10 == 0 {
		return invalidCDB(1, 4) // PF: vendor-specific pages
	}
	list, err := c.list(n)
	if err != nil {
		return err
	}
	at, err := c.modeHeader(list, header)
	if err != nil {
		return err
	}
	var changes []func()
	for at < len(list) {
		next, change, err := c.modePage(list, at)
		if err != nil {
			return err
		}
		at, changes = next, append(changes, change...)
	}
	for _, change := range changes {
		change()
	}
	if len(changes) == 0 {
		return nil
	}
	c.notifyOthers(attnModeChanged)
	return c.settle() // what the cache held when it was turned off
}

// notifyOthers queues a for all sessions but this.
func (c *command) notifyOthers(a attention) {
	c.unit.mu.Lock()
	defer c.unit.mu.Unlock()
	c.unit.notifyLocked(a, func(at *attachment) bool { return at != c.at })
}

// modeHeader checks header and block descriptor, and says where pages start.
func (c *command) modeHeader(list []byte, header int) (int, error) {
	if len(list) < header {
		return 0, illegal(codeListLength)
	}
	n, long := int(list[3]), false
	if header == 8 {
		n, long = int(binary.BigEndian.Uint16(list[6:])), list[4]&1 != 0
	}
	if n == 0 {
		return header, nil
	}
	want := c.blockDescriptor(long)
	if n != len(want) {
		return 0, invalidList(uint16(header-1), -1)
	}
	if len(list) < header+n {
		return 0, illegal(codeListLength)
	}
	got := list[header : header+n]
	if size := binary.BigEndian.Uint32(got[n-4:]) & 0xffffff; size != 0 && size != uint32(c.bs) {
		return 0, invalidList(uint16(header+n-3), -1)
	}
	return header + n, nil
}

// modePage checks the page at list[at:]: only what MODE SENSE calls changeable
// may differ. It returns what to change.
func (c *command) modePage(list []byte, at int) (int, []func(), error) {
	got := list[at:]
	for i := range modeTable {
		p := &modeTable[i]
		if got[0]&0x7f != p.defaults[0] {
			continue
		}
		if len(got) < 2 {
			return 0, nil, illegal(codeListLength)
		}
		if got[1] != p.defaults[1] {
			return 0, nil, invalidList(uint16(at+1), -1)
		}
		if len(got) < len(p.defaults) {
			return 0, nil, illegal(codeListLength)
		}
		changes, err := p.changes(&c.unit.mode, got[:len(p.defaults)], at)
		return at + len(p.defaults), changes, err
	}
	return 0, nil, invalidList(uint16(at), 5)
}

func (p *modePage) changes(m *modePages, got []byte, at int) ([]func(), error) {
	now, free := p.bytes(m, modeCurrent), p.bytes(m, modeChangeable)
	for i := 2; i < len(got); i++ {
		if wrong := (got[i] ^ now[i]) &^ free[i]; wrong != 0 {
			return nil, invalidList(uint16(at+i), highBit(wrong))
		}
	}
	var changes []func()
	for _, bit := range p.bits {
		flag, to := bit.in(m), got[bit.at]&bit.mask != 0
		if flag.Load() != to {
			changes = append(changes, func() { flag.Store(to) })
		}
	}
	return changes, nil
}
