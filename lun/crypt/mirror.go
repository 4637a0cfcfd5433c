package crypt

import (
	"context"
	"fmt"

	"ripstop/lun"
)

// The legs of a mirror have the same on their disks, so the header of the LUN is in
// both pools: in one before the leg there may ever serve the LUN alone.

// doLeg carries out a step of a mirror.
func (e *Engine) doLeg(ctx context.Context, step lun.Step) error {
	switch s := step.(type) {
	case lun.AddLeg:
		if err := e.carry(ctx, s.Name, s.Pool); err != nil {
			return fmt.Errorf("mirror LUN %s in pool %s: %w", s.Name, s.Pool, err)
		}
	case lun.ReturnLeg:
		if err := e.carry(ctx, s.Name, s.Pool); err != nil {
			return fmt.Errorf("LUN %s, leg in pool %s: %w", s.Name, s.Pool, err)
		}
	case lun.DropLeg:
		if err := e.Mux.Do(ctx, step); err != nil {
			return err
		}
		if pool, ok := e.Keeps(s.Name); ok {
			e.switched(s.Name, pool)
		}
		if !e.HasPool(s.Pool) {
			return nil
		}
		return e.dropRecord(ctx, s.Pool, s.Name)
	}
	return e.Mux.Do(ctx, step)
}

// carry has the header of a LUN in service be in the pool of a leg, too, and none there
// of a LUN that is not encrypted.
func (e *Engine) carry(ctx context.Context, name, pool string) error {
	if !e.HasPool(pool) {
		return nil // the Mux says so
	}
	e.mu.Lock()
	u := e.open[name]
	e.mu.Unlock()
	if u == nil {
		if e.Has(pool, name) {
			return nil // of another LUN, as the Mux says
		}
		return e.dropRecord(ctx, pool, name)
	}
	from := u.pool
	if home := e.Home(name); len(home) > 0 {
		from = home[0]
	}
	return e.spread(ctx, name, from, pool)
}

// spread copies the header that one pool has to others, where it differs.
func (e *Engine) spread(ctx context.Context, name, from string, pools ...string) error {
	record, err := e.Record(ctx, from, name)
	if err != nil {
		return fmt.Errorf("copy its sealed key: %w", err)
	}
	for _, pool := range pools {
		if pool == from || !e.HasPool(pool) {
			continue
		}
		if is, err := e.Record(ctx, pool, name); err == nil && string(is) == string(record) {
			continue
		}
		if err := e.setRecord(ctx, pool, name, record); err != nil {
			return fmt.Errorf("copy its sealed key: %w", err)
		}
	}
	return nil
}

// unlockLegs unlocks a LUN by the header of a pool that is in service: of two the one
// that opens, for the other may be of a time before keys were exchanged.
func (e *Engine) unlockLegs(ctx context.Context, name string, l lun.LUN) error {
	pools := []string{l.Pool}
	if l.Mirror != "" {
		e.survey(ctx, l.Mirror)
		pools = append(pools, l.Mirror)
	}
	if keeps, ok := e.Keeps(name); ok && keeps == l.Mirror || !e.HasPool(l.Pool) && l.Mirror != "" {
		pools[0], pools[1] = pools[1], pools[0]
	}
	var first error
	for i, pool := range pools {
		if i > 0 && !e.HasPool(pool) {
			continue
		}
		one := l
		one.Pool, one.Mirror = pool, pools[len(pools)-1-i]
		err := e.unlock(ctx, name, one)
		if err == nil {
			if len(pools) > 1 && e.encryption(name).On() {
				return e.spread(ctx, name, pool, pools...)
			}
			return nil
		}
		if first == nil {
			first = err
		}
	}
	return first
}
