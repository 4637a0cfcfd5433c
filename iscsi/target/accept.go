package target

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"ripstop/iscsi/login"
	"ripstop/iscsi/scsi"
)

// accept starts serving a connection, when there is room for it.
func (s *Server) accept(l *listener, nc net.Conn) {
	c := newConn(s, l, nc)
	if why := s.admit(c); why != "" {
		s.refuse(l, nc, why)
		return
	}
	s.running.Go(c.serve)
}

// admit counts a connection in, or says why not. Where it is one too many that
// is not logged in, the oldest of those of the busiest address gives way: who
// opens connections and stays silent keeps nobody out, whatever his address.
func (s *Server) admit(c *conn) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	from := c.remote.Addr()
	switch {
	case s.closed:
		return "the server stops"
	case len(s.conns) >= s.opts.MaxConns:
		return "too many connections"
	case s.connsFrom(from) >= s.opts.MaxPerAddress:
		return "too many connections from this address"
	case s.logins[from] >= max(1, s.opts.MaxLogins/8):
		s.giveWay(from)
	case s.loginsInAll() >= s.opts.MaxLogins:
		s.giveWay(s.busiest())
	}
	s.conns[c] = true
	s.logins[from]++
	c.loggingIn = true
	return ""
}

func (s *Server) connsFrom(from netip.Addr) int {
	n := 0
	for c := range s.conns {
		if c.remote.Addr() == from {
			n++
		}
	}
	return n
}

func (s *Server) loginsInAll() int {
	total := 0
	for _, n := range s.logins {
		total += n
	}
	return total
}

// busiest is the address with the most connections that are not logged in.
func (s *Server) busiest() netip.Addr {
	var most netip.Addr
	for from, n := range s.logins {
		if n > s.logins[most] || n == s.logins[most] && from.Less(most) {
			most = from
		}
	}
	return most
}

// giveWay ends the oldest connection from an address that is not logged in.
func (s *Server) giveWay(from netip.Addr) {
	var oldest *conn
	for c := range s.conns {
		if c.loggingIn && c.remote.Addr() == from && (oldest == nil || c.deadline.Before(oldest.deadline)) {
			oldest = c
		}
	}
	if oldest != nil {
		s.loggedIn(oldest)
		oldest.end("it gives way to a newer connection: too many are not logged in")
	}
}

// roomFor refuses an initiator that has as many sessions as it may, but for
// those that the new one may replace. The caller holds the lock.
func (s *Server) roomFor(id scsi.Nexus) error {
	sessions := 0
	for n := range s.sessions {
		if n.id.Initiator == id.Initiator && (n.scsi == nil || n.id.ISID != id.ISID) {
			sessions++
		}
	}
	if sessions >= s.opts.MaxPerInitiator {
		return login.Refuse(login.OutOfResources, "the initiator has %d sessions already", sessions)
	}
	return nil
}

// loggedIn ends the login phase of a connection. The caller holds the lock.
func (s *Server) loggedIn(c *conn) {
	if !c.loggingIn {
		return
	}
	c.loggingIn = false
	from := c.remote.Addr()
	if s.logins[from]--; s.logins[from] == 0 {
		delete(s.logins, from)
	}
}

// refuse closes a connection before a byte of it is read.
func (s *Server) refuse(l *listener, nc net.Conn, why string) {
	s.refused.warn(s.log, "refused connection", "address", nc.RemoteAddr().String(), "portal", l.at.String(), "reason", why)
	if err := nc.Close(); err != nil {
		s.log.Debug("close refused connection", "error", err)
	}
}

// limiter lets a burst of log lines through and then a few each second, so
// that a flood of refusals fills no disk. It counts what it holds back.
type limiter struct {
	mu     sync.Mutex
	tokens float64
	since  time.Time
	held   int
}

const (
	logBurst     = 50
	logPerSecond = 5
)

func (r *limiter) warn(log *slog.Logger, msg string, args ...any) {
	r.mu.Lock()
	now := time.Now()
	if r.since.IsZero() {
		r.tokens = logBurst
	} else {
		r.tokens = min(logBurst, r.tokens+logPerSecond*now.Sub(r.since).Seconds())
	}
	r.since = now
	if r.tokens < 1 {
		r.held++
		r.mu.Unlock()
		return
	}
	r.tokens--
	if r.held > 0 {
		args = append(args, "held_back", r.held)
		r.held = 0
	}
	r.mu.Unlock()
	log.Warn(msg, args...)
}

// addrPort is a TCP address without the IPv4-in-IPv6 form.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}
