package target

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/iscsi"
)

// where is a place to listen: an address, and the interface through which
// connections must come.
type where struct {
	addr   netip.AddrPort
	device string
	user   bool // device is a tunnel without an interface
}

func placeOf(p iscsi.Portal) where { return where{p.Address, p.Device, p.User} }

// String is the portal's notation.
func (w where) String() string { return iscsi.Portal{Address: w.addr, Device: w.device}.String() }

// listener accepts the connections of one place for all targets that are
// served there. A door stands beside listeners that are bound to a device and
// takes what comes through any other one, only to refuse it: the kernel gives
// a connection to the unbound socket when no bound one matches its interface.
// Without a door such a connection would be reset without a trace.
type listener struct {
	srv    *Server
	at     where
	index  int // of the interface when the socket was bound to it, 0 for none
	door   bool
	nl     net.Listener
	ctx    context.Context
	closed chan struct{}
	gone   atomic.Bool // with the tunnel
}

// listen makes sure that there is a listener at a place, and a door when it is
// bound to a device. The caller holds the server's lock.
func (s *Server) listen(ctx context.Context, at where) error {
	if l := s.listeners[at]; l != nil {
		if !l.stale() {
			return nil
		}
		delete(s.listeners, at)
		if err := l.close(); err != nil {
			return err
		}
	}
	if at.user {
		return s.listenInside(ctx, at)
	}
	if !s.knows(at.addr) {
		if err := probe(at.addr); err != nil {
			return explain(at, err)
		}
	}
	if at.device != "" {
		if err := s.openDoor(ctx, at.addr); err != nil {
			return err
		}
	} else if door := s.doors[at.addr]; door != nil {
		delete(s.doors, at.addr)
		if err := door.close(); err != nil {
			return err
		}
	}
	l, err := s.open(ctx, at, false)
	if err != nil {
		return explain(at, err)
	}
	s.listeners[at] = l
	s.log.Debug("listening", "portal", at.String())
	return nil
}

// listenInside listens in a tunnel without an interface, where nobody else does.
func (s *Server) listenInside(ctx context.Context, at where) error {
	nl, err := s.opts.Listen(at.device, at.addr)
	if err != nil {
		return err
	}
	l := &listener{srv: s, at: at, nl: nl, ctx: context.WithoutCancel(ctx), closed: make(chan struct{})}
	s.running.Go(l.serve)
	s.listeners[at] = l
	s.log.Debug("listening", "portal", at.String())
	return nil
}

// knows tells whether the server itself listens where a socket at addr would be
// in the way.
func (s *Server) knows(addr netip.AddrPort) bool { return len(s.beside(addr)) > 0 }

// beside is the listeners and doors whose addresses overlap with addr.
func (s *Server) beside(addr netip.AddrPort) []*listener {
	var out []*listener
	for at, l := range s.listeners {
		if !at.user && overlap(at.addr, addr) {
			out = append(out, l)
		}
	}
	for at, l := range s.doors {
		if overlap(at, addr) {
			out = append(out, l)
		}
	}
	return out
}

func overlap(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Is4() == b.Addr().Is4() &&
		(a == b || a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}

// openDoor opens the door of an address that is listened on through devices
// only, unless it stands already.
func (s *Server) openDoor(ctx context.Context, addr netip.AddrPort) error {
	if s.doors[addr] != nil || s.listeners[where{addr: addr}] != nil {
		return nil
	}
	l, err := s.open(ctx, where{addr: addr}, true)
	if err != nil {
		return explain(where{addr: addr}, err)
	}
	s.doors[addr] = l
	return nil
}

// closeUnused closes listeners that no target has any more, with their
// discovery sessions, and keeps the doors in step. The caller holds the lock.
func (s *Server) closeUnused(ctx context.Context) error {
	used := map[where]bool{}
	bound := map[netip.AddrPort]bool{}
	for _, e := range *s.table.Load() {
		for _, p := range e.target.Portals {
			used[placeOf(p)] = true
			bound[p.Address] = bound[p.Address] || p.Device != "" && !p.User
		}
	}
	var errs []error
	for at, l := range s.listeners {
		if used[at] {
			continue
		}
		delete(s.listeners, at)
		errs = append(errs, l.close())
		s.log.Debug("stopped listening", "portal", at.String())
		for c := range s.conns {
			switch {
			case c.lis != l:
			case c.nexus != nil && c.nexus.scsi != nil:
				c.retire("the portal is gone")
			default:
				c.end("the portal is gone")
			}
		}
	}
	for addr, l := range s.doors {
		if !bound[addr] {
			delete(s.doors, addr)
			errs = append(errs, l.close())
		}
	}
	for addr, needed := range bound {
		if needed {
			errs = append(errs, s.openDoor(ctx, addr))
		}
	}
	return errors.Join(errs...)
}

// open starts a listener. Its connections live as long as the server wants,
// not as long as ctx.
func (s *Server) open(ctx context.Context, at where, door bool) (*listener, error) {
	index, err := indexOf(at.device)
	if err != nil {
		return nil, err
	}
	if err := s.share(at.addr, true); err != nil {
		return nil, err
	}
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return prepareSocket(raw, at.device) }}
	lc.SetMultipathTCP(false) // a subflow may come through another interface
	nl, err := lc.Listen(ctx, network(at.addr), at.addr.String())
	if err != nil {
		return nil, errors.Join(err, s.share(at.addr, false))
	}
	l := &listener{srv: s, at: at, index: index, door: door, nl: nl, ctx: context.WithoutCancel(ctx), closed: make(chan struct{})}
	if err := errors.Join(l.share(false), s.share(at.addr, false)); err != nil {
		return nil, errors.Join(err, l.close())
	}
	s.running.Go(l.serve)
	return l, nil
}

// indexOf is the index of a device, 0 for none.
func indexOf(device string) (int, error) {
	if device == "" {
		return 0, nil
	}
	i, err := net.InterfaceByName(device)
	if err != nil {
		return 0, fmt.Errorf("bind to %s: %w", device, unix.ENODEV)
	}
	return i.Index, nil
}

// stale tells whether the listener hears nothing any more: a socket stays
// bound to an interface that was deleted, whatever takes its name.
func (l *listener) stale() bool {
	if l.at.user {
		return l.gone.Load()
	}
	index, err := indexOf(l.at.device)
	return err != nil || index != l.index
}

// share sets or clears SO_REUSEPORT on the listeners of an address. All must
// have it while one more binds. Afterwards none may: of listeners with it the
// kernel takes the first of its list that fits at all (inet_lhash2_lookup), of
// those without it the one that fits best, which is one bound to the
// connection's interface (compute_score; both in net/ipv4/inet_hashtables.c).
func (s *Server) share(addr netip.AddrPort, on bool) error {
	var errs []error
	for _, l := range s.beside(addr) {
		errs = append(errs, l.share(on))
	}
	return errors.Join(errs...)
}

func (l *listener) share(on bool) error {
	raw, err := l.nl.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	value := 0
	if on {
		value = 1
	}
	cerr := raw.Control(func(fd uintptr) {
		err = os.NewSyscallError("set SO_REUSEPORT", unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, value))
	})
	return errors.Join(cerr, err)
}

// prepareSocket lets bound and unbound sockets share an address.
func prepareSocket(raw syscall.RawConn, device string) error {
	var err error
	if cerr := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		if err == nil && device != "" {
			err = os.NewSyscallError("bind to "+device, unix.BindToDevice(int(fd), device))
		}
	}); cerr != nil {
		return cerr
	}
	return err
}

func network(a netip.AddrPort) string {
	if a.Addr().Is4() {
		return "tcp4"
	}
	return "tcp6" // and IPv6 only, so that both can stand beside each other
}

// probe tells whether the address is free of other programs. SO_REUSEPORT
// alone would share it with another program of the same user that sets it, and
// the kernel would deal the connections out between the two.
func probe(a netip.AddrPort) error {
	family, sa := sockaddr(a)
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil && family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	return errors.Join(os.NewSyscallError("bind", err), unix.Close(fd))
}

func sockaddr(a netip.AddrPort) (int, unix.Sockaddr) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if i, err := net.InterfaceByName(a.Addr().Zone()); err == nil {
		sa.ZoneId = uint32(i.Index)
	}
	return unix.AF_INET6, sa
}

// explain says what to do about an address that cannot be listened on.
func explain(at where, err error) error {
	hint := ""
	switch {
	case errors.Is(err, unix.EADDRNOTAVAIL):
		hint = ": the host does not have this address: give it to an interface"
	case errors.Is(err, unix.ENODEV):
		hint = ": the interface does not exist: create it"
	case errors.Is(err, unix.EADDRINUSE):
		hint = ": another program listens there: stop it or choose another port"
	}
	return fmt.Errorf("listen on %s: %w%s", at, err, hint)
}

// retryAccept is how long a listener rests when the kernel has no descriptor
// or memory for a connection.
const retryAccept = 100 * time.Millisecond

func (l *listener) serve() {
	for {
		nc, err := l.nl.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			l.gone.Store(true)
			return
		case err != nil:
			l.srv.refused.warn(l.srv.log, "cannot accept connections", "portal", l.at.String(), "error", err)
			select {
			case <-time.After(retryAccept):
			case <-l.closed:
				return
			}
		case l.door:
			l.srv.refuse(l, nc, "it came through another interface than the portal's")
		default:
			l.srv.accept(l, nc)
		}
	}
}

// close ends the listener; its goroutine follows.
func (l *listener) close() error {
	close(l.closed)
	if err := l.nl.Close(); err != nil {
		return fmt.Errorf("close %s: %w", l.at, err)
	}
	return nil
}
