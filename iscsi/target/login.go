package target

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"strings"
	"time"

	"ripstop/iscsi"
	"ripstop/iscsi/login"
	"ripstop/iscsi/pdu"
	"ripstop/iscsi/scsi"
	"ripstop/iscsi/session"
)

// maxConns is how many connections a session may have.
const maxConns = 8

// portalGroup is the tag of the one portal group that every target has.
const portalGroup = 1

// logIn runs the login phase and tells whether there is a session now. Every
// other end is logged with its reason.
func (c *conn) logIn() bool {
	m := login.New(login.Policy{
		Admit: func(initiator, target string) (iscsi.Initiator, error) {
			_, i, err := c.srv.table.Load().admit(initiator, target, c.lis.at, c.origin())
			return i, err
		},
		Discover: func(initiator string) ([]iscsi.Initiator, error) {
			return c.srv.table.Load().discover(initiator, c.lis.at, c.origin())
		},
		Challenge: func(n int) []byte {
			p := make([]byte, n)
			rand.Read(p) // never fails
			return p
		},
		Challenges: &c.srv.challenges,
		TSIH:       c.srv.newTSIH(), PortalGroup: portalGroup, MaxConns: maxConns,
		Join: func(id login.SessionID, cid uint16) (login.Session, error) {
			c.origin() // which may wait, before the lock
			c.srv.mu.Lock()
			defer c.srv.mu.Unlock()
			n, account, err := c.srv.joined(c, id, cid)
			if err != nil {
				return login.Session{}, err
			}
			return login.Session{Account: account, Params: n.params, Window: n.windowNow}, nil
		},
	})
	defer m.Close()
	err := c.exchange(m)
	if err == nil {
		return true
	}
	if cause := context.Cause(c.ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, errSilent) {
		err = errors.New("no login in time")
	}
	if errors.Is(err, io.EOF) && m.Initiator() == "" {
		c.log.Debug("connection closed before login")
		return false
	}
	if errors.Is(err, io.EOF) {
		err = errors.New("the initiator closed the connection in the middle: it may have refused the target's own proof")
	}
	c.srv.countRefusal(m.Target())
	c.srv.refused.warn(c.log, "refused login", "initiator", m.Initiator(), "target", m.Target(), "reason", err.Error())
	return false
}

// exchange passes login PDUs until the login ends.
func (c *conn) exchange(m *login.Machine) error {
	for {
		f, err := c.in.next()
		if err != nil {
			return err
		}
		var req pdu.Login
		if f.op != pdu.OpLogin {
			return errors.New("a " + f.op.String() + " came before the login")
		}
		if len(f.ahs) > 0 {
			return errors.New("a login request with an additional header segment")
		}
		if err := c.coder.Decode(f.bhs, &req); err != nil {
			return err
		}
		r := m.Step(&req, f.data)
		if r.Done != nil {
			if err := c.enter(r.Done); err != nil {
				r.Refuse(err)
			} else {
				r.Response.ExpCmdSN, r.Response.MaxCmdSN = c.nexus.windowNow()
			}
		}
		if err := c.out.put(&r.Response, r.Text); err != nil {
			return err
		}
		if r.Refused != nil {
			return errors.Join(r.Refused, c.out.flush())
		}
		if r.Done != nil {
			return c.adopt(r.Done)
		}
	}
}

// enter enters the connection into the server's books, with a new session or
// into the one that it joins.
func (c *conn) enter(r *login.Result) error {
	s := c.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	var err error
	if r.Joined {
		err = c.join(r)
	} else {
		err = c.found(r)
	}
	if err != nil {
		return err
	}
	c.cid = r.CID
	c.nexus.conns[c.cid] = c
	c.nexus.single.Store(len(c.nexus.conns) == 1)
	s.loggedIn(c)
	return context.Cause(c.ctx) // end may have come before there was a session to see
}

// found makes a new session. One of the same nexus ends first (RFC 7143 section
// 6.3.5). The caller holds the server's lock.
func (c *conn) found(r *login.Result) error {
	s := c.srv
	id := scsi.Nexus{Initiator: r.Initiator, ISID: r.ISID, TPGT: portalGroup}
	if err := s.roomFor(id); err != nil {
		return err
	}
	for r.Target != "" {
		e, account, err := s.table.Load().admit(r.Initiator, r.Target, c.lis.at, c.origin())
		if err != nil {
			return err
		}
		if !opens(account, r.Proof) {
			return errors.New("the CHAP account changed during the login")
		}
		id.Target = e.name
		if old := s.nexuses[id]; old != nil {
			old.end("the initiator logged in again")
			if err := c.waitFor(old.done); err != nil {
				return err
			}
			continue // the table may have changed meanwhile
		}
		units := e.visible(account)
		if err := s.mayEnter(units); err != nil {
			return err
		}
		c.portal, _ = e.reached(c.lis.at)
		n := newNexus(s, id, r)
		n.units = units
		n.account = s.openAccount(e.name, n.units)
		n.scsi = scsi.NewSession(id, scsiUnits(n.units))
		s.nexuses[id], s.sessions[n], c.nexus = n, true, n
		return nil
	}
	n := newNexus(s, id, r)
	s.sessions[n], c.nexus = true, n
	return nil
}

// join adds the connection to its session. One with the same CID ends first
// (RFC 7143 section 6.3.4). The caller holds the server's lock.
func (c *conn) join(r *login.Result) error {
	id := login.SessionID{Initiator: r.Initiator, Target: r.Target, ISID: r.ISID, TSIH: r.TSIH}
	for {
		n, account, err := c.srv.joined(c, id, r.CID)
		if err != nil {
			return err
		}
		if !opens(account, r.Proof) {
			return errors.New("the CHAP account changed during the login")
		}
		old := n.conns[r.CID]
		if old == nil {
			e := (*c.srv.table.Load())[r.Target]
			c.portal, _ = e.reached(c.lis.at)
			c.nexus = n
			return nil
		}
		n.held++ // it must not end with its only connection
		old.end("the initiator replaced the connection")
		err = c.waitFor(old.done)
		n.held--
		if err != nil {
			c.srv.endIfEmpty(n)
			return err
		}
	}
}

// joined finds the session that a connection wants to join. The caller holds the
// server's lock. Its error is a login.Refusal.
func (s *Server) joined(c *conn, id login.SessionID, cid uint16) (*nexus, iscsi.Initiator, error) {
	for n := range s.sessions {
		if n.scsi == nil || n.tsih != id.TSIH || n.id.Initiator != id.Initiator || n.id.ISID != id.ISID ||
			strings.ToLower(n.id.Target) != id.Target {
			continue
		}
		_, account, err := s.table.Load().admit(id.Initiator, id.Target, c.lis.at, c.origin())
		switch {
		case err != nil:
			return nil, account, err
		case n.conns[cid] == nil && len(n.conns) >= n.params.MaxConns:
			return nil, account, login.Refuse(login.TooManyConns, "session %d has %d connections, and no more were agreed", id.TSIH, len(n.conns))
		}
		return n, account, nil
	}
	return nil, iscsi.Initiator{}, login.Refuse(login.NoSession, "there is no session %d of this initiator, ISID and target", id.TSIH)
}

// newTSIH is a handle that no session has.
func (s *Server) newTSIH() uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		s.tsih = s.tsih%0xffff + 1
		taken := false
		for n := range s.sessions {
			taken = taken || n.tsih == s.tsih
		}
		if !taken {
			return s.tsih
		}
	}
}

// waitFor waits without the lock until something is through.
func (c *conn) waitFor(done <-chan struct{}) error {
	c.srv.mu.Unlock()
	defer c.srv.mu.Lock()
	timer := time.NewTimer(c.srv.opts.LoginTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	case <-timer.C:
		return errors.New("the session or connection that this one replaces does not end")
	}
}

// adopt writes the last response, and then takes what was negotiated into use.
func (c *conn) adopt(r *login.Result) error {
	if err := c.flush(); err != nil {
		return err
	}
	p := r.Params
	c.login, c.readBy, c.came = *r, time.Time{}, time.Now()
	c.limits = session.Limits{MaxBurst: p.MaxBurst, FirstBurst: p.FirstBurst, MaxR2T: p.MaxR2T,
		InitialR2T: p.InitialR2T, ImmediateData: p.ImmediateData}
	c.mu.Lock()
	c.statSN, c.maxRecv = r.StatSN, p.MaxRecv
	c.in.headerDigest, c.out.headerDigest = p.HeaderDigest, p.HeaderDigest
	c.in.dataDigest, c.out.dataDigest = p.DataDigest, p.DataDigest
	c.mu.Unlock()
	if r.Target != "" {
		c.in.maxData = login.MaxRecv
		c.in.grow(sessionRoom)
		c.log.Info("session logged in", "initiator", r.Initiator, "target", r.Target)
	}
	c.writer.Go(c.writeFinished)
	return nil
}
