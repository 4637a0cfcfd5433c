package scsi

import "encoding/binary"

// modeSelect6 is MODE SELECT(6) (SPC-4).
func modeSelect6(c *command) error { return c.modeSelect(int(c.cdb[4]), 4) }

// modeSelect10 is MODE SELECT(10) (SPC-4).
func modeSelect10(c *command) error { return c.modeSelect(int(outList10(c.cdb, c.bs)), 8) }

// modeSelect reads a parameter list of n bytes. Nothing changes unless all of
// it is right; then the other sessions get MODE PARAMETERS CHANGED. With SP the
// changeable bits of all pages are saved as they are then.
func (c *command) modeSelect(n, header int) error {
	save := c.cdb[1]&0x01 != 0
	if save && c.unit.keeper == nil {
		return invalidCDB(1, 0)
	}
	if n == 0 && !save {
		return nil
	}
	if n > 0 && c.cdb[1]&0x10 == 0 {
		return invalidCDB(1, 4) // PF: vendor-specific pages
	}
	list, err := c.list(n)
	if err != nil {
		return err
	}
	c.unit.changing.Lock()
	defer c.unit.changing.Unlock()
	flags, err := c.selected(list, header)
	if err != nil {
		return err
	}
	if save {
		if err := c.saveMode(flags); err != nil {
			return err
		}
	}
	if flags == c.unit.mode.flags() {
		return nil
	}
	c.unit.mode.set(flags)
	c.notifyOthers(attnModeChanged)
	return c.settle() // what the cache held when it was turned off
}

// selected is the flags after a parameter list.
func (c *command) selected(list []byte, header int) (modeFlags, error) {
	flags := c.unit.mode.flags()
	if len(list) == 0 {
		return flags, nil
	}
	at, err := c.modeHeader(list, header)
	for err == nil && at < len(list) {
		at, err = c.modePage(list, at, &flags)
	}
	return flags, err
}

// saveMode has the flags kept. The caller holds changing.
func (c *command) saveMode(flags modeFlags) error {
	u := c.unit
	before := u.mode.saved.Swap(&flags)
	if err := u.keep(u.snapshot()); err != nil {
		u.mode.saved.Store(before)
		return &sense{key: keyHardware, code: codeInternal}
	}
	return nil
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
	if !c.sameBlocks(got) {
		return 0, invalidList(uint16(header), -1) // a LUN is resized in the file, never from here
	}
	if size := binary.BigEndian.Uint32(got[n-4:]) & 0xffffff; size != 0 && size != uint32(c.bs) {
		return 0, invalidList(uint16(header+n-3), -1)
	}
	return header + n, nil
}

// sameBlocks tells whether a block descriptor leaves the capacity as it is: it
// repeats it, or says 0 or all ones (SBC-3 6.5.2).
func (c *command) sameBlocks(got []byte) bool {
	if len(got) == 16 {
		n := binary.BigEndian.Uint64(got)
		return n == 0 || n == ^uint64(0) || n == c.blocks()
	}
	n := binary.BigEndian.Uint32(got)
	return n == 0 || n == ^uint32(0) || uint64(n) == c.blocks()
}

// modePage checks the page at list[at:]: only what MODE SENSE calls changeable
// may differ from what is. It sets that in flags and says where the page ends.
func (c *command) modePage(list []byte, at int, flags *modeFlags) (int, error) {
	got := list[at:]
	for i := range modeTable {
		p := &modeTable[i]
		now := p.bytes(c, modeCurrent)
		if now == nil || got[0]&0x7f != p.defaults[0] {
			continue
		}
		h := p.header()
		if len(got) < h {
			return 0, illegal(codeListLength)
		}
		if h == 4 && got[1] != now[1] {
			continue
		}
		if string(got[1:h]) != string(now[1:h]) {
			return 0, invalidList(uint16(at+h-1), -1)
		}
		if len(got) < len(now) {
			return 0, illegal(codeListLength)
		}
		return at + len(now), p.take(got[:len(now)], now, p.bytes(c, modeChangeable), at, flags)
	}
	return 0, invalidList(uint16(at), 5)
}

// take sets the page's bits in flags as got has them.
func (p *modePage) take(got, now, free []byte, at int, flags *modeFlags) error {
	for i := p.header(); i < len(got); i++ {
		if wrong := (got[i] ^ now[i]) &^ free[i]; wrong != 0 {
			return invalidList(uint16(at+i), highBit(wrong))
		}
	}
	for _, bit := range p.bits {
		*flags &^= bit.flag
		if got[bit.at]&bit.mask != 0 {
			*flags |= bit.flag
		}
	}
	if *flags&modeConflictAttention != 0 && *flags&modeKeepAttention == 0 {
		return invalidList(uint16(at+4), 5) // UA_INTLCK 01b is reserved
	}
	return nil
}
