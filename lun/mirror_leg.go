package lun

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// LegState is how a leg of a mirror stands.
type LegState string

// The states. Reads are answered by a leg in sync, and writes go to all but those that
// are away.
//
//	in sync ─► away: it failed or did not answer in time; the other goes on alone
//	   ▲         │ it is there again
//	   └─ syncing ◄┘ what was written meanwhile is copied, and every write goes to it, too
const (
	LegInSync  LegState = "in-sync"
	LegSyncing LegState = "syncing"
	LegAway    LegState = "away"
)

// LegStats is a leg of a mirror at one moment.
type LegStats struct {
	Pool   string
	State  LegState
	Reason string    // why it is away
	Since  time.Time // when the state began
	Left   int64     // bytes of regions that are to be compared and copied, at most
	Used   int64     // bytes of its blocks that are not holes
}

// leg is one of the two volumes of a mirror, from when it comes until it goes. When it
// comes back it is another leg.
type leg struct {
	pool   string
	called atomic.Pointer[string] // the name that the engine knows it by
	volume Volume                 // nil where it is away from the beginning
	prompt Prompt
	queue  Queue

	lost chan struct{} // closed when nobody waits for it any more

	mu      sync.Mutex        // guards what follows
	busy    int               // accesses that the volume has not ended
	gone    bool              // none is begun any more: lost is closed
	started map[*started]bool // reads that nobody waits for
}

func (l *leg) name() string { return *l.called.Load() }

// begin tells whether an access may begin, and then end is to be called after it.
func (l *leg) begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return false
	}
	l.busy++
	return true
}

func (l *leg) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy--
}

// pending is how many accesses have not ended.
func (l *leg) pending() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.busy
}

func newLeg(pool, name string, v Volume) *leg {
	l := &leg{pool: pool, volume: v, lost: make(chan struct{}), started: map[*started]bool{}}
	l.called.Store(&name)
	l.prompt, _ = v.(Prompt)
	l.queue, _ = v.(Queue)
	return l
}

var (
	errLost    = errors.New("the leg was given up meanwhile")
	errPending = errors.New("the leg has not answered")
)

// lose has nobody wait for the leg any more.
func (l *leg) lose() {
	l.mu.Lock()
	all, gone := l.started, l.gone
	l.started, l.gone = nil, true
	l.mu.Unlock()
	if gone {
		return
	}
	close(l.lost)
	for s := range all {
		s.end(false)
	}
}

func (l *leg) isLost() bool {
	select {
	case <-l.lost:
		return true
	default:
		return false
	}
}

// started is a read that was begun with StartReadAt.
type started struct {
	since time.Time
	once  sync.Once
	done  func(ok bool)
}

func (s *started) end(ok bool) { s.once.Do(func() { s.done(ok) }) }

// read begins a read into memory of the leg's own: p belongs to nobody who hangs.
func (l *leg) read(p []byte, off int64, done func(ok bool)) bool {
	if l.queue == nil {
		return false
	}
	b := slab(len(p))
	s := &started{since: time.Now(), done: done}
	l.mu.Lock()
	if l.started == nil {
		l.mu.Unlock()
		return false
	}
	l.started[s] = true
	l.busy++
	l.mu.Unlock()
	ok := l.queue.StartReadAt(b, off, func(ok bool) {
		l.mu.Lock()
		l.busy--
		mine := l.started[s]
		delete(l.started, s)
		l.mu.Unlock()
		if mine {
			if ok {
				copy(p, b)
			}
			unslab(b)
			s.end(ok)
		}
	})
	if ok {
		return true
	}
	l.mu.Lock()
	l.busy--
	mine := l.started[s]
	delete(l.started, s)
	l.mu.Unlock()
	unslab(b)
	return !mine // lose has ended it
}

// waits tells whether a read that was begun takes longer than d.
func (l *leg) waits(d time.Duration) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for s := range l.started {
		if time.Since(s.since) > d {
			return true
		}
	}
	return false
}

// do does one access.
func (l *leg) do(op func(*leg) error) error {
	if !l.begin() {
		return errLost
	}
	defer l.end()
	return op(l)
}

// all has op done to legs at the same time and gives what came of each. When at least
// one that enough holds for has done it, the others have patience left, and then are
// errPending. op must not use memory that is another's after all has returned.
func all(patience time.Duration, legs []*leg, enough func(*leg) bool, op func(*leg) error) []error {
	type outcome struct {
		i   int
		err error
	}
	ended := make(chan outcome, len(legs))
	errs := slices.Repeat([]error{errPending}, len(legs))
	for i, l := range legs {
		go func() { ended <- outcome{i, l.do(op)} }()
	}
	over := time.NewTimer(patience)
	defer over.Stop()
	late := false
	lost := func(i int) <-chan struct{} {
		if i < len(legs) && errs[i] == errPending {
			return legs[i].lost
		}
		return nil
	}
	for slices.Contains(errs, errPending) {
		select {
		case o := <-ended:
			if errs[o.i] == errPending {
				errs[o.i] = o.err
			}
		case <-lost(0):
			errs[0] = errLost
		case <-lost(1):
			errs[1] = errLost
		case <-over.C:
			late = true
		}
		for i, l := range legs {
			if late && errs[i] == nil && enough(l) {
				return errs
			}
		}
	}
	return errs
}

// Memory for what legs read and write, aligned as disks want it. Who asked for an
// access has his own back before a leg that hangs has ended.
const slabAlign = 4096

var slabs [24]sync.Pool // of 1<<i pages

func slab(n int) []byte {
	i := 0
	for n > slabAlign<<i {
		i++
	}
	if b, ok := slabs[i].Get().(*[]byte); ok {
		return (*b)[:n]
	}
	size := slabAlign << i
	b := make([]byte, size+slabAlign)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (slabAlign - 1))
	return b[skip : skip+n : skip+size]
}

func unslab(b []byte) {
	if b = b[:cap(b)]; len(b) == 0 {
		return
	}
	i := 0
	for len(b) > slabAlign<<i {
		i++
	}
	slabs[i].Put(&b)
}

// shared is memory that goes back when the last of its users is done with it.
type shared struct {
	b     []byte
	users atomic.Int32
}

func (s *shared) done() {
	if s.users.Add(-1) == 0 {
		unslab(s.b)
	}
}

// rangeLocks keep what changes the same bytes in one order on both legs.
type rangeLocks [moveLocks]sync.Mutex

func (r *rangeLocks) each(off, n int64, do func(*sync.Mutex)) {
	if n <= 0 || off < 0 {
		return
	}
	first := off / moveRegion
	count := (off+n-1)/moveRegion - first + 1
	for i := range int64(moveLocks) {
		if (i-first%moveLocks+moveLocks)%moveLocks < count {
			do(&r[i])
		}
	}
}

func (r *rangeLocks) lock(off, n int64)   { r.each(off, n, (*sync.Mutex).Lock) }
func (r *rangeLocks) unlock(off, n int64) { r.each(off, n, (*sync.Mutex).Unlock) }
