package lun

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// lose has the LUN go on without a leg. On return that is recorded, or the error says
// why it is not.
func (m *Mirror) lose(l *leg, why error) error {
	m.state.Lock()
	defer m.state.Unlock()
	return m.loseLocked(l, why)
}

func (m *Mirror) loseLocked(l *leg, why error) error {
	v := m.view.Load()
	i := slices.Index(v.legs[:], l)
	if i < 0 || v.state[i] == LegAway {
		return nil
	}
	if m.shut.Load() {
		return fmt.Errorf("LUN %s: %w", m.name, ErrClosed)
	}
	next := *v
	next.state[i] = LegAway
	if v.state[i] == LegSyncing && !m.joins {
		l.lose()
		m.turn(&next, i, why)
		return nil
	}
	rest := next.in(inSync)
	if len(rest) == 0 {
		return why // it is the last one
	}
	l.lose()
	former, base := m.epoch, m.base
	m.epoch, m.base = m.epoch.next(), m.epoch
	err := m.save(m.witness(&next, rest[0].pool))
	if err == nil {
		is := m.snapshot()
		if err = m.keep(rest[0].pool, m.record(&next, rest[0], is).encode()); err == nil {
			m.has(is)
		}
	}
	if err != nil { // the next one tries anew, in an epoch of its own
		m.epoch, m.base = former, base
		return fmt.Errorf("pool %s: %w; going on without it: %w", l.pool, why, err)
	}
	m.joins = false
	m.turn(&next, i, why)
	return nil
}

// turn has accesses find other legs, and tells of the one that has changed.
func (m *Mirror) turn(next *view, i int, why error) {
	m.mu.Lock()
	s := &m.status[i]
	former := s.since
	s.since, s.why = time.Now(), ""
	what := fmt.Sprintf("leg in pool %s: %s", next.legs[i].pool, next.state[i])
	if why != nil {
		if why == errPending {
			why = ErrHangs
		}
		if time.Since(former) > mostAway {
			s.failed = 0
		}
		s.why = why.Error()
		s.failed++
		s.until = s.since.Add(min(leastAway<<min(s.failed-1, 10), mostAway))
		what += ": " + s.why
	}
	m.view.Store(next)
	m.mu.Unlock()
	m.awake()
	m.o.OnChange(m.name, what)
}

// resume has a leg that came back get every write, and be brought up to date. What it
// lacks is in the regions and in those that its own record names, or everything.
func (m *Mirror) resume(l *leg, lacks bool, named regions) error {
	m.state.Lock()
	defer m.state.Unlock()
	if _, is := m.isAway(l.pool); !is {
		return nil
	}
	if !lacks { // its record is about to name none
		m.mu.Lock()
		m.want.join(named.fit(m.size.Load()))
		m.mu.Unlock()
		if err := m.persistLocked(); err != nil {
			return err
		}
	}
	base := m.base
	record := legRecord{ID: m.id, Kind: legLacks, Epoch: base, Other: m.view.Load().in(inSync)[0].pool}
	if lacks {
		record.Epoch = epoch{}
	}
	m.state.Unlock() // who has everything does not wait for who comes back
	err := m.keep(l.pool, record.encode())
	m.state.Lock()
	i, is := m.isAway(l.pool)
	if err != nil || !is {
		return err
	}
	if m.base != base {
		return errors.New("the other leg has changed meanwhile: try again")
	}
	if lacks {
		m.mu.Lock()
		m.want.fill()
		m.durable = newRegions(m.size.Load())
		m.mu.Unlock()
		m.base = epoch{}
		if err := m.persistLocked(); err != nil {
			return err
		}
	}
	next := *m.view.Load()
	next.legs[i], next.state[i] = l, LegSyncing
	m.mu.Lock()
	m.view.Store(&next)
	m.stuck = m.want.clone()
	m.doubt.Store(true)
	m.status[i].since, m.status[i].why = time.Now(), ""
	m.mu.Unlock()
	m.awake()
	m.o.OnChange(m.name, "leg in pool "+l.pool+": "+string(LegSyncing))
	return nil
}

// isAway is which leg a pool has, and whether it is away. The caller holds m.state.
func (m *Mirror) isAway(pool string) (i int, is bool) {
	v := m.view.Load()
	i = slices.IndexFunc(v.legs[:], func(o *leg) bool { return o != nil && o.pool == pool })
	return i, i >= 0 && v.state[i] == LegAway
}

// join has a leg that is the same as the other have everything from now on.
func (m *Mirror) join(l *leg) error {
	m.state.Lock()
	defer m.state.Unlock()
	next, i := m.joined(l)
	if next == nil {
		return nil
	}
	is := m.snapshot()
	m.joins = true
	if err := m.keepJoined(next, l, is); err != nil {
		return m.loseLocked(l, err)
	}
	err := m.saveApart(func() (witness, error) {
		if next, i = m.joined(l); next == nil {
			return witness{}, errLost
		}
		return m.witness(next, l.pool, next.legs[1-i].pool), nil
	})
	if err == errLost { // or something has come to differ
		return nil
	}
	if err != nil {
		return err
	}
	if now := m.snapshot(); now.shift != is.shift || !slices.Equal(now.words, is.words) { // the other's record alone has these
		is = now
		if err := m.keepJoined(next, l, is); err != nil {
			return m.loseLocked(l, err)
		}
	}
	other := next.legs[1-i]
	if err := m.keep(other.pool, m.record(next, other, is).encode()); err != nil {
		return err // both have everything, and the next record says so
	}
	m.has(is)
	m.joins = false
	m.turn(next, i, nil)
	return nil
}

// joined is the legs when l has everything, and which one it is; nil where it cannot be
// said that it has. The caller holds m.state.
func (m *Mirror) joined(l *leg) (next *view, i int) {
	v := m.view.Load()
	i = slices.Index(v.legs[:], l)
	if _, any := m.nextStuck(0); i < 0 || v.state[i] != LegSyncing || l.isLost() || len(v.in(inSync)) == 0 || any {
		return nil, i
	}
	is := *v
	is.state[i] = LegInSync
	return &is, i
}

// keepJoined records that a leg has everything, and gives up waiting for it after a while.
func (m *Mirror) keepJoined(next *view, l *leg, is regions) error {
	record := m.record(next, l, is).encode()
	return m.alone(l, func(Volume) error { return m.keep(l.pool, record) })
}

// leftIn is the pools that may have data of a leg that was taken away.
func (m *Mirror) leftIn() []string {
	m.state.Lock()
	defer m.state.Unlock()
	return slices.Clone(m.gone)
}

// swept notes that a pool has nothing any more of a leg that was taken away.
func (m *Mirror) swept(pool string) error {
	m.state.Lock()
	defer m.state.Unlock()
	var left []string
	err := m.saveApart(func() (witness, error) {
		left = slices.DeleteFunc(slices.Clone(m.gone), func(p string) bool { return p == pool })
		w := m.now()
		w.Gone = left
		return w, nil
	})
	if err == nil {
		m.gone = left
	}
	return err
}

// now is the witness of what is.
func (m *Mirror) now() witness {
	v := m.view.Load()
	var whole []string
	for _, l := range v.in(inSync) {
		whole = append(whole, l.pool)
	}
	return m.witness(v, whole...)
}

// errNone says that there is nothing to do.
var errNone = errors.New("there is no such leg")

// detach has the LUN go on without a leg for good.
func (m *Mirror) detach(pool string) error {
	m.state.Lock()
	defer m.state.Unlock()
	var next view
	var i int
	var rest *leg
	var w witness
	err := m.saveApart(func() (witness, error) {
		next = *m.view.Load()
		if i = slices.IndexFunc(next.legs[:], func(l *leg) bool { return l != nil && l.pool == pool }); i < 0 {
			return w, errNone
		}
		next.legs[i] = nil
		whole := next.in(inSync)
		if len(whole) == 0 {
			return w, fmt.Errorf("the leg in pool %s is the only one that has everything: wait until the other is in sync, or see why it is not", pool)
		}
		rest = whole[0]
		after := w.Epoch
		if w.Base != m.epoch || after == (epoch{}) {
			after = m.epoch.next()
		}
		w = m.witness(&next, rest.pool)
		w.Epoch, w.Base = after, m.epoch
		if !slices.Contains(w.Gone, pool) {
			w.Gone = append(slices.Clone(w.Gone), pool)
		}
		return w, nil
	})
	if err == errNone {
		return nil
	}
	if err != nil {
		return err
	}
	former, base, gone := m.epoch, m.base, m.gone
	m.epoch, m.base, m.gone = w.Epoch, w.Base, w.Gone
	is := m.snapshot()
	if err := m.keep(rest.pool, m.record(&next, rest, is).encode()); err != nil {
		// The other may yet be the only one that has everything, and what is gone is deleted.
		m.epoch, m.base, m.gone = former, base, gone
		return errors.Join(err, m.saveApart(func() (witness, error) { return m.now(), nil }))
	}
	m.has(is)
	if l := m.view.Load().legs[i]; l != nil {
		l.lose()
	}
	m.mu.Lock()
	m.view.Store(&next)
	m.mu.Unlock()
	m.o.OnChange(m.name, "leg in pool "+pool+": taken away")
	return nil
}

// order has the leg of a pool be the first. While legs in sync are compared, as after a
// crash, they may differ, and what was read from one must not be read otherwise.
func (m *Mirror) order(first string) error {
	m.state.Lock()
	defer m.state.Unlock()
	v := m.view.Load()
	if v.legs[1] == nil || v.legs[1].pool != first {
		return nil
	}
	if _, any := m.nextStuck(0); any && len(v.in(inSync)) == 2 {
		return fmt.Errorf("its legs are being compared: it is read from pool %s until that is done: try again", v.legs[0].pool)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.view.Store(&view{[2]*leg{v.legs[1], v.legs[0]}, [2]LegState{v.state[1], v.state[0]}})
	m.status[0], m.status[1] = m.status[1], m.status[0]
	return nil
}

// resize makes the LUN as large as its legs are.
func (m *Mirror) resize(size int64) {
	m.mu.Lock()
	shift := m.want.shift
	m.want, m.stuck = m.want.fit(size), m.stuck.fit(size)
	if m.want.shift != shift {
		m.durable = newRegions(size)
		m.busy, m.touched = coarser(m.busy, m.want.shift-shift, func(a, b int) int { return a + b }),
			coarser(m.touched, m.want.shift-shift, func(a, b uint64) uint64 { return max(a, b) })
	} else {
		m.durable = m.durable.fit(size)
	}
	m.mu.Unlock()
	m.size.Store(size)
	if m.o.OnResize != nil {
		m.o.OnResize(m.name)
	}
}

func coarser[T any](all map[int]T, by uint, join func(a, b T) T) map[int]T {
	out := map[int]T{}
	for i, v := range all {
		out[i>>by] = join(out[i>>by], v)
	}
	return out
}
