package target

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"time"

	"ripstop/iscsi"
	"ripstop/iscsi/login"
	"ripstop/iscsi/pdu"
	"ripstop/iscsi/scsi"
	"ripstop/iscsi/session"
)

// portalGroup is the tag of the one portal group that every target has.
const portalGroup = 1

// logIn runs the login phase and tells whether there is a session now. Every
// other end is logged with its reason.
func (c *conn) logIn() bool {
	tsih := uint16(c.srv.tsih.Add(1)%0xffff) + 1
	m := login.New(login.Policy{
		Admit: func(initiator, target string) (iscsi.Initiator, error) {
			_, i, err := c.srv.table.Load().admit(initiator, target, c.lis.at)
			return i, err
		},
		Discover: func(initiator string) ([]iscsi.Initiator, error) {
			return c.srv.table.Load().discover(initiator, c.lis.at)
		},
		Challenge: func(n int) []byte {
			p := make([]byte, n)
			rand.Read(p) // never fails
			return p
		},
		Challenges: &c.srv.challenges,
		TSIH:       tsih, PortalGroup: portalGroup,
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
			if err := c.begin(r.Done); err != nil {
				r.Refused = login.Refuse(login.Unavailable, "%v", err)
				r.Response.Status, r.Response.Transit, r.Text = uint16(r.Refused.Status), false, nil
			}
		}
		if err := c.out.put(&r.Response, r.Text); err != nil {
			return err
		}
		if r.Refused != nil {
			return errors.Join(r.Refused, c.out.flush())
		}
		if r.Done != nil {
			return c.settle(r.Done)
		}
	}
}

// begin enters the session into the server's books. A session of the same
// nexus ends first (RFC 7143 section 6.3.5).
func (c *conn) begin(r *login.Result) error {
	s := c.srv
	s.mu.Lock()
	defer s.mu.Unlock()
	nexus := scsi.Nexus{Initiator: r.Initiator, ISID: r.ISID, TPGT: portalGroup}
	for r.Target != "" {
		e, account, err := s.table.Load().admit(r.Initiator, r.Target, c.lis.at)
		if err != nil {
			return err
		}
		if !opens(account, r.Proof) {
			return errors.New("the CHAP account changed during the login")
		}
		nexus.Target = e.name
		if old := s.nexuses[nexus]; old != nil {
			old.end("the initiator logged in again")
			if err := c.waitFor(old); err != nil {
				return err
			}
			continue // the table may have changed meanwhile
		}
		c.portal, _ = e.reached(c.lis.at)
		c.units = e.visible(account)
		c.account = s.openAccount(e.name, c.units)
		c.scsi = scsi.NewSession(nexus, scsiUnits(c.units))
		s.nexuses[nexus] = c
		break
	}
	c.nexus, c.since = &nexus, time.Now()
	s.loggedIn(c)
	return context.Cause(c.ctx) // end may have come before there was a session to see
}

// waitFor waits without the lock until another connection is through.
func (c *conn) waitFor(old *conn) error {
	c.srv.mu.Unlock()
	defer c.srv.mu.Lock()
	timer := time.NewTimer(c.srv.opts.LoginTimeout)
	defer timer.Stop()
	select {
	case <-old.done:
		return nil
	case <-c.ctx.Done():
		return context.Cause(c.ctx)
	case <-timer.C:
		return errors.New("the session that this one replaces does not end")
	}
}

// settle writes the last response, and then takes what was negotiated into use.
func (c *conn) settle(r *login.Result) error {
	if err := c.out.flush(); err != nil {
		return err
	}
	p := r.Params
	c.login, c.statSN = *r, r.StatSN
	c.window.ExpCmdSN = r.CmdSN
	c.limits = session.Limits{MaxBurst: p.MaxBurst, FirstBurst: p.FirstBurst, MaxR2T: p.MaxR2T,
		InitialR2T: p.InitialR2T, ImmediateData: p.ImmediateData}
	c.tasks = session.NewTasks(c.srv.opts.MaxData)
	c.waiting = map[uint32]arrival{}
	c.in.headerDigest, c.out.headerDigest = p.HeaderDigest, p.HeaderDigest
	c.in.dataDigest, c.out.dataDigest = p.DataDigest, p.DataDigest
	if r.Target != "" {
		c.in.maxData = login.MaxRecv
		c.in.grow(sessionRoom)
		c.log.Info("session logged in", "initiator", r.Initiator, "target", r.Target)
	}
	return nil
}
