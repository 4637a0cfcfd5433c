package target

import (
	"encoding/binary"
	"errors"
	"time"

	"ripstop/iscsi/pdu"
	"ripstop/iscsi/scsi"
	"ripstop/iscsi/session"
)

const statusTaskSetFull = 0x28 // SAM-5 5.3.1

// Sense data in fixed format for what the transport finds wrong (RFC 7143
// section 11.4.7.2, SPC-4 4.5.3).
const (
	keyIllegalRequest = 0x05
	keyAborted        = 0x0b
)

func sense(key byte, asc uint16) []byte {
	p := make([]byte, 18)
	p[0], p[2], p[7] = 0x70, key, 10
	binary.BigEndian.PutUint16(p[12:], asc)
	return p
}

// senseOf is the one place where faults of data-out become sense data.
func senseOf(fault error) []byte {
	switch {
	case errors.Is(fault, session.ErrUnsolicited):
		return sense(keyAborted, 0x0c0c) // unexpected unsolicited data
	case errors.Is(fault, session.ErrAmount):
		return sense(keyAborted, 0x0c0d) // not enough unsolicited data
	case errors.Is(fault, pdu.ErrBidirectional):
		return sense(keyIllegalRequest, 0x2400) // invalid field in CDB
	}
	return sense(keyAborted, 0x4705) // protocol service CRC error
}

// command starts a SCSI command: it runs at once unless its data are still to come.
func (c *conn) command(f *frame) error {
	cmd := &c.cmd
	if err := c.coder.Decode(f.bhs, cmd); err != nil {
		return err
	}
	if ok, err := c.admit(cmd.CmdSN, cmd.Immediate); !ok {
		return err
	}
	if cmd.ITT == pdu.Reserved {
		return c.reject(f, rejectField)
	}
	if c.tasks.Len() > 0 && c.tasks.Get(cmd.ITT) != nil {
		return c.reject(f, rejectInProgress)
	}
	tail, fault := pdu.ExtendedCDB(f.ahs)
	if fault == nil && cmd.Read && cmd.Write {
		fault = pdu.ErrBidirectional
	}
	if fault != nil && !errors.Is(fault, pdu.ErrBidirectional) {
		return c.reject(f, rejectField)
	}
	c.came, c.taken = c.account.arrive(cmd.LUN, time.Now()), 0
	c.cdb = append(append(c.cdb[:0], cmd.CDB[:]...), tail...)
	need := 0
	if fault == nil {
		need = c.scsi.OutLength(cmd.LUN, c.cdb)
		if c.atHand(need) {
			c.r2ts = 0
			return c.run(cmd, c.cdb, f.data, need)
		}
	}
	return c.await(f, need, fault)
}

// atHand tells whether everything that the command takes came with it.
func (c *conn) atHand(need int) bool {
	cmd := &c.cmd
	if !cmd.Final || cmd.DataLen > 0 && (!c.limits.ImmediateData || cmd.DataLen > c.limits.FirstBurst) {
		return false
	}
	if !cmd.Write {
		return cmd.DataLen == 0
	}
	return cmd.DataLen <= int(cmd.EDTL) && min(need, int(cmd.EDTL)) <= cmd.DataLen
}

// await lets a command wait for its data, or only for the end of them when it
// has failed already.
func (c *conn) await(f *frame, need int, fault error) error {
	tr, err := session.NewTransfer(&c.cmd, need, c.limits)
	if fault == nil {
		fault = err
	}
	t := &session.Task{Cmd: c.cmd, Need: need, Transfer: tr, Fault: fault}
	room := max(tr.Want(), tr.Unsolicited()) // the command judges data that it has no use for
	if fault == nil && !c.tasks.Room(room) {
		t.Fault = session.ErrFull
	}
	if t.Fault != nil && tr.Idle() {
		return c.fail(t)
	}
	if t.Fault == nil {
		t.CDB = append([]byte(nil), c.cdb...)
		t.Out = make([]byte, room)
		copy(t.Out, f.data)
	}
	if err := c.tasks.Add(t); err != nil {
		return err // more commands than the window admits
	}
	c.waiting[t.Cmd.ITT] = c.came
	if t.Fault != nil {
		return nil
	}
	return c.solicit(t)
}

// solicit asks for as much data as may be asked for now.
func (c *conn) solicit(t *session.Task) error {
	for {
		r, ok := t.Transfer.R2T(c.nextTag())
		if !ok {
			return nil
		}
		c.r2t = r
		c.r2t.ITT, c.r2t.LUN = t.Cmd.ITT, t.Cmd.LUN
		c.r2t.StatSN, c.r2t.ExpCmdSN, c.r2t.MaxCmdSN = c.statSN, c.window.ExpCmdSN, c.window.Max()
		if err := c.out.put(&c.r2t, nil); err != nil {
			return err
		}
	}
}

// data takes one Data-Out, and runs its command when it was the last.
func (c *conn) data(f *frame) error {
	d := &c.dataOut
	if err := c.coder.Decode(f.bhs, d); err != nil {
		return err
	}
	t := c.tasks.Get(d.ITT)
	if t == nil {
		return c.reject(f, rejectField)
	}
	if t.Fault == nil && !t.Aborted {
		t.Fault = t.Transfer.Data(d)
		if t.Fault == nil {
			return c.take(t, d, f.data)
		}
		c.log.Debug("data-out refused", "initiator", c.login.Initiator, "reason", t.Fault)
	}
	if !t.Transfer.Swallow(d) {
		return nil
	}
	c.remove(t)
	if t.Aborted {
		c.account.end(c.came.meter, answer{op: t.Cmd.CDB[0], status: scsi.StatusTaskAborted, took: time.Since(c.came.at)})
		return nil
	}
	return c.fail(t)
}

// remove takes a command out of those that wait.
func (c *conn) remove(t *session.Task) {
	c.tasks.Remove(t)
	c.came, c.taken = c.waiting[t.Cmd.ITT], 0
	delete(c.waiting, t.Cmd.ITT)
}

// take stores data that came in order.
func (c *conn) take(t *session.Task, d *pdu.DataOut, data []byte) error {
	copy(t.Out[d.Offset:], data)
	if !t.Transfer.Complete() {
		return c.solicit(t)
	}
	c.remove(t)
	c.r2ts = t.Transfer.R2Ts()
	return c.run(&t.Cmd, t.CDB, t.Out[:t.Transfer.Got()], t.Need)
}

// fail answers a command that did not run.
func (c *conn) fail(t *session.Task) error {
	c.task.Status, c.task.Sense, c.task.In, c.task.ActualIn = scsi.StatusCheckCondition, senseOf(t.Fault), nil, 0
	if errors.Is(t.Fault, session.ErrFull) {
		c.task.Status, c.task.Sense = statusTaskSetFull, nil
	}
	c.r2ts = t.Transfer.R2Ts()
	return c.answer(&t.Cmd, t.Need)
}

// run carries out a command whose data are complete, and answers it.
func (c *conn) run(cmd *pdu.SCSICommand, cdb, out []byte, need int) error {
	t := &c.task
	t.LUN, t.CDB, t.Attr, t.Out, t.InLimit = cmd.LUN, cdb, cmd.Attr, out, 0
	t.Status, t.Sense, t.In, t.ActualIn = 0, nil, nil, 0
	if cmd.Read {
		t.InLimit = min(int(cmd.EDTL), c.srv.opts.MaxData)
	}
	c.scsi.Execute(c.ctx, t)
	if t.Crash != nil {
		c.srv.fault(c.log, "a command ended by a fault of the program", t.Crash.Value, t.Crash.Stack)
	}
	t.Out, t.In = nil, t.In[:min(len(t.In), t.InLimit)]
	c.taken = len(out)
	return c.answer(cmd, need)
}

// answer sends data-in and status of the command in c.task. With GOOD status
// the last Data-In carries it.
func (c *conn) answer(cmd *pdu.SCSICommand, need int) error {
	t := &c.task
	c.account.end(c.came.meter, answer{op: cmd.CDB[0], status: t.Status, sense: t.Sense,
		in: len(t.In), out: c.taken, r2ts: c.r2ts, took: time.Since(c.came.at)})
	expected, actual := 0, t.ActualIn
	switch {
	case cmd.Write:
		expected, actual = int(cmd.EDTL), need
	case cmd.Read:
		expected = int(cmd.EDTL)
	}
	residual, over, under := session.Residual(expected, max(actual, len(t.In)))
	b := c.inBuf
	c.inBuf = nil
	if b != nil {
		defer c.out.hold(b) // not before: a full arena is written in between
	}
	sn := c.r2ts
	if len(t.In) > 0 {
		collapse := t.Status == scsi.StatusGood
		c.dataIn = pdu.DataIn{TTT: pdu.Reserved, Status: t.Status, Residual: residual, Overflow: over, Underflow: under}
		c.dataIn.ITT = cmd.ITT
		n, err := c.sendIn(b, collapse)
		if err != nil || collapse {
			return err
		}
		sn += n
	}
	m := &c.response
	*m = pdu.SCSIResponse{Status: t.Status, Residual: residual, Overflow: over, Underflow: under, ExpDataSN: sn}
	m.ITT = cmd.ITT
	m.StatSN, m.ExpCmdSN, m.MaxCmdSN = c.stamp()
	if len(t.Sense) == 0 {
		return c.out.put(m, nil)
	}
	return c.out.put(m, append(binary.BigEndian.AppendUint16(nil, uint16(len(t.Sense))), t.Sense...))
}

// sendIn sends the data-in of c.task as copies of c.dataIn, the last one with
// the status when that is to be collapsed into it. It gives their number.
func (c *conn) sendIn(b *buffer, collapse bool) (uint32, error) {
	last := c.dataIn
	p := &c.login.Params
	sn := uint32(0)
	for s := range session.Segments(len(c.task.In), p.MaxRecv, p.MaxBurst) {
		m := &c.dataIn
		*m = pdu.DataIn{TTT: pdu.Reserved}
		if s.Last && collapse {
			*m = last
			m.HasStatus = true
			m.StatSN, m.ExpCmdSN, m.MaxCmdSN = c.stamp()
		} else {
			m.ExpCmdSN, m.MaxCmdSN = c.window.ExpCmdSN, c.window.Max()
		}
		m.ITT, m.Final, m.DataSN, m.Offset = last.ITT, s.Final, sn, uint32(s.Offset)
		if err := c.putIn(m, b, s); err != nil {
			return sn, err
		}
		sn++
	}
	return sn, nil
}

// putIn gathers one Data-In, without a copy where the data are in a buffer of
// the transport.
func (c *conn) putIn(m *pdu.DataIn, b *buffer, s session.Segment) error {
	in := c.task.In
	if b != nil && &in[0] == &b.bytes[frontRoom] {
		return c.out.putInPlace(m, b, s.Offset, s.Len, s.Last)
	}
	return c.out.put(m, in[s.Offset:s.Offset+s.Len])
}
