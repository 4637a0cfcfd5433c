package target

import (
	"encoding/binary"
	"errors"

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

// command takes a SCSI command: it begins at once unless its data are still to
// come.
func (c *conn) command(f *frame) error {
	t := c.fresh()
	cmd := &t.cmd
	if err := c.coder.Decode(f.bhs, cmd); err != nil {
		return err
	}
	if ok, err := c.admit(cmd.CmdSN, cmd.Immediate); !ok {
		return err
	}
	if cmd.ITT == pdu.Reserved {
		return c.reject(f, rejectField)
	}
	if c.nexus.inUse(c, cmd.ITT) {
		return c.reject(f, rejectInProgress)
	}
	tail, fault := pdu.ExtendedCDB(f.ahs)
	if fault == nil && cmd.Read && cmd.Write {
		fault = pdu.ErrBidirectional
	}
	if fault != nil && !errors.Is(fault, pdu.ErrBidirectional) {
		return c.reject(f, rejectField)
	}
	t.cdb = append(append(t.cdb[:0], cmd.CDB[:]...), tail...)
	t.need, t.r2ts, t.fault = 0, 0, fault
	t.came = c.nexus.account.arrive(cmd.LUN, c.came)
	if fault == nil {
		t.need = c.nexus.scsi.OutLength(cmd.LUN, t.cdb)
		if c.atHand(t) {
			return c.run(t, f.data)
		}
	}
	return c.await(t, f)
}

// atHand tells whether everything that the command takes came with it.
func (c *conn) atHand(t *task) bool {
	cmd := &t.cmd
	if !cmd.Final || cmd.DataLen > 0 && (!c.limits.ImmediateData || cmd.DataLen > c.limits.FirstBurst) {
		return false
	}
	if !cmd.Write {
		return cmd.DataLen == 0
	}
	return cmd.DataLen <= int(cmd.EDTL) && min(t.need, int(cmd.EDTL)) <= cmd.DataLen
}

// inLimit is the bytes of data-in that a command may bring.
func (c *conn) inLimit(t *task) int {
	if !t.cmd.Read {
		return 0
	}
	return min(int(t.cmd.EDTL), c.srv.opts.MaxData-session.TaskCost)
}

// run begins a command that takes nothing but data.
func (c *conn) run(t *task, data []byte) error {
	cost := session.TaskCost + c.inLimit(t) + len(data)
	err := c.nexus.reserve(c, cost)
	if errors.Is(err, session.ErrFull) {
		t.fault = err
		return c.failFresh(t)
	}
	if err != nil {
		return err
	}
	t.cost = cost
	return c.begin(t, data)
}

// begin begins a command whose data are complete. What has not ended with that
// goes on beside the connection. nexus.order is held.
func (c *conn) begin(t *task, data []byte) error {
	t.LUN, t.CDB, t.Attr, t.Out, t.InLimit = t.cmd.LUN, t.cdb, t.cmd.Attr, data, c.inLimit(t)
	if c.nexus.scsi.Begin(c.ctx, &t.Task) {
		c.leaveOrder()
		c.lock()
		defer c.mu.Unlock()
		return c.conclude(t, true)
	}
	if t.out == nil && len(data) > 0 {
		t.out = c.srv.buffers.get(len(data))
		t.Out = t.out.data(len(data))
		copy(t.Out, data)
	}
	if t.spare {
		c.part(t)
		c.nexus.list(t, taskRuns)
	}
	c.lanes.Add(1)
	c.startLater(t)
	return nil
}

// failFresh answers a command that did not run and never waited.
func (c *conn) failFresh(t *task) error {
	t.Status, t.Sense, t.In, t.Out, t.ActualIn, t.InLimit, t.Crash = scsi.StatusCheckCondition, nil, nil, nil, 0, 0, nil
	if errors.Is(t.fault, session.ErrFull) {
		t.Status = statusTaskSetFull
	} else {
		t.Sense = senseOf(t.fault)
	}
	c.lock()
	defer c.mu.Unlock()
	return c.answer(t)
}
