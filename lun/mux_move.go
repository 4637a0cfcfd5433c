package lun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Renamer is an engine that gives data another name. The name and identifier are
// on stable storage on return, and I/O goes on. What a crash has left of it is done
// by the same call, and when data of the new name and identifier are there nothing is.
type Renamer interface {
	Rename(ctx context.Context, pool, from, to string, id [16]byte) error
}

// Names that no file can give: nobody but a Mux sees LUNs of these.
const (
	copySuffix = "~copy" // what a move has not committed yet
	goneSuffix = "~gone" // what a move left behind
)

// apart tells whether a LUN is part of a move, and of which LUN's.
func apart(name string) (of string, ok bool) {
	of, _, ok = strings.Cut(name, "~")
	return of, ok
}

// Moved is a move that was committed: the LUN is what lies in To, whatever lies in
// From.
type Moved struct {
	From, To string // pools
	ID       [16]byte
}

// Expect has a Mux know of a move that was committed before, and may not have been
// carried out. It is for before pools are opened.
func (m *Mux) Expect(name string, moved Moved) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.moved[name] = moved
}

// BeginMove begins to keep a LUN in service in another pool, too. An earlier copy
// there, which a crash left, is taken up. Its snapshots go with it unless alone, and
// then they are deleted when it is there.
func (m *Mux) BeginMove(ctx context.Context, name, pool string, alone bool) (*Move, error) {
	v := &Move{name: name, alone: alone, patience: movePatience, failed: make(chan struct{})}
	if err := m.claimMove(name, v); err != nil {
		return nil, fmt.Errorf("move LUN %s: %w", name, err)
	}
	err := m.beginMove(ctx, v, pool)
	if err != nil {
		m.forgetMove(name)
		return nil, fmt.Errorf("move LUN %s: %w", name, err)
	}
	return v, nil
}

// claimMove notes the move, so that from now on the LUN gets no snapshots.
func (m *Mux) claimMove(name string, v *Move) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.moves[name] != nil {
		return ErrMoves
	}
	if m.snaps[name] > 0 {
		return errors.New("a snapshot of it is being made or deleted: wait until that is done")
	}
	m.moves[name] = v
	return nil
}

func (m *Mux) forgetMove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.moves, name)
	m.ended++
}

// still calls look, which looks at all pools, until no move has ended meanwhile: of one that
// has, the former names are seen, and nothing tells any more whose they were.
func (m *Mux) still(look func() error) error {
	for {
		m.mu.Lock()
		before := m.ended
		m.mu.Unlock()
		err := look()
		m.mu.Lock()
		after := m.ended
		m.mu.Unlock()
		if err != nil || before == after {
			return err
		}
	}
}

func (m *Mux) beginMove(ctx context.Context, v *Move, pool string) error {
	source := m.ofLUN(v.name)
	if source == nil {
		return ErrClosed
	}
	is, err := source.Observe(ctx)
	if err != nil {
		return err
	}
	l := is.LUNs[v.name]
	if err := m.movable(v.name, l.Pool, pool, source); err != nil {
		return err
	}
	m.mu.Lock()
	v.pools = [2]string{l.Pool, pool}
	m.mu.Unlock()
	if n := len(snapshotsIn(source, l.Pool, v.name)); n > MostMoved {
		return fmt.Errorf("it has %d snapshots, and moves with at most %d: delete some", n, MostMoved)
	}
	if !v.alone {
		if v.past, err = m.pastOf(v.name, l.Pool, source, pool); err != nil {
			return err
		}
	}
	l.Pool = pool
	if v.to, err = m.openCopy(ctx, v, l); err != nil {
		return err
	}
	v.engine = m.ofPool(pool)
	err = v.to.Extents(ctx, 0, v.to.Info().Size, func(_, _ int64, mapped bool) bool {
		v.again = v.again || mapped
		return !v.again
	})
	if err != nil {
		return err
	}
	f, err := m.front(v.name)
	if err != nil {
		return err
	}
	m.mu.Lock()
	v.front, v.from = f, f.now.Load().volume
	m.mu.Unlock()
	if len(v.past) == 0 {
		v.begin()
	}
	return nil
}

// movable refuses what no move can do.
func (m *Mux) movable(name, from, to string, source Engine) error {
	target := m.ofPool(to)
	switch {
	case target == nil:
		return fmt.Errorf("pool %s is not in service: see its own problem", to)
	case from == to:
		return fmt.Errorf("it is in pool %s: name another pool", to)
	}
	if _, ok := source.(Renamer); !ok {
		return errors.New("its kind of pool gives no LUN away")
	}
	if _, ok := target.(Renamer); !ok {
		return fmt.Errorf("pool %s is of a kind that takes no LUN", to)
	}
	return m.freeOfMirror(name)
}

// SnapshotsOf is the snapshots of a LUN, oldest first.
func (m *Mux) SnapshotsOf(name string) []string {
	var all []string
	for _, s := range m.Snapshots() {
		if of, _, _ := SplitSnapshot(s.Name); of == name {
			all = append(all, s.Name)
		}
	}
	return all
}

// openCopy puts a copy of a LUN into service, a new one where the one of an earlier
// attempt has another size or past.
func (m *Mux) openCopy(ctx context.Context, v *Move, l LUN) (Volume, error) {
	name, e := v.name, m.ofPool(l.Pool)
	l.Fault, l.Ready = "", ""
	kept, size, ok := m.takeUp(name, l, v.past)
	if !ok {
		if err := m.dropCopy(ctx, name); err != nil {
			return nil, err
		}
		kept, size = 0, 0
	}
	switch {
	case len(v.past) > 0 && size > 0:
		l.Size = size
	case len(v.past) > 0:
		l.Size = v.past[0].is.Size
	}
	v.kept = kept
	open := OpenLUN{name + copySuffix, l}
	err := e.Do(ctx, open)
	if err != nil {
		if cleared := m.dropCopy(ctx, name); cleared != nil {
			return nil, errors.Join(err, cleared)
		}
		if v.kept = 0; len(v.past) > 0 {
			open.LUN.Size = v.past[0].is.Size
		}
		if err = e.Do(ctx, open); err != nil {
			return nil, errors.Join(err, m.dropCopy(ctx, name))
		}
	}
	return e.Volume(open.Name)
}

// dropCopy destroys the copy of a LUN, if a pool in service has one.
func (m *Mux) dropCopy(ctx context.Context, name string) error {
	return m.destroy(ctx, name+copySuffix)
}

func (m *Mux) destroy(ctx context.Context, name string) error {
	for _, e := range m.all() {
		if _, ok := e.Keeps(name); !ok {
			continue
		}
		if err := e.Do(ctx, CloseLUN{name}); err != nil {
			return err
		}
		if err := dropSnapshots(ctx, e, name); err != nil {
			return err
		}
		if _, err := e.Delete(ctx, name); err != nil && !errors.Is(err, ErrUnknown) {
			return err
		}
	}
	return nil
}

// EndMove has a LUN stay where it is, and destroys the copy in a pool, also one that
// an earlier process left. It is false where that pool is not in service.
func (m *Mux) EndMove(ctx context.Context, name, pool string) (bool, error) {
	m.mu.Lock()
	v := m.moves[name]
	m.mu.Unlock()
	if v != nil {
		v.fail(ErrMoves)
		if v.front != nil {
			v.front.turn(newWay(v.from, nil))
		}
		m.forgetMove(name)
	}
	if !m.HasPool(pool) {
		return false, nil
	}
	// A copy that a disk that hangs is still making would be made after all, and be
	// nobody's: reading anything takes its turn in the pool.
	if _, err := m.Record(ctx, pool, name); errors.Is(err, ErrHangs) {
		return false, fmt.Errorf("end the move of LUN %s: %w", name, err)
	}
	return true, m.dropCopy(ctx, name)
}

// CommitMove has both the LUN and its copy be the LUN, see Move.Commit.
func (m *Mux) CommitMove(_ context.Context, name string) error {
	v := m.moving(name)
	if v == nil {
		return ErrClosed
	}
	if err := m.samePast(v); err != nil { // of somebody who asked before it began
		v.fail(err)
	}
	return v.Commit()
}

// Decided tells the Mux that the decision is on stable storage: the LUN is the copy. It
// does not wait, and Moved is to follow.
func (m *Mux) Decided(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	v := m.moves[name]
	m.moved[name] = Moved{v.pools[0], v.pools[1], v.front.id}
	v.decided.Store(true)
}

// Moved has the accesses of a LUN go to the copy alone, of which it is decided that it
// is the LUN. It waits for those that are under way, which a disk that hangs keeps.
func (m *Mux) Moved(name string) {
	m.Decided(name)
	v := m.moving(name)
	v.front.turn(newWay(v.to, nil))
	v.state.Store(moveDone)
}

// switchLUN carries a committed move out: the LUN goes by its name where it is now.
func (m *Mux) switchLUN(ctx context.Context, s SwitchLUN) error {
	if v := m.moving(s.Name); v != nil && v.state.Load() != moveDone {
		return fmt.Errorf("switch LUN %s to pool %s: accesses in pool %s have not ended: %w: it goes on when that answers", s.Name, s.To, s.From, ErrHangs)
	}
	if err := m.settle(ctx, s.Name); err != nil {
		return fmt.Errorf("switch LUN %s to pool %s: %w", s.Name, s.To, err)
	}
	m.forgetMove(s.Name)
	return nil
}

// Settle has a LUN go by its name where a committed move says that it is.
func (m *Mux) Settle(ctx context.Context, name string) error { return m.settle(ctx, name) }

// Has tells whether a pool in service has data of a name.
func (m *Mux) Has(pool, name string) bool { return m.lies(name, pool, [16]byte{}) }

// Other is a pool in service other than one that has data of a name, "" without one.
func (m *Mux) Other(pool, name string) (other string) {
	m.any(func(l LUNStats) bool {
		if l.Name == name && l.Pool != pool {
			other = l.Pool
		}
		return other != ""
	})
	return other
}

// MovesTo is the pool to which a LUN is being moved, "" when it is not.
func (m *Mux) MovesTo(name string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.moves[name]; v != nil {
		return v.pools[1]
	}
	return ""
}

// settle gives what a committed move left and made their names, as far as the pools
// are in service.
func (m *Mux) settle(ctx context.Context, name string) error {
	m.mu.Lock()
	moved, ok := m.moved[name]
	m.mu.Unlock()
	if !ok {
		return nil
	}
	if err := m.rename(ctx, moved.From, name, name+goneSuffix, moved.ID, moved.ID); err != nil {
		return err
	}
	return m.rename(ctx, moved.To, name+copySuffix, name, [16]byte{}, moved.ID)
}

// rename gives data of a pool another name, if the pool is in service and has them
// with an identifier that is not zero, or half of it has been done.
func (m *Mux) rename(ctx context.Context, pool, from, to string, had, id [16]byte) error {
	e, ok := m.ofPool(pool).(Renamer)
	if !ok || !m.lies(from, pool, had) && !m.renamed(to, pool, id) {
		return nil
	}
	return e.Rename(ctx, pool, from, to, id)
}

// lies tells whether a pool in service has data of the name, and of the identifier
// where that is not zero.
func (m *Mux) lies(name, pool string, id [16]byte) bool {
	return m.any(func(l LUNStats) bool {
		return l.Name == name && l.Pool == pool && (id == [16]byte{} || l.ID == id)
	})
}

// renamed tells whether a pool in service has data that were given the name and the
// identifier, or, where nobody can tell the identifier, half of it. Data of another
// are those of a LUN that was made when this one had been deleted.
func (m *Mux) renamed(name, pool string, id [16]byte) bool {
	return m.any(func(l LUNStats) bool {
		return l.Name == name && l.Pool == pool && (l.ID == [16]byte{} || l.ID == id)
	})
}

func (m *Mux) any(is func(LUNStats) bool) bool {
	for _, e := range m.all() {
		if slices.ContainsFunc(e.Stats().LUNs, is) || slices.ContainsFunc(e.Retained(), is) {
			return true
		}
	}
	return false
}

// TidyMoved destroys what a committed move left behind, after what else shall be
// done then, nil for nothing. It is false where that cannot be yet.
func (m *Mux) TidyMoved(ctx context.Context, name string, also func(Moved) error) (bool, error) {
	m.mu.Lock()
	moved, ok := m.moved[name]
	_, under := m.moves[name]
	m.mu.Unlock()
	if !ok {
		return true, nil
	}
	if under || !m.HasPool(moved.From) || !m.HasPool(moved.To) {
		return false, nil
	}
	if err := m.settle(ctx, name); err != nil {
		return false, err
	}
	if also != nil {
		if err := also(moved); err != nil {
			return false, err
		}
	}
	if err := m.destroy(ctx, name+goneSuffix); err != nil {
		return false, err
	}
	m.mu.Lock()
	delete(m.moved, name)
	m.mu.Unlock()
	return true, nil
}

// settleIn settles the moves from or to a pool that came into service.
func (m *Mux) settleIn(ctx context.Context, pool string) error {
	m.mu.Lock()
	all := maps.Clone(m.moved)
	m.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name].From == pool || all[name].To == pool {
			errs = append(errs, m.settle(ctx, name))
		}
	}
	return errors.Join(errs...)
}

// moving is the move of a LUN, nil without one.
func (m *Mux) moving(name string) *Move {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.moves[name]
}

// into is a LUN that is being moved into a pool, "" without one.
func (m *Mux) into(pool string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(m.moves)) {
		if m.moves[name].pools[1] == pool {
			return name
		}
	}
	return ""
}

// front is what users of a LUN in service see.
func (m *Mux) front(name string) (*front, error) {
	for {
		move, mirror := m.moving(name), m.mirrorOf(name)
		var v Volume
		err := ErrClosed
		if mirror != nil {
			v, err = mirror, nil
		}
		for _, e := range m.all() {
			if err == nil {
				break
			}
			v, err = e.Volume(name)
		}
		if f, now := m.frontOf(name, v, err == nil, move, mirror); now && f != nil {
			return f, nil
		} else if now {
			return nil, fmt.Errorf("LUN %s: %w", name, ErrClosed)
		}
	}
}

// frontOf is the front of a LUN whose engine has v, if there is one. It is too late
// where move, which was there before v was looked for, has ended or another has begun:
// v may be what that left behind.
func (m *Mux) frontOf(name string, v Volume, there bool, move *Move, mirror *Mirror) (f *front, now bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.moves[name] != move || m.mirrors[name] != mirror {
		return nil, false
	}
	f = m.fronts[name]
	if f != nil && move != nil && move.from != nil {
		// The engine has another volume when its pool was opened anew, to which
		// nobody does what is done to the copy.
		if move.state.Load() == moveDone || f.now.Load().volume != v && !move.fail(ErrClosed) {
			return f, true
		}
	}
	if !there {
		delete(m.fronts, name)
		return nil, true
	}
	if f == nil || f.now.Load().volume != v {
		f = newFront(name, v)
		m.fronts[name] = f
	}
	return f, true
}

// visible is LUNs without what moves hold apart, each once. A LUN whose move is being
// carried out is there by its own name; while names change it may be seen by one of the
// others alone. Pools are looked at one after the other, so that one which goes over
// meanwhile may be seen in both: the later look is true.
func visible[T any](m *Mux, all []T, name func(*T) *string) []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	there := map[string]bool{}
	for i := range all {
		there[*name(&all[i])] = true
	}
	var out []T
	at := map[string]int{}
	for _, l := range all {
		n := name(&l)
		of, is := apart(*n)
		if is {
			move := m.moves[of]
			if there[of] || move == nil || move.state.Load() != moveDone || *n != of+goneSuffix && *n != of+copySuffix {
				continue
			}
			*n = of
		}
		if i, twice := at[*n]; twice {
			out[i] = l
			continue
		}
		at[*n] = len(out)
		out = append(out, l)
	}
	return out
}

// growCopy makes the copy of a LUN that moves as large as the LUN will be.
func (m *Mux) growCopy(ctx context.Context, s GrowLUN) error {
	v := m.moving(s.Name)
	if v == nil {
		return nil
	}
	e := m.ofLUN(s.Name + copySuffix)
	if e == nil {
		return fmt.Errorf("grow LUN %s: %w", s.Name, ErrMoves)
	}
	if !v.twin.Load() {
		return fmt.Errorf("grow LUN %s: %w, and its snapshots are being copied: it grows when they are", s.Name, ErrMoves)
	}
	return e.Do(ctx, GrowLUN{s.Name + copySuffix, s.From, s.To})
}

// closeMoving takes a LUN out of service whose move so ends, or is carried out when
// the LUN is opened again.
func (m *Mux) closeMoving(ctx context.Context, v *Move) error {
	if !v.fail(ErrClosed) { // whoever opened it again could write to the one that it will not be
		return fmt.Errorf("close LUN %s: %w: it is being recorded that it is in pool %s: try again", v.name, ErrMoves, v.pools[1])
	}
	var errs []error
	for _, name := range []string{v.name, v.name + goneSuffix, v.name + copySuffix} {
		if e := m.ofLUN(name); e != nil {
			errs = append(errs, e.Do(ctx, CloseLUN{name}))
		}
	}
	m.forgetMove(v.name)
	return errors.Join(errs...)
}
