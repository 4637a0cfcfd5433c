package lun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// mirrorPatience is how long a leg may take for what the other has done. Initiators
	// give up after 30 s and more.
	mirrorPatience = 5 * time.Second
	// mirrorTidy is how often regions that were not written to for as long are flushed
	// and taken out of the records.
	mirrorTidy = 5 * time.Second
	// A leg that failed is not taken back before, the longer the more often it failed.
	leastAway = time.Second
	mostAway  = time.Minute
)

// MirrorOptions is what mirrors need besides pools.
type MirrorOptions struct {
	// Load and Save keep what is known of the mirror of a LUN outside of its pools:
	// on stable storage when Save returns, and nothing for nil.
	Load func(lun string) ([]byte, error)
	Save func(lun string, record []byte) error
	// OnChange, unless nil, is called with the name of a LUN whose legs have changed,
	// and what has. It must not wait.
	OnChange func(lun, what string)
	// OnResize, unless nil, is called with the name of a LUN that has grown.
	OnResize func(lun string)

	// Patience is how long a leg may take for what the other has done, and Tidy how
	// often quiet regions are taken out of the records; 0 is 5 s.
	Patience, Tidy time.Duration
}

// Mirror is a LUN that is the same in two pools. It is a Volume over that of each:
//
//	write ─► lock its bytes ─► its regions are in the records ─► both legs ─► acknowledged
//	                                                               └─ one fails, or does not answer in time ─► record
//	                                                                  that the other goes on alone ─► acknowledged
//	read  ─► the first leg in sync ─► if it fails: the other, and write it to the first
//
// A leg that came back gets every write, and tend copies the regions of the records.
type Mirror struct {
	life  context.Context // of what nobody asked for
	name  string
	id    [16]byte
	block int
	o     MirrorOptions
	// keep makes a record the one of the mirror in a pool.
	keep func(pool string, record []byte) error

	locks rangeLocks
	size  atomic.Int64
	view  atomic.Pointer[view]
	gate  sync.RWMutex // shared by accesses; closed is with it
	shut  atomic.Bool
	stop  context.CancelFunc
	group sync.WaitGroup
	wake  chan struct{}

	state sync.Mutex // held while records are written; guards what follows
	epoch epoch
	base  epoch // the last of which the leg that is not whole had everything
	gone  []string
	joins bool // it may be recorded that the leg that is syncing has everything

	mu      sync.Mutex // guards what follows, and is not held over I/O
	written *sync.Cond // a record was
	writing bool
	want    regions // that may differ, or are being written
	durable regions // that the records have
	stuck   regions // that do differ, as far as it is known: until they are compared
	copied  int     // the region that is being compared
	redo    bool    // it has come to differ since that began
	busy    map[int]int
	touched map[int]uint64 // by region: the tick of its last write
	tick    uint64
	status  [2]legStatus
}

// legStatus is what is told of a leg.
type legStatus struct {
	why    string
	since  time.Time
	failed int       // times in a row
	until  time.Time // it is not taken back before
}

// view is the legs as an access finds them. It never changes.
type view struct {
	legs  [2]*leg // in the order of the file: who is first is read
	state [2]LegState
}

// in gives the legs for whose state is holds.
func (v *view) in(is func(LegState) bool) []*leg {
	out := make([]*leg, 0, 2)
	for i, l := range v.legs {
		if l != nil && is(v.state[i]) {
			out = append(out, l)
		}
	}
	return out
}

func inSync(s LegState) bool  { return s == LegInSync }
func written(s LegState) bool { return s != LegAway }

// whole tells whether l has everything.
func (v *view) whole(l *leg) bool {
	for i, o := range v.legs {
		if o == l {
			return v.state[i] == LegInSync
		}
	}
	return false
}

var (
	_ Gauge  = (*Mirror)(nil)
	_ Prompt = (*Mirror)(nil)
	_ Queue  = (*Mirror)(nil)
)

// newMirror serves legs of which the first in sync is there. Regions are those that
// may differ.
func newMirror(ctx context.Context, name string, id [16]byte, v *view, size int64, block int, may regions, o MirrorOptions, keep func(pool string, record []byte) error) *Mirror {
	if o.Patience == 0 {
		o.Patience = mirrorPatience
	}
	if o.Tidy == 0 {
		o.Tidy = mirrorTidy
	}
	if o.OnChange == nil {
		o.OnChange = func(string, string) {}
	}
	m := &Mirror{life: context.WithoutCancel(ctx), name: name, id: id, block: block, o: o, keep: keep, wake: make(chan struct{}, 1), busy: map[int]int{}, touched: map[int]uint64{}}
	m.written = sync.NewCond(&m.mu)
	m.size.Store(size)
	m.view.Store(v)
	m.want, m.stuck, m.durable = may.clone(), may.clone(), newRegions(size)
	for i := range m.status {
		m.status[i].since = time.Now()
	}
	return m
}

// start begins to tend the legs.
func (m *Mirror) start() {
	ctx, stop := context.WithCancel(m.life)
	m.stop = stop
	m.group.Go(func() { m.tend(ctx) })
	m.group.Go(func() { m.watch(ctx) })
}

func (m *Mirror) awake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// close ends accesses, waits for those that are under way as long as a disk may take,
// and has no region in the records that need not be. Legs that hang are left.
func (m *Mirror) close(ctx context.Context) error {
	m.stop()
	ended := make(chan struct{})
	go func() {
		m.gate.Lock()
		m.shut.Store(true)
		m.gate.Unlock()
		m.group.Wait()
		m.clear(true)
		close(ended)
	}()
	over := time.NewTimer(2 * m.o.Patience)
	defer over.Stop()
	select {
	case <-ended:
		return nil
	case <-over.C:
		return fmt.Errorf("LUN %s: %w: look at the disks of its pools", m.name, ErrHangs)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enter lets an access in while the LUN is in service.
func (m *Mirror) enter() error {
	m.gate.RLock()
	if m.shut.Load() {
		m.gate.RUnlock()
		return fmt.Errorf("LUN %s: %w", m.name, ErrClosed)
	}
	return nil
}

// Info is the LUN as it is now. It is read-only when every leg in sync is.
func (m *Mirror) Info() Info {
	i := Info{Name: m.name, ID: m.id, Size: m.size.Load(), BlockSize: m.block, ReadOnly: true}
	for _, l := range m.view.Load().in(inSync) {
		i.ReadOnly = i.ReadOnly && l.volume.Info().ReadOnly
	}
	return i
}

// Usage is that of the leg whose pool is the fuller one.
func (m *Mirror) Usage() (out Usage) {
	for _, l := range m.view.Load().in(inSync) {
		g, ok := l.volume.(Gauge)
		if !ok {
			continue
		}
		if u := g.Usage(); u.PoolSize > 0 && (out.PoolSize == 0 || u.PoolSize-u.PoolUsed < out.PoolSize-out.PoolUsed) {
			out = u
		}
	}
	return out
}

func (m *Mirror) inside(off, n int64) error {
	b := int64(m.block)
	if off < 0 || n < 0 || off%b != 0 || n%b != 0 || off > m.size.Load()-n {
		return ErrRange
	}
	return nil
}

// ReadAt fills p from off, from one leg that has everything.
func (m *Mirror) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := errors.Join(ctx.Err(), m.inside(off, int64(len(p)))); err != nil {
		return err
	}
	if err := m.enter(); err != nil {
		return err
	}
	defer m.gate.RUnlock()
	return m.read(context.WithoutCancel(ctx), p, off, false)
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
				return m.mend(legs[0], why, off, n, locked)
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

// mend writes what a leg could not read to it again, or gives it up.
func (m *Mirror) mend(l *leg, why error, off, n int64, locked bool) error {
	var medium *MediumError
	if !errors.As(why, &medium) {
		return m.lose(l, why)
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
			return nil
		}
		others := slices.DeleteFunc(v.in(inSync), func(o *leg) bool { return o == l })
		if len(others) == 0 {
			return nil
		}
		if err := all(m.o.Patience, others, nobody, func(o *leg) error { return o.volume.ReadAt(ctx, b, at) })[0]; err != nil {
			return nil // of a place that was not asked for, or next time
		}
		if err := m.alone(l, func(v Volume) error { return v.WriteAt(ctx, b, at, false) }); err != nil {
			return m.lose(l, fmt.Errorf("%w; writing that again: %w", why, err))
		}
		unslab(b)
	}
	m.o.OnChange(m.name, fmt.Sprintf("pool %s could not read %d bytes at %d: they were written again from the other leg: %v", l.pool, n, off, why))
	return nil
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
	return !m.shut.Load() && l != nil && m.inside(off, int64(len(p))) == nil && l.read(p, off, done)
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
	if err := m.read(ctx, is, off, true); err != nil {
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
	for i, end := m.stuck.span(off, n); i < end; i++ {
		m.redo = m.redo || i == m.copied
	}
	m.mu.Unlock()
	m.awake()
}

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

func (m *Mirror) save(w witness) error {
	if err := m.o.Save(m.name, w.encode()); err != nil {
		return fmt.Errorf("record which leg has everything: %w", err)
	}
	return nil
}

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
// lacks is in the regions, or everything.
func (m *Mirror) resume(l *leg, lacks bool) error {
	m.state.Lock()
	defer m.state.Unlock()
	v := m.view.Load()
	i := slices.IndexFunc(v.legs[:], func(o *leg) bool { return o != nil && o.pool == l.pool })
	if i < 0 || v.state[i] != LegAway {
		return nil
	}
	m.mu.Lock()
	if lacks {
		m.want.fill()
		m.durable = newRegions(m.size.Load())
	}
	m.mu.Unlock()
	base := m.base
	if lacks {
		base = epoch{}
	}
	if err := m.keep(l.pool, legRecord{ID: m.id, Kind: legLacks, Epoch: base, Other: v.in(inSync)[0].pool}.encode()); err != nil {
		return err
	}
	if lacks {
		m.base = epoch{}
		if err := m.persistLocked(); err != nil {
			return err
		}
	}
	next := *v
	next.legs[i], next.state[i] = l, LegSyncing
	m.mu.Lock()
	m.view.Store(&next)
	m.stuck = m.want.clone()
	m.status[i].since, m.status[i].why = time.Now(), ""
	m.mu.Unlock()
	m.awake()
	m.o.OnChange(m.name, "leg in pool "+l.pool+": "+string(LegSyncing))
	return nil
}

// join has a leg that is the same as the other have everything from now on.
func (m *Mirror) join(l *leg) error {
	m.state.Lock()
	defer m.state.Unlock()
	v := m.view.Load()
	i := slices.Index(v.legs[:], l)
	if _, any := m.nextStuck(0); i < 0 || v.state[i] != LegSyncing || l.isLost() || len(v.in(inSync)) == 0 || any {
		return nil
	}
	next := *v
	next.state[i] = LegInSync
	other := v.legs[1-i]
	is := m.snapshot()
	m.joins = true
	record := m.record(&next, l, is).encode()
	if err := m.alone(l, func(Volume) error { return m.keep(l.pool, record) }); err != nil {
		return m.loseLocked(l, err)
	}
	if err := m.save(m.witness(&next, l.pool, other.pool)); err != nil {
		return err
	}
	if err := m.keep(other.pool, m.record(&next, other, is).encode()); err != nil {
		return err // both have everything, and the next record says so
	}
	m.has(is)
	m.joins = false
	m.turn(&next, i, nil)
	return nil
}

// detach has the LUN go on without a leg for good.
func (m *Mirror) detach(pool string) error {
	m.state.Lock()
	defer m.state.Unlock()
	v := m.view.Load()
	i := slices.IndexFunc(v.legs[:], func(l *leg) bool { return l != nil && l.pool == pool })
	if i < 0 {
		return nil
	}
	next := *v
	next.legs[i] = nil
	rest := next.in(inSync)
	if len(rest) == 0 {
		return fmt.Errorf("the leg in pool %s is the only one that has everything: wait until the other is in sync, or see why it is not", pool)
	}
	former, base, gone := m.epoch, m.base, m.gone
	m.epoch, m.base, m.gone = m.epoch.next(), m.epoch, append(slices.Clone(m.gone), pool)
	if err := m.save(m.witness(&next, rest[0].pool)); err != nil {
		m.epoch, m.base, m.gone = former, base, gone
		return err
	}
	is := m.snapshot()
	if err := m.keep(rest[0].pool, m.record(&next, rest[0], is).encode()); err != nil {
		m.gone = gone // it may yet be the only one that has everything, and what is gone is deleted
		return err    // the epoch is the witness's, which the records follow
	}
	m.has(is)
	v.legs[i].lose()
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

// stats is how the legs stand, in their order.
func (m *Mirror) stats() []LegStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.view.Load()
	var out []LegStats
	for i, l := range v.legs {
		if l == nil {
			continue
		}
		s := LegStats{Pool: l.pool, State: v.state[i], Since: m.status[i].since, Reason: m.status[i].why}
		switch {
		case s.State == LegAway:
			s.Left = m.left(m.want)
		case s.State == LegSyncing || i == 1: // after a crash both have everything, and may differ in what nobody was told is there
			s.Left = m.left(m.stuck)
		}
		out = append(out, s)
	}
	return out
}

func (m *Mirror) left(r regions) int64 {
	return min(int64(r.count(m.size.Load()))<<r.shift, m.size.Load())
}

// away is the pool of a leg that is, and whether it may be taken back now.
func (m *Mirror) away() (pool string, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.view.Load()
	for i, l := range v.legs {
		if l != nil && v.state[i] == LegAway {
			return l.pool, m.status[i].until
		}
	}
	return "", time.Time{}
}

// legOf is the leg of a pool, nil without one.
func (m *Mirror) legOf(pool string) *leg {
	for _, l := range m.view.Load().legs {
		if l != nil && l.pool == pool {
			return l
		}
	}
	return nil
}

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
	var runs []run
	err := m.slow(from, func(v Volume) error {
		runs = nil
		return v.Extents(ctx, off, n, func(off, n int64, mapped bool) bool {
			runs = append(runs, run{piece{off, n}, mapped})
			return true
		})
	})
	for _, r := range runs {
		if err == nil && r.mapped {
			err = m.copyData(ctx, from, to, r.piece)
		} else if err == nil {
			err = m.copyHole(ctx, to, r.piece)
		}
	}
	return err
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
			return m.mend(from, err, p.off, p.n, true)
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
