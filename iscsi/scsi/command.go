package scsi

import (
	"context"
	"encoding/binary"
	"errors"
	"runtime/debug"
)

// command is a Task while it runs. It lies in the Task so that it costs no
// allocation.
type command struct {
	ctx  taskContext
	task *Task
	op   *opcode
	cdb  []byte
	at   *attachment
	unit *Unit
	info Info
	bs   int64 // logical block, bytes

	older, newer *command // neighbours in the unit's task set, under its lock
	waits        bool     // for its turn, under the task set's lock
	queued       *command // the next one of whatever list waits
	checked      bool     // check has been passed
	turn         func()   // what to do when the turn has come

	// Of commands that go on beside the connection, made once for each Task.
	proceed func()        // turn
	work    func()        // of a lane
	arrived func(ok bool) // for a Queue
}

// blocks is how many logical blocks the unit has.
func (c *command) blocks() uint64 { return uint64(max(c.info.Size, 0) / c.bs) }

// begin carries c out as far as nothing has to be waited for, and tells whether
// that was to its end.
func (c *command) begin() (ended bool) {
	err := c.tryRun(&ended)
	if !ended {
		return false
	}
	c.end(err)
	return true
}

// tryRun is begin but for the end.
func (c *command) tryRun(ended *bool) (err error) {
	defer c.crashed(&err, ended)
	*ended = true
	err = c.check()
	c.checked = true
	switch {
	case err != nil:
	case c.op.prompt:
		err = c.op.run(c)
	case c.op.try != nil && c.unit.prompt != nil:
		var done bool
		done, err = c.op.try(c)
		*ended = done || err != nil
	default:
		*ended = false
	}
	return err
}

// run carries c out to its end. Its turn must have come.
func (c *command) run() {
	c.end(c.tryEnd())
}

// tryEnd is run but for the end.
func (c *command) tryEnd() (err error) {
	defer c.crashed(&err, nil)
	if c.ctx.aborted.Load() {
		return context.Canceled
	}
	if !c.checked {
		err = c.check()
	}
	if err == nil {
		err = c.op.run(c)
	}
	return err
}

// crashed makes a panic of the command or its device the command's own error,
// to be deferred. Nothing else may end by it: other commands wait for this one
// to leave its unit.
func (c *command) crashed(err *error, ended *bool) {
	r := recover()
	if r == nil {
		return
	}
	c.task.Crash = &CrashError{Value: r, Stack: debug.Stack()}
	*err = c.task.Crash
	if ended != nil {
		*ended = true
	}
}

// end takes c out of its unit and writes its result into the task.
func (c *command) end(err error) {
	c.finish(err)
	c.ctx.end()
	c.unit.tasks.leave(c)
}

// goOn has c carried out: by the device while nobody waits, or in the lane. Who
// has not been checked, or is aborted, has not much to do for a device.
func (c *command) goOn() {
	if c.checked && !c.ctx.aborted.Load() && c.unit.queue != nil && c.op.start != nil && c.started() {
		return
	}
	c.unit.lane.submit(c)
}

// started is op.start; who panics there has not started, and panics again
// where it is the command's own matter.
func (c *command) started() (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return c.op.start(c)
}

// arrive ends c after the device has carried it out. The lane says what was
// wrong, if that was the case.
func (c *command) arrive(ok bool) {
	if !ok {
		c.unit.lane.submit(c)
		return
	}
	c.end(nil)
	c.task.Done()
}

// serve runs c and then what waits behind it in the lane, in a goroutine of
// the lane's.
func (c *command) serve() {
	for l := &c.unit.lane; c != nil; c = l.next() {
		c.run()
		c.task.Done()
	}
}

// check is what comes before any command: CDB, unit attention, reservation.
func (c *command) check() error {
	if c.unit.sanitize.guard.Load() && !c.op.calm() && c.at.attentions.empty() {
		if err := c.unit.sanitize.blocks(); err != nil {
			return err
		}
	}
	if err := c.op.checkCDB(c.cdb); err != nil {
		return err
	}
	c.unit.watchPool()
	if !c.op.quiet {
		if s, ok := c.at.report(); ok {
			return s
		}
	}
	if c.unit.guarded.Load() && !c.unit.mayAccess(c.at.nexus(), c.op.accessOf(c.cdb)) {
		return errConflict
	}
	return nil
}

// finish writes the result of the command into its task.
func (c *command) finish(err error) {
	t := c.task
	if err == nil {
		t.Status = StatusGood
		return
	}
	t.In, t.ActualIn = nil, 0
	switch {
	case errors.Is(err, errConflict):
		t.Status = StatusReservationConflict
		c.at.conflicted()
	case c.ctx.aborted.Load() && errors.Is(err, context.Canceled):
		t.Status = StatusTaskAborted
	default:
		t.fail(senseOf(err, c.op.access == accessWrite, c.bs), c.unit.mode.descriptorSense())
	}
}

// fail ends t with CHECK CONDITION.
func (t *Task) fail(s *sense, descriptor bool) {
	t.Status = StatusCheckCondition
	t.Sense = s.bytes(descriptor)
	t.In, t.ActualIn = nil, 0
}

// buffer gives room for the data-in of n bytes, of which the initiator takes
// only what it has room for.
func (t *Task) buffer(n int) []byte {
	t.ActualIn = n
	n = min(n, max(t.InLimit, 0))
	if n == 0 {
		t.In = nil
		return nil
	}
	if t.Buffer == nil {
		t.In = make([]byte, n)
	} else {
		t.In = t.Buffer(n)[:n]
	}
	return t.In
}

// reply answers with data, cut at the CDB's allocation length.
func (c *command) reply(data []byte, allocation uint32) error {
	return c.task.reply(data, allocation)
}

func (t *Task) reply(data []byte, allocation uint32) error {
	if uint64(len(data)) > uint64(allocation) {
		data = data[:allocation]
	}
	copy(t.buffer(len(data)), data)
	return nil
}

// list is the parameter list of n bytes; one that is not all there is refused.
func (c *command) list(n int) ([]byte, error) {
	if len(c.task.Out) < n {
		return nil, illegal(codeListLength)
	}
	return c.task.Out[:n], nil
}

// writable refuses a change of the medium where there must be none.
func (c *command) writable() error {
	switch {
	case c.info.ReadOnly:
		return ErrReadOnly
	case c.unit.mode.softwareProtected():
		return &sense{key: keyDataProtect, code: codeSoftwareProtected}
	}
	return nil
}

// extent is a range of the medium in bytes.
type extent struct{ off, n int64 }

// extent checks n blocks at lba against the capacity, without overflow.
func (c *command) extent(lba, n uint64) (extent, error) {
	blocks := c.blocks()
	if lba > blocks || n > blocks-lba {
		return extent{}, outOfRange(max(lba, blocks))
	}
	return extent{off: int64(lba) * c.bs, n: int64(n) * c.bs}, nil
}

// cdbRange reads LBA and length where the CDB's group puts them (SPC-4).
func cdbRange(cdb []byte) (lba, n uint64) {
	switch cdb[0] >> 5 {
	case 0:
		lba = uint64(cdb[1]&0x1f)<<16 | uint64(binary.BigEndian.Uint16(cdb[2:]))
		n = uint64(cdb[4])
		if n == 0 {
			n = 256
		}
	case 1, 2:
		lba = uint64(binary.BigEndian.Uint32(cdb[2:]))
		n = uint64(binary.BigEndian.Uint16(cdb[7:]))
	case 5:
		lba = uint64(binary.BigEndian.Uint32(cdb[2:]))
		n = uint64(binary.BigEndian.Uint32(cdb[6:]))
	default:
		lba = binary.BigEndian.Uint64(cdb[2:])
		n = uint64(binary.BigEndian.Uint32(cdb[10:]))
		if cdb[0] == 0x9c { // WRITE ATOMIC has a boundary in front of it
			n &= 0xffff
		}
	}
	return lba, n
}

// lengthField is the byte of the CDB in which cdbRange found the length.
func lengthField(cdb []byte) uint16 {
	switch cdb[0] >> 5 {
	case 0:
		return 4
	case 1, 2:
		return 7
	case 5:
		return 6
	default:
		return 10
	}
}

// transfer is the checked extent of a command that moves its blocks: inside
// the capacity and at most what VPD page B0h allows.
func (c *command) transfer() (extent, error) {
	lba, n := cdbRange(c.cdb)
	e, err := c.extent(lba, n)
	if err == nil && e.n > maxTransfer {
		err = invalidCDB(lengthField(c.cdb), -1)
	}
	return e, err
}

// settle puts what the command wrote on stable storage where the CDB asks for
// it or the write cache is off.
func (c *command) settle() error {
	if !c.forced() {
		return nil
	}
	return c.unit.dev.Flush(&c.ctx)
}

// forced tells whether data must be stable before the status: the write cache
// is off, or the command knows FUA and the CDB has it set.
func (c *command) forced() bool {
	return !c.unit.mode.writeCache() || c.fuaSet()
}

// fuaSet tells whether the command knows FUA and the CDB has it set.
func (c *command) fuaSet() bool { return c.op.fua && c.cdb[1]&0x08 != 0 }
