package qos

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"ripstop/lun"
)

const (
	// A pool in which shares or reservations are promised has so much under way.
	depth      = 32
	depthBytes = 2 << 20
	// reserved is how many more there may be of reserved accesses, which so do not
	// wait for the end of others.
	reserved = 8
)

// Scheduler holds the policies of all LUNs and the queues of those that have
// one. It is a target of reconcile.Run and safe for concurrent use.
type Scheduler struct {
	mu      sync.Mutex
	began   time.Time
	want    lun.QoS
	volumes map[string]*Volume
	flows   map[string]*flow
	groups  map[string]*group
	pools   map[string]*pool
	timer   *time.Timer // fires at alarm and no later, math.MaxInt64 for never
	alarm   int64
	spare   *request // of requests that are over, by next
	closed  bool
}

// pool is what is under way in one pool, and what waits for it.
type pool struct {
	level
	ranked  bool // who is next matters, so there is a bound
	flying  int
	bytes   int64
	waiting []*flow // those with a queue, in no order
	parts   map[*group]*part
	used    bool // by a flow
}

// level is a time of shares that some parties have in common: where the one that
// was served last stood.
type level struct{ now int64 }

// party has a policy: a LUN or a target.
type party struct {
	policy   lun.Policy
	reserved clock
	limited  clock
}

// group is a target with a policy.
type group struct{ party }

// part is a group in one pool, and the level of its flows there.
type part struct {
	level
	*group
	shared int64
}

// flow is the accesses of one LUN with a policy, or beside LUNs that have one.
type flow struct {
	party
	pool       *pool
	part       *part // nil without a group
	shared     int64 // where it stands in the time of its level
	head, tail *request
	place      int  // in waiting, as long as there is a queue
	credit     int  // accesses that had their turn already and begin again
	gone       bool // nothing holds it back any more

	delayed int64         // accesses that waited
	waited  time.Duration // how long all of them did
}

// New is a Scheduler without policies.
func New() *Scheduler {
	s := &Scheduler{began: time.Now(), volumes: map[string]*Volume{}, flows: map[string]*flow{}, groups: map[string]*group{}, pools: map[string]*pool{}, alarm: math.MaxInt64}
	s.timer = time.AfterFunc(time.Hour, s.tick)
	s.timer.Stop()
	return s
}

func (s *Scheduler) clock() int64 { return int64(time.Since(s.began)) }

// Observe is the policies that hold.
func (s *Scheduler) Observe(ctx context.Context) (lun.QoS, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.want.Clone(), ctx.Err()
}

// Do carries out one step. What waits by an older policy goes by the new one.
func (s *Scheduler) Do(_ context.Context, step lun.QoSStep) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return fmt.Errorf("change a policy: %w", lun.ErrClosed)
	}
	s.want = s.want.Do(step)
	free := s.chooseAll(s.arrange())
	s.mu.Unlock()
	s.launch(free)
	return nil
}

// Close lifts all policies for good: what waits begins.
func (s *Scheduler) Close() {
	s.mu.Lock()
	s.closed = true
	s.want = lun.QoS{}
	free := s.arrange()
	s.timer.Stop()
	s.mu.Unlock()
	s.launch(free)
}

// arrange makes flows, groups and pools what the policies say, and gives the
// accesses that nothing holds back any more. Clocks and queues of what stays are
// kept.
func (s *Scheduler) arrange() (free *request) {
	for name, p := range s.want.Targets {
		if s.groups[name] == nil {
			s.groups[name] = &group{}
		}
		s.groups[name].policy = p
	}
	for name, g := range s.groups {
		if _, ok := s.want.Targets[name]; !ok {
			delete(s.groups, name)
			for _, p := range s.pools {
				delete(p.parts, g)
			}
		}
	}
	for _, p := range s.pools {
		p.used, p.ranked = false, false
	}
	for name, share := range s.want.LUNs {
		s.place(name, share)
	}
	for name, f := range s.flows {
		if _, ok := s.want.LUNs[name]; !ok {
			f.policy, f.part, f.gone = lun.Policy{}, nil, true
			var first, last *request
			for f.head != nil {
				r := f.leave(s.clock())
				if last == nil {
					first = r
				} else {
					last.next = r
				}
				last = r
			}
			free = first.before(free)
			delete(s.flows, name)
		}
	}
	for name, p := range s.pools {
		if !p.used {
			delete(s.pools, name)
		}
	}
	for name, v := range s.volumes {
		v.flow.Store(s.flowOf(name))
	}
	return free
}

func (s *Scheduler) place(name string, share lun.Share) {
	p := s.pools[share.Pool]
	if p == nil {
		p = &pool{parts: map[*group]*part{}}
		s.pools[share.Pool] = p
	}
	f := s.flows[name]
	if f == nil {
		f = &flow{}
		s.flows[name] = f
	}
	var in *part
	if g := s.groups[share.Target]; g != nil {
		if p.parts[g] == nil {
			p.parts[g] = &part{group: g, shared: p.now}
		}
		in = p.parts[g]
		p.ranked = p.ranked || g.policy.Ranked()
	}
	if f.pool != p || f.part != in {
		if f.head != nil {
			f.goOut()
		}
		f.pool, f.part = p, in
		f.shared = f.level().now
		if f.head != nil {
			f.goIn()
		}
	}
	f.policy = share.Policy
	p.used = true
	p.ranked = p.ranked || f.policy.Ranked()
}

func (s *Scheduler) flowOf(name string) *flow {
	if f := s.flows[name]; f != nil {
		return f
	}
	if of, _, ok := lun.SplitSnapshot(name); ok {
		return s.flows[of]
	}
	return nil
}

// level is where the flow's shares count.
func (f *flow) level() *level {
	if f.part != nil {
		return &f.part.level
	}
	return &f.pool.level
}

// goIn has the pool know that the flow has a queue.
func (f *flow) goIn() {
	f.place = len(f.pool.waiting)
	f.pool.waiting = append(f.pool.waiting, f)
}

// goOut has the pool know that it has none.
func (f *flow) goOut() {
	w := f.pool.waiting
	last := w[len(w)-1]
	w[f.place], last.place = last, f.place
	w[len(w)-1] = nil
	f.pool.waiting = w[:len(w)-1]
}

// mayBegin tells whether an access need not wait for a limit, a slot or an
// earlier one.
func (f *flow) mayBegin(now int64) bool {
	return f.gone || f.head == nil && f.ready() <= now && f.pool.room(f.owed(now))
}

// ready is the time from which the limits let the next access begin.
func (f *flow) ready() int64 {
	at := f.limited.ready(f.policy.Limit)
	if f.part != nil {
		at = max(at, f.part.limited.ready(f.part.policy.Limit))
	}
	return at
}

// owed is how much later than reserved the next access is, negative when nothing
// is owed.
func (f *flow) owed(now int64) int64 {
	late := f.party.owed(now)
	if f.part != nil {
		late = max(late, f.part.owed(now))
	}
	return late
}

func (p *party) owed(now int64) int64 {
	r := p.policy.Reservation
	if r == (lun.Rate{}) {
		return -1
	}
	return now - p.reserved.ready(r)
}

// room tells whether one more may be under way.
func (p *pool) room(owed int64) bool {
	most := depth
	if owed >= 0 {
		most += reserved
	}
	return !p.ranked || p.flying == 0 || p.flying < most && p.bytes < depthBytes
}

// charge moves all clocks on by an access of n bytes that begins, and gives the
// pool that it is under way in.
func (f *flow) charge(now, n int64) *pool {
	byShares := f.owed(now) < 0
	f.pool.flying++
	f.pool.bytes += n
	f.party.charge(now, n)
	f.level().charge(&f.shared, f.policy.Shares, n, byShares)
	if f.part != nil {
		f.part.group.charge(now, n)
		f.pool.level.charge(&f.part.shared, f.part.policy.Shares, n, byShares)
	}
	return f.pool
}

func (p *party) charge(now, n int64) {
	p.reserved.take(p.policy.Reservation, now, int64(late), n)
	p.limited.take(p.policy.Limit, now, int64(max(least, p.policy.Burst)), n)
}

// ahead is how far, in accesses, one may get before others by its reservation.
// What it got of that for a long time shall not keep it from its shares as long.
const ahead = 64

// charge moves one party of the level on, and if it was its shares that let the
// access begin the level's time to where it stood. Who had nothing to do for a
// while begins where the others are (start-time fair queueing: Goyal, Vin, Cheng,
// SIGCOMM 1996).
func (l *level) charge(at *int64, shares int, n int64, byShares bool) {
	cost := costOf(shares, n)
	from := max(*at, l.now)
	if byShares {
		l.now = from
	}
	*at = min(from+cost, l.now+ahead*cost)
}

func costOf(shares int, n int64) int64 {
	if shares == 0 {
		shares = lun.DefaultShares
	}
	return (each + n) * 1024 / int64(shares)
}

// giveBack undoes charge for an access that did not take place.
func (f *flow) giveBack(n int64) {
	f.party.giveBack(n)
	f.shared -= costOf(f.policy.Shares, n)
	if f.part != nil {
		f.part.giveBack(n)
		f.part.shared -= costOf(f.part.policy.Shares, n)
	}
}

func (p *party) giveBack(n int64) {
	p.reserved.giveBack(p.policy.Reservation, n)
	p.limited.giveBack(p.policy.Limit, n)
}

// next is the flow of the pool whose turn it is, nil when none may begin; then
// at is when time alone changes that, math.MaxInt64 for never.
func (p *pool) next(now int64) (best *flow, at int64) {
	at = math.MaxInt64
	owed := int64(-1)
	for _, f := range p.waiting {
		if t := f.ready(); t > now {
			at = min(at, t)
			continue
		}
		if late := f.owed(now); late > owed {
			best, owed = f, late
		} else if owed < 0 && (best == nil || f.behind(best)) {
			best = f
		}
	}
	if best != nil && !p.room(owed) {
		return nil, at
	}
	return best, at
}

// behind tells whether f has had less than g, for its shares.
func (f *flow) behind(g *flow) bool {
	if f.part == g.part {
		return f.shared < g.shared
	}
	return f.above() < g.above()
}

// above is where the flow, or its group, stands in the time of the pool.
func (f *flow) above() int64 {
	if f.part != nil {
		return f.part.shared
	}
	return f.shared
}

// choose takes out of the queues what may begin now, in the order of its turns,
// and sets the alarm for what time alone lets begin later.
func (s *Scheduler) choose(p *pool, now int64) (first *request) {
	var last *request
	for {
		f, at := p.next(now)
		if f == nil {
			s.wakeAt(at)
			return first
		}
		r := f.leave(now)
		if last == nil {
			first = r
		} else {
			last.next = r
		}
		last = r
	}
}

// wakeAt has tick called no later than at.
func (s *Scheduler) wakeAt(at int64) {
	if at < s.alarm && !s.closed {
		s.alarm = at
		s.timer.Reset(time.Duration(max(0, at-s.clock())))
	}
}

// tick lets begin what a limit's time has come for.
func (s *Scheduler) tick() {
	s.mu.Lock()
	s.alarm = math.MaxInt64
	free := s.chooseAll(nil)
	s.mu.Unlock()
	s.launch(free)
}

func (s *Scheduler) chooseAll(free *request) *request {
	now := s.clock()
	for _, p := range s.pools {
		free = s.choose(p, now).before(free)
	}
	return free
}
