package target

import (
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// accept starts serving a connection, when there is room for it.
func (s *Server) accept(l *listener, nc *net.TCPConn) {
	c := newConn(s, l, nc)
	if why := s.admit(c); why != "" {
		s.refuse(l, nc, why)
		return
	}
	s.running.Go(c.serve)
}

// admit counts a connection in, or says why not.
func (s *Server) admit(c *conn) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	from, total := c.remote.Addr(), 0
	for _, n := range s.logins {
		total += n
	}
	switch {
	case s.closed:
		return "the server stops"
	case len(s.conns) >= s.opts.MaxConns:
		return "too many connections"
	case total >= s.opts.MaxLogins:
		return "too many connections that are not logged in"
	case s.logins[from] >= max(1, s.opts.MaxLogins/8):
		return "too many connections from this address that are not logged in"
	}
	s.conns[c] = true
	s.logins[from]++
	c.loggingIn = true
	return ""
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
func (s *Server) refuse(l *listener, nc *net.TCPConn, why string) {
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
