package lun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// addLeg makes a mirror of a LUN in service.
func (m *Mux) addLeg(ctx context.Context, s AddLeg) error {
	if mir := m.mirrorOf(s.Name); mir != nil {
		if mir.legOf(s.Pool) != nil {
			return nil
		}
		return fmt.Errorf("LUN %s: %w in two pools already", s.Name, ErrMirrored)
	}
	release, err := m.claimSnapshots([]string{s.Name})
	if err != nil {
		return err
	}
	defer release()
	if m.takesSnapshots(s.Name) {
		return errors.New("a snapshot of it is being made: wait until that is done")
	}
	e, target := m.ofLUN(s.Name), m.ofPool(s.Pool)
	if e == nil || m.options.Load == nil {
		return ErrClosed
	}
	is, err := e.Observe(ctx)
	if err != nil {
		return err
	}
	pool := is.LUNs[s.Name].Pool // data of its name may be out of service in another one
	_, renames := e.(Renamer)
	switch {
	case target == nil:
		return fmt.Errorf("pool %s is not in service: see its own problem", s.Pool)
	case pool == s.Pool:
		return fmt.Errorf("it is in pool %s: name another one", pool)
	case !renames:
		return errors.New("its kind of pool gives no LUN away")
	}
	if all := m.SnapshotsOf(s.Name); len(all) > 0 {
		return fmt.Errorf("it has snapshots, which would be in one pool alone: %s: delete them first", strings.Join(all, ", "))
	}
	f, err := m.front(s.Name)
	if err != nil {
		return err
	}
	w, err := m.witnessOf(s.Name)
	if err != nil {
		return err
	}
	gone, err := m.forget(ctx, s.Name, pool, w)
	if err != nil {
		return err
	}
	if m.lies(s.Name, s.Pool, [16]byte{}) {
		return fmt.Errorf("pool %s has data of another LUN of its name: delete them, or name another pool", s.Pool)
	}
	v, err := e.Volume(s.Name)
	if err != nil {
		return err
	}
	i := v.Info()
	may := newRegions(i.Size)
	may.fill()
	legs := &view{[2]*leg{newLeg(pool, s.Name, v), newLeg(s.Pool, s.Name+legSuffix, nil)}, [2]LegState{LegInSync, LegAway}}
	mir := newMirror(ctx, s.Name, f.id, legs, i.Size, i.BlockSize, may, m.options, func(pool string, record []byte) error {
		return m.SetRecord(context.WithoutCancel(ctx), pool, s.Name+legSuffix, record)
	})
	mir.gone = gone
	// A record that is left of an earlier mirror knows nothing of the epochs of this one.
	if err := m.SetRecord(ctx, pool, s.Name+legSuffix, nil); err != nil {
		return err
	}
	if err := mir.settle(nil, verdict{}); err != nil {
		return err
	}
	mir.start()
	m.turnTo(s.Name, f, mir, mir)
	if err := m.returnLeg(ctx, mir, s.Pool); err != nil {
		return fmt.Errorf("its leg in pool %s: %w", s.Pool, err)
	}
	return nil
}

// forget has the state directory know of no mirror of a LUN that is in service in one
// pool alone, and gives the pools that may have data left of legs. It may know of one where
// it could not be told of the end.
func (m *Mux) forget(ctx context.Context, name, pool string, w *witness) (gone []string, err error) {
	if w == nil {
		return nil, nil
	}
	if len(w.Pools) > 0 && !slices.Equal(w.Whole, []string{pool}) {
		return nil, fmt.Errorf("it is in service in pool %s alone, and in a mirror that has everything in pool %s: restart the daemon", pool, strings.Join(w.Whole, " and in pool "))
	}
	gone = slices.Clone(w.Gone)
	for _, p := range w.Pools {
		if p != pool && !slices.Contains(gone, p) {
			gone = append(gone, p)
		}
	}
	if gone, err = m.sweep(ctx, name, w.ID, gone); err != nil || len(w.Pools) == 0 {
		return gone, err
	}
	var record []byte
	if len(gone) > 0 {
		record = witness{ID: w.ID, Gone: gone}.encode()
	}
	return gone, m.options.Save(name, record)
}

// takesSnapshots tells whether somebody makes a snapshot of a LUN besides who has
// claimed it.
func (m *Mux) takesSnapshots(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.snaps[name] > 1
}

// turnTo has accesses of a LUN go to v, which is that of mir unless that is nil, and
// returns when none is on the old way.
func (m *Mux) turnTo(name string, f *front, v Volume, mir *Mirror) {
	m.mu.Lock()
	if mir != nil {
		m.mirrors[name] = mir
	} else {
		delete(m.mirrors, name)
	}
	m.fronts[name] = f
	old := f.now.Swap(newWay(v, nil))
	m.mu.Unlock()
	old.leave()
	<-old.empty
	if s, ok := old.volume.(settler); ok {
		s.Settle()
	}
}

// returnLeg has a leg that was away brought up to date.
func (m *Mux) returnLeg(ctx context.Context, mir *Mirror, pool string) error {
	l := mir.legOf(pool)
	away, until := mir.away()
	if l == nil || away != pool {
		return nil
	}
	if wait := time.Until(until); wait > 0 {
		return fmt.Errorf("its leg in pool %s is away: %s: it is tried again at %s", pool, mir.reason(pool), until.UTC().Format(time.TimeOnly))
	}
	if n := l.pending(); n > 0 {
		return fmt.Errorf("its leg in pool %s is away: %s: %d accesses to its disk have not ended", pool, mir.reason(pool), n)
	}
	for _, p := range mir.leftIn() { // in other pools of the engine it would be in the way
		if err := m.sweepLeg(ctx, mir, p); err != nil {
			mir.failed(pool, err.Error())
			return fmt.Errorf("its leg in pool %s is away: %w", pool, err)
		}
	}
	f, name := m.legIn(ctx, mir.name, pool)
	if !f.there {
		mir.failed(pool, f.why)
		return fmt.Errorf("its leg in pool %s is away: %s", pool, f.why)
	}
	if f.data && !f.of(mir.id) {
		mir.failed(pool, f.foreign().Error())
		return f.foreign()
	}
	if name == "" {
		var err error
		if name, err = m.freeName(ctx, mir, l); err != nil {
			mir.failed(pool, err.Error())
			return fmt.Errorf("its leg in pool %s is away: %w", pool, err)
		}
	}
	lacks, err := mir.lacks(f)
	if err != nil {
		return err
	}
	volume, err := m.reopenLeg(ctx, pool, name, mir)
	if err != nil {
		mir.failed(pool, err.Error())
		return fmt.Errorf("its leg in pool %s is away: %w", pool, err)
	}
	named := newRegions(mir.size.Load())
	if f.record != nil && len(f.record.Regions) > 0 {
		named = regions{f.record.Shift, f.record.Regions}
	}
	return mir.resume(newLeg(pool, name, volume), lacks, named)
}

// freeName is the name of a leg that is made, which the other one does not have: no engine
// keeps two LUNs of one name. By the LUN's own name a leg is known by its identifier, which
// new data have not.
func (m *Mux) freeName(ctx context.Context, mir *Mirror, l *leg) (string, error) {
	for _, other := range mir.view.Load().legs {
		if other == nil || other == l || other.name() == mir.name {
			continue
		}
		e, ok := m.ofPool(other.pool).(Renamer)
		if !ok {
			return "", fmt.Errorf("pool %s is not in service", other.pool)
		}
		if err := e.Rename(ctx, other.pool, other.name(), mir.name, mir.id); err != nil {
			return "", err
		}
		other.called.Store(&mir.name)
	}
	return mir.name + legSuffix, nil
}

// reopenLeg opens a leg that was away, anew where it takes no writes.
func (m *Mux) reopenLeg(ctx context.Context, pool, name string, mir *Mirror) (Volume, error) {
	i := mir.Info()
	l := LUN{Size: i.Size, Block: i.BlockSize}
	v, err := m.openLeg(ctx, pool, name, l)
	if err == nil && v.Info().ReadOnly {
		if err := m.ofPool(pool).Do(ctx, CloseLUN{name}); err != nil {
			return nil, err
		}
		v, err = m.openLeg(ctx, pool, name, l)
	}
	if err != nil {
		return nil, err
	}
	switch is := v.Info(); {
	case is.ReadOnly:
		return nil, fmt.Errorf("pool %s: %w: `ripstop get pool` says why; put that right, then `ripstop pool reopen %s`", pool, ErrReadOnly, pool)
	case is.Size < i.Size:
		return v, m.ofPool(pool).Do(ctx, GrowLUN{name, is.Size, i.Size})
	}
	return v, nil
}

// lacks tells whether a leg lacks more than the regions say.
func (m *Mirror) lacks(f found) (bool, error) {
	m.state.Lock()
	defer m.state.Unlock()
	if !f.data || f.record == nil || f.record.ID != m.id {
		return true, nil
	}
	if f.record.Kind != legLacks && f.record.Epoch.N >= m.epoch.N && f.record.Epoch != m.epoch {
		return true, fmt.Errorf("%w, in pool %s: look at both and choose: `ripstop lun mirror %s --use POOL`; what only the other one has is lost",
			ErrMirrorSplit, f.pool, m.name)
	}
	return f.record.Other == f.pool || f.record.Epoch != m.epoch && (f.record.Epoch != m.base || m.base == epoch{}), nil
}

func (m *Mirror) reason(pool string) string {
	for _, s := range m.stats() {
		if s.Pool == pool {
			return s.Reason
		}
	}
	return ""
}

// failed says why a leg stays away.
func (m *Mirror) failed(pool, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, l := range m.view.Load().legs {
		if l != nil && l.pool == pool {
			m.status[i].why = why
		}
	}
}

// dropLeg has a mirrored LUN leave a pool.
func (m *Mux) dropLeg(ctx context.Context, s DropLeg) error {
	mir := m.mirrorOf(s.Name)
	if mir == nil {
		return nil
	}
	if err := mir.detach(s.Pool); err != nil {
		return err
	}
	for _, l := range mir.view.Load().legs {
		if l != nil {
			return m.dropLegs(ctx, mir, l.pool)
		}
	}
	return ErrClosed
}

// dropLegs has a mirror that has one leg left be a LUN without a mirror.
func (m *Mux) dropLegs(ctx context.Context, mir *Mirror, pool string) error {
	for _, l := range mir.view.Load().legs {
		if l != nil && l.pool != pool {
			if err := mir.detach(l.pool); err != nil {
				return err
			}
		}
	}
	l := mir.legOf(pool)
	if l == nil || !mir.view.Load().whole(l) {
		return fmt.Errorf("its leg in pool %s has not everything", pool)
	}
	mir.state.Lock()
	gone := slices.Clone(mir.gone)
	mir.state.Unlock()
	left, err := m.sweep(ctx, mir.name, mir.id, gone)
	if err != nil {
		return err
	}
	if l.name() != mir.name {
		e, ok := m.ofPool(pool).(Renamer)
		if !ok {
			return fmt.Errorf("pool %s is not in service", pool)
		}
		if err := e.Rename(ctx, pool, l.name(), mir.name, mir.id); err != nil {
			return err
		}
	}
	f, err := m.front(mir.name)
	if err != nil {
		return err
	}
	m.turnTo(mir.name, f, l.volume, nil)
	if err := mir.close(ctx); err != nil {
		return err
	}
	var record []byte
	if len(left) > 0 {
		record = witness{ID: mir.id, Gone: left}.encode()
	}
	// The other way round, a crash in between would leave a leg that names a pool of which
	// nobody knows any more that it has nothing.
	if err := m.SetRecord(ctx, pool, mir.name+legSuffix, nil); err != nil {
		return err
	}
	return m.options.Save(mir.name, record)
}

// sweep deletes what legs that were taken away left in pools in service, and gives the
// other pools.
func (m *Mux) sweep(ctx context.Context, lun string, id [16]byte, pools []string) (left []string, err error) {
	for _, p := range pools {
		if !m.HasPool(p) {
			left = append(left, p)
			continue
		}
		if err := m.destroyLeg(ctx, lun, p, id); err != nil {
			return nil, fmt.Errorf("delete its leg in pool %s: %w", p, err)
		}
	}
	return left, nil
}

// sweepLeg deletes what a leg that was taken away left in a pool in service, before
// another one is made there: what it says of itself is of another time.
func (m *Mux) sweepLeg(ctx context.Context, mir *Mirror, pool string) error {
	if !slices.Contains(mir.leftIn(), pool) || !m.HasPool(pool) {
		return nil
	}
	if err := m.destroyLeg(ctx, mir.name, pool, mir.id); err != nil {
		return fmt.Errorf("delete what an earlier leg left in pool %s: %w", pool, err)
	}
	return mir.swept(pool)
}

// destroyLeg deletes the leg of a LUN in a pool, which by its own name may be another
// LUN by now, and is where id is zero.
func (m *Mux) destroyLeg(ctx context.Context, lun, pool string, id [16]byte) error {
	e := m.ofPool(pool)
	renamer, ok := e.(Renamer)
	if !ok {
		return nil
	}
	for _, name := range []string{lun, lun + legSuffix} {
		var is [16]byte
		there := m.any(func(l LUNStats) bool {
			if l.Name == name && l.Pool == pool && (name != lun || l.ID == id && id != [16]byte{}) {
				is = l.ID
				return true
			}
			return false
		})
		if !there {
			continue
		}
		if v, err := e.Volume(name); err == nil && v.Info().ID == is && !m.isLegElsewhere(lun, name, pool) {
			if err := e.Do(ctx, CloseLUN{name}); err != nil {
				return err
			}
		}
		if err := renamer.Rename(ctx, pool, name, lun+goneSuffix, is); err != nil {
			return err
		}
	}
	if err := m.destroy(ctx, lun+goneSuffix); err != nil {
		return err
	}
	return m.SetRecord(ctx, pool, lun+legSuffix, nil)
}

// isLegElsewhere tells whether a mirror in service has a leg by a name in another pool.
func (m *Mux) isLegElsewhere(lun, name, pool string) bool {
	mir := m.mirrorOf(lun)
	return mir != nil && slices.ContainsFunc(mir.view.Load().legs[:], func(l *leg) bool {
		return l != nil && l.pool != pool && l.volume != nil && l.name() == name
	})
}

// sweepPool deletes what legs left in a pool that has come into service.
func (m *Mux) sweepPool(ctx context.Context, pool string) error {
	if m.options.Load == nil {
		return nil
	}
	seen := map[string]bool{}
	var errs []error
	m.any(func(l LUNStats) bool {
		if l.Pool == pool {
			of, _ := apart(l.Name)
			seen[of] = true
		}
		return false
	})
	for _, name := range slices.Sorted(maps.Keys(seen)) {
		if mir := m.mirrorOf(name); mir != nil {
			errs = append(errs, m.sweepLeg(ctx, mir, pool))
			continue
		}
		w, err := m.witnessOf(name)
		if err != nil || w == nil || !slices.Contains(w.Gone, pool) {
			errs = append(errs, err)
			continue
		}
		if err := m.destroyLeg(ctx, name, pool, w.ID); err != nil {
			errs = append(errs, err)
			continue
		}
		w.Gone = slices.DeleteFunc(w.Gone, func(p string) bool { return p == pool })
		var record []byte
		if len(w.Gone)+len(w.Pools) > 0 {
			record = w.encode()
		}
		errs = append(errs, m.options.Save(name, record))
	}
	return errors.Join(errs...)
}
