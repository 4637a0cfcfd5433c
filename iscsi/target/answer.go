package target

import (
	"encoding/binary"
	"time"

	"ripstop/iscsi/pdu"
	"ripstop/iscsi/scsi"
	"ripstop/iscsi/session"
)

// answer gathers data-in and status of a task, accounts for it and lets go of
// it. With GOOD status the last Data-In carries it. mu is held.
func (c *conn) answer(t *task) error {
	if t.Crash != nil {
		c.srv.fault(c.log, "a command ended by a fault of the program", t.Crash.Value, t.Crash.Stack)
	}
	t.In = t.In[:min(len(t.In), t.InLimit)]
	err := c.putAnswer(t)
	c.answered = time.Now()
	c.nexus.account.end(t.came.meter, answer{op: t.cmd.CDB[0], status: t.Status, sense: t.Sense,
		in: len(t.In), out: len(t.Out), r2ts: t.r2ts, took: c.answered.Sub(t.came.at)})
	if t.in != nil {
		c.out.hold(t.in) // not before: a full arena is written in between
		t.in = nil
	}
	c.settle(t)
	return err
}

func (c *conn) putAnswer(t *task) error {
	residual, over, under := t.residual()
	collapse := t.Status == scsi.StatusGood && len(t.In) > 0
	sn := t.r2ts
	if len(t.In) > 0 {
		c.dataIn = pdu.DataIn{TTT: pdu.Reserved, Status: t.Status, Residual: residual, Overflow: over, Underflow: under}
		c.dataIn.ITT = t.cmd.ITT
		n, err := c.putData(t, collapse)
		if err != nil || collapse {
			return err
		}
		sn += n
	}
	m := &c.response
	*m = pdu.SCSIResponse{Status: t.Status, Residual: residual, Overflow: over, Underflow: under, ExpDataSN: sn}
	m.ITT = t.cmd.ITT
	m.StatSN, m.ExpCmdSN, m.MaxCmdSN = c.stamp()
	if len(t.Sense) == 0 {
		return c.out.put(m, nil)
	}
	return c.out.put(m, append(binary.BigEndian.AppendUint16(nil, uint16(len(t.Sense))), t.Sense...))
}

// residual compares what the initiator expected with what the command moves.
func (t *task) residual() (bytes uint32, over, under bool) {
	expected, actual := 0, t.ActualIn
	switch {
	case t.cmd.Write:
		expected, actual = int(t.cmd.EDTL), t.need
	case t.cmd.Read:
		expected = int(t.cmd.EDTL)
	}
	return session.Residual(expected, max(actual, len(t.In)))
}

// putData gathers the data-in of a task as copies of c.dataIn, the last one with
// the status when that is to be collapsed into it. It gives their number.
func (c *conn) putData(t *task, collapse bool) (uint32, error) {
	last := c.dataIn
	sn := uint32(0)
	for s := range session.Segments(len(t.In), c.maxRecv, c.limits.MaxBurst) {
		m := &c.dataIn
		*m = pdu.DataIn{TTT: pdu.Reserved}
		if s.Last && collapse {
			*m = last
			m.HasStatus = true
			m.StatSN, m.ExpCmdSN, m.MaxCmdSN = c.stamp()
		} else {
			m.ExpCmdSN, m.MaxCmdSN = c.nexus.windowNow()
		}
		m.ITT, m.Final, m.DataSN, m.Offset = last.ITT, s.Final, sn, uint32(s.Offset)
		if err := c.putSegment(m, t, s); err != nil {
			return sn, err
		}
		sn++
	}
	return sn, nil
}

// putSegment gathers one Data-In, without a copy where the data are in a buffer
// of the transport.
func (c *conn) putSegment(m *pdu.DataIn, t *task, s session.Segment) error {
	if t.in != nil && t.in.holds(t.In) {
		return c.out.putInPlace(m, t.in, s.Offset, s.Len, s.Last)
	}
	return c.out.put(m, t.In[s.Offset:s.Offset+s.Len])
}
