package lun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

const (
	movePiece  = 256 << 10 // bytes that a copy keeps from being written at once
	moveWindow = 64 << 20  // bytes that are looked at for what is mapped at once
	moveRegion = 64 << 10  // bytes under one lock
	moveLocks  = 256
	mostDirty  = 4096

	moveUnsynced = 8 << 20 // bytes that a copy leaves to the page cache

	// movePatience is how long the copy may take for what the LUN has done.
	// Initiators give up after 30 s and more.
	movePatience = 5 * time.Second
)

// Move is a LUN on its way to another pool. Until it is over the LUN is served
// from where it was, and all that changes it is done to both:
//
//	begin ─► snapshots are copied ─► every write goes to both ─► all is copied ─► commit ─► switch
//	              └──────────── one fails: the LUN stays, the copy is nothing ──────┘
//
// The copy is each snapshot in turn, the oldest first, of which it gets what differs from
// the one before, and then the LUN.
//
// From Commit on nothing is acknowledged that is not in both, so that whoever
// decides which of the two it is may take its time.
//
// The copy is on stable storage when it may become the LUN, and no sooner: a flush of the
// LUN would otherwise wait for all that was copied just before it.
type Move struct {
	name     string
	from, to Volume
	pools    [2]string
	front    *front
	again    bool // there may be data in the copy that are not the LUN's
	engine   Engine
	alone    bool        // without its snapshots
	past     []past      // its snapshots, oldest first
	kept     int         // how many of them the copy has
	twin     atomic.Bool // what changes the LUN is done to both

	patience time.Duration // that the copy has for what the LUN has done
	failed   chan struct{} // closed when it has

	next     int64 // up to where it is copied
	unsynced int64 // bytes that Run wrote since the copy was flushed
	state    atomic.Int32
	decided  atomic.Bool // it is recorded that the LUN is the copy
	durable  atomic.Bool // what is put on stable storage of the LUN is so in the copy, too
	mu       sync.Mutex  // guards what follows
	why      error
	dirty    []piece               // that the LUN may have and the copy has not
	locks    [moveLocks]sync.Mutex // of regions, by their number modulo moveLocks
}

// The states of a move.
const (
	moveCopies int32 = iota
	moveCommits
	moveFailed
	moveDone // the LUN is the copy
)

// ErrMoves says that a LUN is being moved.
var ErrMoves = errors.New("the LUN is being moved")

// fail ends a move, unless it commits.
func (m *Move) fail(why error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state.Load() == moveCommits {
		return false
	}
	if m.state.CompareAndSwap(moveCopies, moveFailed) {
		m.why = why
		close(m.failed)
	}
	return true
}

// differ notes what a failed change may have done to the LUN alone.
func (m *Move) differ(off, n int64) {
	m.mu.Lock()
	m.dirty = append(m.dirty, piece{off, n})
	many := len(m.dirty) > mostDirty
	m.mu.Unlock()
	if many {
		m.fail(fmt.Errorf("the LUN in pool %s: too many writes of it failed", m.pools[0]))
	}
}

// takeDirty is what has been noted since the last call.
func (m *Move) takeDirty() []piece {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.dirty
	m.dirty = nil
	return all
}

// Err is why the move has failed, nil while it has not.
func (m *Move) Err() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.why
}

// change is both for what has no data.
func (m *Move) change(ctx context.Context, off, n int64, do func(context.Context, Volume) error) error {
	return m.twice(ctx, off, n, nil, func(ctx context.Context, v Volume, _ []byte) error { return do(ctx, v) })
}

// both does to both volumes what writes p at off. What the LUN could not do
// is looked at again, and what the copy could not, or not in time, ends the move. It is not cut
// short, or they might differ.
func (m *Move) both(ctx context.Context, off int64, p []byte, do func(context.Context, Volume, []byte) error) error {
	return m.twice(ctx, off, int64(len(p)), p, do)
}

func (m *Move) twice(ctx context.Context, off, n int64, p []byte, do func(context.Context, Volume, []byte) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx = context.WithoutCancel(ctx)
	m.each(off, n, (*sync.Mutex).Lock)
	defer m.each(off, n, (*sync.Mutex).Unlock)
	if err := do(ctx, m.from, p); err != nil {
		var differ *Miscompare
		if !errors.Is(err, ErrRange) && !errors.As(err, &differ) { // of those nothing was done
			m.differ(off, n)
		}
		return err
	}
	if m.state.Load() == moveFailed {
		return nil
	}
	mine := bytes.Clone(p) // who wrote p has it back before a disk that hangs has taken it
	err := m.inTime(func() error { return do(ctx, m.to, mine) })
	if err != nil && m.fail(fmt.Errorf("the copy in pool %s: %w", m.pools[1], err)) {
		return nil
	}
	return err
}

// flushBoth puts both on stable storage, where the copy is already that but for what
// came last. Whether it is has to be asked when the rest is done: what is done before the
// answer is no, Run flushes.
func (m *Move) flushBoth(ctx context.Context) error {
	return m.change(ctx, 0, 0, func(ctx context.Context, v Volume) error {
		if v == m.to && !m.durable.Load() {
			return nil
		}
		return v.Flush(ctx)
	})
}

// writeBoth writes p at off to both; with fua as flushBoth puts it on stable storage.
func (m *Move) writeBoth(ctx context.Context, off int64, p []byte, fua bool) error {
	return m.both(ctx, off, p, func(ctx context.Context, v Volume, p []byte) error {
		if v != m.to {
			return v.WriteAt(ctx, p, off, fua)
		}
		err := v.WriteAt(ctx, p, off, false)
		if err == nil && fua && m.durable.Load() {
			err = v.Flush(ctx)
		}
		return err
	})
}

// inTime has something done to the copy, and waits for it until the move has failed,
// or it took so long that it does. A move that commits waits, whatever it takes:
// nobody may be told of what is not in both.
func (m *Move) inTime(do func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- do() }()
	over := time.NewTimer(m.patience)
	defer over.Stop()
	select {
	case err := <-ended:
		return err
	case <-m.failed:
		return m.Err()
	case <-over.C:
	}
	if m.fail(fmt.Errorf("the copy in pool %s: %w", m.pools[1], ErrHangs)) {
		return m.Err()
	}
	return <-ended
}

// each calls do for the locks of n bytes at off, always in the same order.
func (m *Move) each(off, n int64, do func(*sync.Mutex)) {
	if n <= 0 || off < 0 {
		return
	}
	first := off / moveRegion
	count := (off+n-1)/moveRegion - first + 1
	for i := range int64(moveLocks) {
		if (i-first%moveLocks+moveLocks)%moveLocks < count {
			do(&m.locks[i])
		}
	}
}

// Run copies what the LUN has, and is done when both are the same and on stable
// storage. Again, it copies what has come to differ since. progress is told up to
// where it is, in bytes.
func (m *Move) Run(ctx context.Context, progress func(done int64)) error {
	// A piece that is being copied holds up writes: who ends the move ends that, too.
	defer context.AfterFunc(ctx, func() { m.fail(context.Cause(ctx)) })()
	buf := [2][]byte{make([]byte, movePiece), make([]byte, movePiece)}
	before, err := m.copyPast(ctx, buf, progress)
	if err != nil {
		return m.broke(ctx, err)
	}
	if err := m.copyVolume(ctx, m.from, &m.next, buf, func(done int64) { progress(before + done) }); err != nil {
		return m.broke(ctx, err)
	}
	m.again = true
	for _, d := range m.takeDirty() {
		if err := m.copyAll(ctx, m.from, split(nil, d), buf, func(int64) {}); err != nil {
			return m.broke(ctx, err)
		}
	}
	// The first flush may take long, and nobody waits for it. The second is of what came
	// in between.
	for _, durable := range []bool{m.durable.Load(), true} {
		m.durable.Store(durable)
		if err := m.flush(ctx); err != nil {
			return m.broke(ctx, fmt.Errorf("the copy in pool %s: %w", m.pools[1], err))
		}
	}
	if a, b := m.from.Info().Size, m.to.Info().Size; a != b {
		return m.broke(ctx, fmt.Errorf("the copy in pool %s has %d bytes, and the LUN %d", m.pools[1], b, a))
	}
	return m.Err()
}

// Size is the bytes that Run goes through.
func (m *Move) Size() int64 {
	n := m.from.Info().Size
	for _, p := range m.past[m.kept:] {
		n += p.is.Size
	}
	return n
}

// copyPast brings the snapshots to the copy that it has not, and has writes go to both
// when it has all. Before is how far the progress is then.
func (m *Move) copyPast(ctx context.Context, buf [2][]byte, progress func(done int64)) (before int64, err error) {
	for ; m.kept < len(m.past); m.kept++ {
		p := m.past[m.kept]
		m.again = m.again || m.kept > 0
		next := int64(0)
		if err = m.grow(ctx, p.is.Size); err == nil {
			err = m.copyVolume(ctx, p.volume, &next, buf, func(done int64) { progress(before + done) })
		}
		if err == nil { // a snapshot is durable, and so must be what it is of
			err = m.flush(ctx)
		}
		if err == nil {
			err = m.engine.(Keeper).SnapshotAs(context.WithoutCancel(ctx), m.name+copySuffix, p.is)
		}
		if err != nil {
			return before, fmt.Errorf("snapshot %s: %w", p.is.Name, err)
		}
		before += p.is.Size
	}
	if m.twin.Load() {
		return before, nil
	}
	m.again = m.again || m.kept > 0
	if err := m.grow(ctx, m.from.Info().Size); err != nil {
		return before, err
	}
	m.begin()
	return before, nil
}

// begin has what changes the LUN be done to both.
func (m *Move) begin() {
	m.twin.Store(true)
	m.front.turn(newWay(m.from, m))
}

// grow makes the copy as large as what it is to be.
func (m *Move) grow(ctx context.Context, size int64) error {
	if is := m.to.Info().Size; is < size {
		return m.engine.Do(context.WithoutCancel(ctx), GrowLUN{m.name + copySuffix, is, size})
	}
	return nil
}

// copyVolume makes the copy what a volume is from next on.
func (m *Move) copyVolume(ctx context.Context, from Volume, next *int64, buf [2][]byte, progress func(done int64)) error {
	for *next < from.Info().Size {
		n := min(moveWindow, from.Info().Size-*next)
		pieces, err := m.pieces(ctx, from, *next, n)
		if err = errors.Join(m.sound(), err); err == nil {
			err = m.copyAll(ctx, from, pieces, buf, progress)
		}
		if err != nil {
			return err
		}
		*next += n
		progress(*next)
	}
	return nil
}

// flush puts the copy on stable storage, which may take as long as it likes: nobody
// waits for it but who may cancel.
func (m *Move) flush(ctx context.Context) error {
	m.unsynced = 0
	ended := make(chan error, 1)
	go func() { ended <- m.to.Flush(context.WithoutCancel(ctx)) }()
	select {
	case err := <-ended:
		return err
	case <-m.failed:
		return m.Err()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// sound is why the LUN may lack what was written to it. In the other pool nobody would
// see that any more.
func (m *Move) sound() error {
	if m.from.Info().ReadOnly {
		return fmt.Errorf("the LUN in pool %s: %w, for it may lack data: see its own problem", m.pools[0], ErrReadOnly)
	}
	return nil
}

func (m *Move) copyAll(ctx context.Context, from Volume, pieces []piece, buf [2][]byte, progress func(done int64)) error {
	for _, p := range pieces {
		if err := errors.Join(ctx.Err(), m.Err()); err != nil {
			return err
		}
		if err := m.copy(ctx, from, p, buf); err != nil {
			return err
		}
		// What lies in the page cache would be in the way of the LUN's own flushes.
		if m.unsynced >= moveUnsynced {
			if err := m.flush(ctx); err != nil {
				return err
			}
		}
		progress(p.off)
	}
	return nil
}

// broke ends the move by an error of the copying, and gives what ended it first.
func (m *Move) broke(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	m.fail(err)
	return m.Err()
}

type piece struct{ off, n int64 }

// pieces is what of n bytes at off is to be looked at: what is there or has changed since
// the snapshot before, and what only the copy has.
func (m *Move) pieces(ctx context.Context, from Volume, off, n int64) (all []piece, err error) {
	note := func(v, since Volume) {
		yield := func(off, n int64, is bool) bool {
			if is {
				all = split(all, piece{off, n})
			}
			return true
		}
		if since == nil {
			err = errors.Join(err, v.Extents(ctx, off, n, yield))
			return
		}
		c, ok := v.(Comparer)
		if !ok {
			err = errors.Join(err, fmt.Errorf("compare LUN %s with %s: its pool cannot", m.name, since.Info().Name))
			return
		}
		err = errors.Join(err, c.ChangedSince(ctx, since, off, n, yield))
	}
	var since, had Volume
	if m.kept > 0 {
		since = m.past[m.kept-1].volume
		_, snapshot, _ := SplitSnapshot(m.past[m.kept-1].is.Name)
		if had, err = m.engine.Volume(m.name + copySuffix + "@" + snapshot); err != nil {
			return nil, err
		}
	}
	note(from, since)
	if m.again {
		note(m.to, had)
	}
	return all, err
}

// split appends a piece in parts that are copied at once.
func split(all []piece, p piece) []piece {
	for end := p.off + p.n; p.off < end; {
		next := min((p.off/movePiece+1)*movePiece, end)
		all = append(all, piece{p.off, next - p.off})
		p.off = next
	}
	return all
}

// copy makes a piece of the copy what the LUN or its snapshot is, and holds up what
// changes it.
func (m *Move) copy(ctx context.Context, from Volume, p piece, buf [2][]byte) error {
	ctx = context.WithoutCancel(ctx)
	m.each(p.off, p.n, (*sync.Mutex).Lock)
	defer m.each(p.off, p.n, (*sync.Mutex).Unlock)
	type run struct {
		piece
		mapped bool
	}
	var runs []run
	err := from.Extents(ctx, p.off, p.n, func(off, n int64, mapped bool) bool {
		runs = append(runs, run{piece{off, n}, mapped})
		return true
	})
	for _, r := range runs {
		if err != nil {
			break
		}
		if !r.mapped {
			err = m.clear(ctx, r.piece)
			continue
		}
		err = m.write(ctx, from, r.piece, buf)
	}
	return err
}

// clear takes away what only the copy has.
func (m *Move) clear(ctx context.Context, p piece) error {
	if !m.again {
		return nil
	}
	return m.inTime(func() error {
		there := false
		err := m.to.Extents(ctx, p.off, p.n, func(_, _ int64, mapped bool) bool {
			there = there || mapped
			return !there
		})
		if err == nil && there {
			err = m.to.Unmap(ctx, p.off, p.n)
		}
		return err
	})
}

// write copies data, unless the copy has them.
func (m *Move) write(ctx context.Context, from Volume, p piece, buf [2][]byte) error {
	b := buf[0][:p.n]
	if err := from.ReadAt(ctx, b, p.off); err != nil {
		return fmt.Errorf("the LUN in pool %s: %w", m.pools[0], err)
	}
	err := m.inTime(func() error {
		if m.again {
			is := buf[1][:p.n]
			whole := true
			err := m.to.Extents(ctx, p.off, p.n, func(_, _ int64, mapped bool) bool {
				whole = whole && mapped
				return whole
			})
			if err == nil && whole && m.to.ReadAt(ctx, is, p.off) == nil && bytes.Equal(b, is) {
				return nil
			}
		}
		m.unsynced += p.n
		return m.to.WriteAt(ctx, b, p.off, false)
	})
	if err != nil {
		return fmt.Errorf("the copy in pool %s: %w", m.pools[1], err)
	}
	return nil
}

// ID is the LUN's, before the move and after.
func (m *Move) ID() [16]byte { return m.front.id }

// ErrDiffers says that Run must be called again before Commit.
var ErrDiffers = errors.New("the copy differs from the LUN")

// Commit has both be the LUN from now on: what cannot be done to both is not
// acknowledged. It is refused when the move has failed.
func (m *Move) Commit() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.state.Load() == moveFailed:
		return m.why
	case len(m.dirty) > 0:
		return ErrDiffers
	}
	if err := m.sound(); err != nil {
		return err
	}
	m.state.CompareAndSwap(moveCopies, moveCommits)
	return nil
}

// Revoke takes Commit back.
func (m *Move) Revoke() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.state.CompareAndSwap(moveCommits, moveCopies)
}
