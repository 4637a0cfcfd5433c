package target

import (
	"errors"
	"fmt"
	"time"

	"ripstop/iscsi/pdu"
	"ripstop/iscsi/session"
)

// Reasons of a Reject (RFC 7143 section 11.17.1).
const (
	rejectDigest     = 0x02
	rejectSNACK      = 0x03
	rejectProtocol   = 0x04
	rejectCommand    = 0x05
	rejectInProgress = 0x07
	rejectField      = 0x09
)

// errLogout ends a session that its initiator closed.
var errLogout = errors.New("logged out")

// maxDelay is how long a reply may wait for others to be written with it while
// more commands are at hand.
const maxDelay = 500 * time.Microsecond

// fullFeature serves a session to its end; a logout is none to speak of.
func (c *conn) fullFeature() error {
	for {
		f, err := c.in.next()
		if errors.Is(err, errDigest) && c.account != nil {
			c.account.digestErrors.Add(1)
		}
		if errors.Is(err, errDigest) && len(f.data) > 0 {
			return errors.Join(err, c.reject(&f, rejectDigest), c.out.flush())
		}
		if err == nil {
			err = c.handle(&f)
		}
		if err == nil {
			err = c.pace()
		}
		if errors.Is(err, errLogout) {
			return c.out.flush()
		}
		if err != nil {
			return err
		}
	}
}

// pace writes what was gathered when it is much or waits for long.
func (c *conn) pace() error {
	if c.out.empty() {
		return nil
	}
	now := time.Now()
	if c.gathered.IsZero() {
		c.gathered = now
	}
	if !c.out.full() && now.Sub(c.gathered) < maxDelay {
		return nil
	}
	return c.out.flush()
}

// handle carries out one PDU. Its error ends the connection.
func (c *conn) handle(f *frame) error {
	if c.scsi == nil && f.op != pdu.OpText && f.op != pdu.OpLogout && f.op != pdu.OpNOPOut {
		return c.reject(f, rejectProtocol) // a discovery session (RFC 7143 section 4.3)
	}
	switch f.op {
	case pdu.OpSCSICommand:
		return c.command(f)
	case pdu.OpDataOut:
		return c.data(f)
	case pdu.OpNOPOut:
		return c.nop(f)
	case pdu.OpTaskRequest:
		return c.manage(f)
	case pdu.OpText:
		return c.textRequest(f)
	case pdu.OpLogout:
		return c.logout(f)
	case pdu.OpSNACK:
		return c.reject(f, rejectSNACK)
	case pdu.OpLogin:
		return errors.New("a login request came after the login")
	}
	return c.reject(f, rejectCommand)
}

// errGap ends a session whose command numbers have a hole: a TCP connection
// loses nothing, so what is missing will never come.
var errGap = errors.New("a command number is missing")

// admit judges a command number. It tells whether to go on.
func (c *conn) admit(cmdSN uint32, immediate bool) (bool, error) {
	switch c.window.Admit(cmdSN, immediate) {
	case session.Take:
		return true, nil
	case session.Gap:
		return false, fmt.Errorf("command %d, expected %d: %w", cmdSN, c.window.ExpCmdSN, errGap)
	}
	return false, nil
}

// reject refuses a PDU and shows its header to the initiator.
func (c *conn) reject(f *frame, reason uint8) error {
	m := pdu.Reject{Reason: reason}
	m.ITT = pdu.Reserved
	m.StatSN, m.ExpCmdSN, m.MaxCmdSN = c.stamp()
	c.log.Debug("rejected PDU", "initiator", c.login.Initiator, "pdu", f.op.String(), "reason", reason)
	return c.out.put(&m, f.bhs)
}

// nop answers a ping with its data, as far as the initiator takes them.
func (c *conn) nop(f *frame) error {
	var m pdu.NOPOut
	if err := c.coder.Decode(f.bhs, &m); err != nil {
		return err
	}
	ok, err := c.admit(m.CmdSN, m.Immediate || m.ITT == pdu.Reserved)
	if !ok || m.ITT == pdu.Reserved {
		return err // the answer to the target's own ping: reading it was enough
	}
	answer := pdu.NOPIn{LUN: m.LUN, TTT: pdu.Reserved}
	answer.ITT = m.ITT
	answer.StatSN, answer.ExpCmdSN, answer.MaxCmdSN = c.stamp()
	data := f.data[:min(len(f.data), c.login.Params.MaxRecv)]
	if err := c.out.put(&answer, data); err != nil {
		return err
	}
	if len(data) > shortData {
		return c.out.flush() // the data lie in the receive buffer
	}
	return nil
}

// logout ends the session; connections that are recovered there are none.
func (c *conn) logout(f *frame) error {
	var m pdu.Logout
	if err := c.coder.Decode(f.bhs, &m); err != nil {
		return err
	}
	if ok, err := c.admit(m.CmdSN, m.Immediate); !ok {
		return err
	}
	answer := pdu.LogoutResponse{}
	answer.ITT = m.ITT
	ends := error(errLogout)
	switch {
	case m.Reason == 1 && m.CID != c.login.CID:
		answer.Response, ends = 1, nil
	case m.Reason > 1:
		answer.Response, ends = 2, nil
	}
	answer.StatSN, answer.ExpCmdSN, answer.MaxCmdSN = c.stamp()
	return errors.Join(c.out.put(&answer, nil), ends)
}

// manage carries out a task management function. Commands run to completion
// before the next PDU is read, so only those that wait for data can be met here.
func (c *conn) manage(f *frame) error {
	var m pdu.TaskRequest
	if err := c.coder.Decode(f.bhs, &m); err != nil {
		return err
	}
	if ok, err := c.admit(m.CmdSN, m.Immediate); !ok {
		return err
	}
	answer := pdu.TaskResponse{Response: c.function(&m)}
	answer.ITT = m.ITT
	answer.StatSN, answer.ExpCmdSN, answer.MaxCmdSN = c.stamp()
	c.log.Debug("task management", "initiator", c.login.Initiator, "function", m.Function, "response", answer.Response)
	return c.out.put(&answer, nil)
}

// function is the response to a task management function that it carries out.
func (c *conn) function(m *pdu.TaskRequest) uint8 {
	onUnit := func(do func(lun uint64) func()) uint8 {
		wait := do(m.LUN)
		if wait == nil {
			return session.NoLUN
		}
		wait()
		c.tasks.AbortUnit(m.LUN)
		return session.FunctionComplete
	}
	switch session.Function(m.Function) {
	case session.AbortTask:
		if c.tasks.Abort(m.LUN, m.RTT) {
			return session.FunctionComplete
		}
		return session.NoTask
	case session.AbortTaskSet:
		return onUnit(c.scsi.AbortTaskSet)
	case session.ClearTaskSet:
		return onUnit(c.scsi.ClearTaskSet)
	case session.LUNReset:
		return onUnit(c.scsi.LUNReset)
	case session.TargetWarmReset:
		c.tasks.AbortAll()
		c.scsi.TargetWarmReset()()
		return session.FunctionComplete
	case session.TaskReassign:
		return session.NoReassign
	}
	return session.NotSupported
}
