package lun

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

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

// checkMirror reads all data of both legs, and compares them.
func (m *Mux) checkMirror(ctx context.Context, mir *Mirror, read func(n int64)) (faults []string, err error) {
	stats := mir.stats()
	for _, l := range mir.view.Load().in(written) {
		e := m.ofPool(l.pool)
		if e == nil {
			continue
		}
		more, err := e.Check(ctx, l.name(), read)
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
	r.Kind, r.Epoch, r.Base, r.Other = legAlone, w.Epoch, epoch{}, ""
	for _, p := range w.Pools {
		if p != pool {
			r.Other = p
		}
	}
	if err := m.SetRecord(ctx, pool, name+legSuffix, r.encode()); err != nil {
		return fmt.Errorf("mirror LUN %s: %w", name, err)
	}
	if err := m.options.Save(name, w.encode()); err != nil {
		return fmt.Errorf("mirror LUN %s: %w", name, err)
	}
	return nil
}
