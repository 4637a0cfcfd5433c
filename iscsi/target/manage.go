package target

import (
	"ripstop/iscsi/pdu"
	"ripstop/iscsi/session"
)

// maxFunctions is how many task management functions of a session may wait for
// the ends of commands at a time.
const maxFunctions = 32

// function is a task management function that is being carried out. Its
// response comes after the answers that were due before it, and after all
// commands that it ends have ended (RFC 7143 section 4.2.3.3). Guarded by
// nexus.mu.
type function struct {
	conn    *conn
	itt     uint32
	left    int  // tasks of this session that it ends, or whose answers are due
	waiting bool // for commands of others
}

// manage carries out a task management function. What it ends is marked at once;
// the reader goes on while that ends.
func (c *conn) manage(f *frame) error {
	var m pdu.TaskRequest
	if err := c.coder.Decode(f.bhs, &m); err != nil {
		return err
	}
	if m.Immediate && session.Function(m.Function) != session.AbortTask {
		// What it ends may still be on its way through other connections.
		if err := c.nexus.awaitTurn(c, m.CmdSN); err != nil {
			return err
		}
	}
	if ok, err := c.admit(m.CmdSN, m.Immediate); !ok {
		return err
	}
	if m.ITT == pdu.Reserved {
		return c.reject(f, rejectField)
	}
	fn := &function{conn: c, itt: m.ITT, waiting: true}
	response, wait := c.carryOut(fn, &m)
	c.leaveOrder()
	c.log.Debug("task management", "initiator", c.login.Initiator, "function", m.Function, "response", response)
	if response != session.FunctionComplete {
		return c.putManaged(m.ITT, response)
	}
	if wait == nil {
		c.nexus.waited(fn)
		return nil
	}
	c.srv.running.Go(func() {
		wait()
		c.nexus.waited(fn)
	})
	return nil
}

// carryOut has a function mark what it ends. What it gives waits for the commands
// of the unit, nil where there is none to wait for. order is held.
func (c *conn) carryOut(fn *function, m *pdu.TaskRequest) (response uint8, wait func()) {
	n := c.nexus
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.functions == maxFunctions {
		return session.FunctionRejected, nil
	}
	response, wait = n.markLocked(fn, m)
	if response == session.FunctionComplete {
		n.functions++
	}
	return response, wait
}

// markLocked marks the session's own commands before the unit's: one that ends
// with TASK ABORTED must not be answered, and it may do so at once.
func (n *nexus) markLocked(fn *function, m *pdu.TaskRequest) (response uint8, wait func()) {
	onUnit := func(do func(lun uint64) func()) (uint8, func()) {
		if !n.scsi.Sees(m.LUN) {
			return session.NoLUN, nil
		}
		n.endLocked(fn, func(t *task) bool { return t.cmd.LUN == m.LUN })
		return session.FunctionComplete, do(m.LUN)
	}
	switch session.Function(m.Function) {
	case session.AbortTask:
		return n.abortLocked(fn, m), nil
	case session.AbortTaskSet:
		return onUnit(n.scsi.AbortTaskSet)
	case session.ClearTaskSet:
		return onUnit(n.scsi.ClearTaskSet)
	case session.LUNReset:
		return onUnit(n.scsi.LUNReset)
	case session.TargetWarmReset:
		n.endLocked(fn, func(*task) bool { return true })
		return session.FunctionComplete, n.scsi.TargetWarmReset()
	case session.TaskReassign:
		return session.NoReassign, nil
	}
	// CLEAR ACA has no ACA condition to clear (NormACA is 0 in INQUIRY data), and
	// TARGET COLD RESET, which is optional, would end the sessions of others.
	return session.NotSupported, nil
}

// abortLocked is ABORT TASK. A command that has not come yet counts as received
// when its number is in the window and before the function's (RFC 7143 section
// 11.5.5).
func (n *nexus) abortLocked(fn *function, m *pdu.TaskRequest) uint8 {
	t := n.tasks[m.RTT]
	if t != nil && t.conn == fn.conn && t.cmd.LUN == m.LUN && !t.aborted.Load() {
		n.endTaskLocked(fn, t)
		if t.state == taskRuns && !t.ended.Load() {
			t.Abort()
		}
		return session.FunctionComplete
	}
	if t == nil && int32(m.CmdSN-m.RefCmdSN) > 0 && n.window.Skip(m.RefCmdSN) {
		n.moved()
		return session.FunctionComplete
	}
	return session.NoTask
}

// endLocked ends the tasks that match.
func (n *nexus) endLocked(fn *function, match func(*task) bool) {
	for _, t := range n.tasks {
		if match(t) {
			n.endTaskLocked(fn, t)
		}
	}
}

// endTaskLocked has a task end without an answer, unless that is due already.
// One that waits for data ends at once; those on their way are swallowed.
func (n *nexus) endTaskLocked(fn *function, t *task) {
	if t.state == taskWaits {
		t.aborted.Store(true)
		if t.conn == fn.conn {
			n.emptyLocked(t)
			if t.transfer.Idle() {
				n.forgetLocked(t)
			}
		}
		return
	}
	if !t.ended.Load() {
		t.aborted.Store(true)
	}
	t.functions = append(t.functions, fn)
	fn.left++
}

// waited notes that the commands of others have ended.
func (n *nexus) waited(fn *function) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn.waiting = false
	fn.reportLocked()
}

// reportLocked has the response sent when all has ended.
func (fn *function) reportLocked() {
	if fn.left > 0 || fn.waiting {
		return
	}
	c := fn.conn
	c.nexus.functions--
	c.post(&task{say: func() error { return c.putManagedLocked(fn.itt, session.FunctionComplete) }})
}

func (c *conn) putManaged(itt uint32, response uint8) error {
	c.lock()
	defer c.mu.Unlock()
	return c.putManagedLocked(itt, response)
}

func (c *conn) putManagedLocked(itt uint32, response uint8) error {
	m := pdu.TaskResponse{Response: response}
	m.ITT = itt
	m.StatSN, m.ExpCmdSN, m.MaxCmdSN = c.stamp()
	return c.out.put(&m, nil)
}
