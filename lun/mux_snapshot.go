package lun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

var _ Snapshotter = (*Mux)(nil)

// Snapshots is those of all engines that take any, by LUN.
func (m *Mux) Snapshots() []SnapshotStats {
	var all []SnapshotStats
	_ = m.still(func() error {
		all = nil
		for _, e := range m.all() {
			if s, ok := e.(Snapshotter); ok {
				all = append(all, s.Snapshots()...)
			}
		}
		all = m.visibleSnapshots(all)
		return nil
	})
	slices.SortStableFunc(all, func(a, b SnapshotStats) int {
		of, _, _ := SplitSnapshot(a.Name)
		other, _, _ := SplitSnapshot(b.Name)
		return strings.Compare(of, other)
	})
	return all
}

// snapshotter is the engine of a LUN in service, if it takes snapshots.
func (m *Mux) snapshotter(lun string) (Snapshotter, error) {
	e := m.ofLUN(lun)
	if e == nil {
		return nil, fmt.Errorf("LUN %s: %w", lun, ErrClosed)
	}
	if s, ok := e.(Snapshotter); ok {
		return s, nil
	}
	pool, _ := e.Keeps(lun)
	return nil, fmt.Errorf("LUN %s: pool %s is raw: %w: make a pool of `kind: thin` and copy the LUN into one there", lun, pool, ErrNoSnapshots)
}

// claimSnapshots keeps LUNs from beginning to move until release is called: a snapshot
// may wait for its pool for longer than a move takes.
func (m *Mux) claimSnapshots(luns []string) (release func(), err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range luns {
		if m.moves[l] != nil {
			return nil, fmt.Errorf("LUN %s: %w: wait for that, or end it with `ripstop lun move %s --cancel`", l, ErrMoves, l)
		}
	}
	for _, l := range luns {
		m.snaps[l]++
	}
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		for _, l := range luns {
			if m.snaps[l]--; m.snaps[l] == 0 {
				delete(m.snaps, l)
			}
		}
	}, nil
}

// holdMost is how long writes to LUNs wait at most for a snapshot of several pools: one
// pool whose disk hangs shall not hold up the LUNs of others.
const holdMost = 2 * time.Second

// Snapshot keeps the present of LUNs, all of the same moment, whatever pools they are in.
func (m *Mux) Snapshot(ctx context.Context, name string, luns ...string) error {
	if len(luns) == 0 {
		return fmt.Errorf("snapshot %s: of no LUN: %w", name, ErrUnknown)
	}
	for _, l := range luns {
		if err := m.freeOfMirror(l); err != nil {
			return fmt.Errorf("snapshot %s: %w", name, err)
		}
	}
	release, err := m.claimSnapshots(luns)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", name, err)
	}
	defer release()
	pools := map[string][]string{}
	engines := map[string]Snapshotter{}
	for _, l := range luns {
		s, err := m.snapshotter(l)
		if err != nil {
			return fmt.Errorf("snapshot %s: %w", name, err)
		}
		pool, _ := m.Keeps(l)
		pools[pool], engines[pool] = append(pools[pool], l), s
	}
	if len(pools) == 1 {
		for pool := range pools {
			return engines[pool].Snapshot(ctx, name, luns...)
		}
	}
	return m.together(ctx, name, luns, pools, engines)
}

// together makes a snapshot of several pools. No write begins between the first pool's
// and the last one's, so what was written after the answer to another write is in none of
// them without that.
func (m *Mux) together(ctx context.Context, name string, luns []string, pools map[string][]string, engines map[string]Snapshotter) error {
	for _, s := range m.Snapshots() { // what is deleted below must be ours
		if of, n, _ := SplitSnapshot(s.Name); n == name && slices.Contains(luns, of) {
			return fmt.Errorf("snapshot %s: %w", s.Name, ErrExists)
		}
	}
	brief, cancel := context.WithTimeoutCause(ctx, holdMost, ErrHangs)
	defer cancel()
	m.holding.Lock()
	free := m.hold(luns)
	var all sync.WaitGroup
	errs := make([]error, len(pools))
	names := slices.Sorted(maps.Keys(pools))
	for i, pool := range names {
		all.Go(func() { errs[i] = m.briefly(brief, engines[pool], pool, name, pools[pool]) })
	}
	all.Wait()
	free()
	m.holding.Unlock()
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	for i, pool := range names { // all of it or nothing
		for _, l := range pools[pool] {
			if errs[i] == nil {
				_, undone := engines[pool].DeleteSnapshot(context.WithoutCancel(ctx), l+"@"+name)
				err = errors.Join(err, undone)
			}
		}
	}
	return err
}

// briefly has a pool keep LUNs, and waits for that until ctx ends. No disk can be told to
// stop: what the pool keeps later is deleted then, and the LUNs do not move before.
func (m *Mux) briefly(ctx context.Context, s Snapshotter, pool, name string, luns []string) error {
	whole := context.WithoutCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Snapshot(whole, name, luns...) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	err := fmt.Errorf("pool %s: %w", pool, context.Cause(ctx))
	release, claimed := m.claimSnapshots(luns)
	if claimed != nil {
		return errors.Join(err, claimed)
	}
	go func() {
		defer release()
		if <-done != nil {
			return
		}
		for _, l := range luns {
			_, _ = s.DeleteSnapshot(whole, l+"@"+name) // what stays is seen, and deleted as others are
		}
	}()
	return err
}

// hold keeps changes of LUNs from beginning until free is called.
func (m *Mux) hold(luns []string) (free func()) {
	h := &hold{make(chan struct{})}
	for _, l := range luns {
		_, _ = m.front(l) // so that who begins to use it meanwhile waits, too
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var held []*front
	for _, l := range luns {
		if f := m.fronts[l]; f != nil {
			f.held.Store(h)
			held = append(held, f)
		}
	}
	return func() {
		for _, f := range held {
			f.held.Store(nil)
		}
		close(h.over)
	}
}

// ofSnapshot is the engine that has a snapshot.
func (m *Mux) ofSnapshot(name string) (Snapshotter, error) {
	for _, e := range m.all() {
		s, ok := e.(Snapshotter)
		if ok && slices.ContainsFunc(s.Snapshots(), func(x SnapshotStats) bool { return x.Name == name }) {
			return s, nil
		}
	}
	return nil, fmt.Errorf("snapshot %s: %w", name, ErrUnknown)
}

// Clone makes data of a LUN that no pool has yet.
func (m *Mux) Clone(ctx context.Context, snapshot, name string) (LUN, error) {
	s, err := m.ofSnapshot(snapshot)
	if err != nil {
		return LUN{}, fmt.Errorf("clone %w", err)
	}
	if pool, ok := m.Keeps(name); ok {
		return LUN{}, fmt.Errorf("clone %s to LUN %s: pool %s has one of this name: %w", snapshot, name, pool, ErrExists)
	}
	return s.Clone(ctx, snapshot, name)
}

// Restore makes a LUN what it was at its snapshot.
func (m *Mux) Restore(ctx context.Context, name, snapshot, keep string) error {
	s, err := m.ofSnapshot(name + "@" + snapshot)
	if err != nil {
		return fmt.Errorf("restore LUN %s: %w", name, err)
	}
	release, err := m.claimSnapshots([]string{name})
	if err != nil {
		return fmt.Errorf("restore %w", err)
	}
	defer release()
	return s.Restore(ctx, name, snapshot, keep)
}

// DeleteSnapshot destroys a snapshot.
func (m *Mux) DeleteSnapshot(ctx context.Context, snapshot string) (Deleted, error) {
	s, err := m.ofSnapshot(snapshot)
	if err != nil {
		return Deleted{}, fmt.Errorf("delete %w", err)
	}
	of, _, _ := SplitSnapshot(snapshot)
	release, err := m.claimSnapshots([]string{of})
	if err != nil {
		return Deleted{}, fmt.Errorf("delete snapshot %s: %w", snapshot, err)
	}
	defer release()
	return s.DeleteSnapshot(ctx, snapshot)
}
