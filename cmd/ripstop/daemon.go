package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"ripstop/api/server"
	v1 "ripstop/api/v1"
	"ripstop/controller"
	"ripstop/controller/beside"
	"ripstop/controller/commit"
	"ripstop/controller/config"
	"ripstop/controller/revision"
	"ripstop/internal/join"
	"ripstop/internal/run"
	"ripstop/lun"
	"ripstop/vpn"
)

// daemon is what up and serve have in common: drivers, the controller over
// them, and the interface through which clients reach it.
type daemon struct {
	log      *slog.Logger
	drivers  *drivers
	ctl      *controller.Controller
	commit   *commit.Committer
	beside   *beside.Store
	tokens   *join.Book
	door     *join.Door
	fileName func(config.File) string // as who wrote it called it
	host     controller.Host
	name     string // of the host in a fabric
	lock     *os.File
	claim    net.Listener
	listener net.Listener
	started  time.Time

	work     work          // long operations
	change   sync.Mutex    // held while a configuration is applied and kept, so that the last of both is one
	moveWake chan struct{} // a move was begun

	mu      sync.Mutex // guards what follows
	current *config.Config
	objects beside.Objects  // that verbs made
	working map[string]bool // unfinished objects of which a verb is under way
	moving  map[string]*movement
	exports map[string]int // under way, by LUN
}

// open makes a daemon that serves nothing yet. It holds the state directory and
// the socket until close.
func open(ctx context.Context, g *global, log *slog.Logger) (*daemon, error) {
	state, err := filepath.Abs(g.state)
	if err != nil {
		return nil, fmt.Errorf("--state %s: %w", g.state, err)
	}
	d := &daemon{log: log, name: g.host, started: time.Now(), current: &config.Config{}}
	revisions, err := revision.Open(state)
	if err != nil {
		return nil, err
	}
	if d.lock, err = lockState(state); err != nil {
		return nil, err
	}
	d.beside = beside.Open(filepath.Join(state, "verbs"))
	if d.objects, err = d.beside.Load(); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	if d.tokens, err = join.OpenBook(filepath.Join(state, "join")); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	d.fileName = revisions.Name
	d.door = join.NewDoor(ctx, log, d.tokens, join.Daemon{Files: d.filesFor, Admit: d.admit})
	if d.listener, err = listen(g.socket); err != nil {
		return nil, errors.Join(err, d.lock.Close())
	}
	if d.claim, err = claimNamespace(); err != nil {
		return nil, errors.Join(err, d.listener.Close(), d.lock.Close())
	}
	if d.drivers, err = newDrivers(log, state); err != nil {
		return nil, errors.Join(err, d.claim.Close(), d.listener.Close(), d.lock.Close())
	}
	d.host = controller.Host{
		StateDir:   state,
		Dataplane:  d.drivers.dataplane(ctx),
		Works:      d.drivers.works(ctx),
		PoolKind:   d.drivers.poolKind(ctx),
		ReadSecret: config.ReadSecret,
		PrivateKey: config.PrivateKey,
		LookupUser: lookupUser,
		VNIFree:    d.drivers.bgp.Free,
		TunnelMTU:  func(name string, t vpn.Tunnel) (int, string) { return d.drivers.vpn.Fit(ctx, name, t) },
		Carries:    d.drivers.vpn.Carries,
	}
	for name, m := range d.objects.Moves {
		if m.Phase == beside.Done {
			d.drivers.lun.Expect(name, lun.Moved{From: m.From, To: m.To, ID: m.ID})
		}
	}
	d.moving, d.moveWake = map[string]*movement{}, make(chan struct{}, 1)
	d.ctl = controller.New(log, d.drivers.wake, d.drivers.parts()...)
	d.commit = commit.New(log, revisions, commit.Host{Name: g.host, Carry: d.carry, Check: d.check, Kept: d.adopt})
	return d, nil
}

// lockState makes sure that one daemon alone works on a state directory.
func lockState(state string) (*os.File, error) {
	name := filepath.Join(state, "lock")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w: another daemon uses this state directory; stop it or name another one with --state", name, err), f.Close())
	}
	return f, nil
}

// claimNamespace makes sure that one daemon alone works in a network namespace:
// two would take each other's devices for leftovers. Abstract unix sockets are
// one name space for each network namespace (unix(7)), and end with the process.
func claimNamespace() (net.Listener, error) {
	l, err := net.Listen("unix", "@ripstop")
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, errors.New("start: another daemon works in this network namespace: stop it, or start this one in a namespace of its own")
	}
	return l, err
}

// listen takes the unix socket, replacing one that a dead daemon left.
func listen(socket string) (net.Listener, error) {
	if c, err := net.Dial("unix", socket); err == nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: another daemon answers there: stop it or name another socket with --socket", socket), c.Close())
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, fmt.Errorf("listen on %s: %w: name a writable place with --socket", socket, err)
	}
	if i, err := os.Lstat(socket); err == nil && i.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(socket); err != nil {
			return nil, fmt.Errorf("remove the socket of a dead daemon: %w", err)
		}
	}
	// The mode must hold from the first moment: connecting is all that it takes
	// to change the host.
	old := syscall.Umask(0o117)
	l, err := net.Listen("unix", socket)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w: name a writable place with --socket", socket, err)
	}
	return l, nil
}

// tasks is what runs as long as the daemon does.
func (d *daemon) tasks() []run.Task {
	handler := server.Handler(d.backend())
	return append(d.drivers.tasks(), d.tidy(), d.moves(), d.door.Task(),
		run.Task{Name: "controller", Run: func(ctx context.Context, ready func()) error {
			ready()
			return d.ctl.Run(ctx)
		}},
		run.Task{Name: "confirm", Run: func(ctx context.Context, ready func()) error {
			ready()
			return d.commit.Run(ctx, &d.change)
		}},
		run.Task{Name: "api", Run: func(ctx context.Context, ready func()) error {
			ready()
			return server.Serve(ctx, d.listener, handler, d.log)
		}},
	)
}

// close lets go of everything that the process holds. What the kernel holds
// stays: taking that down is Apply(Nothing).
func (d *daemon) close() error {
	closed := d.listener.Close()
	if errors.Is(closed, net.ErrClosed) { // the api task has closed it
		closed = nil
	}
	return errors.Join(d.drivers.close(), closed, d.claim.Close(), d.lock.Close())
}

// source resolves c, and what verbs made beside it, anew for each pass.
func (d *daemon) source(c *config.Config, o beside.Objects) controller.Source {
	all, missing := o.Merge(c)
	missing = append(missing, d.withoutUnfinished(all, c, o)...)
	return func() (controller.Desired, []controller.Problem) {
		desired, problems := controller.Resolve(all, d.host)
		for _, m := range missing {
			problems = append(problems, controller.Problem{Object: m.Object, Err: m.Err})
		}
		return desired, problems
	}
}

// parse turns files into the configuration of a host, or into the answer that says
// why not.
func parse(files []config.File, host string) (*config.Config, []string, error) {
	c, warnings, err := config.ParseFor(files, host)
	if err != nil {
		return nil, nil, invalid(err)
	}
	return c, texts(warnings), nil
}

// invalid is the error of a configuration in the API's words.
func invalid(err error) error {
	var bad config.Errors
	if errors.As(err, &bad) {
		return &v1.Error{Title: "invalid configuration", Status: http.StatusUnprocessableEntity, Detail: bad.Error(), Faults: faults(bad)}
	}
	return err
}

// apply makes c the configuration, with o beside it, and carries it out.
func (d *daemon) apply(ctx context.Context, c *config.Config, o beside.Objects, mode controller.Mode) controller.Report {
	rep := d.ctl.Apply(ctx, d.source(c, o), mode)
	if !rep.RolledBack {
		d.mu.Lock()
		d.current, d.objects = c, o
		d.mu.Unlock()
	}
	return rep
}

// logLevel is what --log-level names.
func (g *global) logLevel() (slog.Level, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(g.level)); err != nil {
		return l, fmt.Errorf("--log-level %s: no such level: write debug, info, warn or error", g.level)
	}
	return l, nil
}

// unwell says which objects are not ready, one a line.
func unwell(objects []controller.Object) string {
	var b strings.Builder
	for _, o := range objects {
		fmt.Fprintf(&b, "%s %s: %s\n", o.ID, o.Condition, o.Reason)
	}
	return b.String()
}
