// Package lane has what is done to pools be done one after the other for each
// pool, and keeps a disk that hangs from holding up what concerns others.
//
//	enter ─► do, in a goroutine of its own ─► leave ─► whoever enters next
//	 └► hangs: nothing was begun   └► hangs: nobody waits for its end any more
package lane

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"ripstop/lun"
)

const (
	// Patience is how long a step waits for a pool. A disk that hangs shall not
	// hold up what concerns other pools, or networks.
	Patience = 10 * time.Second
	// Farewell is how long closing waits for the pools: a slow disk takes its time
	// with what is in memory, and service managers wait 90 seconds.
	Farewell = 30 * time.Second
)

// Lanes is a lane for each pool. It is safe for concurrent use.
type Lanes struct {
	log     *slog.Logger
	onEnded func(pool string)

	mu    sync.Mutex
	lanes map[string]*lane
}

// New has no lanes yet. onEnded, unless nil, is called with a pool when something
// has ended for which nobody waited any more.
func New(log *slog.Logger, onEnded func(pool string)) *Lanes {
	return &Lanes{log: log, onEnded: onEnded, lanes: map[string]*lane{}}
}

// lane is what things are done in one after the other, to the pool of a name.
type lane struct {
	pool string
	turn chan struct{}       // has one element while something is done
	job  atomic.Pointer[job] // which is this
}

type job struct {
	what  string
	since time.Time
}

// of is the lane of a pool, in service or not.
func (s *Lanes) of(pool string) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[pool]
	if l == nil {
		l = &lane{pool: pool, turn: make(chan struct{}, 1)}
		s.lanes[pool] = l
	}
	return l
}

// Each has something done to every pool that something was ever done to, at the same
// time, in its lane, and waits at most so long. The errors are in the order of names.
func (s *Lanes) Each(what string, most time.Duration, do func(pool string) error) []error {
	s.mu.Lock()
	names := slices.Sorted(maps.Keys(s.lanes))
	s.mu.Unlock()
	errs := make([]error, len(names))
	var group sync.WaitGroup
	for i, name := range names {
		group.Go(func() {
			what := what + " " + name
			if _, err := within(s, name, what, waiter{most: most}, func() (struct{}, error) { return struct{}{}, do(name) }); err != nil {
				errs[i] = fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	group.Wait()
	return errs
}

// waiter is how long somebody waits.
type waiter struct {
	done  <-chan struct{} // nil where nobody ends it
	cause func() error    // of done
	most  time.Duration   // 0 is without end
}

// enter waits for the turn, at most until one thing that is done has taken most: that a
// disk hangs need not be found out twice. However many are done one after the other
// meanwhile, they show that it does not.
func (l *lane) enter(what string, w waiter) error {
	began := time.Now()
	for {
		now := l.job.Load()
		if now != nil {
			began = now.since
		}
		ok, err := l.wait(what, w, began)
		if ok || err == nil || l.job.Load() == now {
			return err
		}
		began = time.Now() // another one, or none for a moment
	}
}

// wait is ok when the turn has come, or when nobody wants it any more.
func (l *lane) wait(what string, w waiter, began time.Time) (ok bool, err error) {
	over, stop := After(w.most-time.Since(began), w.most > 0)
	defer stop()
	select {
	case l.turn <- struct{}{}:
		l.job.Store(&job{what, time.Now()})
		return true, nil
	case <-over:
		return false, l.hangs(lun.ErrHangs)
	case <-w.done:
		return true, l.hangs(w.cause())
	}
}

func (l *lane) leave() {
	l.job.Store(nil)
	<-l.turn
}

// hangs says what is waited for. It is the same each time, for what compares it.
func (l *lane) hangs(why error) error {
	j := l.job.Load()
	if j == nil { // it has ended just now
		return fmt.Errorf("pool %s: %w: try again", l.pool, why)
	}
	return fmt.Errorf("pool %s: %w: `%s` is under way since %s: look at the disk of the pool: it goes on when that answers, and nothing else was begun",
		l.pool, why, j.what, j.since.UTC().Format(time.RFC3339))
}

// After is a channel that gets something after d, if it shall.
func After(d time.Duration, shall bool) (c <-chan time.Time, stop func()) {
	if !shall {
		return nil, func() {}
	}
	t := time.NewTimer(d)
	return t.C, func() { t.Stop() }
}

type outcome[T any] struct {
	value T
	err   error
}

// Alone has something done to a pool while nothing else is, and waits for it until
// ctx ends and, where most is not 0, so long. No disk can be told to stop: what has
// begun goes on, and what comes next waits for it.
func Alone[T any](ctx context.Context, s *Lanes, pool, what string, most time.Duration, do func(context.Context) (T, error)) (T, error) {
	if err := ctx.Err(); err != nil {
		var none T
		return none, err
	}
	w := waiter{ctx.Done(), func() error { return context.Cause(ctx) }, most}
	return within(s, pool, what, w, func() (T, error) { return do(context.WithoutCancel(ctx)) })
}

func within[T any](s *Lanes, pool, what string, w waiter, do func() (T, error)) (T, error) {
	var none T
	l := s.of(pool)
	if err := l.enter(what, w); err != nil {
		return none, err
	}
	ended := make(chan outcome[T], 1)
	go func() {
		value, err := do()
		l.leave()
		ended <- outcome[T]{value, err}
	}()
	over, stop := After(w.most, w.most > 0)
	defer stop()
	why := lun.ErrHangs
	select {
	case o := <-ended:
		return o.value, o.err
	case <-over:
	case <-w.done:
		why = w.cause()
	}
	err := l.hangs(why)
	go func() { s.ended(pool, what, (<-ended).err) }()
	return none, err
}

// Apart has something read that changes nothing, and waits for it until ctx ends.
func Apart[T any](ctx context.Context, do func() (T, error)) (T, error) {
	ended := make(chan outcome[T], 1)
	go func() {
		value, err := do()
		ended <- outcome[T]{value, err}
	}()
	select {
	case o := <-ended:
		return o.value, o.err
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("%w: if it took long, look at the disk of the pool", context.Cause(ctx))
	}
}

// ended tells of the end of what nobody waited for any more.
func (s *Lanes) ended(pool, what string, err error) {
	if err != nil {
		s.log.Error("ended late", "pool", pool, "what", what, "error", err)
	} else {
		s.log.Info("ended late", "pool", pool, "what", what)
	}
	if s.onEnded != nil {
		s.onEnded(pool)
	}
}
