package lun

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Engine has the pools of one kind in service, and their LUNs. It is safe for
// concurrent use.
type Engine interface {
	// Observe is the pools and LUNs in service.
	Observe(ctx context.Context) (State, error)
	// Do carries out one step. A step that has been done already succeeds.
	Do(ctx context.Context, step Step) error
	// HasPool tells whether a pool is in service here.
	HasPool(name string) bool
	// Keeps is the pool in service that has data of a LUN, in service or not.
	Keeps(lun string) (pool string, ok bool)
	// Volume is a LUN in service; any other is ErrClosed.
	Volume(name string) (Volume, error)
	// Fill is how full the pools in service are, which costs next to nothing.
	Fill() []Fill
	// Stats is how full pools and LUNs in service are.
	Stats() Stats
	// Retained is the LUNs out of service whose data a pool in service keeps.
	Retained() []LUNStats
	// Delete destroys the data of a LUN out of service; what no pool in service
	// has is ErrUnknown.
	Delete(ctx context.Context, name string) (Deleted, error)
	// Check reads all data of a LUN in service, calls read with the bytes that it
	// has read, piece by piece, and gives what is wrong, a sentence
	// each. The error says that the check itself could not be made.
	Check(ctx context.Context, name string, read func(n int64)) (faults []string, err error)
	// Close takes everything out of service and keeps all data.
	Close() error
}

// Deleted is what is gone.
type Deleted struct {
	ID    [16]byte // of the LUN, zero when its metadata could not be read
	Pool  string
	Freed int64 // bytes

	Other string // the pool of the other leg of a mirror, "" without one
}

// Mux is an Engine over one for each kind of pool: a step goes to the engine
// that has its pool.
type Mux struct {
	engines map[Kind]Engine
	holding sync.Mutex // one snapshot of several pools at a time

	mu     sync.Mutex // guards what follows, and is not held over I/O
	fronts map[string]*front
	moves  map[string]*Move // under way
	snaps  map[string]int   // LUNs of which snapshots are being made, and how many
	moved  map[string]Moved // committed, and something of it may be left to do
	ended  uint64           // how many moves have

	options MirrorOptions
	mirrors map[string]*Mirror // in service
}

var _ Engine = (*Mux)(nil)

// NewMux is a Mux over engines.
func NewMux(engines map[Kind]Engine) *Mux {
	return &Mux{engines: maps.Clone(engines), fronts: map[string]*front{}, moves: map[string]*Move{}, snaps: map[string]int{}, moved: map[string]Moved{}, mirrors: map[string]*Mirror{}}
}

// all is the engines, always in the same order.
func (m *Mux) all() []Engine {
	out := make([]Engine, 0, len(m.engines))
	for _, k := range slices.Sorted(maps.Keys(m.engines)) {
		out = append(out, m.engines[k])
	}
	return out
}

// Observe merges what all engines have in service.
func (m *Mux) Observe(ctx context.Context) (all State, err error) {
	err = m.still(func() error {
		all = State{Pools: map[string]Pool{}, LUNs: map[string]LUN{}}
		for _, e := range m.all() {
			s, err := e.Observe(ctx)
			if err != nil {
				return err
			}
			maps.Copy(all.Pools, s.Pools)
			maps.Copy(all.LUNs, s.LUNs)
		}
		all = m.seen(all)
		return nil
	})
	if err != nil {
		return State{}, err
	}
	return all, nil
}

// seen is all without what moves hold apart.
func (m *Mux) seen(all State) State {
	m.seenMirrors(all)
	type named struct {
		name string
		LUN
	}
	var luns []named
	for name, l := range all.LUNs {
		luns = append(luns, named{name, l})
	}
	all.LUNs = map[string]LUN{}
	for _, l := range visible(m, luns, func(l *named) *string { return &l.name }) {
		if v := m.moving(l.name); v != nil && v.decided.Load() {
			l.Pool, l.Ready = v.pools[0], v.pools[1]
		}
		all.LUNs[l.name] = l.LUN
	}
	return all
}

// Do hands a step to the engine that it concerns.
func (m *Mux) Do(ctx context.Context, step Step) error {
	var e Engine
	if ok, err := m.doMirror(ctx, step); ok || err != nil {
		return err
	}
	switch s := step.(type) {
	case OpenPool:
		return m.openPool(ctx, s)
	case SetPool:
		e = m.ofPool(s.Name)
	case ClosePool:
		if name := m.into(s.Name); name != "" {
			return fmt.Errorf("close pool %s: LUN %s is being moved into it: wait for that, or end it with `ripstop lun move %s --cancel`", s.Name, name, name)
		}
		if e = m.ofPool(s.Name); e == nil {
			return nil
		}
	case OpenLUN:
		if err := m.settle(ctx, s.Name); err != nil {
			return fmt.Errorf("open LUN %s: finish its move: %w", s.Name, err)
		}
		if err := m.elsewhere(s.Name, s.LUN.Pool); err != nil {
			return fmt.Errorf("open LUN %s: %w", s.Name, err)
		}
		if e = m.ofPool(s.LUN.Pool); e == nil {
			return fmt.Errorf("open LUN %s: pool %s is not in service: see its own problem", s.Name, s.LUN.Pool)
		}
	case SwitchLUN:
		return m.switchLUN(ctx, s)
	case GrowLUN:
		if err := m.growCopy(ctx, s); err != nil {
			return err
		}
		e = m.ofLUN(s.Name)
	case ReserveLUN:
		if m.moving(s.Name) != nil {
			return fmt.Errorf("reserve room for LUN %s: %w: wait for that, or end it with `ripstop lun move %s --cancel`", s.Name, ErrMoves, s.Name)
		}
		e = m.ofLUN(s.Name)
	case CloseLUN:
		if v := m.moving(s.Name); v != nil {
			return m.closeMoving(ctx, v)
		}
		if e = m.ofLUN(s.Name); e == nil {
			return nil
		}
	case Refuse:
		return s.Err()
	}
	if e == nil {
		return fmt.Errorf("%s: it is not in service", step.Object())
	}
	return e.Do(ctx, step)
}

func (m *Mux) openPool(ctx context.Context, s OpenPool) error {
	e, ok := m.engines[s.Pool.Kind]
	if !ok {
		return fmt.Errorf("open pool %s: there is no kind %q: write `kind: thin` or `kind: raw`", s.Name, s.Pool.Kind)
	}
	if other := m.ofPool(s.Name); other != nil && other != e {
		return fmt.Errorf("open pool %s: it is in service and has another kind", s.Name)
	}
	if err := e.Do(ctx, s); err != nil {
		return err
	}
	if err := m.settleIn(ctx, s.Name); err != nil {
		return fmt.Errorf("open pool %s: finish moves of its LUNs: %w", s.Name, err)
	}
	if err := m.sweepPool(ctx, s.Name); err != nil {
		return fmt.Errorf("open pool %s: delete what mirrors left: %w", s.Name, err)
	}
	return nil
}

// elsewhere refuses to make a LUN whose data lie in another pool: it would look
// as if they were lost.
func (m *Mux) elsewhere(name, pool string) error {
	for _, e := range m.all() {
		if other, ok := e.Keeps(name); ok && other != pool {
			return Elsewhere(name, other, pool)
		}
	}
	return nil
}

// Elsewhere is why a LUN whose data are in one pool cannot be opened in another.
func Elsewhere(name, has, want string) error {
	return fmt.Errorf("its data are in pool %s and not in %s: write `pool: %s`; from there `ripstop lun move %s --pool %s` moves them", has, want, has, name, want)
}

func (m *Mux) ofPool(name string) Engine {
	for _, e := range m.all() {
		if e.HasPool(name) {
			return e
		}
	}
	return nil
}

func (m *Mux) ofLUN(name string) Engine {
	for _, e := range m.all() {
		if _, err := e.Volume(name); err == nil {
			return e
		}
	}
	return nil
}

// HasPool tells whether a pool is in service.
func (m *Mux) HasPool(name string) bool { return m.ofPool(name) != nil }

// Keeps is the pool in service that has data of a LUN.
func (m *Mux) Keeps(lun string) (string, bool) {
	for _, e := range m.all() {
		if pool, ok := e.Keeps(lun); ok {
			return pool, true
		}
	}
	if _, is := apart(lun); !is && m.options.Load != nil {
		return m.Keeps(lun + legSuffix)
	}
	return "", false
}

// Volume is a LUN in service.
func (m *Mux) Volume(name string) (Volume, error) {
	if _, _, snapshot := SplitSnapshot(name); !snapshot {
		f, err := m.front(name)
		if err != nil {
			return nil, err
		}
		return f, nil
	}
	for _, e := range m.all() {
		if v, err := e.Volume(name); err == nil {
			return v, nil
		}
	}
	return nil, fmt.Errorf("LUN %s: %w", name, ErrClosed)
}

// Fill is how full all pools in service are, sorted by name.
func (m *Mux) Fill() []Fill {
	var all []Fill
	for _, e := range m.all() {
		all = append(all, e.Fill()...)
	}
	slices.SortFunc(all, func(a, b Fill) int { return cmp.Compare(a.Pool, b.Pool) })
	return all
}

// Stats is how full all pools and LUNs in service are.
func (m *Mux) Stats() (all Stats) {
	_ = m.still(func() error {
		all = Stats{}
		for _, e := range m.all() {
			s := e.Stats()
			all.Pools, all.LUNs = append(all.Pools, s.Pools...), append(all.LUNs, s.LUNs...)
		}
		all.LUNs = m.mirrorStats(all.LUNs)
		all.LUNs = visible(m, all.LUNs, func(l *LUNStats) *string { return &l.Name })
		return nil
	})
	slices.SortFunc(all.Pools, func(a, b PoolStats) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(all.LUNs, func(a, b LUNStats) int { return cmp.Compare(a.Name, b.Name) })
	return all
}

// Retained is the LUNs out of service whose data are kept, sorted by name and
// then by pool.
func (m *Mux) Retained() []LUNStats {
	var all []LUNStats
	for _, e := range m.all() {
		all = append(all, e.Retained()...)
	}
	all = m.retainedMirrors(all)
	for i := range all {
		all[i].Name = strings.TrimSuffix(all[i].Name, legSuffix)
	}
	all = slices.DeleteFunc(all, func(l LUNStats) bool { _, is := apart(l.Name); return is })
	slices.SortFunc(all, func(a, b LUNStats) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Pool, b.Pool))
	})
	return all
}

// Delete destroys the data of a LUN out of service.
func (m *Mux) Delete(ctx context.Context, name string) (Deleted, error) {
	if e := m.ofLUN(name); e != nil {
		return e.Delete(ctx, name) // which refuses it
	}
	if m.mirrorOf(name) != nil {
		return Deleted{}, fmt.Errorf("delete LUN %s: it is in service", name)
	}
	if d, ok, err := m.deleteMirror(ctx, name); ok || err != nil {
		if err != nil {
			err = fmt.Errorf("delete LUN %s: %w", name, err)
		}
		return d, err
	}
	all := m.all()
	for i, e := range all { // who has the data goes first: a disk that hangs elsewhere is not asked
		if _, ok := e.Keeps(name); ok {
			all[0], all[i] = all[i], all[0]
			break
		}
	}
	for _, e := range all {
		d, err := e.Delete(ctx, name)
		if !errors.Is(err, ErrUnknown) {
			return d, err
		}
	}
	return Deleted{}, fmt.Errorf("delete LUN %s: %w", name, ErrUnknown)
}

// Check reads all data of a LUN in service.
func (m *Mux) Check(ctx context.Context, name string, read func(n int64)) ([]string, error) {
	if mir := m.mirrorOf(name); mir != nil {
		return m.checkMirror(ctx, mir, read)
	}
	e := m.ofLUN(name)
	if e == nil {
		return nil, fmt.Errorf("check LUN %s: %w", name, ErrClosed)
	}
	return e.Check(ctx, name, read)
}

// poolChecker is an Engine whose pools hold more than LUNs in service.
type poolChecker interface {
	// CheckPool reads all of a pool, in service or not, and gives what is wrong,
	// by LUN or LUN@SNAPSHOT, and by "" what is of no LUN. It changes nothing.
	CheckPool(ctx context.Context, name string, pool Pool, read func(n int64)) (faults map[string][]string, err error)
}

// CheckPool reads all of a pool, in service or not, and gives what is wrong, by
// LUN or LUN@SNAPSHOT. ok is false for a kind whose pools hold nothing that Check
// of their LUNs does not read.
func (m *Mux) CheckPool(ctx context.Context, name string, pool Pool, read func(n int64)) (faults map[string][]string, ok bool, err error) {
	e, ok := m.engines[pool.Kind].(poolChecker)
	if !ok {
		return nil, false, nil
	}
	faults, err = e.CheckPool(ctx, name, pool, read)
	return faults, true, err
}

// Close closes every engine, all at the same time: one may wait for a disk.
func (m *Mux) Close() error {
	all := m.all()
	errs := make([]error, len(all))
	var group sync.WaitGroup
	for _, mir := range m.allMirrors() {
		group.Go(func() { _ = mir.close(mir.life) }) // a leg that hangs is left, and engines say so
	}
	group.Wait()
	for i, e := range all {
		group.Go(func() { errs[i] = e.Close() })
	}
	group.Wait()
	return errors.Join(errs...)
}
