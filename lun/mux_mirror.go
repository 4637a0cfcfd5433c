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

// legSuffix is of a leg that has not the LUN's own name, and of the records of both.
const legSuffix = "~leg"

// ErrMirrored says that a LUN is in two pools.
var ErrMirrored = errors.New("the LUN is mirrored")

// Mirrors has a Mux keep mirrors. It is for before pools are opened.
func (m *Mux) Mirrors(o MirrorOptions) { m.options = o }

// mirrorOf is the mirror of a LUN in service, nil without one.
func (m *Mux) mirrorOf(name string) *Mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mirrors[name]
}

func (m *Mux) allMirrors() map[string]*Mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.mirrors)
}

// freeOfMirror refuses what a mirrored LUN does not bear.
func (m *Mux) freeOfMirror(name string) error {
	if m.mirrorOf(name) == nil {
		return nil
	}
	return fmt.Errorf("LUN %s: %w: name one pool of it in the file, `pool:` instead of `pools:`, and do it then", name, ErrMirrored)
}

func (m *Mux) witnessOf(name string) (*witness, error) {
	if m.options.Load == nil {
		return nil, nil
	}
	b, err := m.options.Load(name)
	if err != nil {
		return nil, err
	}
	return decodeWitness(b)
}

// legIn is what there is of a leg in a pool, and the name that it has there.
func (m *Mux) legIn(ctx context.Context, lun, pool string) (found, string) {
	f := found{pool: pool}
	if !m.HasPool(pool) {
		f.why = fmt.Sprintf("pool %s is out of service: see its own problem", pool)
		return f, ""
	}
	b, err := m.Record(ctx, pool, lun+legSuffix)
	if err != nil {
		f.why = err.Error()
		return f, ""
	}
	f.there = true
	if r, err := decodeLeg(b); err == nil {
		f.record = &r
	}
	switch {
	case m.lies(lun+legSuffix, pool, [16]byte{}):
		f.data = f.record != nil // what a crash left of its making is nothing
		return f, lun + legSuffix
	case m.lies(lun, pool, [16]byte{}):
		f.data = true
		return f, lun
	}
	return f, ""
}

// mirrored tells whether a LUN that is to be opened is or was a mirror.
func (m *Mux) mirrored(ctx context.Context, s OpenLUN) (bool, error) {
	if _, is := apart(s.Name); is || m.options.Load == nil {
		return false, nil
	}
	if s.LUN.Mirror != "" {
		return true, nil
	}
	w, err := m.witnessOf(s.Name)
	if err != nil || w != nil && len(w.Pools) > 0 {
		return true, err
	}
	e := m.ofPool(s.LUN.Pool)
	if e == nil {
		return false, nil
	}
	own, _ := e.Keeps(s.Name)
	if other, _ := e.Keeps(s.Name + legSuffix); own != s.LUN.Pool && other != s.LUN.Pool {
		return false, nil
	}
	f, _ := m.legIn(ctx, s.Name, s.LUN.Pool)
	return f.record != nil, nil
}

// openMirror puts a mirror into service with what there is of it, and one that shall be
// in one pool alone any more in that.
func (m *Mux) openMirror(ctx context.Context, s OpenLUN) error {
	if m.mirrorOf(s.Name) != nil {
		return nil
	}
	w, err := m.witnessOf(s.Name)
	if err != nil {
		return err
	}
	var gone []string
	if w != nil {
		gone = w.Gone
		if len(w.Pools) == 0 {
			w = nil
		}
	}
	pools := []string{s.LUN.Pool}
	if s.LUN.Mirror != "" {
		pools = append(pools, s.LUN.Mirror)
	}
	legs, names := m.survey(ctx, s.Name, pools)
	if len(legs) == 1 && w == nil && legs[0].record != nil && legs[0].record.Other != "" {
		pools = append(pools, legs[0].record.Other)
		legs, names = m.survey(ctx, s.Name, pools)
	}
	if err := foreign(s.Name, w, legs, names); err != nil {
		return err
	}
	v, err := decide(s.Name, w, legs)
	if err != nil {
		return err
	}
	if w != nil {
		for _, p := range w.Pools {
			if !slices.Contains(pools, p) && !slices.Contains(gone, p) {
				gone = append(slices.Clone(gone), p)
			}
		}
	}
	mir, err := m.assemble(ctx, s, w, v, legs, names)
	if err != nil {
		return err
	}
	mir.gone = slices.DeleteFunc(slices.Clone(gone), func(p string) bool { return slices.Contains(pools, p) })
	if err := mir.settle(w, v); err != nil {
		return err
	}
	m.mu.Lock()
	m.mirrors[s.Name] = mir
	m.mu.Unlock()
	mir.start()
	for _, p := range pools {
		if s.LUN.in(p) {
			if pool, _ := mir.away(); pool == p {
				_ = m.returnLeg(ctx, mir, p) // the next look at the world says that it is away
			}
		}
	}
	if s.LUN.Mirror == "" {
		return m.dropLegs(ctx, mir, s.LUN.Pool)
	}
	return nil
}

func (m *Mux) survey(ctx context.Context, lun string, pools []string) (legs []found, names []string) {
	for _, p := range pools {
		f, name := m.legIn(ctx, lun, p)
		legs, names = append(legs, f), append(names, name)
	}
	return legs, names
}

// foreign refuses to take data for a leg that are a LUN of the same name.
func foreign(lun string, w *witness, legs []found, names []string) error {
	for i, l := range legs {
		known := w != nil && slices.Contains(w.Pools, l.pool) || l.record != nil
		others := w != nil || slices.ContainsFunc(legs, func(o found) bool { return o.record != nil })
		if names[i] == lun && l.data && !known && others {
			return fmt.Errorf("pool %s has data of its name that are no leg of it: delete them, or name another pool", l.pool)
		}
	}
	return nil
}

// assemble opens the legs that there are.
func (m *Mux) assemble(ctx context.Context, s OpenLUN, w *witness, v verdict, legs []found, names []string) (*Mirror, error) {
	own := slices.Contains(names, s.Name)
	is := &view{}
	var errs []error
	why := make([]string, len(legs))
	may := newRegions(s.LUN.Size)
	var id [16]byte
	var first Volume
	for i, l := range legs {
		if names[i] == "" {
			names[i] = s.Name + legSuffix
			if !own && v.fresh {
				own, names[i] = true, s.Name
			}
		}
		is.legs[i], is.state[i], why[i] = newLeg(l.pool, names[i], nil), LegAway, l.why
		if l.record != nil && v.fate[i] != fateBlank {
			may.join(regions{l.record.Shift, l.record.Regions}.fit(s.LUN.Size))
			id = l.record.ID
		}
		if v.fate[i] != fateWhole {
			continue
		}
		volume, err := m.openLeg(ctx, l.pool, names[i], s.LUN)
		if err != nil {
			why[i] = err.Error()
			errs = append(errs, err)
			continue
		}
		is.legs[i], is.state[i] = newLeg(l.pool, names[i], volume), LegInSync
		if first == nil || names[i] == s.Name {
			first = volume
		}
	}
	if first == nil {
		return nil, errors.Join(errs...)
	}
	switch {
	case w != nil:
		id = w.ID
	case id == [16]byte{}:
		id = first.Info().ID
	}
	mir := newMirror(ctx, s.Name, id, is, smallest(is), first.Info().BlockSize, may, m.options, func(pool string, record []byte) error {
		return m.SetRecord(context.WithoutCancel(ctx), pool, s.Name+legSuffix, record)
	})
	for i := range why {
		mir.status[i].why = why[i]
	}
	return mir, nil
}

func smallest(v *view) (size int64) {
	for _, l := range v.in(inSync) {
		if n := l.volume.Info().Size; size == 0 || n < size {
			size = n
		}
	}
	return size
}

// openLeg has an engine put a leg into service.
func (m *Mux) openLeg(ctx context.Context, pool, name string, l LUN) (Volume, error) {
	e := m.ofPool(pool)
	if e == nil {
		return nil, fmt.Errorf("pool %s is out of service: see its own problem", pool)
	}
	l = LUN{Pool: pool, Size: l.Size, Block: l.Block, Thick: l.Thick}
	if err := e.Do(ctx, OpenLUN{name, l}); err != nil {
		return nil, err
	}
	return e.Volume(name)
}

// settle records what a mirror begins as.
func (m *Mirror) settle(w *witness, v verdict) error {
	m.state.Lock()
	defer m.state.Unlock()
	is := m.view.Load()
	whole := is.in(inSync)
	m.epoch, m.base = v.epoch, v.base
	if len(whole) == 2 {
		if err := m.persistLocked(); err != nil {
			return err
		}
		return m.save(m.witness(is, whole[0].pool, whole[1].pool))
	}
	if w == nil || !slices.Equal(w.Whole, []string{whole[0].pool}) {
		m.epoch, m.base = m.epoch.next(), m.epoch
		if w == nil && whole[0] != nil && v.base != (epoch{}) { // it was alone before
			m.base = v.base
		}
	}
	if err := m.save(m.witness(is, whole[0].pool)); err != nil {
		return err
	}
	return m.persistLocked()
}

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
	case m.lies(s.Name, s.Pool, [16]byte{}):
		return fmt.Errorf("pool %s has data of another LUN of its name: delete them, or name another pool", s.Pool)
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
	if w != nil {
		mir.gone = slices.DeleteFunc(w.Gone, func(p string) bool { return p == s.Pool })
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
	f, name := m.legIn(ctx, mir.name, pool)
	if !f.there {
		mir.failed(pool, f.why)
		return fmt.Errorf("its leg in pool %s is away: %s", pool, f.why)
	}
	if name == "" {
		name = l.name
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
	return mir.resume(newLeg(pool, name, volume), lacks)
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
	return f.record.Epoch != m.epoch && (f.record.Epoch != m.base || m.base == epoch{}), nil
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
	if l.name != mir.name {
		e, ok := m.ofPool(pool).(Renamer)
		if !ok {
			return fmt.Errorf("pool %s is not in service", pool)
		}
		if err := e.Rename(ctx, pool, l.name, mir.name, mir.id); err != nil {
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
	if err := m.options.Save(mir.name, record); err != nil {
		return err
	}
	return m.SetRecord(ctx, pool, mir.name+legSuffix, nil)
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

// destroyLeg deletes the leg of a LUN in a pool, which by its own name may be another
// LUN by now.
func (m *Mux) destroyLeg(ctx context.Context, lun, pool string, id [16]byte) error {
	e := m.ofPool(pool)
	renamer, ok := e.(Renamer)
	if !ok {
		return nil
	}
	for _, name := range []string{lun, lun + legSuffix} {
		var is [16]byte
		there := m.any(func(l LUNStats) bool {
			if l.Name == name && l.Pool == pool && (name != lun || l.ID == id) {
				is = l.ID
				return true
			}
			return false
		})
		if !there {
			continue
		}
		if v, err := e.Volume(name); err == nil && v.Info().ID == is {
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
		w, err := m.witnessOf(name)
		if err != nil || w == nil || !slices.Contains(w.Gone, pool) || m.mirrorOf(name) != nil {
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

// closeMirror takes a mirror out of service, and legs that are without one.
func (m *Mux) closeMirror(ctx context.Context, name string) error {
	if mir := m.mirrorOf(name); mir != nil {
		if err := mir.close(ctx); err != nil {
			return err
		}
	}
	var errs []error
	for _, n := range []string{name, name + legSuffix} {
		if e := m.ofLUN(n); e != nil {
			errs = append(errs, e.Do(ctx, CloseLUN{n}))
		}
	}
	m.mu.Lock()
	delete(m.mirrors, name)
	m.mu.Unlock()
	return errors.Join(errs...)
}

// growMirror makes the legs larger that are there, and then the LUN.
func (m *Mux) growMirror(ctx context.Context, mir *Mirror, s GrowLUN) error {
	v := mir.view.Load()
	for _, l := range v.in(written) {
		e := m.ofPool(l.pool)
		if e == nil {
			return fmt.Errorf("pool %s is not in service", l.pool)
		}
		if err := e.Do(ctx, GrowLUN{l.name, s.From, s.To}); err != nil {
			return err
		}
	}
	mir.resize(s.To)
	return nil
}

// ofLegs has every leg that is there do a step.
func (m *Mux) ofLegs(ctx context.Context, mir *Mirror, step func(name string) Step) error {
	for _, l := range mir.view.Load().in(written) {
		if e := m.ofPool(l.pool); e != nil {
			if err := e.Do(ctx, step(l.name)); err != nil {
				return fmt.Errorf("its leg in pool %s: %w", l.pool, err)
			}
		}
	}
	return nil
}

// doMirror carries out a step of a mirror; ok is false for any other.
func (m *Mux) doMirror(ctx context.Context, step Step) (ok bool, err error) {
	switch s := step.(type) {
	case OpenLUN:
		is, err := m.mirrored(ctx, s)
		if err == nil && is {
			err = m.openMirror(ctx, s)
		}
		return is, wrapStep("open LUN "+s.Name, err)
	case GrowLUN:
		if mir := m.mirrorOf(s.Name); mir != nil {
			return true, wrapStep("grow LUN "+s.Name, m.growMirror(ctx, mir, s))
		}
	case ReserveLUN:
		if mir := m.mirrorOf(s.Name); mir != nil {
			return true, wrapStep("reserve room for LUN "+s.Name, m.ofLegs(ctx, mir, func(name string) Step { return ReserveLUN{name, s.Size, s.Thick} }))
		}
	case CloseLUN:
		if m.mirrorOf(s.Name) != nil || m.ofLUN(s.Name+legSuffix) != nil {
			return true, wrapStep("close LUN "+s.Name, m.closeMirror(ctx, s.Name))
		}
	case AddLeg:
		return true, wrapStep("mirror LUN "+s.Name+" in pool "+s.Pool, m.addLeg(ctx, s))
	case DropLeg:
		return true, wrapStep("have LUN "+s.Name+" leave pool "+s.Pool, m.dropLeg(ctx, s))
	case ReturnLeg:
		if mir := m.mirrorOf(s.Name); mir != nil {
			return true, wrapStep("LUN "+s.Name, m.returnLeg(ctx, mir, s.Pool))
		}
		return true, fmt.Errorf("LUN %s, leg in pool %s: %w", s.Name, s.Pool, errNoMirror)
	case OrderLegs:
		if mir := m.mirrorOf(s.Name); mir != nil {
			return true, wrapStep("read LUN "+s.Name+" from pool "+s.First, mir.order(s.First))
		}
		return true, nil
	}
	return false, nil
}

func wrapStep(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// seenMirrors puts one LUN in the place of the legs of each mirror.
func (m *Mux) seenMirrors(all State) {
	for name, mir := range m.allMirrors() {
		legs := map[string]LUN{}
		for _, n := range []string{name, name + legSuffix} {
			if l, ok := all.LUNs[n]; ok {
				legs[l.Pool] = l
				delete(all.LUNs, n)
			}
		}
		i := mir.Info()
		out := LUN{Size: i.Size, Block: i.BlockSize, Thick: true}
		for k, s := range mir.stats() {
			l := legs[s.Pool]
			if k == 0 {
				out.Pool = s.Pool
			} else {
				out.Mirror = s.Pool
			}
			switch s.State {
			case LegAway:
				out.Away, out.Why = s.Pool, s.Reason
			case LegSyncing:
				out.Syncing = s.Pool
				out.Thick = out.Thick && l.Thick
			default:
				out.Thick = out.Thick && l.Thick
				if i.ReadOnly {
					out.Fault = l.Fault
				}
			}
		}
		all.LUNs[name] = out
	}
}

// mirrorStats puts one LUN in the place of the legs of each mirror.
func (m *Mux) mirrorStats(all []LUNStats) []LUNStats {
	for name, mir := range m.allMirrors() {
		legs := map[string]LUNStats{}
		all = slices.DeleteFunc(all, func(l LUNStats) bool {
			mine := l.Name == name || l.Name == name+legSuffix
			if mine {
				legs[l.Pool] = l
			}
			return mine
		})
		stats := mir.stats()
		if len(stats) == 0 {
			continue
		}
		out := legs[stats[0].Pool]
		for i := range stats {
			l := legs[stats[i].Pool]
			stats[i].Used = l.Used
			if stats[i].State == LegInSync && out.Used == 0 {
				out = l
			}
		}
		out.Info, out.Pool, out.Legs = mir.Info(), stats[0].Pool, stats
		if !out.ReadOnly {
			out.Fault = ""
		}
		all = append(all, out)
	}
	return all
}

// retainedMirrors has a LUN of which there is only the leg that has not its name go by
// that, and hides legs of LUNs in service.
func (m *Mux) retainedMirrors(all []LUNStats) []LUNStats {
	mirrors := m.allMirrors()
	own := map[string]bool{}
	for _, l := range all {
		own[l.Name] = true
	}
	return slices.DeleteFunc(all, func(l LUNStats) bool {
		of, is := strings.CutSuffix(l.Name, legSuffix)
		return mirrors[of] != nil || is && own[of]
	})
}

// deleteMirror destroys what pools have of a mirror that is out of service; ok is false
// where there is none.
func (m *Mux) deleteMirror(ctx context.Context, name string) (d Deleted, ok bool, err error) {
	w, err := m.witnessOf(name)
	if err != nil || m.options.Save == nil {
		return Deleted{}, false, err
	}
	if w == nil || len(w.Pools) == 0 {
		if w = m.orphans(ctx, name, w); w == nil {
			return Deleted{}, false, nil
		}
	}
	d.ID, d.Pool = w.ID, w.Pools[0]
	if len(w.Pools) > 1 {
		d.Other = w.Pools[1]
	}
	gone := slices.Clone(w.Gone)
	for _, p := range w.Pools {
		if !slices.Contains(gone, p) {
			gone = append(gone, p)
		}
	}
	// From now on nothing of it is served, whatever a crash leaves.
	if err := m.options.Save(name, witness{ID: w.ID, Gone: gone}.encode()); err != nil {
		return d, true, err
	}
	m.any(func(l LUNStats) bool {
		if of, _ := apart(l.Name); of == name && slices.Contains(w.Pools, l.Pool) {
			d.Freed += l.Used
		}
		return false
	})
	left, err := m.sweep(ctx, name, w.ID, gone)
	if err != nil {
		return d, true, err
	}
	var record []byte
	if len(left) > 0 {
		record = witness{ID: w.ID, Gone: left}.encode()
	}
	return d, true, m.options.Save(name, record)
}

// orphans is a witness of the legs of which the state directory has none, nil where
// there are no legs.
func (m *Mux) orphans(ctx context.Context, name string, w *witness) *witness {
	if _, is := apart(name); is {
		return nil
	}
	out := witness{}
	if w != nil {
		out.Gone = w.Gone
	}
	seen := map[string]bool{}
	m.any(func(l LUNStats) bool {
		if of, _ := apart(l.Name); of == name {
			seen[l.Pool] = true
		}
		return false
	})
	for _, p := range slices.Sorted(maps.Keys(seen)) {
		if f, _ := m.legIn(ctx, name, p); f.record != nil {
			out.ID = f.record.ID
			out.Pools = append(out.Pools, p)
		}
	}
	if len(out.Pools) == 0 {
		return nil
	}
	return &out
}

// Home is the pools of a mirrored LUN in service, first one that has everything.
func (m *Mux) Home(name string) []string {
	mir := m.mirrorOf(name)
	if mir == nil {
		return nil
	}
	var pools []string
	for _, s := range mir.stats() {
		if s.State == LegInSync && (len(pools) == 0 || !mir.view.Load().whole(mir.legOf(pools[0]))) {
			pools = append([]string{s.Pool}, pools...)
		} else {
			pools = append(pools, s.Pool)
		}
	}
	return pools
}

// checkMirror reads all data of both legs, and compares them.
func (m *Mux) checkMirror(ctx context.Context, mir *Mirror, read func(n int64)) (faults []string, err error) {
	stats := mir.stats()
	for _, l := range mir.view.Load().in(written) {
		e := m.ofPool(l.pool)
		if e == nil {
			continue
		}
		more, err := e.Check(ctx, l.name, read)
		if err != nil {
			return faults, err
		}
		for _, f := range more {
			faults = append(faults, "leg in pool "+l.pool+": "+f)
		}
	}
	for _, s := range stats {
		if s.State != LegInSync {
			faults = append(faults, fmt.Sprintf("leg in pool %s: %s: %s", s.Pool, s.State, s.Reason))
		}
	}
	differ, first, err := mir.compare(ctx, read)
	if differ > 0 {
		faults = append(faults, fmt.Sprintf("its legs differ in %d pieces of %d KiB, first in the one at %d: put one right by having the file name the other pool alone, and both again", differ, movePiece>>10, first))
	}
	return faults, err
}

// compare reads both legs where both are in sync.
func (m *Mirror) compare(ctx context.Context, read func(n int64)) (differ int, first int64, err error) {
	for off := int64(0); off < m.size.Load(); off += movePiece {
		if err := ctx.Err(); err != nil {
			return differ, first, err
		}
		n := min(movePiece, m.size.Load()-off)
		same, err := m.same(ctx, off, n)
		if err != nil {
			return differ, first, err
		}
		if !same {
			if differ == 0 {
				first = off
			}
			differ++
		}
		read(2 * n)
	}
	return differ, first, nil
}

func (m *Mirror) same(ctx context.Context, off, n int64) (bool, error) {
	if err := m.enter(); err != nil {
		return false, err
	}
	defer m.gate.RUnlock()
	m.locks.lock(off, n)
	defer m.locks.unlock(off, n)
	v := m.view.Load()
	legs := v.in(inSync)
	if len(legs) < 2 || m.isStuck(off, n) {
		return true, nil
	}
	b := map[*leg][]byte{legs[0]: make([]byte, n), legs[1]: make([]byte, n)}
	errs := all(m.o.Patience, legs, v.whole, func(l *leg) error { return l.volume.ReadAt(ctx, b[l], off) })
	for _, err := range errs {
		if err != nil {
			return true, nil // the check of that leg has said it
		}
	}
	return string(b[legs[0]]) == string(b[legs[1]]), nil
}

// isStuck tells whether a region of n bytes at off is still to be compared.
func (m *Mirror) isStuck(off, n int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, end := m.stuck.span(off, n); i < end; i++ {
		if m.stuck.has(i) {
			return true
		}
	}
	return false
}

// UseLeg has the leg of a pool be the LUN, whatever the other one has, which is brought
// up to that. It is for a LUN out of service.
func (m *Mux) UseLeg(ctx context.Context, name, pool string) error {
	if m.mirrorOf(name) != nil {
		return fmt.Errorf("mirror LUN %s: it is in service, and its newest leg is in use", name)
	}
	f, _ := m.legIn(ctx, name, pool)
	switch {
	case !f.there:
		return fmt.Errorf("mirror LUN %s: %s", name, f.why)
	case !f.data:
		return fmt.Errorf("mirror LUN %s: pool %s has no leg of it", name, pool)
	case f.record == nil:
		return fmt.Errorf("mirror LUN %s: what pool %s has of it was never a leg of a mirror", name, pool)
	}
	w, err := m.witnessOf(name)
	if err != nil {
		return fmt.Errorf("mirror LUN %s: %w", name, err)
	}
	if w == nil || len(w.Pools) == 0 {
		w = &witness{Pools: []string{pool}}
		if f.record.Other != "" {
			w.Pools = append(w.Pools, f.record.Other)
		}
	}
	w.ID = f.record.ID
	top := max(w.Epoch.N, f.record.Epoch.N)
	for _, p := range w.Pools {
		if o, _ := m.legIn(ctx, name, p); o.record != nil {
			top = max(top, o.record.Epoch.N)
		}
	}
	w.Epoch, w.Base, w.Whole = epoch{N: top}.next(), epoch{}, []string{pool}
	r := *f.record
	r.Kind, r.Epoch, r.Base = legAlone, w.Epoch, epoch{}
	if err := m.SetRecord(ctx, pool, name+legSuffix, r.encode()); err != nil {
		return fmt.Errorf("mirror LUN %s: %w", name, err)
	}
	if err := m.options.Save(name, w.encode()); err != nil {
		return fmt.Errorf("mirror LUN %s: %w", name, err)
	}
	return nil
}
