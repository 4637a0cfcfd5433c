package target

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ripstop/iscsi"
	"ripstop/iscsi/login"
	"ripstop/iscsi/scsi"
)

// Options are what a Server needs from outside and the limits that it keeps.
// A zero limit takes the value that its comment names.
type Options struct {
	// LookupUnit gives the device of a LUN by its name in the file. As long as
	// the LUN stays in service it gives the same, comparable value.
	LookupUnit func(name string) (scsi.Device, error)

	// PeerKey, when set, gives the public key of the peer by which packets from an
	// address come out of a tunnel now, zero when none has it.
	PeerKey func(tunnel string, from netip.Addr) ([32]byte, error)

	// Listen listens inside a tunnel that has no interface on the host. Its Accept
	// says net.ErrClosed when the tunnel has gone.
	Listen func(tunnel string, at netip.AddrPort) (net.Listener, error)

	// Reap, when set, ends what devices have completed. It is called where a
	// connection's thread wakes, perhaps for that, and must not wait.
	Reap func() bool

	// Plug and Unplug, when set, stand around the beginning of several commands,
	// which need not be handed to the kernel until Unplug. They must not wait.
	Plug, Unplug func()

	// Keeper keeps reservations and mode pages over restarts. Nil keeps none, and
	// initiators are told so.
	Keeper scsi.Keeper

	LoginTimeout    time.Duration // from accept to the end of login: 15 s
	KeepaliveIdle   time.Duration // silence before the target asks with a NOP-In: 15 s
	KeepaliveWait   time.Duration // silence after that before it hangs up: 15 s
	LogoutWait      time.Duration // in which an initiator may log out of what was taken from it: 3 s
	MaxConns        int           // connections in all: 1024
	MaxPerAddress   int           // connections from one address: half of MaxConns
	MaxPerInitiator int           // sessions of one initiator, discovery among them: a quarter of MaxConns
	MaxLogins       int           // connections that are not logged in yet: 128, an eighth of them from one address
	MaxData         int           // bytes of data that one command, and all of a session, may hold: 64 MiB
}

func (o Options) withDefaults() Options {
	if o.Reap == nil {
		o.Reap = func() bool { return false }
	}
	if o.Plug == nil || o.Unplug == nil {
		o.Plug, o.Unplug = func() {}, func() {}
	}
	o.LoginTimeout = cmp.Or(o.LoginTimeout, 15*time.Second)
	o.KeepaliveIdle = cmp.Or(o.KeepaliveIdle, 15*time.Second)
	o.KeepaliveWait = cmp.Or(o.KeepaliveWait, 15*time.Second)
	o.LogoutWait = cmp.Or(o.LogoutWait, 3*time.Second)
	o.MaxConns = cmp.Or(o.MaxConns, 1024)
	o.MaxPerAddress = cmp.Or(o.MaxPerAddress, max(1, o.MaxConns/2))
	o.MaxPerInitiator = cmp.Or(o.MaxPerInitiator, max(1, o.MaxConns/4))
	o.MaxLogins = cmp.Or(o.MaxLogins, 128)
	o.MaxData = cmp.Or(o.MaxData, 64<<20)
	return o
}

// Server serves the targets of one host. It is safe for concurrent use.
type Server struct {
	log        *slog.Logger
	opts       Options
	table      atomic.Pointer[table] // read without the lock
	buffers    pool
	refused    limiter // of log lines about refusals
	challenges login.Challenges
	panics     atomic.Uint64
	threads    threads
	running    sync.WaitGroup // listeners and connections

	mu        sync.Mutex // guards what follows, and publishing the table
	closed    bool
	units     map[string]*unit
	withheld  map[string]int // LUNs that nobody new may see, by whoever holds them back
	listeners map[where]*listener
	doors     map[netip.AddrPort]*listener
	conns     map[*conn]bool
	logins    map[netip.Addr]int // connections before the end of login, by source
	sessions  map[*nexus]bool
	nexuses   map[scsi.Nexus]*nexus // the sessions that are not for discovery
	tsih      uint16                // the last that was given
	books     map[string]*books     // by lower-case target name
}

// New makes a server without targets. Close it after use.
func New(log *slog.Logger, opts Options) *Server {
	s := &Server{
		log: log, opts: opts.withDefaults(),
		units: map[string]*unit{}, withheld: map[string]int{}, listeners: map[where]*listener{}, doors: map[netip.AddrPort]*listener{},
		conns: map[*conn]bool{}, logins: map[netip.Addr]int{},
		sessions: map[*nexus]bool{}, nexuses: map[scsi.Nexus]*nexus{}, books: map[string]*books{},
	}
	s.table.Store(&table{})
	s.threads.most, s.threads.brisk = int32(runtime.GOMAXPROCS(0)/2), briskWait
	return s
}

// ErrClosed is what a closed server says to every step.
var ErrClosed = errors.New("the iSCSI server is closed")

// Observe is the state that is being served: portals that listen, LUNs whose
// device is in service, and all accounts.
func (s *Server) Observe(ctx context.Context) (iscsi.State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := iscsi.State{Targets: map[string]iscsi.Target{}}
	for _, e := range *s.table.Load() {
		t := e.target
		t.Portals = slices.DeleteFunc(slices.Clone(t.Portals), func(p iscsi.Portal) bool {
			l := s.listeners[placeOf(p)]
			return l == nil || l.stale()
		})
		t.Initiators = maps.Clone(t.Initiators)
		t.LUNs = map[uint16]string{}
		for n, u := range e.units {
			if dev, err := s.opts.LookupUnit(u.name); err == nil && dev == u.dev {
				t.LUNs[n] = u.name
			}
		}
		out.Targets[e.name] = t
	}
	return out, ctx.Err()
}

// Do carries out one step of iscsi.Diff. What of it can be done is done: an
// error names the portals that cannot listen yet and the LUNs that are not in
// service, and the next Observe shows the target without them.
func (s *Server) Do(ctx context.Context, step iscsi.Step) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	switch step := step.(type) {
	case iscsi.Dismiss:
		err := s.set(ctx, step.Name, step.To)
		s.awaitLeaving(ctx, step.Name)
		return err
	case iscsi.AddTarget:
		return s.set(ctx, step.Name, step.Target)
	case iscsi.SetTarget:
		return s.set(ctx, step.Name, step.To)
	case iscsi.DelTarget:
		return s.del(ctx, step.Name)
	}
	return fmt.Errorf("do %T: not a step of targets", step)
}

// set makes the named target what want says. The caller holds the lock.
func (s *Server) set(ctx context.Context, name string, want iscsi.Target) error {
	next := maps.Clone(*s.table.Load())
	e, err := s.prepare(ctx, name, want)
	next[strings.ToLower(name)] = e
	return errors.Join(err, s.publish(ctx, next, e))
}

// awaitLeaving waits, without the lock, until the connections to a target have ended
// that were asked to.
func (s *Server) awaitLeaving(ctx context.Context, name string) {
	var leaving []*conn
	for c := range s.conns {
		if c.leaving != nil && c.nexus != nil && strings.EqualFold(c.nexus.id.Target, name) {
			leaving = append(leaving, c)
		}
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	for _, c := range leaving {
		select {
		case <-c.done: // at the end of LogoutWait, if not before
		case <-ctx.Done():
			return
		}
	}
}

// del takes the named target away. The caller holds the lock.
func (s *Server) del(ctx context.Context, name string) error {
	next := maps.Clone(*s.table.Load())
	delete(next, strings.ToLower(name))
	return s.publish(ctx, next, &entry{name: name})
}

// publish makes a table with the changed entry e the one that is served, and
// lets go of what nothing in it uses.
func (s *Server) publish(ctx context.Context, next table, e *entry) error {
	key := strings.ToLower(e.name)
	old := (*s.table.Load())[key]
	s.table.Store(&next)
	s.reviseBooks(next)
	s.reviseSessions(key, old, e)
	s.dropUnits()
	return s.closeUnused(ctx)
}

// prepare opens the portals and looks up the LUNs of a target. The entry has
// those that could be had.
func (s *Server) prepare(ctx context.Context, name string, want iscsi.Target) (*entry, error) {
	var errs []error
	e := &entry{name: name, units: map[uint16]*unit{}, target: iscsi.Target{
		LUNs: map[uint16]string{}, Initiators: maps.Clone(want.Initiators), Any: want.Any}}
	for _, p := range want.Portals {
		if err := s.listen(ctx, placeOf(p)); err != nil {
			errs = append(errs, err)
			continue
		}
		e.target.Portals = append(e.target.Portals, p)
	}
	for _, n := range slices.Sorted(maps.Keys(want.LUNs)) {
		u, err := s.lookup(want.LUNs[n])
		if err != nil {
			errs = append(errs, fmt.Errorf("map LUN %d of %s: %w", n, name, err))
			continue
		}
		e.units[n], e.target.LUNs[n] = u, u.name
	}
	return e, errors.Join(errs...)
}

// lookup gives the unit of a LUN, a new one when its device was replaced.
func (s *Server) lookup(name string) (*unit, error) {
	if s.withheld[name] > 0 {
		return nil, errWithheld(name)
	}
	dev, err := s.opts.LookupUnit(name)
	if err != nil {
		return nil, err
	}
	if u := s.units[name]; u != nil && u.dev == dev {
		return u, nil
	}
	logical, err := scsi.OpenUnit(dev, s.opts.Keeper)
	if err != nil {
		return nil, err
	}
	if old := s.units[name]; old != nil {
		old.scsi.Close()
	}
	u := &unit{name: name, dev: dev, scsi: logical}
	s.units[name] = u
	return u, nil
}

// dropUnits forgets units that no target maps any more.
func (s *Server) dropUnits() {
	used := map[string]bool{}
	for _, e := range *s.table.Load() {
		for _, u := range e.units {
			used[u.name] = true
		}
	}
	maps.DeleteFunc(s.units, func(name string, u *unit) bool {
		if !used[name] {
			u.scsi.Close()
		}
		return !used[name]
	})
}

// reviseSessions ends the sessions of a target that its new form does not
// allow, and gives the others their LUNs. The caller holds the lock.
func (s *Server) reviseSessions(key string, old, e *entry) {
	if old == nil {
		return
	}
	step := iscsi.SetTarget{Name: e.name, From: old.target, To: e.target}
	for n := range s.sessions {
		if strings.ToLower(n.id.Target) == key {
			n.revise(step, e)
		}
	}
}

// revise retires the connections that the step does not allow. When none is left
// the units go at once. The caller holds the server's lock.
func (n *nexus) revise(step iscsi.SetTarget, e *entry) {
	account, ok := e.target.Admit(n.id.Initiator)
	stays := false
	for _, c := range n.conns {
		if !ok || step.Ends(n.id.Initiator, c.portal, c.from) {
			c.retire("the target is no longer open to it")
		}
		stays = stays || c.leaving == nil
	}
	units := map[uint16]*unit{}
	if stays {
		units = e.visible(account)
	}
	if !maps.Equal(units, n.units) {
		n.units = units
		n.scsi.SetUnits(scsiUnits(units))
		n.account.revise(units)
	}
}

// Resized tells every session that sees the LUN that its size changed.
func (s *Server) Resized(lun string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u := s.units[lun]; u != nil {
		u.scsi.Resized()
	}
}

// Withhold keeps a LUN that no session sees from everybody until release is
// called: a login that would see it is told to come back later, and no target
// begins to serve it. Where sessions see it, those are the answer, each with the
// numbers under which it does, and nothing is withheld.
func (s *Server) Withhold(lun string) (release func(), users []iscsi.SessionInfo) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.sessions {
		var at []uint16
		for _, number := range slices.Sorted(maps.Keys(n.units)) {
			if n.units[number].name == lun {
				at = append(at, number)
			}
		}
		if len(at) > 0 {
			info := n.info()
			info.LUNs = at
			users = append(users, info)
		}
	}
	if len(users) > 0 {
		return func() {}, users
	}
	s.withheld[lun]++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.withheld[lun]--; s.withheld[lun] == 0 {
			delete(s.withheld, lun)
		}
	}), nil
}

// mayEnter refuses a session that would see what is withheld. The caller holds the
// lock.
func (s *Server) mayEnter(units map[uint16]*unit) error {
	for _, u := range units {
		if s.withheld[u.name] > 0 {
			return login.Refuse(login.Unavailable, "%v", errWithheld(u.name))
		}
	}
	return nil
}

func errWithheld(lun string) error {
	return fmt.Errorf("LUN %s is being restored: it is served again in a moment", lun)
}

// Sessions lists the sessions, sorted by target, initiator and time.
func (s *Server) Sessions() []iscsi.SessionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []iscsi.SessionInfo{}
	for n := range s.sessions {
		if len(n.conns) > 0 {
			out = append(out, n.info())
		}
	}
	slices.SortFunc(out, func(a, b iscsi.SessionInfo) int {
		return cmp.Or(strings.Compare(a.Target, b.Target), strings.Compare(a.Initiator, b.Initiator), a.Since.Compare(b.Since))
	})
	return out
}

// Panics counts connections and commands that ended by a fault of this program.
func (s *Server) Panics() uint64 { return s.panics.Load() }

// fault counts and logs a panic.
func (s *Server) fault(log *slog.Logger, what string, value any, stack []byte) {
	s.panics.Add(1)
	log.Error(what, "panic", fmt.Sprint(value), "stack", string(stack))
}

// Close stops listening, ends every connection, and waits for them. Nobody is
// asked to log out: initiators may come back at once, to the next server here.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.table.Store(&table{})
	var errs []error
	for _, l := range s.listeners {
		errs = append(errs, l.close())
	}
	for _, l := range s.doors {
		errs = append(errs, l.close())
	}
	for c := range s.conns {
		c.end("the server stops")
	}
	clear(s.listeners)
	clear(s.doors)
	s.mu.Unlock()
	s.running.Wait()
	for _, u := range s.units {
		u.scsi.Close()
	}
	return errors.Join(errs...)
}
