package engine

import (
	"context"
	"log/slog"
	"sync"
)

// Serve has every pool in service tended until ctx ends: its log emptied, and room
// made ready, before an access must wait for it. Pools work without, and slower.
func (e *Engine) Serve(ctx context.Context, ready func()) error {
	e.control.Lock()
	e.tend = func(p *pool) { p.begin(ctx, e.log) }
	for _, p := range e.pools {
		e.tend(p)
	}
	e.control.Unlock()
	ready()
	<-ctx.Done()
	e.control.Lock()
	defer e.control.Unlock()
	e.tend = func(*pool) {}
	for _, p := range e.pools {
		p.rest()
	}
	return nil
}

// begin starts what is done for a pool in the background.
func (p *pool) begin(ctx context.Context, log *slog.Logger) {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	group.Go(func() {
		if err := p.thin.Maintain(ctx); err != nil {
			log.Error("pool is not tended", "pool", p.name, "error", err)
		}
	})
	p.rest = func() {
		cancel()
		group.Wait()
		p.rest = func() {}
	}
}
