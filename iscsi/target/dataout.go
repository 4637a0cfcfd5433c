package target

import (
	"errors"

	"ripstop/iscsi/pdu"
	"ripstop/iscsi/session"
)

// await lets a command wait for its data, or only for the end of them when it
// has failed already.
func (c *conn) await(t *task, f *frame) error {
	tr := &t.transfer
	err := tr.Start(&t.cmd, t.need, c.limits)
	if t.fault == nil {
		t.fault = err
	}
	room := max(tr.Want(), tr.Unsolicited()) // the command judges data that it has no use for
	cost := session.TaskCost + c.inLimit(t)
	if t.fault == nil {
		t.fault = c.nexus.hold(c, cost+room)
		if t.fault != nil && !errors.Is(t.fault, session.ErrFull) {
			return t.fault
		}
	}
	if t.fault != nil && tr.Idle() {
		t.r2ts = 0
		return c.failFresh(t)
	}
	if t.fault == nil {
		t.cost = cost + room
		t.out = c.srv.buffers.get(room)
		copy(t.out.data(room), f.data)
	}
	c.part(t)
	c.nexus.list(t, taskWaits)
	if t.fault != nil {
		return nil
	}
	return c.solicit(t)
}

// hold counts the bytes of a command that is to wait for data. Where they do not
// fit it waits as reserve does.
func (n *nexus) hold(c *conn, bytes int) error {
	if err := n.reserve(c, bytes); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.memory.Free(bytes)
	n.memory.Wait(bytes)
	return nil
}

// solicit asks for as much data as may be asked for now.
func (c *conn) solicit(t *task) error {
	c.lock()
	defer c.mu.Unlock()
	for {
		r, ok := t.transfer.R2T(c.nextTag())
		if !ok {
			return nil
		}
		c.r2t = r
		c.r2t.ITT, c.r2t.LUN, c.r2t.StatSN = t.cmd.ITT, t.cmd.LUN, c.statSN
		c.r2t.ExpCmdSN, c.r2t.MaxCmdSN = c.nexus.windowNow()
		if err := c.out.put(&c.r2t, nil); err != nil {
			return err
		}
	}
}

// data takes one Data-Out, and begins its command when it was the last.
func (c *conn) data(f *frame) error {
	d := &c.dataOut
	if err := c.coder.Decode(f.bhs, d); err != nil {
		return err
	}
	t := c.nexus.waiting(c, d.ITT)
	if t == nil {
		return c.reject(f, rejectField)
	}
	if t.fault == nil && !t.aborted.Load() {
		t.fault = t.transfer.Data(d)
		if t.fault == nil {
			return c.store(t, d, f)
		}
		c.log.Debug("data-out refused", "initiator", c.login.Initiator, "reason", t.fault)
	}
	if !t.transfer.Swallow(d) {
		return nil
	}
	return c.endWaiting(t)
}

// store takes data that came in order.
func (c *conn) store(t *task, d *pdu.DataOut, f *frame) error {
	copy(t.out.bytes[t.out.at+int(d.Offset):], f.data)
	if !t.transfer.Complete() {
		return c.solicit(t)
	}
	if err := c.enterOrder(); err != nil {
		return err
	}
	if !c.nexus.begins(t) {
		return c.endWaiting(t)
	}
	t.r2ts = t.transfer.R2Ts()
	return c.begin(t, t.out.data(t.transfer.Got()))
}

// begins has a command that waited run, unless it was aborted. order is held.
func (n *nexus) begins(t *task) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if t.aborted.Load() {
		return false
	}
	t.state = taskRuns
	n.memory.Begin(t.cost)
	return true
}

// endWaiting lets go of a command that waited and will not run; unless it was
// aborted it is answered.
func (c *conn) endWaiting(t *task) error {
	n := c.nexus
	n.mu.Lock()
	aborted := t.aborted.Load()
	if !aborted {
		n.emptyLocked(t)
		n.unlistLocked(t)
		t.state = taskFresh
	} else {
		n.forgetLocked(t)
	}
	n.mu.Unlock()
	if aborted {
		return nil
	}
	t.r2ts = t.transfer.R2Ts()
	return c.failFresh(t)
}
