package scsi

import (
	"context"
	"encoding/binary"
	"errors"
)

// extendedCopy is EXTENDED COPY(LID1) (SPC-4 6.4). Its segments are carried
// out one after the other; the first that fails ends it.
func extendedCopy(c *command) error {
	n := binary.BigEndian.Uint32(c.cdb[10:])
	if n == 0 {
		return nil
	}
	if n > copyHeader+maxCopyLength {
		return illegal(codeListLength)
	}
	list, err := c.list(int(n))
	if err != nil {
		return err
	}
	l, err := c.copyList(list)
	if err != nil {
		return err
	}
	if l.usage == listNone {
		return c.copySegments(&l, &copyResult{})
	}
	result, ok := c.at.copies.begin(l.id)
	if !ok {
		return illegal(codeInProgress)
	}
	err = c.copySegments(&l, result)
	c.at.copies.end(result, c.copySense(err))
	return err
}

func outCopy(cdb []byte, _ int64) int64 {
	return int64(min(binary.BigEndian.Uint32(cdb[10:]), copyHeader+maxCopyLength))
}

// copySense is the sense data of a copy, nil for one without errors.
func (c *command) copySense(err error) []byte {
	if err == nil {
		return nil
	}
	return senseOf(err, true, c.bs).bytes(c.unit.mode.descriptorSense())
}

// copySegments carries out all segments of l.
func (c *command) copySegments(l *copyList, result *copyResult) error {
	for i, s := range l.segments {
		if err := c.copySegment(l, s, result); err != nil {
			return c.copyFailed(uint64(i), err)
		}
		result.segment()
	}
	return nil
}

// copyFailed is the answer for segment number i that failed (SPC-4 6.4.4): a
// copy that is aborted itself says no more than that.
func (c *command) copyFailed(i uint64, err error) error {
	if aborted := c.ctx.Err(); aborted != nil {
		return aborted
	}
	var own *sense
	failed := &sense{key: keyCopyAborted, code: codeNone, special: i, hasSpecial: true}
	if errors.As(err, &own) && own.key == keyCopyAborted {
		failed.code = own.code
	}
	return failed
}

// copySegment carries out one segment.
func (c *command) copySegment(l *copyList, s copySegment, result *copyResult) error {
	from, to := l.device(s.from), l.device(s.to)
	if from == nil || to == nil {
		return &sense{key: keyCopyAborted, code: codeUnreachable}
	}
	src, dst := c.visit(from), c.visit(to)
	defer src.leave()
	defer dst.leave()
	if err := src.enter(accessRead); err != nil {
		return err
	}
	if err := dst.enter(accessWrite); err != nil {
		return err
	}
	bs := src.bs
	if s.byDestination {
		bs = dst.bs
	}
	n := int64(s.blocks) * bs
	if n%src.bs != 0 || n%dst.bs != 0 {
		return &sense{key: keyCopyAborted, code: codeInexactSegment}
	}
	in, err := src.extent(s.fromLBA, uint64(n/src.bs))
	if err != nil {
		return err
	}
	out, err := dst.extent(s.toLBA, uint64(n/dst.bs))
	if err != nil || n == 0 {
		return err
	}
	m := &mover{src: src, dst: dst, in: in.off, out: out.off, result: result}
	if err := m.move(n); err != nil {
		return err
	}
	return dst.settle()
}

// visit makes a command of the same nexus at another unit, so that what stands
// in the way of a command there, or ends it, does so to the copy.
func (c *command) visit(a *attachment) *command {
	v := &command{task: &Task{}, op: c.op, cdb: c.cdb, at: a, unit: a.unit, info: a.unit.dev.Info()}
	v.bs = blockSize(v.info)
	v.ctx.begin(&c.ctx)
	v.unit.tasks.enter(v)
	return v
}

// enter checks what a command with this access would be checked for.
func (c *command) enter(a access) error {
	if err := c.unit.sanitize.blocks(); err != nil {
		return err
	}
	if c.unit.guarded.Load() && !c.unit.mayAccess(c.at.nexus(), a) {
		return errConflict
	}
	if a == accessWrite {
		return c.writable()
	}
	return nil
}

func (c *command) leave() {
	c.ctx.end()
	c.unit.tasks.leave(c)
}

// mover copies bytes from one unit to another, through a scratch buffer.
type mover struct {
	src, dst *command
	in, out  int64
	result   *copyResult
}

// move copies n bytes as if all of them were read before the first is written.
func (m *mover) move(n int64) error {
	p := m.src.unit.scratch.Get().(*[]byte)
	defer m.src.unit.scratch.Put(p)
	if m.src.unit == m.dst.unit && m.in < m.out+n && m.out < m.in+n {
		return m.overlapping(*p, n)
	}
	return eachRun(&m.src.ctx, m.src.unit.dev, m.in, n, func(off, n int64, mapped bool) error {
		return m.run(*p, off-m.in, n, mapped)
	})
}

// overlapping moves the pieces in the order in which none is overwritten
// before it has been read.
func (m *mover) overlapping(buf []byte, n int64) error {
	forward := m.out <= m.in
	for done := int64(0); done < n; {
		k := min(int64(len(buf)), n-done)
		at := done
		if !forward {
			at = n - done - k
		}
		if err := m.piece(buf[:k], at); err != nil {
			return err
		}
		done += k
	}
	return nil
}

// run moves n bytes at from the start; those that take no space at the source
// take none at the destination.
func (m *mover) run(buf []byte, at, n int64, mapped bool) error {
	if !mapped {
		if err := m.err(); err != nil {
			return err
		}
		m.result.count(n)
		m.dst.unit.writing.RLock()
		defer m.dst.unit.writing.RUnlock()
		return m.dst.unit.dev.Unmap(&m.dst.ctx, m.out+at, n)
	}
	for end := at + n; at < end; {
		k := min(int64(len(buf)), end-at)
		if err := m.piece(buf[:k], at); err != nil {
			return err
		}
		at += k
	}
	return nil
}

func (m *mover) piece(buf []byte, at int64) error {
	if err := m.err(); err != nil {
		return err
	}
	if err := m.read(buf, at); err != nil {
		return err
	}
	m.result.count(int64(len(buf)))
	m.dst.unit.writing.RLock()
	defer m.dst.unit.writing.RUnlock()
	if allZero(buf) {
		return m.dst.unit.dev.WriteZeroes(&m.dst.ctx, m.out+at, int64(len(buf)))
	}
	return m.dst.unit.dev.WriteAt(&m.dst.ctx, buf, m.out+at, false)
}

func (m *mover) read(buf []byte, at int64) error {
	m.src.unit.writing.RLock()
	defer m.src.unit.writing.RUnlock()
	return m.src.unit.dev.ReadAt(&m.src.ctx, buf, m.in+at)
}

// err tells whether the copy was ended at one of its units.
func (m *mover) err() error {
	if m.src.ctx.Err() != nil || m.dst.ctx.Err() != nil {
		return context.Canceled
	}
	return nil
}
