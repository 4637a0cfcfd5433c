package target

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"ripstop/iscsi"
	"ripstop/iscsi/login"
	"ripstop/iscsi/pdu"
	"ripstop/iscsi/scsi"
	"ripstop/iscsi/session"
)

// conn is one connection, and the session that it carries after login.
//
//	login ─► full feature ─► logout ─► closed
//	  └──────────┴── fault, end() ─────►▲
//
// Everything below "loop" belongs to its goroutine.
type conn struct {
	srv    *Server
	lis    *listener
	nc     *net.TCPConn
	local  netip.AddrPort
	remote netip.AddrPort
	log    *slog.Logger
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the goroutine is through

	// Guarded by Server.mu.
	loggingIn bool
	nexus     *scsi.Nexus // nil before login
	portal    iscsi.Portal
	scsi      *scsi.Session // nil in a discovery session
	units     map[uint16]*unit
	since     time.Time

	account *account // nil in a discovery session

	// loop
	in       reader
	out      writer
	deadline time.Time          // of the login
	asked    bool               // a NOP-In waits for its answer
	came     arrival            // of the command that is answered
	waiting  map[uint32]arrival // of commands that wait for their data, by ITT
	taken    int                // bytes of data-out of the command that is answered
	gathered time.Time          // when the oldest reply that is not written was made
	login    login.Result
	limits   session.Limits
	window   session.Window
	statSN   uint32
	tag      uint32 // the last target transfer tag
	tasks    *session.Tasks
	task     scsi.Task
	inBuf    *buffer // of the command that runs
	r2ts     uint32  // that were sent for it
	cdb      []byte
	text     textExchange

	cmd      pdu.SCSICommand // decoded headers, here to save an allocation each
	dataOut  pdu.DataOut
	dataIn   pdu.DataIn
	response pdu.SCSIResponse
	r2t      pdu.R2T
	coder    pdu.Coder
}

func newConn(s *Server, l *listener, nc *net.TCPConn) *conn {
	c := &conn{srv: s, lis: l, nc: nc, local: addrPort(nc.LocalAddr()), remote: addrPort(nc.RemoteAddr()),
		done: make(chan struct{}), statSN: 1, deadline: time.Now().Add(s.opts.LoginTimeout)}
	c.ctx, c.cancel = context.WithCancelCause(l.ctx)
	c.log = s.log.With("address", c.remote.String(), "portal", l.at.String())
	digest := pdu.NewDigest()
	c.in = reader{read: c.read, digest: digest, maxData: loginData}
	c.out = writer{write: c.write, digest: digest, buffers: &s.buffers}
	c.task.Buffer = c.buffer
	return c
}

// errEnd is why end ended a connection.
type errEnd string

func (e errEnd) Error() string { return string(e) }

// end closes the connection from outside; its goroutine follows.
func (c *conn) end(reason string) {
	c.cancel(errEnd(reason))
	if err := c.nc.SetDeadline(time.Unix(1, 0)); err != nil && !errors.Is(err, net.ErrClosed) {
		c.log.Debug("set deadline", "error", err)
	}
}

// serve runs the connection to its end. A fault of this program ends it and
// nothing else.
func (c *conn) serve() {
	defer c.close()
	defer func() {
		if r := recover(); r != nil {
			c.srv.fault(c.log, "connection ended by a fault of the program", r, debug.Stack())
		}
	}()
	c.in.buf = make([]byte, loginBuffer)
	if !c.logIn() {
		return
	}
	err := c.fullFeature()
	if cause := context.Cause(c.ctx); cause != nil {
		err = cause
	}
	c.logEnd(err)
}

// logEnd says how a session ended: what is not a matter of course as a warning.
func (c *conn) logEnd(err error) {
	log := c.log.With("initiator", c.login.Initiator, "target", c.login.Target)
	switch {
	case err == nil:
		log.Info("session logged out")
	case errors.Is(err, io.EOF):
		log.Info("session ended", "reason", "the initiator closed the connection")
	case c.scsi == nil && errors.Is(err, syscall.ECONNRESET):
		// open-iscsi leaves a discovery session so, with our logout response unread.
		log.Debug("session ended", "reason", err.Error())
	case errors.As(err, new(errEnd)):
		log.Info("session ended", "reason", err.Error())
	default:
		log.Warn("session ended", "reason", err.Error())
	}
}

// close lets go of everything that the connection holds.
func (c *conn) close() {
	s := c.srv
	s.mu.Lock()
	s.loggedIn(c)
	delete(s.conns, c)
	if c.nexus != nil && s.nexuses[*c.nexus] == c {
		delete(s.nexuses, *c.nexus)
	}
	if c.scsi != nil {
		c.scsi.Close()
		s.closeAccount(c.account)
	}
	s.mu.Unlock()
	c.out.release()
	c.cancel(nil)
	if err := c.nc.Close(); err != nil {
		c.log.Debug("close connection", "error", err)
	}
	close(c.done)
}

// errSilent is the end of a session whose initiator does not answer.
var errSilent = errors.New("the initiator does not answer")

// read waits for input. Before it does, everything that was gathered is written.
func (c *conn) read(p []byte) (int, error) {
	for {
		if err := c.out.flush(); err != nil {
			return 0, err
		}
		if err := c.setReadDeadline(); err != nil {
			return 0, err
		}
		n, err := c.nc.Read(p)
		if n > 0 {
			c.asked = false
			return n, nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		if c.asked || c.loggingInNow() {
			return 0, errSilent
		}
		if err := c.ping(); err != nil {
			return 0, err
		}
	}
}

// loggingInNow tells whether the login is not over, for the goroutine itself.
func (c *conn) loggingInNow() bool { return c.login.Initiator == "" }

func (c *conn) setReadDeadline() error {
	at := c.deadline
	switch {
	case c.asked:
		at = time.Now().Add(c.srv.opts.KeepaliveWait)
	case !c.loggingInNow():
		at = time.Now().Add(c.srv.opts.KeepaliveIdle)
	}
	if err := c.nc.SetReadDeadline(at); err != nil {
		return err
	}
	return context.Cause(c.ctx) // end() may have set its own deadline before
}

// ping asks a silent initiator whether it is still there.
func (c *conn) ping() error {
	c.asked = true
	m := pdu.NOPIn{TTT: c.nextTag()}
	m.ITT = pdu.Reserved
	m.StatSN, m.ExpCmdSN, m.MaxCmdSN = c.statSN, c.window.ExpCmdSN, c.window.Max()
	return c.out.put(&m, nil)
}

// write sends what was gathered. An initiator that takes nothing for as long
// as it may be silent has gone.
func (c *conn) write(p *net.Buffers) error {
	c.gathered = time.Time{}
	if err := c.nc.SetWriteDeadline(time.Now().Add(c.srv.opts.KeepaliveIdle + c.srv.opts.KeepaliveWait)); err != nil {
		return err
	}
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	_, err := p.WriteTo(c.nc)
	return err
}

// buffer gives room for the data-in of the command that runs.
func (c *conn) buffer(n int) []byte {
	c.inBuf = c.srv.buffers.get(n)
	return c.inBuf.data(n)
}

func (c *conn) nextTag() uint32 {
	c.tag++
	if c.tag == pdu.Reserved {
		c.tag = 1
	}
	return c.tag
}

// stamp gives the sequence numbers of a PDU with a status, and counts it.
func (c *conn) stamp() (statSN, expCmdSN, maxCmdSN uint32) {
	statSN = c.statSN
	c.statSN++
	return statSN, c.window.ExpCmdSN, c.window.Max()
}

// info is a copy of what the session does. The caller holds the server's lock.
func (c *conn) info() iscsi.SessionInfo {
	out := iscsi.SessionInfo{
		Initiator: c.nexus.Initiator, ISID: c.nexus.ISID, Target: c.nexus.Target,
		Portal: c.local, Device: c.lis.at.device, Remote: c.remote, Since: c.since,
		LUNs: slices.Sorted(maps.Keys(c.units)),
	}
	if c.account != nil {
		out.DigestErrors, out.Stats = c.account.digestErrors.Load(), c.account.stats()
	}
	return out
}
