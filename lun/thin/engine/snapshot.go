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
	"ripstop/lun/thin"
)

var _ lun.Snapshotter = (*Engine)(nil)

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
	p, err := e.poolOf(luns)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", name, err)
	}
	if err := p.thin.Snapshot(ctx, name, luns...); err != nil {
		return err
	}
	e.log.Debug("snapshot made", "luns", strings.Join(luns, ","), "snapshot", name)
	return nil
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

// snapshot finds one by "LUN@SNAPSHOT".
func (e *Engine) snapshot(name string) (*pool, *thin.Volume, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, p := range e.pools {
		if v, err := p.thin.Volume(name); err == nil && strings.Contains(name, "@") {
			return p, v, nil
		}
	}
	return nil, nil, fmt.Errorf("snapshot %s: %w", name, lun.ErrUnknown)
}

// Clone makes the data of a LUN that is out of service until it is opened.
func (e *Engine) Clone(ctx context.Context, snapshot, name string) (lun.LUN, error) {
	e.control.Lock() // so that no pool makes a LUN of this name meanwhile
	defer e.control.Unlock()
	p, _, err := e.snapshot(snapshot)
	if err != nil {
		return lun.LUN{}, fmt.Errorf("clone %w", err)
	}
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
	p, err := e.poolOf([]string{name})
	if err != nil {
		return fmt.Errorf("restore %w", err)
	}
	if err := p.thin.Restore(ctx, name, snapshot, keep); err != nil {
		return unknown(err)
	}
	e.log.Debug("lun restored", "lun", name, "snapshot", snapshot, "kept", keep)
	return nil
}

// DeleteSnapshot destroys a snapshot.
func (e *Engine) DeleteSnapshot(ctx context.Context, name string) (lun.Deleted, error) {
	p, v, err := e.snapshot(name)
	if err != nil {
		return lun.Deleted{}, fmt.Errorf("delete %w", err)
	}
	before := p.thin.Usage().Data
	if err := p.thin.Delete(ctx, name); err != nil {
		return lun.Deleted{}, unknown(err)
	}
	d := lun.Deleted{ID: v.Info().ID, Pool: p.name, Freed: max(0, before-p.thin.Usage().Data)}
	e.log.Debug("snapshot deleted", "snapshot", name, "freed", d.Freed)
	return d, nil
}

// unknown says in the words of package lun what a pool does not have: it may
// have gone since it was looked up.
func unknown(err error) error {
	if errors.Is(err, thin.ErrNotFound) {
		return fmt.Errorf("%w: %w", lun.ErrUnknown, err)
	}
	return err
}
