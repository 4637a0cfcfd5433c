package scsi

import "encoding/binary"

// unmap is UNMAP (SBC-3). All descriptors are checked before the first
// block goes.
func unmap(c *command) error {
	n := int(outList10(c.cdb, c.bs))
	if n == 0 {
		return nil
	}
	list, err := c.list(n)
	if err != nil {
		return err
	}
	if err := c.writable(); err != nil {
		return err
	}
	ranges, err := c.unmapRanges(list)
	if err != nil {
		return err
	}
	for _, e := range ranges {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.release(e, c.cdb[1]&0x01 != 0); err != nil {
			return err
		}
	}
	return c.settle()
}

// unmapRanges reads the parameter list; a part of a descriptor
// at its end is ignored.
func (c *command) unmapRanges(list []byte) ([]extent, error) {
	if len(list) < 8 {
		return nil, illegal(codeListLength)
	}
	n := int(binary.BigEndian.Uint16(list[2:]))
	if n > len(list)-8 {
		return nil, illegal(codeListLength)
	}
	if n/16 > maxUnmapRanges {
		return nil, invalidList(2, -1)
	}
	var (
		ranges []extent
		total  uint64
	)
	for at := 8; at+16 <= 8+n; at += 16 {
		blocks := uint64(binary.BigEndian.Uint32(list[at+8:]))
		e, err := c.extent(binary.BigEndian.Uint64(list[at:]), blocks)
		if err != nil {
			return nil, err
		}
		if total += blocks; total > maxUnmapBlocks {
			return nil, invalidList(uint16(at+8), -1)
		}
		if e.n > 0 {
			ranges = append(ranges, e)
		}
	}
	return ranges, nil
}

// writeSame is WRITE SAME (SBC-3). A pattern of zeros is left to
// the device, which gives the space back if UNMAP is set. With UNMAP the
// pattern may be missing altogether and then is zeros, as initiators have it.
// A pattern that is not zeros is written even then: blocks read back as it.
func writeSame(c *command) error {
	lba, n := cdbRange(c.cdb)
	e, err := c.extent(lba, n)
	if err != nil {
		return err
	}
	if n == 0 || n > maxSameBlocks {
		return invalidCDB(lengthField(c.cdb), -1)
	}
	if err := c.writable(); err != nil {
		return err
	}
	unmaps, anchors := c.cdb[1]&0x08 != 0, c.cdb[1]&0x10 != 0
	if anchors && !unmaps {
		return invalidCDB(1, 4)
	}
	pattern := c.task.Out
	if want := c.op.out(c.cdb, c.bs); int64(len(pattern)) != want && !(unmaps && len(pattern) == 0) {
		return illegal(codeInvalidIU)
	}
	switch {
	case !allZero(pattern):
		err = c.repeat(pattern, e)
	case unmaps:
		err = c.release(e, anchors)
	default:
		err = c.unit.dev.WriteZeroes(&c.ctx, e.off, e.n)
	}
	if err != nil {
		return err
	}
	return c.settle()
}

// release makes blocks zeros that take no space, or with anchor zeros whose
// space is theirs: later writes find room. The device keeps no third state, so
// anchored blocks count as mapped at once (SBC-3 4.7.3.4 allows that).
func (c *command) release(e extent, anchor bool) error {
	if anchor {
		return c.repeat(make([]byte, c.bs), e)
	}
	return c.unit.dev.Unmap(&c.ctx, e.off, e.n)
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// repeat fills e with the pattern, one block of it.
func (c *command) repeat(pattern []byte, e extent) error {
	p := c.unit.scratch.Get().(*[]byte)
	defer c.unit.scratch.Put(p)
	data := (*p)[:min(scratchSize-scratchSize%c.bs, e.n)]
	for at := 0; at < len(data); at += len(pattern) {
		copy(data[at:], pattern)
	}
	for at := int64(0); at < e.n; at += int64(len(data)) {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		if err := c.unit.dev.WriteAt(&c.ctx, data[:min(int64(len(data)), e.n-at)], e.off+at, false); err != nil {
			return err
		}
	}
	return nil
}
