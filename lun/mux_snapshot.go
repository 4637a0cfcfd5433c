package lun

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

var _ Snapshotter = (*Mux)(nil)

// Snapshots is those of all engines that take any, by LUN.
func (m *Mux) Snapshots() []SnapshotStats {
	var all []SnapshotStats
	for _, e := range m.all() {
		if s, ok := e.(Snapshotter); ok {
			all = append(all, s.Snapshots()...)
		}
	}
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

// Snapshot keeps the present of LUNs of one engine.
func (m *Mux) Snapshot(ctx context.Context, name string, luns ...string) error {
	if len(luns) == 0 {
		return fmt.Errorf("snapshot %s: of no LUN: %w", name, ErrUnknown)
	}
	release, err := m.claimSnapshots(luns)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", name, err)
	}
	defer release()
	first, err := m.snapshotter(luns[0])
	for _, l := range luns[1:] {
		s, other := m.snapshotter(l)
		if err == nil {
			err = other
		}
		if err == nil && s != first {
			err = fmt.Errorf("LUN %s is in another pool than LUN %s: make a snapshot of each", l, luns[0])
		}
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", name, err)
	}
	return first.Snapshot(ctx, name, luns...)
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
	return s.Restore(ctx, name, snapshot, keep)
}

// DeleteSnapshot destroys a snapshot.
func (m *Mux) DeleteSnapshot(ctx context.Context, snapshot string) (Deleted, error) {
	s, err := m.ofSnapshot(snapshot)
	if err != nil {
		return Deleted{}, fmt.Errorf("delete %w", err)
	}
	return s.DeleteSnapshot(ctx, snapshot)
}
