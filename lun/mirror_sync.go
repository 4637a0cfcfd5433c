package lun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// watch gives up a leg that does not end what nobody waits for.
func (m *Mirror) watch(ctx context.Context) {
	t := time.NewTicker(min(m.o.Patience/4, time.Second))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		legs := m.view.Load().in(inSync)
		if len(legs) == 2 && legs[0].waits(m.o.Patience) {
			_ = m.lose(legs[0], ErrHangs) // if it cannot be recorded, the next write says so
		}
	}
}

// tend compares what may differ, copies it, and takes what does not out of the records.
func (m *Mirror) tend(ctx context.Context) {
	t := time.NewTicker(m.o.Tidy)
	defer t.Stop()
	for {
		again := m.level(ctx)
		var soon <-chan time.Time
		if again {
			soon = time.After(leastAway)
		}
		select {
		case <-ctx.Done():
			return
		case <-m.wake:
		case <-soon:
		case <-t.C:
			m.clear(false)
		}
	}
}

// level makes legs the same that are not. It is true when it is to be tried again.
func (m *Mirror) level(ctx context.Context) (again bool) {
	at, failed := 0, false
	for ctx.Err() == nil {
		v := m.view.Load()
		legs := v.in(written)
		if len(legs) < 2 || len(v.in(inSync)) == 0 {
			return false
		}
		from, to := legs[0], legs[1]
		if !v.whole(from) {
			from, to = to, from
		}
		region, any := m.nextStuck(at)
		if !any && at > 0 && !failed { // others may have come to differ since
			at = 0
			continue
		}
		if !any && (failed || v.whole(to)) {
			return failed
		}
		if !any {
			if err := m.alone(to, func(v Volume) error { return v.Flush(ctx) }); err != nil {
				return m.lose(to, err) != nil
			}
			return m.join(to) != nil
		}
		at = region + 1
		if err := m.copyRegion(ctx, from, to, region); err != nil {
			failed = true
			m.mu.Lock()
			for i, l := range v.legs {
				if l == to && v == m.view.Load() {
					m.status[i].why = err.Error()
				}
			}
			m.mu.Unlock()
		}
	}
	return false
}

// nextStuck is the first region from at on that is to be compared.
func (m *Mirror) nextStuck(at int) (int, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := int((m.size.Load() + 1<<m.stuck.shift - 1) >> m.stuck.shift)
	for i := at; i < min(last, len(m.stuck.words)*wordsRegion); i++ {
		if m.stuck.has(i) {
			return i, true
		}
	}
	if at == 0 {
		m.doubt.Store(false)
	}
	return 0, false
}

// copyRegion makes a region of one leg what the other is. An error means that it is to
// be tried again.
func (m *Mirror) copyRegion(ctx context.Context, from, to *leg, region int) error {
	m.mu.Lock()
	shift := m.stuck.shift
	off := int64(region) << shift
	if region >= len(m.stuck.words)*wordsRegion { // they are larger now, and are looked at anew
		m.mu.Unlock()
		return nil
	}
	m.copied, m.redo = region, false
	m.mu.Unlock()
	for at, end := off, min(off+1<<shift, m.size.Load()); at < end; at += movePiece {
		n := min(movePiece, end-at)
		err := ctx.Err()
		if err == nil {
			m.locks.lock(at, n)
			err = m.copyPiece(from, to, at, n)
			m.locks.unlock(at, n)
		}
		if err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.redo && m.stuck.shift == shift {
		m.stuck.drop(region)
	}
	return nil
}

// copyPiece makes n bytes at off of one leg what the other has there, also what it has
// not.
func (m *Mirror) copyPiece(from, to *leg, off, n int64) error {
	v := m.view.Load()
	if !slices.Contains(v.legs[:], to) || !v.whole(from) || to.isLost() {
		return errLost
	}
	ctx := m.life
	type run struct {
		piece
		mapped bool
	}
	seen := make(chan []run, 1) // a leg that was given up may go on looking when nobody waits any more
	err := m.slow(from, func(v Volume) error {
		var runs []run
		err := v.Extents(ctx, off, n, func(off, n int64, mapped bool) bool {
			runs = append(runs, run{piece{off, n}, mapped})
			return true
		})
		seen <- runs
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range <-seen {
		if r.mapped {
			err = m.copyData(ctx, from, to, r.piece)
		} else {
			err = m.copyHole(ctx, to, r.piece)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// slow has something done to the leg that is read, which may take its time.
func (m *Mirror) slow(l *leg, op func(Volume) error) error {
	return all(time.Hour, []*leg{l}, nobody, func(l *leg) error { return op(l.volume) })[0]
}

// wrote gives up the leg that is brought up to date when it failed.
func (m *Mirror) wrote(to *leg, err error) error {
	if err == nil {
		return nil
	}
	if lost := m.lose(to, err); lost != nil {
		return lost
	}
	return err
}

func (m *Mirror) copyHole(ctx context.Context, to *leg, p piece) error {
	return m.wrote(to, m.alone(to, func(v Volume) error {
		there := false
		err := v.Extents(ctx, p.off, p.n, func(_, _ int64, mapped bool) bool {
			there = there || mapped
			return !there
		})
		if err == nil && there {
			err = v.Unmap(ctx, p.off, p.n)
		}
		return err
	}))
}

func (m *Mirror) copyData(ctx context.Context, from, to *leg, p piece) error {
	b := slab(int(p.n))
	if err := m.slow(from, func(v Volume) error { return v.ReadAt(ctx, b, p.off) }); err != nil {
		var medium *MediumError
		if errors.As(err, &medium) && m.view.Load().whole(to) {
			m.mend(from, err, p.off, p.n, true)
			return nil
		}
		return fmt.Errorf("the leg in pool %s: %w", from.pool, err)
	}
	return m.wrote(to, m.alone(to, func(v Volume) error {
		whole := true
		err := v.Extents(ctx, p.off, p.n, func(_, _ int64, mapped bool) bool {
			whole = whole && mapped
			return whole
		})
		if err == nil && whole {
			is := slab(int(p.n))
			defer unslab(is)
			if v.ReadAt(ctx, is, p.off) == nil && bytes.Equal(is, b) {
				unslab(b)
				return nil
			}
		}
		if err == nil {
			err = v.WriteAt(ctx, b, p.off, false)
		}
		unslab(b)
		return err
	}))
}

// clear takes regions out of the records that nobody has written to since the last
// time, or that nobody is writing to where now.
func (m *Mirror) clear(now bool) {
	v := m.view.Load()
	if len(v.in(inSync)) < 2 {
		return
	}
	m.mu.Lock()
	m.tick++
	tick := m.tick
	quiet := m.want.clone()
	any := false
	for i := range len(quiet.words) * wordsRegion {
		if !quiet.has(i) {
			continue
		}
		if m.busy[i] > 0 || m.stuck.has(i) || !now && m.touched[i]+1 >= tick {
			quiet.drop(i)
		} else {
			any = true
		}
	}
	m.mu.Unlock()
	if !any {
		return
	}
	errs := all(m.o.Patience, v.in(inSync), v.whole, func(l *leg) error { return l.volume.Flush(m.life) })
	for _, err := range errs {
		if err != nil {
			return // the next flush of an initiator finds it out
		}
	}
	m.mu.Lock()
	if m.view.Load() != v || quiet.shift != m.want.shift {
		m.mu.Unlock()
		return
	}
	for i := range len(quiet.words) * wordsRegion {
		if quiet.has(i) && m.busy[i] == 0 && !m.stuck.has(i) && (now || m.touched[i]+1 < tick) {
			m.want.drop(i)
			delete(m.touched, i)
		}
	}
	m.mu.Unlock()
	_ = m.persist() // what stays in the records is compared once more than it need be
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
