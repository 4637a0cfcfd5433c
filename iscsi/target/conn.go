package target

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"ripstop/iscsi"
	"ripstop/iscsi/login"
	"ripstop/iscsi/pdu"
	"ripstop/iscsi/session"
)

// conn is one connection.
//
//	login ─► full feature ─► logout ─► closed
//	  └──────────┴── fault, end() ─────►▲
//
// Everything below "reader" belongs to that goroutine.
type conn struct {
	srv    *Server
	lis    *listener
	local  netip.AddrPort
	remote netip.AddrPort
	log    *slog.Logger
	wire   wire
	ctx    context.Context
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when the connection is through, with all its commands

	// Guarded by Server.mu; nexus is set once, by the reader.
	loggingIn bool
	dropped   bool   // the target ended it by itself; set by the reader at its end
	nexus     *nexus // nil before login
	cid       uint16
	portal    iscsi.Portal
	leaving   *time.Timer // it was asked to log out, and has until then

	later    later // the reader adds to it
	finished finished
	reaping  atomic.Bool    // the reader will look into finished at once
	wake     chan struct{}  // something is in finished
	stop     chan struct{}  // ends the writer
	writer   sync.WaitGroup // the goroutine
	lanes    sync.WaitGroup // commands that run beside the connection

	mu       sync.Mutex // orders what is written; guards what follows
	out      writer
	statSN   uint32
	maxRecv  int       // bytes in one data segment to the initiator
	owed     int       // bytes of the session's memory that come free with the next write
	answered time.Time // when the last answer was gathered
	gathered time.Time // when the oldest one that is not written was
	writeBy  time.Time // the deadline that is set
	dataIn   pdu.DataIn
	response pdu.SCSIResponse

	// reader
	from     iscsi.Origin // as the login found it
	askedKey bool
	in       reader
	deadline time.Time // of the login
	readBy   time.Time // the deadline that is set
	came     time.Time // when the last input came
	asked    bool      // a NOP-In waits for its answer
	login    login.Result
	limits   session.Limits
	tag      uint32 // the last target transfer tag
	spare    *task  // for the next command
	ordered  bool   // nexus.order is held
	text     textExchange
	dataOut  pdu.DataOut // decoded headers, here to save an allocation each
	r2t      pdu.R2T
	coder    pdu.Coder
}

func newConn(s *Server, l *listener, nc net.Conn) *conn {
	now := time.Now()
	c := &conn{srv: s, lis: l, wire: wire{threads: &s.threads, nc: nc, fd: -1}, local: addrPort(nc.LocalAddr()), remote: addrPort(nc.RemoteAddr()),
		done: make(chan struct{}), wake: make(chan struct{}, 1), stop: make(chan struct{}),
		statSN: 1, came: now, deadline: now.Add(s.opts.LoginTimeout)}
	c.ctx, c.cancel = context.WithCancelCause(l.ctx)
	c.log = s.log.With("address", c.remote.String(), "portal", l.at.String())
	digest := pdu.NewDigest()
	c.in = reader{read: c.read, digest: digest, maxData: loginData}
	c.out = writer{write: c.write, digest: digest, buffers: &s.buffers}
	return c
}

// origin is where the connection comes from. Whose key its packets come by is
// asked once, at the login: a tunnel that gives the address to another key takes
// the way from the connection.
func (c *conn) origin() iscsi.Origin {
	if !c.askedKey {
		c.askedKey = true
		c.from = iscsi.Origin{Device: c.lis.at.device, Address: c.remote.Addr()}
		if c.from.Device != "" && c.srv.opts.PeerKey != nil && c.srv.table.Load().bound(c.from.Device) {
			key, err := c.srv.opts.PeerKey(c.from.Device, c.from.Address)
			if err != nil {
				c.log.Debug("peer not found", "error", err)
			}
			c.from.Key = &key
		}
	}
	return c.from
}

// errEnd is why end ended a connection.
type errEnd string

func (e errEnd) Error() string { return string(e) }

// end closes the connection from outside; its goroutines follow.
func (c *conn) end(reason string) { c.fail(errEnd(reason)) }

// fail is end for a fault.
func (c *conn) fail(err error) {
	c.cancel(err)
	if err := c.wire.interrupt(); err != nil {
		c.log.Debug("set deadline", "error", err)
	}
	if n := c.nexus; n != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		n.changed.Broadcast()
	}
}

// recovered has a fault of this program end the connection and nothing else. It
// is to be deferred.
func (c *conn) recovered() {
	if r := recover(); r != nil {
		c.srv.fault(c.log, "connection ended by a fault of the program", r, debug.Stack())
		c.fail(errors.New("a fault of the program"))
	}
}

// serve runs the connection to its end.
func (c *conn) serve() {
	defer c.close()
	defer c.recovered()
	c.in.buf = make([]byte, loginBuffer)
	if !c.logIn() {
		return
	}
	err := c.fullFeature()
	if cause := context.Cause(c.ctx); cause != nil {
		err = cause
	}
	c.dropped = !ownWill(err)
	c.logEnd(err)
}

// ownWill tells whether the initiator itself ended a connection, or the target
// as a whole.
func ownWill(err error) bool {
	return err == nil || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.As(err, new(errEnd))
}

// logEnd says how a connection ended: what is not a matter of course as a warning.
func (c *conn) logEnd(err error) {
	log := c.log.With("initiator", c.login.Initiator, "target", c.login.Target)
	if c.login.CID != 0 {
		log = log.With("cid", c.login.CID)
	}
	switch {
	case err == nil:
		log.Info("session logged out")
	case errors.Is(err, io.EOF):
		log.Info("session ended", "reason", "the initiator closed the connection")
	case c.nexus.scsi == nil && errors.Is(err, syscall.ECONNRESET):
		// open-iscsi leaves a discovery session so, with our logout response unread.
		log.Debug("session ended", "reason", err.Error())
	case errors.As(err, new(errEnd)):
		log.Info("session ended", "reason", err.Error())
	default:
		log.Warn("session ended", "reason", err.Error())
	}
}

// close ends the commands of the connection, waits for them, and lets go of
// everything that it holds.
func (c *conn) close() {
	c.cancel(nil)
	c.leaveOrder()
	c.startAll()
	if err := c.wire.interrupt(); err != nil {
		c.log.Debug("set deadline", "error", err)
	}
	c.abandon()
	close(c.stop)
	c.writer.Wait()
	c.mu.Lock()
	c.collect(false) // which has no error
	c.out.release()
	c.nexus.release(c.owed)
	c.mu.Unlock()
	if err := c.wire.close(); err != nil {
		c.log.Debug("close connection", "error", err)
	}
	c.srv.leave(c)
	close(c.done)
}

// abandon ends the commands of the connection and waits until they have.
func (c *conn) abandon() {
	if c.nexus != nil {
		c.nexus.abandon(c)
	}
	c.lanes.Wait()
}

func (n *nexus) abandon(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.tasks {
		switch {
		case t.conn != c:
		case t.state == taskWaits:
			n.forgetLocked(t)
		case !t.ended.Load():
			t.aborted.Store(true)
			t.Abort()
		}
	}
}

// errSilent is the end of a session whose initiator does not answer.
var errSilent = errors.New("the initiator does not answer")

// read waits for input. Before it does, everything that is due is begun and written.
func (c *conn) read(p []byte) (int, error) {
	for {
		if err := c.catchUp(); err != nil {
			return 0, err
		}
		n, err := c.receive(p)
		if n > 0 {
			c.asked = false
			return n, nil
		}
		if err == errWoken {
			continue // with what reap left to be written
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		c.readBy = time.Time{}
		if cause := context.Cause(c.ctx); cause != nil {
			return 0, cause
		}
		if err := c.silent(); err != nil {
			return 0, err
		}
	}
}

// receive waits for input, in the way that fits the last waits.
func (c *conn) receive(p []byte) (int, error) {
	if c.wire.brisk() {
		if cause := context.Cause(c.ctx); cause != nil {
			return 0, cause
		}
		n, err := c.wire.read(p)
		switch {
		case n > 0:
			c.came = time.Now()
			if c.wire.crowded(c.came) {
				err = c.park()
			}
			return n, err
		case err == errWoken && time.Since(c.came) < briskMost:
			c.reap()
			return 0, err
		case err != nil && err != errWoken:
			return 0, err
		}
		if err := c.park(); err != nil {
			return 0, err
		}
		c.reap()
		return 0, errWoken
	}
	if err := c.setReadDeadline(); err != nil {
		return 0, err
	}
	began := time.Now()
	n, err := c.wire.nc.Read(p)
	if n > 0 {
		c.came = time.Now()
		if c.wire.noted(began, c.came) && c.mu.TryLock() { // nobody writes
			c.wire.detach()
			c.mu.Unlock()
		}
	}
	return n, err
}

// park takes the connection back into the poller, which knows no deadline.
func (c *conn) park() error {
	c.readBy = time.Time{}
	return c.wire.settle()
}

// reap ends what devices have completed, and tells whether that was anything. The
// answers among it that are this connection's do not wake its writer: the caller
// goes on to flush.
func (c *conn) reap() bool {
	c.reaping.Store(true)
	defer c.reaping.Store(false)
	return c.srv.opts.Reap()
}

// silent is called when the read deadline has passed.
func (c *conn) silent() error {
	switch {
	case c.asked || c.loggingInNow():
		return errSilent
	case time.Since(c.came) < c.srv.opts.KeepaliveIdle:
		return nil // something came since the deadline was set
	}
	return c.ping()
}

// loggingInNow tells whether the login is not over, for the reader itself.
func (c *conn) loggingInNow() bool { return c.login.Initiator == "" }

// setReadDeadline sets a deadline where there is none. One that is too early is
// left to pass: a new one for each read costs more.
func (c *conn) setReadDeadline() error {
	if !c.readBy.IsZero() {
		return nil
	}
	switch {
	case c.loggingInNow():
		c.readBy = c.deadline
	case c.asked:
		c.readBy = time.Now().Add(c.srv.opts.KeepaliveWait)
	default:
		c.readBy = c.came.Add(c.srv.opts.KeepaliveIdle)
	}
	if err := c.wire.nc.SetReadDeadline(c.readBy); err != nil {
		return err
	}
	return context.Cause(c.ctx) // end() may have set its own deadline before
}

// ping asks a silent initiator whether it is still there.
func (c *conn) ping() error {
	c.asked = true
	m := pdu.NOPIn{TTT: c.nextTag()}
	m.ITT = pdu.Reserved
	c.mu.Lock()
	defer c.mu.Unlock()
	m.StatSN = c.statSN
	m.ExpCmdSN, m.MaxCmdSN = c.nexus.windowNow()
	return c.out.put(&m, nil)
}

// write sends what was gathered. An initiator that takes nothing for as long
// as it may be silent, and half of that again, has gone. mu is held.
func (c *conn) write(p *net.Buffers) error {
	c.gathered = time.Time{}
	nc, fresh, err := c.wire.write(p)
	if err != nil || len(*p) == 0 {
		return err
	}
	if fresh {
		c.writeBy = time.Time{}
	}
	allowed := c.srv.opts.KeepaliveIdle + c.srv.opts.KeepaliveWait
	if now := time.Now(); c.writeBy.Sub(now) < allowed {
		c.writeBy = now.Add(allowed + allowed/2)
		if err := nc.SetWriteDeadline(c.writeBy); err != nil {
			return err
		}
	}
	if cause := context.Cause(c.ctx); cause != nil {
		return cause
	}
	c.startAll()
	if v, ok := nc.(buffersWriter); ok {
		return v.WriteBuffers(p)
	}
	_, err = p.WriteTo(nc)
	return err
}

// buffersWriter is a connection that writes several pieces at once in its own way.
type buffersWriter interface {
	WriteBuffers(*net.Buffers) error
}

func (c *conn) nextTag() uint32 {
	c.tag++
	if c.tag == pdu.Reserved {
		c.tag = 1
	}
	return c.tag
}

// stamp gives the sequence numbers of a PDU with a status, and counts it. mu is
// held.
func (c *conn) stamp() (statSN, expCmdSN, maxCmdSN uint32) {
	statSN = c.statSN
	c.statSN++
	expCmdSN, maxCmdSN = c.nexus.windowNow()
	return statSN, expCmdSN, maxCmdSN
}
