package lun

import (
	"context"
	"fmt"
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
	doubt atomic.Bool // stuck has regions; it may stay true when it has none any more
	stop  context.CancelFunc
	group sync.WaitGroup
	wake  chan struct{}

	state sync.Mutex // held while records are written that every change waits for; guards what follows
	epoch epoch
	base  epoch // the last of which the leg that is not whole had everything
	gone  []string
	joins bool   // it may be recorded that the leg that is syncing has everything
	saves uint64 // how many witnesses were to be saved

	saving sync.Mutex // held while one is; guards what follows
	saved  uint64     // number of the newest one that was begun

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
	m.doubt.Store(true)
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
