package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"ripstop/internal/uring"
	"ripstop/lun"
	"ripstop/lun/lane"
	"ripstop/lun/thin"
	"ripstop/lun/thin/store"
)

// Options are what an engine needs besides its steps.
type Options struct {
	// StateDir is the directory under which pools may be made with missing
	// parents, and where what belongs to pools on devices is kept; "" is nowhere.
	StateDir string
	// Ring, when set, carries out what would have to wait for a disk.
	Ring *uring.Ring
	// Open, when set, opens what a pool lives in; unset, store.Open does.
	Open func(path string, direct bool) (File, error)
	// OnResize, when set, is called with a LUN's name after it has grown.
	OnResize func(lun string)
	// OnFault, when set, is called with a pool's name when it takes no more writes.
	// It must not wait.
	OnFault func(pool string)
	// OnEnded, when set, is called with a pool's name when something has been done
	// to it that a step or verb no longer waited for. It must not wait.
	OnEnded func(pool string)
}

// Engine has pools and LUNs in service. It is a target of reconcile.Run, and
// safe for concurrent use.
type Engine struct {
	log      *slog.Logger
	options  Options
	patience time.Duration // of a step
	farewell time.Duration // of Close
	lanes    *lane.Lanes

	// mu is of what follows and of pool.want, and never held over I/O. What
	// belongs to a pool is changed in its lane only.
	mu      sync.RWMutex
	tend    func(*pool)      // begins what is done for a pool in the background
	pools   map[string]*pool // in service
	volumes map[string]*volume
	making  map[string]string // LUNs that are being made or opened, and the pools that do
}

var _ lun.Engine = (*Engine)(nil)

// New is an engine with nothing in service.
func New(log *slog.Logger, o Options) *Engine {
	e := &Engine{
		log: log, options: o, patience: lane.Patience, farewell: lane.Farewell, tend: func(*pool) {}, pools: map[string]*pool{},
		volumes: map[string]*volume{}, making: map[string]string{},
	}
	e.lanes = lane.New(log, o.OnEnded)
	if o.Open == nil {
		e.options.Open = e.openStore
	}
	return e
}

func (e *Engine) openStore(path string, direct bool) (File, error) {
	return store.Open(path, store.Options{
		Parents: e.inState(filepath.Dir(path)), Direct: direct, Ring: e.options.Ring, StateDir: e.options.StateDir,
	})
}

func (e *Engine) inState(path string) bool {
	rel, err := filepath.Rel(e.options.StateDir, path)
	return err == nil && filepath.IsLocal(rel)
}

// Observe is the pools and LUNs in service.
func (e *Engine) Observe(context.Context) (lun.State, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	s := lun.State{Pools: map[string]lun.Pool{}, LUNs: map[string]lun.LUN{}}
	for name, p := range e.pools {
		s.Pools[name] = p.shape()
	}
	for name, v := range e.volumes {
		s.LUNs[name] = v.shape()
	}
	return s, nil
}

// Do carries out one step. The error names the object and, where somebody can
// do something about it, says what. A pool whose disk hangs is lun.ErrHangs after
// 10 s, and at once while that lasts.
func (e *Engine) Do(ctx context.Context, step lun.Step) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	switch s := step.(type) {
	case lun.OpenPool:
		return e.step(ctx, s.Name, "open pool "+s.Name, func(ctx context.Context) error { return e.openPool(ctx, s.Name, s.Pool) })
	case lun.SetPool:
		return e.step(ctx, s.Name, "set pool "+s.Name, func(context.Context) error { return e.setPool(s.Name, s.To) })
	case lun.ClosePool:
		return e.step(ctx, s.Name, "close pool "+s.Name, func(context.Context) error { return e.closePool(s.Name) })
	case lun.OpenLUN:
		return e.step(ctx, s.LUN.Pool, "open LUN "+s.Name, func(ctx context.Context) error { return e.openLUN(ctx, s.Name, s.LUN) })
	case lun.GrowLUN:
		return e.ofLUN(ctx, "grow LUN "+s.Name, s.Name, func(ctx context.Context, v *volume) error { return e.growLUN(ctx, v, s.To) })
	case lun.ReserveLUN:
		return e.ofLUN(ctx, "reserve room for LUN "+s.Name, s.Name, func(ctx context.Context, v *volume) error {
			return v.pool.thin.Reserve(ctx, s.Name, s.Thick)
		})
	case lun.CloseLUN:
		if e.volume(s.Name) == nil {
			return nil
		}
		return e.ofLUN(ctx, "close LUN "+s.Name, s.Name, e.closeLUN)
	case lun.Refuse:
		return s.Err()
	}
	return fmt.Errorf("do %T: this engine does not know the step", step)
}

// ofLUN is a step on a LUN in service, done in the lane of its pool.
func (e *Engine) ofLUN(ctx context.Context, what, name string, do func(context.Context, *volume) error) error {
	v := e.volume(name)
	if v == nil {
		return fmt.Errorf("%s: it is not in service", what)
	}
	return e.step(ctx, v.pool.name, what, func(ctx context.Context) error {
		is := e.volume(name) // another one, when the pool was opened anew
		if is == nil || is.pool.name != v.pool.name {
			return errors.New("it has gone out of service")
		}
		return do(ctx, is)
	})
}

// pool is one in service, or nil.
func (e *Engine) pool(name string) *pool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.pools[name]
}

// volume is a LUN in service, or nil.
func (e *Engine) volume(name string) *volume {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.volumes[name]
}

// wrap names what was done.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// HasPool tells whether a pool is in service here.
func (e *Engine) HasPool(name string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.pools[name] != nil
}

// Keeps is the pool in service that has a LUN of the name, in service or not.
func (e *Engine) Keeps(name string) (string, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	for _, p := range e.pools {
		if _, err := p.thin.Volume(name); err == nil && !hidden(name) {
			return p.name, true
		}
	}
	return "", false
}

// Volume is a LUN in service, or as "LUN@SNAPSHOT" a snapshot in a pool in
// service; any other is lun.ErrClosed.
func (e *Engine) Volume(name string) (lun.Volume, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if v, ok := e.volumes[name]; ok {
		return v, nil
	}
	if _, _, snapshot := lun.SplitSnapshot(name); snapshot {
		for _, p := range e.pools {
			if v, err := p.thin.Volume(name); err == nil {
				return v, nil
			}
		}
	}
	return nil, fmt.Errorf("LUN %s: %w", name, lun.ErrClosed)
}

// Pool is a thin pool in service, for what only such a pool can do.
func (e *Engine) Pool(name string) (*thin.Pool, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	p, ok := e.pools[name]
	if !ok {
		return nil, fmt.Errorf("pool %s: no thin pool of this name is in service", name)
	}
	return p.thin, nil
}

// Fill is how full the pools are.
func (e *Engine) Fill() []lun.Fill {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []lun.Fill
	for name, p := range e.pools {
		u := p.thin.Usage()
		out = append(out, lun.Fill{Pool: name, Size: p.want.Size, Used: u.Data + u.Promised})
	}
	return out
}

// Bad is the bytes that are known not to be readable, of each pool with such.
func (e *Engine) Bad() map[string]int64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	out := map[string]int64{}
	for name, p := range e.pools {
		if n := p.health.Load().Bad; n > 0 {
			out[name] = n
		}
	}
	return out
}

// Stats is how full pools and LUNs are now.
func (e *Engine) Stats() lun.Stats {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var s lun.Stats
	for _, name := range slices.Sorted(maps.Keys(e.pools)) {
		p := e.pools[name]
		u := p.thin.Usage()
		st := lun.PoolStats{
			Health: *p.health.Load(), Name: name, Kind: lun.Thin, Size: p.want.Size, Used: u.Data, Reserved: u.Promised, Accepted: u.Accepted * blockSize,
			Provisioned: e.provisioned(p), Limit: p.want.Limit(), Fault: p.fault(),
		}
		alone, volumes := int64(0), int64(0)
		for _, x := range p.thin.List() {
			switch {
			case hidden(x.Name):
			case x.Snapshot:
				alone += x.Exclusive
				continue
			case e.volumes[x.Name] == nil:
				st.Retained += x.Exclusive
			default:
				l := p.stats(x)
				l.Fault = st.Fault
				s.LUNs = append(s.LUNs, l)
			}
			volumes += x.Exclusive + x.Shared
		}
		// What volumes share with each other counts twice in the second figure, and
		// what snapshots share does not count in the first.
		st.Snapshots = max(alone, st.Used-volumes)
		s.Pools = append(s.Pools, st)
	}
	slices.SortFunc(s.LUNs, func(a, b lun.LUNStats) int { return strings.Compare(a.Name, b.Name) })
	return s
}

// stats is what a volume takes.
func (p *pool) stats(x thin.Entry) lun.LUNStats {
	return lun.LUNStats{
		Info: lun.Info{Name: x.Name, ID: x.ID, Size: x.Size, BlockSize: x.Block, ReadOnly: p.thin.Failed() != nil},
		Pool: p.name, Used: x.Mapped, Thick: x.Reserved, Exclusive: x.Exclusive, Shared: x.Shared,
	}
}

// Retained lists the LUNs out of service that a pool in service keeps, sorted by
// name. Clones that nobody has taken into service are among them.
func (e *Engine) Retained() []lun.LUNStats {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []lun.LUNStats
	for _, name := range slices.Sorted(maps.Keys(e.pools)) {
		p := e.pools[name]
		for _, x := range p.thin.List() {
			if !x.Snapshot && e.volumes[x.Name] == nil && !hidden(x.Name) {
				out = append(out, p.stats(x))
			}
		}
	}
	slices.SortStableFunc(out, func(a, b lun.LUNStats) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Delete destroys the data of a LUN that is out of service, in the pool that has
// them. A LUN in service is refused, one with snapshots is
// thin.ErrHasSnapshots, and one that no pool in service has is lun.ErrUnknown.
func (e *Engine) Delete(ctx context.Context, name string) (lun.Deleted, error) {
	what := "delete LUN " + name
	if e.volume(name) != nil {
		return lun.Deleted{}, fmt.Errorf("%s: it is in service", what)
	}
	pool, ok := e.Keeps(name)
	if !ok {
		return lun.Deleted{}, fmt.Errorf("%s: %w", what, lun.ErrUnknown)
	}
	return lane.Alone(ctx, e.lanes, pool, what, 0, func(ctx context.Context) (lun.Deleted, error) {
		p := e.pool(pool)
		if p == nil {
			return lun.Deleted{}, fmt.Errorf("%s: %w", what, lun.ErrUnknown)
		}
		if e.volume(name) != nil {
			return lun.Deleted{}, fmt.Errorf("%s: it is in service", what)
		}
		d, err := p.delete(ctx, name)
		if err == nil {
			e.log.Debug("lun deleted", "lun", name, "pool", pool, "freed", d.Freed)
		}
		return d, err
	})
}

// delete destroys the data of a LUN or snapshot.
func (p *pool) delete(ctx context.Context, name string) (lun.Deleted, error) {
	v, err := p.thin.Volume(name)
	if err != nil {
		return lun.Deleted{}, unknown(err)
	}
	before := p.thin.Usage().Data
	if err := p.thin.Delete(ctx, name); err != nil {
		return lun.Deleted{}, unknown(err)
	}
	return lun.Deleted{ID: v.Info().ID, Pool: p.name, Freed: max(0, before-p.thin.Usage().Data)}, nil
}

// readSize is the piece in which Check reads, in bytes.
const readSize = 1 << 20

// Check reads all that a LUN in service has, which compares it with its
// checksums. I/O goes on meanwhile. read may be called until the disk answers, also
// when ctx has ended.
func (e *Engine) Check(ctx context.Context, name string, read func(n int64)) (faults []string, err error) {
	v := e.volume(name)
	if v == nil {
		return nil, fmt.Errorf("check LUN %s: %w", name, lun.ErrClosed)
	}
	if why := v.shape().Fault; why != "" {
		faults = append(faults, "it takes no more writes: "+why)
	}
	unread, err := lane.Apart(ctx, func() ([]string, error) { return readAll(ctx, v, read) })
	if err != nil {
		return nil, wrap("check LUN "+name, err)
	}
	return append(faults, unread...), nil
}

// readAll reads what is mapped of a volume and gives what could not be read.
func readAll(ctx context.Context, v lun.Volume, read func(n int64)) (faults []string, err error) {
	b := make([]byte, readSize)
	var stop error
	err = v.Extents(ctx, 0, v.Info().Size, func(off, n int64, mapped bool) bool {
		for end := off + n; mapped && off < end; {
			n := min(end-off, readSize)
			err := v.ReadAt(ctx, b[:n], off)
			var medium *lun.MediumError
			if errors.As(err, &medium) {
				faults = append(faults, fmt.Sprintf("the data at byte %d cannot be read: %v", medium.Offset, medium.Err))
				off = max(off, medium.Offset) + blockSize
				continue
			}
			if err != nil {
				stop = err
				return false
			}
			read(n)
			off += n
		}
		return true
	})
	return faults, errors.Join(err, stop)
}

// CheckPool reads all of a pool, and compares it with its checksums, each block
// once however many share it. Of a pool in service I/O goes on meanwhile; one that
// is not is read as it lies on the disk. It changes nothing.
func (e *Engine) CheckPool(ctx context.Context, name string, want lun.Pool, read func(n int64)) (map[string][]string, error) {
	p := e.pool(name)
	if p == nil {
		faults, err := lane.Alone(ctx, e.lanes, name, "check pool "+name, 0, func(ctx context.Context) ([]string, error) { return e.checkClosed(ctx, name, want) })
		return map[string][]string{"": faults}, wrap("check pool "+name, err)
	}
	faults := map[string][]string{}
	if why := p.fault(); why != "" {
		faults[""] = []string{why}
	}
	bad, err := lane.Apart(ctx, func() ([]thin.Damage, error) { return p.thin.ScrubAll(ctx, read) })
	for _, d := range bad {
		faults[d.Volume] = append(faults[d.Volume], fmt.Sprintf("%d bytes at byte %d cannot be read: %v", d.Size, d.Offset, d.Err))
	}
	return faults, wrap("check pool "+name, err)
}

// checkClosed reads a pool that is not in service. Nobody opens it meanwhile.
func (e *Engine) checkClosed(ctx context.Context, name string, want lun.Pool) (faults []string, err error) {
	if e.pool(name) != nil {
		return nil, errors.New("it came into service: check it again")
	}
	kind, err := store.Kind(want.Path)
	if err == nil && kind == "" {
		err = fmt.Errorf("%s holds no pool", want.Path)
	}
	if err != nil {
		return []string{err.Error()}, nil
	}
	f, err := e.options.Open(want.Path, want.Direct)
	if err != nil {
		return []string{err.Error()}, nil
	}
	report, err := thin.Check(ctx, f)
	for _, x := range report.Faults {
		faults = append(faults, x.Error())
	}
	return faults, errors.Join(err, f.Close())
}

// Close takes everything out of service and keeps all data. What a disk that
// hangs holds for 30 s is left as it is, as by a process that ends without: what was
// flushed is there.
func (e *Engine) Close() error {
	return errors.Join(e.lanes.Each("close pool", e.farewell, e.closeAll)...)
}

// closeAll takes a pool with all its LUNs out of service.
func (e *Engine) closeAll(name string) error {
	for _, v := range e.of(e.pool(name)) {
		e.release(v) // closing its pool makes its data durable
	}
	return e.closePool(name)
}

// of is the LUNs of a pool in service.
func (e *Engine) of(p *pool) []*volume {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []*volume
	for _, name := range slices.Sorted(maps.Keys(e.volumes)) {
		if v := e.volumes[name]; v.pool == p {
			out = append(out, v)
		}
	}
	return out
}

// step is something to be done to a pool by a pass.
func (e *Engine) step(ctx context.Context, pool, what string, do func(context.Context) error) error {
	_, err := lane.Alone(ctx, e.lanes, pool, what, e.patience, func(ctx context.Context) (struct{}, error) { return struct{}{}, do(ctx) })
	return wrap(what, err)
}

// verb is something to be done to a pool that somebody waits for.
func (e *Engine) verb(ctx context.Context, pool, what string, do func(context.Context) error) error {
	_, err := lane.Alone(ctx, e.lanes, pool, what, 0, func(ctx context.Context) (struct{}, error) { return struct{}{}, do(ctx) })
	return err
}
