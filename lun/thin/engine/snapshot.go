package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ripstop/lun"
	"ripstop/lun/lane"
	"ripstop/lun/thin"
)

var _ lun.Keeper = (*Engine)(nil)

// Snapshots is what all pools in service have, in the order of their making.
func (e *Engine) Snapshots() []lun.SnapshotStats {
	e.mu.RLock()
	pools := slices.SortedFunc(maps.Values(e.pools), func(a, b *pool) int { return cmp.Compare(a.name, b.name) })
	e.mu.RUnlock()
	var out []lun.SnapshotStats
	for _, p := range pools {
		all := p.thin.List()
		slices.SortFunc(all, func(a, b thin.Entry) int { return cmp.Compare(a.Number, b.Number) })
		for _, s := range all {
			if s.Snapshot {
				out = append(out, lun.SnapshotStats{
					Info: lun.Info{Name: s.Name, ID: s.ID, Size: s.Size, BlockSize: s.Block, ReadOnly: true},
					Pool: p.name, Created: s.Created, Used: s.Exclusive + s.Shared, Exclusive: s.Exclusive,
				})
			}
		}
	}
	return out
}

// Snapshot keeps the present of LUNs of one pool.
func (e *Engine) Snapshot(ctx context.Context, name string, luns ...string) error {
	what := "snapshot " + name
	return e.onLUNs(ctx, what, luns, func(ctx context.Context, p *pool) error {
		if err := p.thin.Snapshot(ctx, name, luns...); err != nil {
			return err
		}
		e.log.Debug("snapshot made", "luns", strings.Join(luns, ","), "snapshot", name)
		return nil
	})
}

// SnapshotAs keeps the present of a LUN as a snapshot that another pool has.
func (e *Engine) SnapshotAs(ctx context.Context, name string, of lun.SnapshotStats) error {
	_, snapshot, _ := lun.SplitSnapshot(of.Name)
	return e.onLUNs(ctx, "snapshot "+snapshot, []string{name}, func(ctx context.Context, p *pool) error {
		return p.thin.SnapshotAs(ctx, snapshot, name, of.ID, of.Created)
	})
}

// onLUNs does something to LUNs in service, in the lane of their one pool.
func (e *Engine) onLUNs(ctx context.Context, what string, luns []string, do func(context.Context, *pool) error) error {
	first, err := e.poolOf(luns)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return e.verb(ctx, first.name, what, func(ctx context.Context) error {
		p, err := e.poolOf(luns) // another one, when it was opened anew
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if p.name != first.name {
			return fmt.Errorf("%s: LUN %s: %w", what, luns[0], lun.ErrClosed)
		}
		return do(ctx, p)
	})
}

// poolOf is the one pool of LUNs in service.
func (e *Engine) poolOf(luns []string) (*pool, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var p *pool
	for _, name := range luns {
		v := e.volumes[name]
		if v == nil {
			return nil, fmt.Errorf("LUN %s: %w", name, lun.ErrClosed)
		}
		if p != nil && p != v.pool {
			return nil, fmt.Errorf("LUN %s is in pool %s and LUN %s in pool %s: make a snapshot of each", luns[0], p.name, name, v.pool.name)
		}
		p = v.pool
	}
	if p == nil {
		return nil, fmt.Errorf("of no LUN: %w", lun.ErrUnknown)
	}
	return p, nil
}

// ofSnapshot is the pool of "LUN@SNAPSHOT".
func (e *Engine) ofSnapshot(name string) (pool string, err error) {
	if pool, ok := e.Keeps(name); ok && strings.Contains(name, "@") {
		return pool, nil
	}
	return "", fmt.Errorf("snapshot %s: %w", name, lun.ErrUnknown)
}

// Clone makes the data of a LUN that is out of service until it is opened.
func (e *Engine) Clone(ctx context.Context, snapshot, name string) (lun.LUN, error) {
	pool, err := e.ofSnapshot(snapshot)
	if err != nil {
		return lun.LUN{}, fmt.Errorf("clone %w", err)
	}
	return lane.Alone(ctx, e.lanes, pool, "clone "+snapshot+" to LUN "+name, 0, func(ctx context.Context) (lun.LUN, error) {
		return e.clone(ctx, pool, snapshot, name)
	})
}

func (e *Engine) clone(ctx context.Context, pool, snapshot, name string) (lun.LUN, error) {
	p := e.pool(pool)
	if p == nil {
		return lun.LUN{}, fmt.Errorf("clone snapshot %s: %w", snapshot, lun.ErrUnknown)
	}
	release, err := e.claim(name, pool)
	if err != nil {
		return lun.LUN{}, fmt.Errorf("clone %s to %w", snapshot, err)
	}
	defer release()
	if other, ok := e.Keeps(name); ok {
		return lun.LUN{}, fmt.Errorf("clone %s to LUN %s: pool %s has one: %w", snapshot, name, other, lun.ErrExists)
	}
	v, err := p.thin.Clone(ctx, snapshot, name)
	if err != nil {
		return lun.LUN{}, unknown(err)
	}
	i := v.Info()
	e.log.Debug("clone made", "snapshot", snapshot, "lun", name)
	return lun.LUN{Pool: p.name, Size: i.Size, Block: i.BlockSize}, nil
}

// Restore makes a LUN in service what it was at its snapshot.
func (e *Engine) Restore(ctx context.Context, name, snapshot, keep string) error {
	return e.onLUNs(ctx, "restore", []string{name}, func(ctx context.Context, p *pool) error {
		if err := p.thin.Restore(ctx, name, snapshot, keep); err != nil {
			return unknown(err)
		}
		e.log.Debug("lun restored", "lun", name, "snapshot", snapshot, "kept", keep)
		return nil
	})
}

// DeleteSnapshot destroys a snapshot.
func (e *Engine) DeleteSnapshot(ctx context.Context, name string) (lun.Deleted, error) {
	pool, err := e.ofSnapshot(name)
	if err != nil {
		return lun.Deleted{}, fmt.Errorf("delete %w", err)
	}
	return lane.Alone(ctx, e.lanes, pool, "delete snapshot "+name, 0, func(ctx context.Context) (lun.Deleted, error) {
		p := e.pool(pool)
		if p == nil {
			return lun.Deleted{}, fmt.Errorf("delete snapshot %s: %w", name, lun.ErrUnknown)
		}
		d, err := p.delete(ctx, name)
		if err == nil {
			e.log.Debug("snapshot deleted", "snapshot", name, "freed", d.Freed)
		}
		return d, err
	})
}

// unknown says in the words of package lun what a pool does not have: it may
// have gone since it was looked up.
func unknown(err error) error {
	if errors.Is(err, thin.ErrNotFound) {
		return fmt.Errorf("%w: %w", lun.ErrUnknown, err)
	}
	return err
}
