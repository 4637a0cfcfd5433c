package lun

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

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
	f.there, f.bare = true, b == nil
	if r, err := decodeLeg(b); err == nil {
		f.record = &r
	}
	if m.lies(lun+legSuffix, pool, [16]byte{}) {
		f.data = f.record != nil // what a crash left of its making is nothing
		return f, lun + legSuffix
	}
	f.own = m.any(func(l LUNStats) bool {
		is := l.Name == lun && l.Pool == pool
		if is {
			f.id = l.ID
		}
		return is
	})
	if f.data = f.own; f.own {
		return f, lun
	}
	return f, ""
}

// of tells whether data of a leg are of the LUN with an identifier.
func (f found) of(id [16]byte) bool {
	if f.own {
		return f.id == id || f.id == [16]byte{}
	}
	return f.record == nil || f.record.ID == id
}

func (f found) foreign() error {
	return fmt.Errorf("pool %s has data of its name that are no leg of it: delete them, or name another pool", f.pool)
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
	pools := []string{s.LUN.Pool}
	if s.LUN.Mirror != "" {
		pools = append(pools, s.LUN.Mirror)
	}
	var gone []string
	var unswept error
	if w != nil {
		if gone, unswept = m.sweep(ctx, s.Name, w.ID, w.Gone); unswept != nil {
			gone = w.Gone
		}
		if len(w.Pools) == 0 {
			w = nil
		}
	}
	legs, names := m.survey(ctx, s.Name, pools)
	if len(legs) == 1 && w == nil && legs[0].record != nil && legs[0].record.Other != "" {
		pools = append(pools, legs[0].record.Other)
		legs, names = m.survey(ctx, s.Name, pools)
	}
	for i, l := range legs {
		if l.there && slices.Contains(gone, l.pool) && unswept != nil { // nothing, and in the way
			legs[i], names[i] = found{pool: l.pool, why: unswept.Error()}, ""
		}
		if !l.there && w == nil && slices.Contains(gone, l.pool) && recorded(legs) { // nothing is there that counts
			legs[i] = found{pool: l.pool, there: true, why: l.why}
		}
	}
	if err := foreign(s.Name, w, legs, names); err != nil {
		return err
	}
	v, err := decide(s.Name, w, legs)
	if err != nil {
		return err
	}
	if other, ok := m.Keeps(s.Name); v.fresh && ok && !slices.Contains(pools, other) {
		return fmt.Errorf("its data are in pool %s and not in %s: write `pool: %s`, or that pool as one of its `pools:`", other, strings.Join(pools, " or "), other)
	}
	if w != nil {
		for _, p := range w.Pools {
			if !slices.Contains(pools, p) && !slices.Contains(gone, p) {
				gone = append(slices.Clone(gone), p)
			}
		}
	}
	nameLegs(s.Name, v.fresh, names)
	if v.fresh {
		// The state directory knows nothing of it until all of it is there: what is made under
		// another name than the LUN's is nothing until then, and would be in the way.
		if err := m.options.Save(s.Name, witness{Gone: aside(s.Name, gone, legs, names)}.encode()); err != nil {
			return err
		}
	}
	mir, err := m.assemble(ctx, s, w, v, legs, names)
	if err != nil {
		return err
	}
	mir.gone = gone                          // also of pools that it is in now: what is left there is nothing
	if err := mir.settle(w, v); err != nil { // by one leg alone it must not be served
		return errors.Join(err, m.closeMirror(ctx, s.Name))
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

// recorded tells whether a leg says what it is.
func recorded(legs []found) bool {
	return slices.ContainsFunc(legs, func(l found) bool { return l.record != nil })
}

// foreign refuses to take data for a leg that are a LUN of the same name.
func foreign(lun string, w *witness, legs []found, names []string) error {
	for i, l := range legs {
		if w != nil && l.data && !l.of(w.ID) || w == nil && names[i] == lun && l.data && l.record == nil && recorded(legs) {
			return l.foreign()
		}
	}
	return nil
}

// nameLegs gives the legs names that are made. The first one of a LUN that is made has its
// name.
func nameLegs(lun string, fresh bool, names []string) {
	own := slices.Contains(names, lun)
	for i, name := range names {
		if name != "" {
			continue
		}
		names[i] = lun + legSuffix
		if !own && fresh {
			own, names[i] = true, lun
		}
	}
}

// aside is pools, and those whose leg has not the LUN's own name.
func aside(lun string, pools []string, legs []found, names []string) []string {
	pools = slices.Clone(pools)
	for i, l := range legs {
		if names[i] != lun && !slices.Contains(pools, l.pool) {
			pools = append(pools, l.pool)
		}
	}
	return pools
}

// assemble opens the legs that there are.
func (m *Mux) assemble(ctx context.Context, s OpenLUN, w *witness, v verdict, legs []found, names []string) (*Mirror, error) {
	is := &view{}
	var errs []error
	why := make([]string, len(legs))
	may := newRegions(s.LUN.Size)
	var id [16]byte
	var first Volume
	for i, l := range legs {
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

// knew tells whether all legs are of a witness's pools.
func (m *Mirror) knew(w *witness) bool {
	return !slices.ContainsFunc(m.view.Load().legs[:], func(l *leg) bool { return l != nil && !slices.Contains(w.Pools, l.pool) })
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
	if w == nil || !slices.Equal(w.Whole, []string{whole[0].pool}) || !m.knew(w) { // another leg has its own epochs
		// The leg follows the witness before that goes on: two epochs behind, it would be no
		// leg that has everything any more.
		if err := m.persistLocked(); err != nil {
			return err
		}
		if w != nil || v.base == (epoch{}) || v.base == v.epoch { // else it was alone before, and its record says since when
			m.epoch, m.base = m.epoch.next(), m.epoch
		}
	}
	if err := m.save(m.witness(is, whole[0].pool)); err != nil {
		return err
	}
	return m.persistLocked()
}
