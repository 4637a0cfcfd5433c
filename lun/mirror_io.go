package lun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ReadAt fills p from off, from one leg that has everything.
func (m *Mirror) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := errors.Join(ctx.Err(), m.inside(off, int64(len(p)))); err != nil {
		return err
	}
	if err := m.enter(); err != nil {
		return err
	}
	defer m.gate.RUnlock()
	ctx = context.WithoutCancel(ctx)
	if !m.unequal(off, int64(len(p))) {
		return m.read(ctx, p, off, false)
	}
	m.locks.lock(off, int64(len(p)))
	defer m.locks.unlock(off, int64(len(p)))
	return m.readEven(ctx, p, off)
}

// unequal tells whether legs with everything may differ in n bytes at off, as after a
// crash in what was being written.
func (m *Mirror) unequal(off, n int64) bool {
	if !m.doubt.Load() {
		return false
	}
	v := m.view.Load()
	return v.state == [2]LegState{LegInSync, LegInSync} && v.legs[0] != nil && v.legs[1] != nil && m.isStuck(off, n)
}

// readEven is ReadAt of what legs may differ in: both have what was read before anybody
// sees it, or it would be read otherwise when the other leg is the first, or the only one.
// The caller has locked the bytes.
func (m *Mirror) readEven(ctx context.Context, p []byte, off int64) error {
	if err := m.read(ctx, p, off, true); err != nil {
		return err
	}
	v := m.view.Load()
	legs := v.in(inSync)
	if len(legs) < 2 {
		return nil
	}
	for _, l := range legs {
		b := slab(len(p))
		copy(b, p)
		if err := m.alone(l, func(v Volume) error { return m.have(ctx, v, b, off) }); err != nil {
			if err := m.lose(l, err); err != nil {
				return err
			}
		}
	}
	return nil
}

// have writes b, which it gives back, unless that is what is there.
func (m *Mirror) have(ctx context.Context, v Volume, b []byte, off int64) error {
	defer unslab(b)
	is := slab(len(b))
	defer unslab(is)
	if v.ReadAt(ctx, is, off) == nil && bytes.Equal(is, b) {
		return nil
	}
	return v.WriteAt(ctx, b, off, false)
}

// read is ReadAt; locked tells whether the caller has the lock of the bytes.
func (m *Mirror) read(ctx context.Context, p []byte, off int64, locked bool) error {
	return m.ask(off, int64(len(p)), locked, func(l *leg) (func(), error) {
		b := slab(len(p))
		if err := l.volume.ReadAt(ctx, b, off); err != nil {
			unslab(b)
			return nil, err
		}
		return func() { copy(p, b); unslab(b) }, nil
	})
}

// answer is what a leg gave to be read.
type answer struct {
	leg  *leg
	take func() // has it be the answer
	err  error
}

// ask has something read of the first leg in sync, and of the other if that fails or
// takes too long. What it gives to be done with what was read is done by the caller's
// goroutine, once.
func (m *Mirror) ask(off, n int64, locked bool, op func(*leg) (func(), error)) error {
	for {
		v := m.view.Load()
		legs := v.in(inSync)
		got, why, err := m.first(legs, op)
		if err == nil {
			got.take()
			if why != nil {
				m.mend(legs[0], why, off, n, locked)
			}
			return nil
		}
		if !errors.Is(err, errLost) {
			return err
		}
		if err := m.recordLoss(v); err != nil {
			return err
		}
		if m.view.Load() == v {
			return err
		}
	}
}

// first is the answer of the leg that is read, or of the other, and then why it is not
// the former's.
func (m *Mirror) first(legs []*leg, op func(*leg) (func(), error)) (got answer, why, err error) {
	answers := make(chan answer, 2)
	begin := func(l *leg) {
		go func() {
			a := answer{leg: l}
			a.err = l.do(func(l *leg) (err error) { a.take, err = op(l); return err })
			answers <- a
		}()
	}
	begin(legs[0])
	over, lost := time.NewTimer(m.o.Patience), legs[0].lost
	defer over.Stop()
	select {
	case got = <-answers:
		if got.err == nil || len(legs) == 1 {
			return got, nil, got.err
		}
		why = got.err
	case <-lost:
		why = errLost
	case <-whenTwo(over.C, legs):
		why = ErrHangs
	}
	if len(legs) == 1 {
		return got, nil, why
	}
	begin(legs[1])
	for {
		select {
		case got = <-answers:
			switch {
			case got.err == nil && got.leg == legs[0]:
				return got, nil, nil // after all
			case got.err == nil:
				return got, why, nil
			case got.leg == legs[1]:
				return got, why, got.err
			}
			why = got.err
		case <-legs[1].lost:
			return got, why, errLost
		}
	}
}

// whenTwo is c where there is another leg to ask.
func whenTwo(c <-chan time.Time, legs []*leg) <-chan time.Time {
	if len(legs) < 2 {
		return nil
	}
	return c
}

func nobody(*leg) bool { return false }

// giveUp is lose for a read, which does not wait until that is recorded: what the other leg
// gave is right, and who changes something waits. Where it cannot be recorded the next write
// says so.
func (m *Mirror) giveUp(l *leg, why error) {
	if !l.isLost() {
		m.group.Go(func() { _ = m.lose(l, why) })
	}
}

// mend writes what a leg could not read to it again, or gives it up.
func (m *Mirror) mend(l *leg, why error, off, n int64, locked bool) {
	var medium *MediumError
	if !errors.As(why, &medium) {
		m.giveUp(l, why)
		return
	}
	if !locked {
		m.locks.lock(off, n)
		defer m.locks.unlock(off, n)
	}
	// Engines have a checksum of 4 KiB, and of less they would read the rest first.
	end := min((off+n+slabAlign-1)&^(slabAlign-1), m.size.Load())
	ctx := m.life
	for at := off &^ (slabAlign - 1); at < end; at += movePiece {
		b := slab(int(min(movePiece, end-at)))
		v := m.view.Load()
		if !v.whole(l) {
			return
		}
		others := slices.DeleteFunc(v.in(inSync), func(o *leg) bool { return o == l })
		if len(others) == 0 {
			return
		}
		if err := all(m.o.Patience, others, nobody, func(o *leg) error { return o.volume.ReadAt(ctx, b, at) })[0]; err != nil {
			return // of a place that was not asked for, or next time
		}
		if err := m.alone(l, func(v Volume) error { return v.WriteAt(ctx, b, at, false) }); err != nil {
			m.giveUp(l, fmt.Errorf("%w; writing that again: %w", why, err))
			return
		}
		unslab(b)
	}
	m.o.OnChange(m.name, fmt.Sprintf("pool %s could not read %d bytes at %d: they were written again from the other leg: %v", l.pool, n, off, why))
}

// alone has something done to a leg, and gives up waiting for it after a while.
func (m *Mirror) alone(l *leg, op func(Volume) error) error {
	ended := make(chan error, 1)
	go func() { ended <- l.do(func(l *leg) error { return op(l.volume) }) }()
	over := time.NewTimer(m.o.Patience)
	defer over.Stop()
	select {
	case err := <-ended:
		return err
	case <-l.lost:
		return errLost
	case <-over.C:
		return ErrHangs
	}
}

// Extents tells what is mapped in the leg that is read.
func (m *Mirror) Extents(ctx context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error {
	if err := m.enter(); err != nil {
		return err
	}
	defer m.gate.RUnlock()
	type run struct {
		off, n int64
		mapped bool
	}
	return m.ask(off, 0, false, func(l *leg) (func(), error) {
		var runs []run
		err := l.volume.Extents(context.WithoutCancel(ctx), off, n, func(off, n int64, mapped bool) bool {
			runs = append(runs, run{off, n, mapped})
			return len(runs) < 1<<16
		})
		return func() {
			for _, r := range runs {
				if !yield(r.off, r.n, r.mapped) {
					return
				}
			}
		}, err
	})
}

// TryReadAt fills p from off if the leg that is read has all of it in memory.
func (m *Mirror) TryReadAt(p []byte, off int64) (bool, error) {
	if !m.gate.TryRLock() {
		return false, nil
	}
	defer m.gate.RUnlock()
	l := m.reader()
	if m.shut.Load() || l == nil || l.prompt == nil {
		return false, nil
	}
	if m.unequal(off, int64(len(p))) {
		return false, nil
	}
	done, err := l.prompt.TryReadAt(p, off)
	return done && err == nil, nil // ReadAt says what is wrong
}

// reader is the leg that is read, nil when it is being given up.
func (m *Mirror) reader() *leg {
	if legs := m.view.Load().in(inSync); len(legs) > 0 && !legs[0].isLost() {
		return legs[0]
	}
	return nil
}

// TryWriteAt is false: two legs are never only memory.
func (m *Mirror) TryWriteAt([]byte, int64) (bool, error) { return false, nil }

// StartReadAt begins a ReadAt.
func (m *Mirror) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	if !m.gate.TryRLock() {
		return false
	}
	defer m.gate.RUnlock()
	l := m.reader()
	n := int64(len(p))
	return !m.shut.Load() && l != nil && m.inside(off, n) == nil && !m.unequal(off, n) && l.read(p, off, done)
}

// StartWriteAt is false.
func (m *Mirror) StartWriteAt([]byte, int64, func(ok bool)) bool { return false }

// WriteAt writes p at off, on both legs.
func (m *Mirror) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	s := &shared{b: slab(len(p))}
	copy(s.b, p)
	s.users.Store(1)
	defer s.done()
	return m.change(ctx, off, int64(len(p)), func(ctx context.Context, v Volume) error {
		return v.WriteAt(ctx, s.b, off, fua)
	}, s)
}

// Unmap makes n bytes at off read as zeros and gives their space back.
func (m *Mirror) Unmap(ctx context.Context, off, n int64) error {
	return m.change(ctx, off, n, func(ctx context.Context, v Volume) error { return v.Unmap(ctx, off, n) }, nil)
}

// WriteZeroes makes n bytes at off read as zeros.
func (m *Mirror) WriteZeroes(ctx context.Context, off, n int64) error {
	return m.change(ctx, off, n, func(ctx context.Context, v Volume) error { return v.WriteZeroes(ctx, off, n) }, nil)
}

// CompareAndWrite compares with what the LUN reads as, and writes on both legs.
func (m *Mirror) CompareAndWrite(ctx context.Context, old, data []byte, off int64) error {
	if err := errors.Join(ctx.Err(), m.inside(off, int64(len(data)))); err != nil || len(old) != len(data) {
		return errors.Join(err, m.inside(off, int64(len(old))))
	}
	if err := m.enter(); err != nil {
		return err
	}
	defer m.gate.RUnlock()
	ctx = context.WithoutCancel(ctx)
	m.locks.lock(off, int64(len(data)))
	defer m.locks.unlock(off, int64(len(data)))
	is := make([]byte, len(old))
	read := func() error { return m.read(ctx, is, off, true) }
	if m.unequal(off, int64(len(is))) {
		read = func() error { return m.readEven(ctx, is, off) }
	}
	if err := read(); err != nil {
		return err
	}
	for i := range is {
		if is[i] != old[i] {
			return &Miscompare{Offset: int64(i)}
		}
	}
	s := &shared{b: slab(len(data))}
	copy(s.b, data)
	s.users.Store(1)
	defer s.done()
	return m.both(ctx, off, int64(len(data)), func(ctx context.Context, v Volume) error { return v.WriteAt(ctx, s.b, off, false) }, s)
}

// Flush puts everything acknowledged before it on stable storage, on both legs.
func (m *Mirror) Flush(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), m.enter()); err != nil {
		return err
	}
	defer m.gate.RUnlock()
	return m.both(context.WithoutCancel(ctx), 0, 0, func(ctx context.Context, v Volume) error { return v.Flush(ctx) }, nil)
}

func (m *Mirror) change(ctx context.Context, off, n int64, op func(context.Context, Volume) error, uses *shared) error {
	if err := errors.Join(ctx.Err(), m.inside(off, n)); err != nil {
		return err
	}
	if err := m.enter(); err != nil {
		return err
	}
	defer m.gate.RUnlock()
	m.locks.lock(off, n)
	defer m.locks.unlock(off, n)
	return m.both(context.WithoutCancel(ctx), off, n, op, uses)
}

// both does to every leg that is there what changes n bytes at off, which the caller
// has locked. It is done when one that has everything has done it, and it is recorded
// that those that have not lack something.
func (m *Mirror) both(ctx context.Context, off, n int64, op func(context.Context, Volume) error, uses *shared) error {
	if err := m.intend(off, n); err != nil {
		return err
	}
	defer m.intended(off, n)
	for {
		v := m.view.Load()
		legs := v.in(written)
		if uses != nil {
			uses.users.Add(int32(len(legs))) // also for a leg that nobody waits for before it has begun
		}
		errs := all(m.o.Patience, legs, v.whole, func(l *leg) error {
			if uses != nil {
				defer uses.done()
			}
			return op(ctx, l.volume)
		})
		done, again := false, false
		var why error
		for i, l := range legs {
			switch {
			case !v.whole(l):
			case errs[i] == nil:
				done = true
			case errs[i] == errLost && m.view.Load() != v:
				again = true
			case why == nil:
				why = errs[i]
			}
		}
		if !done && again {
			continue
		}
		if !done && errors.Is(why, errLost) {
			if err := m.recordLoss(v); err != nil {
				return err
			}
			if m.view.Load() != v {
				continue
			}
		}
		if !done {
			m.differ(legs, errs, off, n)
			return why
		}
		for i, l := range legs {
			if errs[i] != nil {
				if err := m.lose(l, errs[i]); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

// recordLoss tries anew to record which leg was lost.
func (m *Mirror) recordLoss(v *view) error {
	for _, l := range v.in(inSync) {
		if l.isLost() {
			if err := m.lose(l, errLost); err != nil {
				return err
			}
		}
	}
	return nil
}

// differ notes what a change that no leg with everything has done may have left.
func (m *Mirror) differ(legs []*leg, errs []error, off, n int64) {
	full := !slices.ContainsFunc(errs, func(err error) bool { return !errors.Is(err, ErrNoSpace) })
	if len(legs) < 2 || full {
		return
	}
	m.mu.Lock()
	m.stuck.add(off, n)
	m.doubt.Store(true)
	for i, end := m.stuck.span(off, n); i < end; i++ {
		m.redo = m.redo || i == m.copied
	}
	m.mu.Unlock()
	m.awake()
}
