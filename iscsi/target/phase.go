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
	rejectDigest     = pdu.RejectDigest
	rejectSNACK      = pdu.RejectSNACK
	rejectProtocol   = pdu.RejectProtocol
	rejectCommand    = pdu.RejectCommand
	rejectInProgress = pdu.RejectInProgress
	rejectField      = pdu.RejectField
)

// maxDelay is how long a reply may wait for others to be written with it while
// more commands are at hand.
const maxDelay = 500 * time.Microsecond

// fullFeature serves a session to its end; a logout is none to speak of.
func (c *conn) fullFeature() error {
	for {
		f, err := c.in.next()
		if errors.Is(err, errDigest) && c.nexus.account != nil {
			c.nexus.account.digestErrors.Add(1)
		}
		if errors.Is(err, errDigest) && len(f.data) > 0 {
			return errors.Join(err, c.reject(&f, rejectDigest), c.flush())
		}
		if err == nil {
			err = c.handle(&f)
			c.leaveOrder()
		}
		if err == nil {
			err = c.pace()
		}
		if err != nil {
			return c.ends(err)
		}
	}
}

// ends carries out a logout; any other error is the end by itself.
func (c *conn) ends(err error) error {
	c.startAll()
	var out *leave
	if errors.As(err, &out) {
		return c.depart(out)
	}
	return err
}

// pace writes what was gathered when it is much or waits for long.
func (c *conn) pace() error {
	if !c.overdue() {
		return nil
	}
	return c.catchUp()
}

// overdue tells whether what was gathered is much or waits for long.
func (c *conn) overdue() bool {
	c.lock()
	defer c.mu.Unlock()
	if c.out.empty() {
		return false
	}
	if c.gathered.IsZero() {
		c.gathered = c.answered
	}
	return c.out.full() || c.answered.Sub(c.gathered) >= maxDelay
}

// handle carries out one PDU. Its error ends the connection.
func (c *conn) handle(f *frame) error {
	if c.nexus.scsi == nil && f.op != pdu.OpText && f.op != pdu.OpLogout && f.op != pdu.OpNOPOut {
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

// errGap ends a connection where a command number is missing for which there is
// no other connection, or none that brings it in time: a TCP connection loses
// nothing, so it will never come.
var errGap = errors.New("a command number is missing")

// admit judges a command number, once the commands before it have come. It tells
// whether to go on; then order is held until leaveOrder.
func (c *conn) admit(cmdSN uint32, immediate bool) (bool, error) {
	if !immediate {
		if err := c.nexus.awaitTurn(c, cmdSN); err != nil {
			return false, err
		}
	}
	if err := c.enterOrder(); err != nil {
		return false, err
	}
	switch c.nexus.take(cmdSN, immediate) {
	case session.Take:
		return true, nil
	case session.Gap:
		return false, fmt.Errorf("command %d, expected %d: %w", cmdSN, c.nexus.expCmdSN.Load(), errGap)
	}
	return false, nil
}

// enterOrder takes order. Who holds it may wait for what this connection has
// not written yet.
func (c *conn) enterOrder() error {
	if c.ordered {
		return nil
	}
	if !c.nexus.order.TryLock() {
		if err := c.catchUp(); err != nil {
			return err
		}
		c.nexus.order.Lock()
	}
	c.ordered = true
	return nil
}

func (c *conn) leaveOrder() {
	if c.ordered {
		c.ordered = false
		c.nexus.order.Unlock()
	}
}

// reject refuses a PDU and shows its header to the initiator.
func (c *conn) reject(f *frame, reason uint8) error {
	m := pdu.Reject{Reason: reason}
	m.ITT = pdu.Reserved
	c.log.Debug("rejected PDU", "initiator", c.login.Initiator, "pdu", f.op.String(), "reason", reason)
	c.lock()
	defer c.mu.Unlock()
	m.StatSN, m.ExpCmdSN, m.MaxCmdSN = c.stamp()
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
	c.lock()
	defer c.mu.Unlock()
	answer.StatSN, answer.ExpCmdSN, answer.MaxCmdSN = c.stamp()
	data := f.data[:min(len(f.data), c.maxRecv)]
	if err := c.out.put(&answer, data); err != nil {
		return err
	}
	if len(data) > shortData {
		return c.flushLocked() // the data lie in the receive buffer
	}
	return nil
}
