package lun

import (
	"bytes"
	"errors"
	"fmt"
	"time"
)

// intend has the regions of n bytes at off in the records before they are written to.
func (m *Mirror) intend(off, n int64) error {
	if n == 0 {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, end := m.want.span(off, n); i < end; i++ {
		m.busy[i]++
		m.touched[i] = m.tick
	}
	m.want.add(off, n)
	for !m.durable.all(off, n) {
		if m.writing {
			m.written.Wait()
			continue
		}
		m.writing = true
		m.mu.Unlock()
		err := m.persist()
		for errors.Is(err, ErrHangs) && !m.shut.Load() { // who has no other leg waits, as for a LUN without a mirror
			time.Sleep(leastAway)
			err = m.persist()
		}
		m.mu.Lock()
		m.writing = false
		m.written.Broadcast()
		if err != nil {
			m.unintend(off, n)
			return err
		}
	}
	return nil
}

func (m *Mirror) intended(off, n int64) {
	if n > 0 {
		m.mu.Lock()
		m.unintend(off, n)
		m.mu.Unlock()
	}
}

func (m *Mirror) unintend(off, n int64) {
	for i, end := m.want.span(off, n); i < end; i++ {
		m.touched[i] = m.tick
		if m.busy[i]--; m.busy[i] <= 0 {
			delete(m.busy, i)
		}
	}
}

// persist has the records say what is wanted of them.
func (m *Mirror) persist() error {
	m.state.Lock()
	defer m.state.Unlock()
	return m.persistLocked()
}

// persistLocked writes the records of the legs that have everything. A leg whose record
// cannot be written is lost.
func (m *Mirror) persistLocked() error {
	v := m.view.Load()
	legs := v.in(inSync)
	is := m.snapshot()
	records := map[*leg][]byte{}
	for _, l := range legs {
		records[l] = m.record(v, l, is).encode()
	}
	errs := all(m.o.Patience, legs, v.whole, func(l *leg) error { return m.keep(l.pool, records[l]) })
	bad := -1
	for i, err := range errs {
		if err == nil {
			continue
		}
		if len(legs) == 1 || errs[1-i] != nil {
			return fmt.Errorf("record what is written: %w", err)
		}
		bad = i
	}
	if bad >= 0 {
		return m.loseLocked(legs[bad], errs[bad])
	}
	m.has(is)
	return nil
}

// snapshot is the regions to record. Until has is called with it nobody may rely on one
// that it lacks.
func (m *Mirror) snapshot() regions {
	m.mu.Lock()
	defer m.mu.Unlock()
	is := m.want.clone()
	m.durable.meet(is)
	return is
}

// has notes that the records have is.
func (m *Mirror) has(is regions) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if is.shift == m.durable.shift {
		m.durable.join(is)
	}
}

// record is that of a leg with everything.
func (m *Mirror) record(v *view, l *leg, is regions) legRecord {
	r := legRecord{ID: m.id, Kind: legPaired, Epoch: m.epoch, Shift: is.shift, Regions: is.words}
	if len(v.in(inSync)) < 2 {
		r.Kind, r.Base = legAlone, m.base
	}
	for i, o := range v.legs {
		if o != l && o != nil {
			r.Other = v.legs[i].pool
		}
	}
	return r
}

// witness is what the state directory is to know where the legs of whole pools have
// everything.
func (m *Mirror) witness(v *view, whole ...string) witness {
	w := witness{ID: m.id, Epoch: m.epoch, Base: m.base, Whole: whole, Gone: m.gone}
	for _, l := range v.legs {
		if l != nil {
			w.Pools = append(w.Pools, l.pool)
		}
	}
	return w
}

// save saves a witness, and holds m.state: for what may not go on before.
func (m *Mirror) save(w witness) error {
	m.saves++
	return m.saveAs(w, m.saves)
}

// saveApart saves the witness that what gives, which is the newest one on return. The
// caller holds m.state, which others may have meanwhile: no I/O waits for the disk of the
// state directory that need not. what is called anew when something was saved since.
func (m *Mirror) saveApart(what func() (witness, error)) error {
	for {
		w, err := what()
		if err != nil {
			return err
		}
		m.saves++
		n := m.saves
		m.state.Unlock()
		err = m.saveAs(w, n)
		m.state.Lock()
		if err != nil {
			return err
		}
		if now, err := what(); err != nil || n == m.saves && bytes.Equal(now.encode(), w.encode()) {
			return err
		}
	}
}

// saveAs saves a witness unless a newer one was begun, whose disk has not answered yet: what
// was recorded of a leg that is lost stays.
func (m *Mirror) saveAs(w witness, n uint64) error {
	m.saving.Lock()
	defer m.saving.Unlock()
	if n < m.saved {
		return nil
	}
	m.saved = n
	if err := m.o.Save(m.name, w.encode()); err != nil {
		return fmt.Errorf("record which leg has everything: %w", err)
	}
	return nil
}
