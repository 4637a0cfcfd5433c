package target

import (
	"time"

	"ripstop/iscsi/pdu"
)

// leave is the end of a connection that its initiator asked for.
type leave struct {
	itt     uint32
	session bool // all connections of the session
}

func (*leave) Error() string { return "logged out" }

// logout ends the session or one of its connections (RFC 7143 section 11.14).
// Connections to be recovered there are none at error recovery level 0.
func (c *conn) logout(f *frame) error {
	var m pdu.Logout
	if err := c.coder.Decode(f.bhs, &m); err != nil {
		return err
	}
	if ok, err := c.admit(m.CmdSN, m.Immediate); !ok {
		return err
	}
	if m.ITT == pdu.Reserved {
		return c.reject(f, rejectField)
	}
	switch {
	case m.Reason == pdu.LogoutSession:
		return &leave{m.ITT, true}
	case m.Reason == pdu.LogoutConnection && m.CID == c.login.CID:
		return &leave{m.ITT, false}
	case m.Reason == pdu.LogoutConnection:
		return c.logoutOther(&m)
	case m.Reason == pdu.LogoutRecovery:
		return c.putLogout(m.ITT, pdu.LogoutNoRecovery)
	}
	return c.putLogout(m.ITT, pdu.LogoutFailed)
}

// depart answers the logout of this connection once its commands have ended.
func (c *conn) depart(out *leave) error {
	if out.session {
		c.srv.endOthers(c)
	}
	c.abandon()
	if err := c.putLogout(out.itt, pdu.LogoutDone); err != nil {
		return err
	}
	return c.flush()
}

// logoutOther ends another connection of the session, and answers once it is
// through. It may be gone already.
func (c *conn) logoutOther(m *pdu.Logout) error {
	other := c.srv.sibling(c, m.CID)
	if other == nil {
		return c.putLogout(m.ITT, pdu.LogoutNoCID)
	}
	other.end("the initiator logged it out through another connection")
	c.srv.running.Go(func() {
		<-other.done
		c.post(&task{say: func() error { return c.putLogoutLocked(m.ITT, pdu.LogoutDone) }})
	})
	return nil
}

func (c *conn) putLogout(itt uint32, response uint8) error {
	c.lock()
	defer c.mu.Unlock()
	return c.putLogoutLocked(itt, response)
}

func (c *conn) putLogoutLocked(itt uint32, response uint8) error {
	m := pdu.LogoutResponse{Response: response}
	m.ITT = itt
	m.StatSN, m.ExpCmdSN, m.MaxCmdSN = c.stamp()
	return c.out.put(&m, nil)
}

// sibling is the connection of c's session with a CID, nil for none.
func (s *Server) sibling(c *conn, cid uint16) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return c.nexus.conns[cid]
}

// endOthers ends the other connections of c's session and waits for them.
func (s *Server) endOthers(c *conn) {
	s.mu.Lock()
	var others []*conn
	for _, o := range c.nexus.conns {
		if o != c {
			o.end("the initiator closed the session")
			others = append(others, o)
		}
	}
	s.mu.Unlock()
	for _, o := range others {
		select {
		case <-o.done:
		case <-c.ctx.Done(): // perhaps because it closes the session, too
			return
		}
	}
}

// retire asks the initiator to log out of a connection that may not go on, and
// ends it when that does not happen in time (RFC 7143 section 11.9). The caller
// holds the server's lock.
func (c *conn) retire(reason string) {
	if c.leaving != nil {
		return
	}
	wait := c.srv.opts.LogoutWait
	c.log.Info("asked the initiator to log out", "initiator", c.nexus.id.Initiator, "target", c.nexus.id.Target, "reason", reason)
	c.leaving = time.AfterFunc(wait, func() { c.end(reason) })
	seconds := uint16(min((wait+time.Second-1)/time.Second, 1<<16-1))
	c.tell(pdu.Async{Event: pdu.EventLogout, Param3: seconds})
}

// tell sends an Async Message.
func (c *conn) tell(m pdu.Async) {
	m.ITT = pdu.Reserved
	c.post(&task{say: func() error {
		m.StatSN, m.ExpCmdSN, m.MaxCmdSN = c.stamp()
		return c.out.put(&m, nil)
	}})
}
