package engine

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"ripstop/lun"
)

const (
	// patience is how long a step waits for a pool. A disk that hangs shall not
	// hold up what concerns other pools, or networks.
	patience = 10 * time.Second
	// farewell is how long Close waits for the pools: a slow disk takes its time
	// with what is in memory, and service managers wait 90 seconds.
	farewell = 30 * time.Second
)

// lane is what things are done in one after the other, to the pool of a name.
//
//	enter ─► do, in a goroutine of its own ─► leave ─► whoever enters next
//	 └► hangs: nothing was begun   └► hangs: nobody waits for its end any more
type lane struct {
	pool string
	turn chan struct{}       // has one element while something is done
	job  atomic.Pointer[job] // which is this
}

type job struct {
	what  string
	since time.Time
}

// lane is that of a pool, in service or not.
func (e *Engine) lane(pool string) *lane {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.lanes[pool]
	if l == nil {
		l = &lane{pool: pool, turn: make(chan struct{}, 1)}
		e.lanes[pool] = l
	}
	return l
}

// waiter is how long somebody waits.
type waiter struct {
	done  <-chan struct{} // nil where nobody ends it
	cause func() error    // of done
	most  time.Duration   // 0 is without end
}

// enter waits for the turn, at most until what is done has taken most: that a disk
// hangs need not be found out twice.
func (l *lane) enter(what string, w waiter) error {
	began := time.Now()
	if j := l.job.Load(); j != nil {
		began = j.since
	}
	over, stop := after(w.most-time.Since(began), w.most > 0)
	defer stop()
	select {
	case l.turn <- struct{}{}:
		l.job.Store(&job{what, time.Now()})
		return nil
	case <-over:
		return l.hangs(lun.ErrHangs)
	case <-w.done:
		return l.hangs(w.cause())
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

// after is a channel that gets something after d, if it shall.
func after(d time.Duration, shall bool) (c <-chan time.Time, stop func()) {
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

// alone has something done to a pool while nothing else is, and waits for it until
// ctx ends and, where most is not 0, so long. No disk can be told to stop: what has
// begun goes on, and what comes next waits for it.
func alone[T any](ctx context.Context, e *Engine, pool, what string, most time.Duration, do func(context.Context) (T, error)) (T, error) {
	if err := ctx.Err(); err != nil {
		var none T
		return none, err
	}
	w := waiter{ctx.Done(), func() error { return context.Cause(ctx) }, most}
	return inLane(e, pool, what, w, func() (T, error) { return do(context.WithoutCancel(ctx)) })
}

func inLane[T any](e *Engine, pool, what string, w waiter, do func() (T, error)) (T, error) {
	var none T
	l := e.lane(pool)
	if err := l.enter(what, w); err != nil {
		return none, err
	}
	ended := make(chan outcome[T], 1)
	go func() {
		value, err := do()
		l.leave()
		ended <- outcome[T]{value, err}
	}()
	over, stop := after(w.most, w.most > 0)
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
	go func() { e.ended(pool, what, (<-ended).err) }()
	return none, err
}

// apart has something read that changes nothing, and waits for it until ctx ends.
func apart[T any](ctx context.Context, what string, do func() (T, error)) (T, error) {
	ended := make(chan outcome[T], 1)
	go func() {
		value, err := do()
		ended <- outcome[T]{value, err}
	}()
	select {
	case o := <-ended:
		return o.value, wrap(what, o.err)
	case <-ctx.Done():
		var none T
		return none, fmt.Errorf("%s: %w: if it took long, look at the disk of the pool", what, context.Cause(ctx))
	}
}

// ended tells of the end of what nobody waited for any more.
func (e *Engine) ended(pool, what string, err error) {
	if err != nil {
		e.log.Error("ended late", "pool", pool, "what", what, "error", err)
	} else {
		e.log.Info("ended late", "pool", pool, "what", what)
	}
	if e.options.OnEnded != nil {
		e.options.OnEnded(pool)
	}
}

// step is something to be done to a pool by a pass.
func (e *Engine) step(ctx context.Context, pool, what string, do func(context.Context) error) error {
	_, err := alone(ctx, e, pool, what, e.patience, func(ctx context.Context) (struct{}, error) { return struct{}{}, do(ctx) })
	return wrap(what, err)
}

// verb is something to be done to a pool that somebody waits for.
func (e *Engine) verb(ctx context.Context, pool, what string, do func(context.Context) error) error {
	_, err := alone(ctx, e, pool, what, 0, func(ctx context.Context) (struct{}, error) { return struct{}{}, do(ctx) })
	return err
}
