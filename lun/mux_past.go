package lun

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MostMoved is the snapshots that a LUN may have when it moves, with them or without: a
// pool gives so many other names at once.
const MostMoved = 2047

// past is a snapshot that moves with its LUN.
type past struct {
	is     SnapshotStats
	volume Volume // in the pool that the LUN leaves
}

// visibleSnapshots is snapshots without those of what moves hold apart. Those of a LUN
// whose move is being carried out go by its own name.
func (m *Mux) visibleSnapshots(all []SnapshotStats) []SnapshotStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	there := map[string]bool{}
	for _, s := range all {
		there[s.Name] = true
	}
	var out []SnapshotStats
	for _, s := range all {
		name, snapshot, _ := SplitSnapshot(s.Name)
		if of, is := apart(name); is {
			own := of + "@" + snapshot
			if move := m.moves[of]; there[own] || move == nil || move.state.Load() != moveDone || name != of+goneSuffix {
				continue
			}
			s.Name = own
		}
		out = append(out, s)
	}
	return out
}

// snapshotsIn is the snapshots that a pool has of data of a name, oldest first.
func snapshotsIn(e Engine, pool, name string) []SnapshotStats {
	s, ok := e.(Snapshotter)
	if !ok {
		return nil
	}
	return slices.DeleteFunc(s.Snapshots(), func(x SnapshotStats) bool {
		of, _, _ := SplitSnapshot(x.Name)
		return of != name || x.Pool != pool
	})
}

// pastOf is the snapshots that go with a LUN into a pool.
func (m *Mux) pastOf(name, from string, source Engine, to string) ([]past, error) {
	there := snapshotsIn(source, from, name)
	if _, ok := m.ofPool(to).(Keeper); !ok && len(there) > 0 {
		return nil, fmt.Errorf("it has snapshots, and pool %s takes none: %s: name a pool of kind thin, or leave them behind, which deletes them: `ripstop lun move %s --pool %s --without-snapshots`",
			to, strings.Join(m.SnapshotsOf(name), ", "), name, to)
	}
	var all []past
	for _, s := range there {
		v, err := source.Volume(s.Name)
		if err != nil {
			return nil, err
		}
		all = append(all, past{s, v})
	}
	return all, nil
}

// same tells whether a snapshot of a copy is one of the LUN.
func same(of, is SnapshotStats) bool {
	_, a, _ := SplitSnapshot(of.Name)
	_, b, _ := SplitSnapshot(is.Name)
	return a == b && of.ID == is.ID && of.Size == is.Size
}

// takeUp is how many snapshots an earlier attempt brought to the copy, and the size that
// it left the copy with, 0 for none. It is false where it cannot be gone on with.
func (m *Mux) takeUp(name string, l LUN, all []past) (kept int, size int64, ok bool) {
	e := m.ofPool(l.Pool)
	have := snapshotsIn(e, l.Pool, name+copySuffix)
	if len(have) > len(all) {
		return 0, 0, false
	}
	for i := range have {
		if !same(all[i].is, have[i]) {
			return 0, 0, false
		}
	}
	m.any(func(x LUNStats) bool {
		if x.Name == name+copySuffix && x.Pool == l.Pool {
			size = x.Size
		}
		return size > 0
	})
	least, most := int64(0), l.Size
	if len(have) > 0 {
		least = have[len(have)-1].Size
	}
	if len(have) < len(all) {
		most = all[len(have)].is.Size
	}
	return len(have), size, size == 0 && len(have) == 0 || least <= size && size <= most
}

// samePast is why the copy has not the snapshots of its LUN.
func (m *Mux) samePast(v *Move) error {
	e := m.ofLUN(v.name)
	if e == nil {
		return ErrClosed
	}
	have := snapshotsIn(e, v.pools[0], v.name)
	if !v.alone && !slices.EqualFunc(v.past, have, func(p past, is SnapshotStats) bool { return same(p.is, is) }) {
		return errOtherPast
	}
	return nil
}

var errOtherPast = errors.New("its snapshots have changed meanwhile: try again")

// dropSnapshots destroys the snapshots of data that go.
func dropSnapshots(ctx context.Context, e Engine, name string) error {
	pool, ok := e.Keeps(name)
	if !ok {
		return nil
	}
	for _, s := range snapshotsIn(e, pool, name) {
		if _, err := e.(Snapshotter).DeleteSnapshot(ctx, s.Name); err != nil && !errors.Is(err, ErrUnknown) {
			return err
		}
	}
	return nil
}
