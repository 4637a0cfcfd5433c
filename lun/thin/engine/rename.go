package engine

import (
	"context"
	"fmt"

	"ripstop/lun"
)

var _ lun.Renamer = (*Engine)(nil)

// Rename gives data of a pool in service another name and identifier; I/O goes on.
// What a crash leaves of it is done by calling it again.
func (e *Engine) Rename(ctx context.Context, pool, from, to string, id [16]byte) error {
	what := "rename LUN " + from + " to " + to
	return e.step(ctx, pool, what, func(ctx context.Context) error {
		p := e.pool(pool)
		if p == nil {
			return fmt.Errorf("pool %s is not in service", pool)
		}
		release, err := e.claim(to, pool)
		if err != nil {
			return err
		}
		defer release()
		if v := e.volume(to); v != nil && v.pool != p {
			return fmt.Errorf("pool %s has one of this name in service: %w", v.pool.name, lun.ErrExists)
		}
		if v, err := p.thin.Volume(to); err == nil && v.Info().ID == id {
			return nil // by an earlier call
		}
		if err := p.thin.Rename(ctx, from, to, id); err != nil {
			return unknown(err)
		}
		e.relabel(p, from, to)
		e.log.Debug("lun renamed", "lun", from, "to", to, "pool", pool)
		return nil
	})
}

// relabel has the LUN in service, if it is, go by its new name.
func (e *Engine) relabel(p *pool, from, to string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if v := e.volumes[from]; v != nil && v.pool == p {
		v.is.Store(&to)
		delete(e.volumes, from)
		e.volumes[to] = v
	}
}
