package engine

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"time"

	"ripstop/lun"
	"ripstop/lun/lane"
	"ripstop/lun/thin"
)

// What is done for a pool beside its log: bytes a second at most, and only while
// its LUNs are idle, but for scrubbing, which goes on slowly.
const (
	tendEvery  = time.Second
	restEvery  = 10 * time.Second       // while there is nothing to do
	freeAfter  = 100 * time.Millisecond // of an UNMAP: more may come
	idleAfter  = 5 * time.Second        // without a command
	healWork   = 8 << 20
	trimWork   = 64 << 20
	scrubWork  = 16 << 20
	scrubSlow  = 1 << 20 // while LUNs are busy
	scrubAgain = 7 * 24 * time.Hour
)

// Serve has every pool in service tended until ctx ends: its log emptied and room
// made ready before an access must wait for it, and in quiet hours what lies apart
// put together, free space given back, and all data read. Pools work without. What
// a disk holds that hangs is not waited for: Close tells of it.
func (e *Engine) Serve(ctx context.Context, ready func()) error {
	e.mu.Lock()
	e.tend = func(p *pool) { p.begin(ctx, e.log) }
	for _, p := range e.pools {
		e.tend(p)
	}
	e.mu.Unlock()
	ready()
	<-ctx.Done()
	e.mu.Lock()
	e.tend = func(*pool) {}
	pools := slices.Collect(maps.Values(e.pools))
	e.mu.Unlock()
	rested := make(chan struct{})
	go func() {
		defer close(rested)
		for _, p := range pools {
			p.tending.Wait()
		}
	}()
	over, stop := lane.After(e.patience, true)
	defer stop()
	select {
	case <-rested:
	case <-over:
	}
	return nil
}

// begin starts what is done for a pool in the background.
func (p *pool) begin(ctx context.Context, log *slog.Logger) {
	ctx, cancel := context.WithCancel(ctx)
	log = log.With("pool", p.name)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		cancel()
		return
	}
	p.stop = cancel
	p.tending.Go(func() {
		if err := p.thin.Maintain(ctx); err != nil {
			log.Error("pool is not tended", "error", err)
		}
	})
	p.tending.Go(func() { p.chores(ctx, log) })
}

// chores are what waits for quiet hours.
type chores struct {
	pool *pool
	log  *slog.Logger

	ops    uint64    // commands when somebody looked last
	quiet  time.Time // since when there are none
	heal   bool      // something may lie apart
	trim   bool      // something may be given back
	scrub  bool      // a pass is under way
	next   time.Time // when the next pass begins
	health lun.Health
	torn   int64 // blocks that were taken as they were found
}

func (p *pool) chores(ctx context.Context, log *slog.Logger) {
	now := time.Now()
	c := &chores{pool: p, log: log, ops: p.ops.Load(), quiet: now, heal: true, trim: true, next: now}
	c.damaged()
	timer := time.NewTimer(tendEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.freed:
			select {
			case <-ctx.Done():
				return
			case <-time.After(freeAfter):
			}
			_ = p.thin.GiveBack() // what fails is the pool's fault
			continue
		case now = <-timer.C:
		}
		if p.thin.Failed() == nil {
			c.look(ctx, now)
		}
		if c.heal || c.trim || c.scrub {
			timer.Reset(tendEvery)
		} else {
			timer.Reset(restEvery)
		}
		if n := p.thin.Usage().Accepted; n > c.torn {
			c.torn = n
			log.Warn("after an unclean stop, blocks that were being written are as they were found", "blocks", n)
		}
		health := c.health
		p.health.Store(&health)
	}
}

// look does a piece of the first chore that is due.
func (c *chores) look(ctx context.Context, now time.Time) {
	if ops := c.pool.ops.Load(); ops != c.ops {
		c.ops, c.quiet, c.heal, c.trim = ops, now, true, true
	}
	switch idle := now.Sub(c.quiet) >= idleAfter; {
	case idle && c.heal:
		left, ok := c.piece(ctx, "heal", healWork, c.pool.thin.Heal)
		c.heal, c.health.Unhealed = ok && left > 0, left
	case idle && c.trim:
		left, ok := c.piece(ctx, "give space back", trimWork, c.pool.thin.Trim)
		c.trim = ok && left > 0
	case !c.scrub && now.Before(c.next):
	case idle:
		c.read(ctx, now, scrubWork)
	default:
		c.read(ctx, now, scrubSlow)
	}
}

// piece does some bytes of a chore; what goes wrong ends it until something changes.
func (c *chores) piece(ctx context.Context, what string, work int64, do func(context.Context, int64) (thin.Progress, error)) (left int64, ok bool) {
	pr, err := do(ctx, work)
	if err != nil && ctx.Err() == nil && !errors.Is(err, lun.ErrNoSpace) {
		c.log.Warn(what+" ended early", "error", err)
	}
	return pr.Left, err == nil
}

// read does a piece of a scrub.
func (c *chores) read(ctx context.Context, now time.Time, work int64) {
	if !c.scrub {
		c.scrub, c.health.Bad = true, 0
		c.damaged()
	}
	pr, err := c.pool.thin.Scrub(ctx, work)
	for _, d := range pr.Bad {
		c.health.Bad += d.Size
		c.log.Error("data cannot be read", "lun", d.Volume, "byte", d.Offset, "bytes", d.Size, "error", d.Err)
	}
	if err != nil && ctx.Err() == nil {
		c.log.Warn("scrub ended early", "error", err)
	}
	if err == nil && pr.Left > 0 {
		return
	}
	c.scrub, c.next = false, now.Add(scrubAgain)
	if err == nil {
		c.health.Scrubbed = now
	}
}

// damaged counts what was found unreadable when the pool was opened.
func (c *chores) damaged() {
	for _, d := range c.pool.thin.Damaged() {
		c.health.Bad += d.Size
	}
}
