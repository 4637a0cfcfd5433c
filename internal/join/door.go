// Package join lets a new host into a fabric by a token that is good once.
//
//	ripstop host token ─► Book.Issue ─► Door listens    one TLS listener for each port of an open token, none without one
//	ripstop join ─► Dial ─► proof ─► Book.Host          the daemon is known by the key that the token pins, the host by the secret
//	                Join ─► Hello ─► Book.Use ─► Admit  used on disk before anything is done
//
// # Caveats
//
// Book keeps the hash of a secret and never a secret. Host, Admit and Files are called from
// several goroutines.
package join

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"ripstop/internal/run"
)

const (
	proofTime = 10 * time.Second // from connecting until the secret is proved
	talkTime  = 60 * time.Second // the whole conversation
	atOnce    = 64               // conversations

	tryBurst = 8           // connections from one address
	tryEvery = time.Second // that comes back after them
	tryMax   = 1024        // addresses that are remembered

	retryListen = 5 * time.Second
)

// Daemon is what a Door asks of the daemon.
type Daemon struct {
	// Files is the fabric's files, for a host.
	Files func(host string) ([]File, error)
	// Admit makes a host one of the fabric. It calls use when nothing speaks against
	// that any more, and does nothing when use fails.
	Admit func(ctx context.Context, host string, h Hello, use func() error) error
}

// Door listens for new hosts while a token is open. It is safe for concurrent use.
type Door struct {
	log    *slog.Logger
	book   *Book
	daemon Daemon
	tries  tries
	slots  chan struct{}
	wake   chan struct{}

	mu   sync.Mutex // guards what follows
	open map[uint16]net.Listener
	shut bool
	wait sync.WaitGroup
	ctx  context.Context
	end  context.CancelFunc
}

// NewDoor makes a door that is closed until its Task runs, or Look. Conversations end with
// ctx, too.
func NewDoor(ctx context.Context, log *slog.Logger, b *Book, d Daemon) *Door {
	ctx, end := context.WithCancel(ctx)
	return &Door{log: log, book: b, daemon: d, slots: make(chan struct{}, atOnce), wake: make(chan struct{}, 1), open: map[uint16]net.Listener{}, ctx: ctx, end: end}
}

// Task keeps the door open as long as tokens are.
func (d *Door) Task() run.Task {
	return run.Task{Name: "join", Run: func(ctx context.Context, ready func()) error {
		ready()
		defer d.close()
		for {
			var next <-chan time.Time
			now := time.Now()
			err := errors.Join(d.book.Expire(now), d.look())
			if err != nil {
				d.log.Warn("new hosts cannot join yet", "error", err)
				next = time.After(retryListen)
			} else if t := d.book.Open(now); len(t) > 0 {
				first := t[0].Expires
				for _, o := range t {
					if o.Expires.Before(first) {
						first = o.Expires
					}
				}
				next = time.After(first.Sub(now))
			}
			select {
			case <-ctx.Done():
				return nil
			case <-d.wake:
			case <-next:
			}
		}
	}}
}

// Look opens what an open token needs, and closes the rest: when the error is nil, at
// once. The Task hears of it, and looks again when the next token ends.
func (d *Door) Look() error {
	defer func() {
		select {
		case d.wake <- struct{}{}:
		default:
		}
	}()
	return d.look()
}

func (d *Door) look() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	want := map[uint16]bool{}
	for _, t := range d.book.Open(time.Now()) {
		want[t.Port] = !d.shut
	}
	var errs []error
	for port, l := range d.open {
		if !want[port] {
			errs = append(errs, l.Close())
			delete(d.open, port)
		}
	}
	for port, wanted := range want {
		if _, there := d.open[port]; there || !wanted {
			continue
		}
		l, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(int(port))))
		if err != nil {
			errs = append(errs, fmt.Errorf("listen for a new host: %w", err))
			continue
		}
		d.open[port] = l
		d.wait.Go(func() { d.serve(l) })
	}
	return errors.Join(errs...)
}

func (d *Door) close() {
	d.mu.Lock()
	d.shut = true
	d.mu.Unlock()
	if err := d.look(); err != nil {
		d.log.Warn("stop to wait for new hosts", "error", err)
	}
	d.end()
	d.wait.Wait()
}

func (d *Door) serve(l net.Listener) {
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			d.log.Warn("wait for a new host", "error", err)
			select {
			case <-d.ctx.Done():
				return
			case <-time.After(tryEvery): // out of descriptors, perhaps
			}
			continue
		}
		select {
		case d.slots <- struct{}{}:
		default:
			_ = c.Close() // too many at once: who comes again finds room
			continue
		}
		done, may := d.tries.may(c.RemoteAddr(), time.Now())
		if !may {
			_ = c.Close()
			<-d.slots
			continue
		}
		d.wait.Go(func() {
			defer func() { done(); <-d.slots }()
			d.talk(c)
		})
	}
}

// talk is one conversation.
func (d *Door) talk(raw net.Conn) {
	defer raw.Close()
	defer context.AfterFunc(d.ctx, func() { _ = raw.SetDeadline(time.Now()) })()
	_ = raw.SetDeadline(time.Now().Add(proofTime)) // a connection has deadlines
	seed, err := d.book.seed()
	if err != nil {
		return // the last token was used since
	}
	config, err := serverConfig(seed)
	if err != nil {
		d.log.Error("let a host join", "error", err)
		return
	}
	c := tls.Server(raw, config)
	log := d.log.With("from", raw.RemoteAddr().String())
	var p proof
	if err := receive(c, maxAsk, &p); err != nil {
		log.Debug("a new host proved nothing", "error", err)
		return
	}
	var secret Secret
	host, err := "", ErrUnknown
	if len(p.Secret) == len(secret) {
		copy(secret[:], p.Secret)
		host, err = d.book.Host(secret, time.Now())
	}
	if err != nil {
		log.Warn("a new host is refused", "error", err)
		_ = send(c, answer{Error: err.Error()}) // who is gone hears nothing
		return
	}
	_ = raw.SetDeadline(time.Now().Add(talkTime))
	if d.ctx.Err() != nil { // else it would undo what the end has set
		return
	}
	err = d.admit(c, host, secret)
	if d.ctx.Err() == nil { // a host that waited for another change shall hear, too
		_ = raw.SetDeadline(time.Now().Add(talkTime))
	}
	if err != nil {
		log.Warn("a new host does not join", "host", host, "error", err)
		_ = send(c, answer{Error: err.Error()})
		return
	}
	log.Info("a new host joined", "host", host)
	_ = send(c, answer{})
}

func (d *Door) admit(c *tls.Conn, host string, secret Secret) error {
	files, err := d.daemon.Files(host)
	if err != nil {
		return err
	}
	if err := send(c, answer{Invitation: Invitation{host, files}}); err != nil {
		return err
	}
	var h Hello
	if err := receive(c, maxAsk, &h); err != nil {
		return err
	}
	err = d.daemon.Admit(d.ctx, host, h, func() error { return d.book.Use(secret, time.Now()) })
	if shut := d.Look(); shut != nil { // of any port, which says nothing of this host
		d.log.Warn("wait for new hosts", "error", shut)
	}
	return err
}

// tries counts connections by where they come from.
type tries struct {
	mu sync.Mutex
	of map[netip.Prefix]try
}

type try struct {
	paid time.Time // until when connections are paid for
	open int       // conversations
}

// may tells whether one more connection from an address is heard, until done is called: of
// IPv6 those of a /64 are one.
func (t *tries) may(from net.Addr, now time.Time) (done func(), ok bool) {
	tcp, ok := from.(*net.TCPAddr)
	if !ok {
		return nil, false
	}
	a := tcp.AddrPort().Addr().Unmap().WithZone("")
	p, err := a.Prefix(min(a.BitLen(), 64))
	if err != nil {
		return nil, false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for known, one := range t.of {
		if one.open == 0 && one.paid.Before(now) {
			delete(t.of, known)
		}
	}
	one, known := t.of[p]
	if !known && len(t.of) >= tryMax || one.open >= tryBurst {
		return nil, false
	}
	if one.paid.Before(now) {
		one.paid = now
	}
	if one.paid = one.paid.Add(tryEvery); one.paid.Sub(now) > tryBurst*tryEvery {
		return nil, false
	}
	one.open++
	if t.of == nil {
		t.of = map[netip.Prefix]try{}
	}
	t.of[p] = one
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		one := t.of[p]
		one.open--
		t.of[p] = one
	}, true
}
