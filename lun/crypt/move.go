package crypt

import (
	"context"
	"errors"
	"fmt"

	"ripstop/lun"
)

// A move copies what lies on the disk, and the header goes with it: it is in both
// pools from before the commit until what is left is destroyed.

// CommitMove has both a LUN and its copy be the LUN. The header goes first, unless
// CarryKey was called.
func (e *Engine) CommitMove(ctx context.Context, name string) error {
	e.mu.Lock()
	carried := e.carried[name]
	e.mu.Unlock()
	if to := e.MovesTo(name); to == "" || carried != to {
		if err := e.CarryKey(ctx, name); err != nil {
			return err
		}
	}
	return e.Mux.CommitMove(ctx, name)
}

// CarryKey copies the header of a LUN that moves to where it moves. It waits for both
// pools, which may be busy for long: then it is lun.ErrHangs, and may be called again.
func (e *Engine) CarryKey(ctx context.Context, name string) error {
	e.mu.Lock()
	u := e.open[name]
	e.mu.Unlock()
	if u != nil {
		record, err := e.Record(ctx, u.pool, name)
		if err == nil && record == nil {
			err = errors.New("its key is not there")
		}
		if err == nil {
			err = e.setRecord(ctx, e.MovesTo(name), name, record)
		}
		if err != nil {
			return fmt.Errorf("copy its sealed key: %w", err)
		}
	} else if to := e.MovesTo(name); to != "" {
		// That of a LUN that was never made there would have this one be taken for
		// encrypted. What cannot be read is not believed when the LUN is opened, either.
		if err := e.dropRecord(ctx, to, name); err != nil && !errors.Is(err, lun.ErrRecordsUnread) {
			return fmt.Errorf("remove the sealed key of another LUN of its name: %w", err)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.carried[name] = e.MovesTo(name)
	return nil
}

// EndMove has a LUN stay where it is, and destroys the copy in a pool.
func (e *Engine) EndMove(ctx context.Context, name, pool string) (bool, error) {
	e.mu.Lock()
	delete(e.carried, name)
	e.mu.Unlock()
	over, err := e.Mux.EndMove(ctx, name, pool)
	if !over || err != nil {
		return over, err
	}
	return true, e.dropRecord(ctx, pool, name)
}

// TidyMoved destroys what a committed move left behind.
func (e *Engine) TidyMoved(ctx context.Context, name string) (bool, error) {
	return e.Mux.TidyMoved(ctx, name, func(m lun.Moved) error { return e.dropRecord(ctx, m.From, name) })
}

// dropRecord removes a header of which the pool has no data.
func (e *Engine) dropRecord(ctx context.Context, pool, name string) error {
	if e.Has(pool, name) {
		return nil
	}
	record, err := e.Record(ctx, pool, name)
	if err != nil || record == nil {
		return err
	}
	return e.setRecord(ctx, pool, name, nil)
}

// switched notes where a LUN is now.
func (e *Engine) switched(name, pool string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.carried, name)
	if u := e.open[name]; u != nil {
		u.pool = pool
	}
}
