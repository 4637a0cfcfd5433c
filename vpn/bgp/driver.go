// Package bgp speaks BGP in this process, by gobgp, and brings what neighbors
// announce into the kernel's routing tables. It is the only importer of gobgp,
// which listens on TCP port 179 and, where a neighbor has BFD, on UDP port 3784;
// there is no gRPC and no file.
//
//	Do ──────► gobgp ◄──TCP 179──► neighbors
//	             │ events only wake
//	             ▼
//	Serve: all paths + all routes of the kernel ─► vpn.BGP.Select ─► differences ─► kernel (proto 115)
//
// EVPN is the exception, where each of ten thousand stations has routes of its own: the
// events of its routes are taken at their word, and all routes are listed now and then.
//
//	gobgp ── changed routes ──► vpn.Roster ◄── the switches' stations
//	   ▲                            │ what is decided anew
//	   └──── claims ◄── ServeEVPN ◄─┴──► switches
//
// # Caveats
//
// gobgp keeps how it selects paths in variables of its package: one Driver at a
// time works in a process.
//
// A learned route outlives the process, so that a daemon that is killed forwards
// on. Who starts again takes the routes over and removes those that no neighbor
// announces again when all have sent their tables, or the restart time is over.
//
// A goroutine of gobgp that panics takes the process down: it cannot be recovered
// from outside.
package bgp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"ripstop/internal/link"
	"ripstop/vpn"
)

// Options is what a Driver is made with.
type Options struct {
	Fabric    Fabric              // the switches that EVPN serves; nil for none
	RouterMAC vpn.MAC             // of the VNI in which the host routes; the zero value leaves it to the kernel
	Marker    string              // file that remembers, from one daemon to the next, that routes are in the kernel; "" for none
	Underlay  func() []netip.Addr // the endpoints of tunnels; may be nil
	OnChange  func()              // called when a session or a conflict of stations comes or goes; may be nil

	patience patience // nil for the usual
}

// Driver is the host's BGP speaker. Its methods are safe for concurrent use.
type Driver struct {
	log    *slog.Logger
	opts   Options
	kernel *link.Space
	wake   chan struct{}
	roused chan struct{} // as wake, for ServeEVPN
	heard  chan struct{} // routes of stations changed, and nothing else

	mu      sync.Mutex // guards what follows, and is not taken by gobgp's callbacks
	have    vpn.BGP    // what was done
	engine  *engine    // nil when no speaker runs
	failed  bool       // the speaker was wanted and did not start
	settles time.Time  // until then routes of an earlier daemon stay though nobody announces them
	last    result     // of the latest look at the kernel
	evpn    evpn

	told     sync.Mutex // guards what follows: what gobgp told
	sessions map[netip.Addr]*session
}

// session is what gobgp told about a neighbor.
type session struct {
	state   bgp.FSMState
	since   time.Time
	why     string       // the latest reason for having none
	speaks  []bgp.Family // what it can, in the latest session
	eor     []bgp.Family // of which it has sent all it has
	shut    time.Time
	limits  bool   // it announced too much
	crowded string // of EVPN, in words, and is shut by this driver; "" for no such
	dead    bool   // it was silent for the hold time, and what it announced is still there
}

// New makes a driver that speaks with nobody yet.
func New(log *slog.Logger, o Options) (*Driver, error) {
	space, err := link.Open()
	if err != nil {
		return nil, err
	}
	if o.OnChange == nil {
		o.OnChange = func() {}
	}
	if o.patience == nil {
		o.patience = usual
	}
	return &Driver{log: log, opts: o, kernel: space, wake: make(chan struct{}, 1), roused: make(chan struct{}, 1), heard: make(chan struct{}, 1), sessions: map[netip.Addr]*session{}}, nil
}

// Close lets go of the kernel. Sessions end with Serve, and with the process.
func (d *Driver) Close() error { return d.kernel.Close() }

// Observe is what was done and how the sessions stand.
func (d *Driver) Observe(context.Context) (vpn.BGP, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.have.Clone()
	b.Sessions = map[string]vpn.Session{}
	for name, n := range b.Neighbors {
		b.Sessions[name] = d.session(n)
	}
	b.Conflicts = d.evpn.disputed()
	x, err := d.l3()
	if err != nil {
		return b, err
	}
	d.have.L3 = observeL3(x) // an earlier daemon's is taken over, and one that is gone is made anew
	b.L3 = observeL3(x)
	return b, nil
}

// session is how a neighbor's session stands, in the words of people.
func (d *Driver) session(n vpn.Neighbor) vpn.Session {
	d.told.Lock()
	defer d.told.Unlock()
	s := d.sessions[n.Address]
	if s == nil {
		return vpn.Session{State: "idle"}
	}
	out := vpn.Session{State: stateName(s.state), Reason: numbered(s.why, n.ASN, d.have.Speaker.ASN)}
	if s.state == bgp.BGP_FSM_ESTABLISHED {
		out.Since, out.Reason = s.since, ""
	}
	if n.BFD > 0 && out.Reason == reset {
		out.Reason = "BFD heard nothing from the neighbor: look at the way, and at BFD there"
	}
	if s.limits {
		out.Reason = fmt.Sprintf("it announced more than %d prefixes: raise prefix-limit, or have it announce fewer; it is tried again after %s", n.PrefixLimit, limitRest)
	}
	if s.crowded != "" {
		out.Reason = fmt.Sprintf("it announced more than %s, or have it announce fewer; it is tried again after %s", s.crowded, limitRest)
	}
	out.Reason += doubt(n, out)
	return out
}

// doubt is what to look at where packets are lost in silence.
func doubt(n vpn.Neighbor, s vpn.Session) string {
	silent := strings.Contains(s.Reason, "timeout") || s.Reason == "" && s.State != vpn.Established
	var on []string
	if n.Password != "" {
		on = append(on, "password")
	}
	if n.Hops > 0 {
		on = append(on, "ttl-security")
	}
	if !silent || len(on) == 0 {
		return ""
	}
	text := "look at " + strings.Join(on, " and ") + ", which both sides need, and at the way"
	if s.Reason == "" {
		return text
	}
	return ": " + text
}

func stateName(s bgp.FSMState) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "BGP_FSM_"))
}

// Do carries out one step.
func (d *Driver) Do(ctx context.Context, s vpn.BGPStep) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.awake()
	if err := d.do(ctx, s); err != nil {
		return fmt.Errorf("%s: %w", s.Object(), err)
	}
	d.have = d.have.Apply(s)
	return nil
}

func (d *Driver) do(ctx context.Context, s vpn.BGPStep) error {
	switch s := s.(type) {
	case vpn.AddSpeaker:
		return d.start(ctx, s.Speaker)
	case vpn.SetSpeaker:
		return d.restart(ctx, s.To)
	case vpn.DelSpeaker:
		return d.stop(ctx)
	case vpn.SetImport, vpn.SetL3Import:
		return nil // the next look at the kernel has it
	case vpn.DelL3VNI:
		return d.delL3(s.L3VNI)
	}
	if d.engine == nil {
		if s.Removes() {
			return nil
		}
		return errors.New("no speaker runs: see bgp/speaker")
	}
	switch s := s.(type) {
	case vpn.AddNeighbor:
		return d.put(ctx, s.Name, s.Neighbor)
	case vpn.SetNeighbor:
		return d.put(ctx, s.Name, s.To)
	case vpn.DelNeighbor:
		return d.drop(ctx, s.Name)
	case vpn.AddNetwork:
		return d.engine.network(s.VNI, s.Network, false)
	case vpn.DelNetwork:
		d.evpn.unclaim(func(vni uint32) bool { return vni == s.VNI })
		return d.engine.network(s.VNI, s.Network, true)
	case vpn.AddL3VNI:
		return d.setL3(s.L3VNI)
	case vpn.SetL3VNI:
		return d.setL3(s.To)
	case vpn.AnnouncePrefix:
		return d.announcePrefix(s.Prefix, false)
	case vpn.WithdrawPrefix:
		return d.announcePrefix(s.Prefix, true)
	case vpn.Announce:
		return d.engine.announce(s.Prefix, false)
	case vpn.Withdraw:
		return d.engine.announce(s.Prefix, true)
	}
	return fmt.Errorf("unknown step %T", s)
}

// start begins to listen. When an earlier daemon left routes in the kernel, they
// are given the restart time to be announced again.
func (d *Driver) start(ctx context.Context, s vpn.Speaker) error {
	d.failed = true
	e, err := start(ctx, slog.New(ear{Handler: d.log.Handler(), heard: d.unreachable}), s, callbacks{d.peer, d.complete, d.paths})
	if err != nil {
		return err
	}
	if d.opts.marked() {
		d.settles = time.Now().Add(s.Restart)
	} else if err := d.opts.mark(); err != nil {
		return errors.Join(err, e.stop(ctx, false)) // the next attempt listens anew
	}
	d.engine, d.failed = e, false
	return nil
}

// restart is a speaker under another name: all sessions begin anew.
func (d *Driver) restart(ctx context.Context, s vpn.Speaker) error {
	if d.engine != nil {
		old := d.engine
		d.engine = nil
		if err := old.stop(ctx, false); err != nil {
			return err
		}
	}
	if err := d.start(ctx, s); err != nil {
		d.have = vpn.BGP{} // the next pass makes everything anew
		return err
	}
	d.settles = time.Time{}
	d.evpn.unclaim(func(uint32) bool { return true })
	var errs []error
	for vni, n := range d.have.Networks {
		errs = append(errs, d.engine.network(vni, n, false))
	}
	errs = append(errs, d.engine.export(ctx, d.have.Neighbors))
	for _, n := range d.have.Neighbors {
		errs = append(errs, d.engine.add(ctx, n, false))
	}
	for p := range d.have.Announced {
		errs = append(errs, d.engine.announce(p, false))
	}
	for p := range d.have.Prefixes {
		errs = append(errs, d.announcePrefix(p, false))
	}
	return errors.Join(errs...)
}

// stop ends everything and removes the learned routes.
func (d *Driver) stop(ctx context.Context) error {
	var err error
	if d.engine != nil {
		err = d.engine.stop(ctx, false)
		d.engine = nil
	}
	d.evpn.unclaim(func(uint32) bool { return true })
	d.told.Lock()
	clear(d.sessions)
	d.told.Unlock()
	return errors.Join(err, d.sweep())
}

// put makes a neighbor, or changes it: in place where its session can go on.
func (d *Driver) put(ctx context.Context, name string, n vpn.Neighbor) error {
	from, there := d.have.Neighbors[name]
	after := d.have.Apply(vpn.AddNeighbor{Name: name, Neighbor: n}).Neighbors
	if there && from.Live(n) {
		d.told.Lock()
		if s := d.sessions[n.Address]; s != nil {
			s.limits, s.crowded = false, ""
		}
		d.told.Unlock()
		return d.engine.update(ctx, n)
	}
	for other, o := range d.have.Neighbors {
		if other == name || o.Address == n.Address {
			if err := d.drop(ctx, other); err != nil {
				return err
			}
			delete(d.have.Neighbors, other)
		}
	}
	if err := d.engine.export(ctx, after); err != nil {
		return err
	}
	return d.engine.add(ctx, n, time.Now().Before(d.settles))
}

func (d *Driver) drop(ctx context.Context, name string) error {
	n, ok := d.have.Neighbors[name]
	if !ok {
		return nil
	}
	if err := d.engine.del(ctx, n.Address); err != nil {
		return err
	}
	d.told.Lock()
	delete(d.sessions, n.Address)
	d.told.Unlock()
	rest := maps.Clone(d.have.Neighbors)
	delete(rest, name)
	return d.engine.export(ctx, rest)
}

// Commit removes what an earlier daemon left in the kernel when no speaker is wanted.
// One that is wanted may not have been started where ctx is cancelled.
func (d *Driver) Commit(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if ctx.Err() != nil || d.engine != nil || d.failed || !d.opts.marked() {
		return nil
	}
	return d.sweep()
}

// awake has Serve look at the kernel soon, and ServeEVPN at everything.
func (d *Driver) awake() {
	nudge(d.wake)
	nudge(d.roused)
}

// paths is told of which routes gobgp has other paths.
func (d *Driver) paths(stations, others bool) {
	if stations {
		nudge(d.heard)
	}
	if others {
		nudge(d.wake)
	}
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it does already
	}
}

// peer is told of a change of a session.
func (d *Driver) peer(m *apiutil.WatchEventMessage_PeerEvent) {
	if m.Type != apiutil.PEER_EVENT_STATE {
		return
	}
	now := m.Peer.State
	d.told.Lock()
	s := d.of(now.NeighborAddress)
	was := s.state
	s.state = now.SessionState
	if was != s.state {
		s.since = time.Now()
		if most, ok := d.opts.patience[s.state]; ok {
			time.AfterFunc(most, d.hurry)
		}
	}
	why := reason(now)
	if was == bgp.BGP_FSM_OPENCONFIRM && now.DisconnectReason == api.PeerState_DISCONNECT_REASON_INVALID_MSG {
		why = refused // gobgp reads no notification in this state
	}
	if why != "" && s.state != bgp.BGP_FSM_ESTABLISHED {
		s.why = why
	}
	limits := now.AdminState == api.PeerState_ADMIN_STATE_PFX_CT || s.crowded != ""
	if limits && !s.limits {
		s.shut = time.Now()
	}
	s.limits = limits
	changed := (was == bgp.BGP_FSM_ESTABLISHED) != (s.state == bgp.BGP_FSM_ESTABLISHED) || limits
	if was == bgp.BGP_FSM_ESTABLISHED && s.state != was {
		s.eor = nil
	}
	if s.state == bgp.BGP_FSM_ESTABLISHED {
		s.speaks = familiesOf(now)
	}
	if was != bgp.BGP_FSM_ESTABLISHED && s.state == bgp.BGP_FSM_ESTABLISHED {
		s.dead = false
	}
	why = s.why
	d.told.Unlock()
	if !changed {
		return
	}
	if now.SessionState == bgp.BGP_FSM_ESTABLISHED {
		d.log.Info("BGP session established", "neighbor", now.NeighborAddress, "asn", now.PeerASN)
	} else {
		d.log.Warn("BGP session ended", "neighbor", now.NeighborAddress, "because", why)
	}
	d.awake()
	d.opts.OnChange()
}

// of is what is known of a neighbor. The caller holds told.
func (d *Driver) of(a netip.Addr) *session {
	s := d.sessions[a]
	if s == nil {
		s = &session{}
		d.sessions[a] = s
	}
	return s
}

// familiesOf is what a neighbor can speak of; without a word of it that is IPv4 (RFC 4760, 8).
func familiesOf(s apiutil.PeerState) []bgp.Family {
	var out []bgp.Family
	for _, c := range s.RemoteCap {
		if c, ok := c.(*bgp.CapMultiProtocol); ok {
			out = append(out, c.CapValue)
		}
	}
	if len(out) == 0 {
		out = append(out, bgp.RF_IPv4_UC)
	}
	return out
}

// whole tells whether a neighbor has sent all that it has of what both can speak of.
func (s *session) whole(n vpn.Neighbor, evpn bool) bool {
	if s.state != bgp.BGP_FSM_ESTABLISHED {
		return false
	}
	for _, f := range s.speaks {
		if (f == family(n.Address) || evpn && f == bgp.RF_EVPN) && !slices.Contains(s.eor, f) {
			return false
		}
	}
	return len(s.eor) > 0
}

// complete is told that a neighbor has sent all that it has of a family.
func (d *Driver) complete(a netip.Addr, f bgp.Family) {
	d.told.Lock()
	s := d.of(a)
	s.eor = append(s.eor, f)
	d.told.Unlock()
	d.awake()
}

// unreachable is told why no connection to a neighbor comes about.
func (d *Driver) unreachable(a netip.Addr, why string) {
	d.told.Lock()
	s := d.of(a)
	changed := s.why != why
	s.why = why
	s.dead = s.dead || why == silent
	d.told.Unlock()
	if why == silent {
		d.awake()
	}
	if changed {
		d.opts.OnChange()
	}
}

// reason is why a session ended, "" when the event is about something else.
func reason(s apiutil.PeerState) string {
	switch s.DisconnectReason {
	case api.PeerState_DISCONNECT_REASON_BAD_PEER_AS:
		return otherAS
	case api.PeerState_DISCONNECT_REASON_HOLD_TIMER_EXPIRED:
		return silent
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_RECEIVED:
		if strings.Contains(s.DisconnectMessage, "bad peer as") {
			return strangeAS
		}
		return "the neighbor ended the session: " + strings.TrimPrefix(s.DisconnectMessage, "notification-received ")
	case api.PeerState_DISCONNECT_REASON_NOTIFICATION_SENT:
		return "this host ended the session: " + strings.TrimPrefix(s.DisconnectMessage, "notification-sent ")
	case api.PeerState_DISCONNECT_REASON_READ_FAILED, api.PeerState_DISCONNECT_REASON_WRITE_FAILED:
		return "the connection broke"
	case api.PeerState_DISCONNECT_REASON_GRACEFUL_RESTART:
		return "the neighbor restarts"
	case api.PeerState_DISCONNECT_REASON_RESTART_TIMER_EXPIRED:
		return "the neighbor restarted and did not come back in its time"
	case api.PeerState_DISCONNECT_REASON_INVALID_MSG:
		return "the neighbor sent what is no BGP message"
	}
	return ""
}
