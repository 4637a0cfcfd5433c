package scsi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// maxAtomic is the most bytes of one WRITE ATOMIC: all of it is in the record
// while it is written.
const maxAtomic = 1 << 20

// keptWrite is a WRITE ATOMIC that has begun and may not have ended. Who finds
// it in a record writes it once more.
type keptWrite struct {
	Offset int64  `json:"offset"`
	Data   []byte `json:"data"`
}

// atomicCommands are of units that have a keeper: it is what makes them atomic.
func atomicCommands() []opcode {
	return []opcode{{
		name: "WRITE ATOMIC(16)", usage: "\x9c\x18\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\xff\xff\x1f\x00",
		access: accessWrite, fua: true, alone: true, out: outBlocks, run: writeAtomic,
	}}
}

// writeAtomic is WRITE ATOMIC(16) (SBC-4 4.29 and 5.53). It runs while no other
// command of the unit does, so that none sees a part of it. What it will write is
// kept before the first byte of it goes to the medium, and forgotten after
// the last one is stable: who loses power in between finds it kept.
func writeAtomic(c *command) error {
	lba, n := cdbRange(c.cdb)
	e, err := c.extent(lba, n)
	if err != nil {
		return err
	}
	if err := c.writable(); err != nil {
		return err
	}
	if e.n > maxAtomic {
		return invalidCDB(12, -1)
	}
	if int64(len(c.task.Out)) < e.n {
		return illegal(codeInvalidIU) // not to be written in part
	}
	if e.n == 0 {
		return nil
	}
	return c.writeWhole(&keptWrite{Offset: e.off, Data: c.task.Out[:e.n]})
}

func (c *command) writeWhole(w *keptWrite) error {
	u := c.unit
	old := make([]byte, len(w.Data))
	if err := u.dev.ReadAt(&c.ctx, old, w.Offset); err != nil {
		return err
	}
	u.changing.Lock()
	defer u.changing.Unlock()
	u.writing.Lock()
	defer u.writing.Unlock()
	if err := c.ctx.Err(); err != nil {
		return err
	}
	u.pending = w
	defer func() { u.pending = nil }()
	if err := u.keep(u.snapshot()); err != nil {
		return &sense{key: keyHardware, code: codeInternal}
	}
	err := u.dev.WriteAt(&u.life, w.Data, w.Offset, true) // no abort stops it halfway
	if err != nil {
		err = errors.Join(err, u.dev.WriteAt(&u.life, old, w.Offset, true))
	}
	u.pending = nil
	if kept := u.keep(u.snapshot()); kept != nil && err == nil {
		err = &sense{key: keyHardware, code: codeInternal}
	}
	return err
}

// finish writes w, of which nobody knows how much is on the medium.
func (u *Unit) finish(w *keptWrite) error {
	if w == nil {
		return nil
	}
	info := u.dev.Info()
	bs, n := blockSize(info), int64(len(w.Data))
	if n == 0 || n%bs != 0 || w.Offset%bs != 0 || w.Offset < 0 || w.Offset > info.Size-n {
		return fmt.Errorf("it has an unfinished write of %d bytes at %d, which is outside the LUN", n, w.Offset)
	}
	if err := u.dev.WriteAt(&u.life, w.Data, w.Offset, true); err != nil {
		return fmt.Errorf("finish the write of %d bytes at %d: %w", n, w.Offset, err)
	}
	return u.keep(u.snapshot())
}

// putAtomicLimits fills page B0h's part on atomic writes: no alignment, no
// granularity, no boundaries.
func (c *command) putAtomicLimits(b []byte) {
	if op, _ := c.unit.table.find([]byte{0x9c, 0, 0, 0, 0, 0}); op != nil {
		binary.BigEndian.PutUint32(b, uint32(min(maxAtomic/c.bs, 0xffff)))
	}
}
