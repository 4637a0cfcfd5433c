package scsi

import "bytes"

// What VPD page B0h says, in bytes or blocks.
const (
	maxTransfer    = 8 << 20  // bytes of one command's data
	unmapGranule   = 64 << 10 // bytes, optimal unmap granularity
	maxUnmapBlocks = 1 << 20  // of one UNMAP
	maxUnmapRanges = 256      // descriptors of one UNMAP
	maxSameBlocks  = 1 << 15  // of one WRITE SAME
	maxCompare     = 255      // blocks of one COMPARE AND WRITE
)

// read is READ (SBC-3). The device reads into the task's buffer;
// only a block of which the initiator wants a part goes through another.
func read(c *command) error {
	e, err := c.transfer()
	if err != nil || e.n == 0 {
		return err
	}
	if c.fuaSet() { // what is only in a cache goes to the medium before it is read from there
		if err := c.unit.dev.Flush(&c.ctx); err != nil {
			return err
		}
	}
	buf := c.task.In // tryRead may have taken it
	if buf == nil {
		buf = c.task.buffer(int(e.n))
	}
	whole := len(buf) - len(buf)%int(c.bs)
	if whole > 0 {
		if err := c.unit.dev.ReadAt(&c.ctx, buf[:whole], e.off); err != nil {
			return err
		}
	}
	if whole == len(buf) {
		return nil
	}
	last := make([]byte, c.bs)
	if err := c.unit.dev.ReadAt(&c.ctx, last, e.off+int64(whole)); err != nil {
		return err
	}
	copy(buf[whole:], last)
	return nil
}

// tryRead is read of whole blocks that are at hand.
func tryRead(c *command) (bool, error) {
	e, err := c.transfer()
	if err != nil || e.n == 0 {
		return true, err
	}
	if int64(max(c.task.InLimit, 0)) < e.n || c.fuaSet() {
		return false, nil
	}
	return c.unit.prompt.TryReadAt(c.task.buffer(int(e.n)), e.off)
}

// tryWrite is write of data that need not be stable.
func tryWrite(c *command) (bool, error) {
	if c.forced() {
		return false, nil
	}
	e, data, err := c.writeRange()
	if err != nil || len(data) == 0 {
		return true, err
	}
	return c.unit.prompt.TryWriteAt(data, e.off)
}

// queueRead begins a read of whole blocks.
func queueRead(c *command) bool {
	e, err := c.transfer()
	if err != nil || e.n == 0 || int64(max(c.task.InLimit, 0)) < e.n || c.fuaSet() {
		return false
	}
	buf := c.task.In // tryRead may have taken it
	if buf == nil {
		buf = c.task.buffer(int(e.n))
	}
	return c.unit.queue.StartReadAt(buf, e.off, c.arrived)
}

// queueWrite begins a write of data that need not be stable.
func queueWrite(c *command) bool {
	if c.forced() {
		return false
	}
	e, data, err := c.writeRange()
	if err != nil || len(data) == 0 {
		return false
	}
	return c.unit.queue.StartWriteAt(data, e.off, c.arrived)
}

// payload is the part of e for which data came: transports may bring less than
// the CDB says and report it as residual, but not a part of a block.
func (c *command) payload(e extent) ([]byte, error) {
	data := c.task.Out[:min(int64(len(c.task.Out)), e.n)]
	if int64(len(data))%c.bs != 0 {
		return nil, illegal(codeInvalidIU)
	}
	return data, nil
}

// write is WRITE (SBC-3).
func write(c *command) error {
	_, _, err := c.writeData(c.forced())
	return err
}

func (c *command) writeData(force bool) (extent, []byte, error) {
	e, data, err := c.writeRange()
	if err != nil || len(data) == 0 {
		return e, nil, err
	}
	return e, data, c.unit.dev.WriteAt(&c.ctx, data, e.off, force)
}

// writeRange checks a write and gives what of it has data.
func (c *command) writeRange() (extent, []byte, error) {
	e, err := c.transfer()
	if err != nil {
		return e, nil, err
	}
	if err := c.writable(); err != nil {
		return e, nil, err
	}
	data, err := c.payload(e)
	return e, data, err
}

// byteCheck is BYTCHK; 2 is reserved (SBC-3).
func (c *command) byteCheck() (byte, error) {
	check := c.cdb[1] >> 1 & 3
	if check == 2 {
		return 0, invalidCDB(1, 2)
	}
	return check, nil
}

// writeVerify is WRITE AND VERIFY (SBC-3): stable first, then read back.
func writeVerify(c *command) error {
	check, err := c.byteCheck()
	if err != nil {
		return err
	}
	if check == 3 {
		return invalidCDB(1, 2)
	}
	e, data, err := c.writeData(true)
	if err != nil || len(data) == 0 {
		return err
	}
	e.n = int64(len(data))
	if check == 0 {
		return c.verifyMedium(e)
	}
	return c.compare(e, data)
}

// verify is VERIFY (SBC-3).
func verify(c *command) error {
	check, err := c.byteCheck()
	if err != nil {
		return err
	}
	e, err := c.transfer()
	if err != nil || e.n == 0 {
		return err
	}
	want := c.op.out(c.cdb, c.bs)
	if int64(len(c.task.Out)) < want {
		return illegal(codeInvalidIU)
	}
	if check == 0 {
		return c.verifyMedium(e)
	}
	return c.compare(e, c.task.Out[:want])
}

func (c *command) verifyMedium(e extent) error {
	return c.pieces(e, func(int64, []byte) error { return nil })
}

// compare holds the medium against want, which repeats where it is shorter.
func (c *command) compare(e extent, want []byte) error {
	return c.pieces(e, func(at int64, got []byte) error {
		for len(got) > 0 {
			w := want[at%int64(len(want)):]
			n := min(len(w), len(got))
			if !bytes.Equal(w[:n], got[:n]) {
				return &Miscompare{Offset: at + int64(mismatch(w[:n], got[:n]))}
			}
			at, got = at+int64(n), got[n:]
		}
		return nil
	})
}

func mismatch(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// pieces reads e through a scratch buffer; at counts from the start of e.
func (c *command) pieces(e extent, each func(at int64, got []byte) error) error {
	p := c.unit.scratch.Get().(*[]byte)
	defer c.unit.scratch.Put(p)
	for at := int64(0); at < e.n; at += scratchSize {
		if err := c.ctx.Err(); err != nil {
			return err
		}
		got := (*p)[:min(scratchSize, e.n-at)]
		if err := c.unit.dev.ReadAt(&c.ctx, got, e.off+at); err != nil {
			return err
		}
		if err := each(at, got); err != nil {
			return err
		}
	}
	return nil
}

// prefetch is PRE-FETCH (SBC-3). It keeps no cache of its own, so there is
// nothing to do but to check the range.
func prefetch(c *command) error {
	_, err := c.rangeToEnd()
	return err
}

// synchronize is SYNCHRONIZE CACHE (SBC-3). With IMMED too the status
// waits for the flush, which is allowed.
func synchronize(c *command) error {
	if _, err := c.rangeToEnd(); err != nil {
		return err
	}
	return c.unit.dev.Flush(&c.ctx)
}

// rangeToEnd is a range whose length 0 means up to the last block.
func (c *command) rangeToEnd() (extent, error) {
	lba, n := cdbRange(c.cdb)
	return c.extent(lba, n)
}

// compareWrite is COMPARE AND WRITE (SBC-3). The length has only one byte in
// the CDB: data of another length mean that it did not fit there.
func compareWrite(c *command) error {
	n := uint64(c.cdb[13])
	lba, _ := cdbRange(c.cdb)
	e, err := c.extent(lba, n)
	if err != nil {
		return err
	}
	if err := c.writable(); err != nil {
		return err
	}
	if int64(len(c.task.Out)) != 2*e.n {
		return invalidCDB(13, -1)
	}
	if n == 0 {
		return nil
	}
	old, data := c.task.Out[:e.n], c.task.Out[e.n:]
	if err := c.unit.dev.CompareAndWrite(&c.ctx, old, data, e.off); err != nil {
		return err
	}
	return c.settle()
}
