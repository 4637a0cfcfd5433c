package raw

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/uring"
	"ripstop/lun"
	"ripstop/lun/lane"
)

// Options are what an engine needs besides its steps.
type Options struct {
	// StateDir is the directory under which pools may be made with missing
	// parents; "" is nowhere.
	StateDir string
	// Ring, when set, carries out what would have to wait for a disk.
	Ring *uring.Ring
	// OnResize, when set, is called with a LUN's name after it has grown.
	OnResize func(lun string)
	// OnEnded, when set, is called with a pool when something that hung in it has
	// ended after all.
	OnEnded func(pool string)
	// OnFault, when set, is called with a LUN's name when it takes no more writes
	// because a flush failed. It must not wait.
	OnFault func(lun string)
}

// Engine has pools and LUNs in service. It is a target of reconcile.Run, and
// safe for concurrent use.
type Engine struct {
	log     *slog.Logger
	options Options
	open    func(path string, flag int) (file, error)

	patience time.Duration // of a step
	farewell time.Duration // of Close
	lanes    *lane.Lanes

	// mu is of what follows and of what pools say is of the control path, and never
	// held over I/O. What belongs to a pool is changed in its lane only.
	mu      sync.RWMutex
	pools   map[string]*pool
	volumes map[string]*volume
	making  map[string]string // LUNs that are being opened, and the pools that do
}

// New is an engine with nothing in service.
func New(log *slog.Logger, o Options) *Engine {
	e := &Engine{
		log: log, options: o,
		patience: lane.Patience, farewell: lane.Farewell, lanes: lane.New(log, o.OnEnded),
		pools: map[string]*pool{}, volumes: map[string]*volume{}, making: map[string]string{},
	}
	e.open = e.openDisk
	return e
}

// Observe is the pools and LUNs in service.
func (e *Engine) Observe(context.Context) (lun.State, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	s := lun.State{Pools: map[string]lun.Pool{}, LUNs: map[string]lun.LUN{}}
	for name, p := range e.pools {
		s.Pools[name] = lun.Pool{Kind: lun.Raw, Path: p.path, Size: p.size.Load(), Overcommit: p.overcommit, Direct: e.direct(p)}
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
		return e.step(ctx, s.Name, "open pool "+s.Name, func() error { return e.doOpenPool(s.Name, s.Pool) })
	case lun.SetPool:
		return e.step(ctx, s.Name, "set pool "+s.Name, func() error { return e.setPool(s.Name, s.To) })
	case lun.ClosePool:
		return e.step(ctx, s.Name, "close pool "+s.Name, func() error { return e.closePool(s.Name) })
	case lun.OpenLUN:
		return e.step(ctx, s.LUN.Pool, "open LUN "+s.Name, func() error { return e.openLUN(s.Name, s.LUN) })
	case lun.GrowLUN:
		return e.ofLUN(ctx, "grow LUN "+s.Name, s.Name, func(v *volume) error { return e.growLUN(v, s.To) })
	case lun.ReserveLUN:
		return wrap("reserve room for LUN "+s.Name, e.reserveLUN(s))
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

// step is something to be done to a pool by a pass.
func (e *Engine) step(ctx context.Context, pool, what string, do func() error) error {
	_, err := lane.Alone(ctx, e.lanes, pool, what, e.patience, func(context.Context) (struct{}, error) { return struct{}{}, do() })
	return wrap(what, err)
}

// ofLUN is a step on a LUN in service, done in the lane of its pool.
func (e *Engine) ofLUN(ctx context.Context, what, name string, do func(*volume) error) error {
	v := e.volume(name)
	if v == nil {
		return fmt.Errorf("%s: it is not in service", what)
	}
	return e.step(ctx, v.pool.name, what, func() error {
		if e.volume(name) != v {
			return errors.New("it is not in service any more")
		}
		return do(v)
	})
}

// pool is a pool in service, nil for any other.
func (e *Engine) pool(name string) *pool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.pools[name]
}

// volume is a LUN in service, nil for any other.
func (e *Engine) volume(name string) *volume {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.volumes[name]
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

// wrap names what was done and adds what helps against the common causes.
func wrap(what string, err error) error {
	help := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EROFS):
		help = ": mount the file system for writing"
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		help = ": free space on the file system"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		help = ": let the user of ripstop write there"
	case errors.Is(err, unix.EFBIG):
		help = ": the file system does not allow files of this size, take another or less"
	}
	return fmt.Errorf("%s: %w%s", what, err, help)
}

// HasPool tells whether a pool is in service here.
func (e *Engine) HasPool(name string) bool {
	e.mu.RLock()
	defer e.mu.RUnlock()
	_, ok := e.pools[name]
	return ok
}

func (e *Engine) doOpenPool(name string, want lun.Pool) error {
	if p := e.pool(name); p != nil {
		if p.path != want.Path {
			return fmt.Errorf("it is in service at %s: stop ripstop and move the directory", p.path)
		}
		return e.setPool(name, want)
	}
	p, err := e.openPool(name, want)
	if err != nil {
		return err
	}
	e.mu.Lock()
	e.pools[name] = p
	e.mu.Unlock()
	e.log.Debug("pool opened", "pool", name, "path", p.path, "used", p.used.Load())
	return nil
}

func (e *Engine) setPool(name string, to lun.Pool) error {
	p := e.pool(name)
	if p == nil {
		return errors.New("it is not in service")
	}
	if err := to.Promise(name, e.promised(p)); err != nil {
		return err
	}
	e.mu.Lock()
	p.size.Store(to.Size)
	p.overcommit = to.Overcommit
	e.mu.Unlock()
	return e.setDirect(p, to.Direct)
}

// setDirect chooses the way of data of every LUN in the pool; one that cannot go
// it does not keep the others.
func (e *Engine) setDirect(p *pool, on bool) error {
	e.mu.Lock()
	p.direct = on
	e.mu.Unlock()
	var errs []error
	for _, v := range e.of(p) {
		if err := v.setDirect(on); err != nil {
			errs = append(errs, fmt.Errorf("LUN %s: %w", v.name(), noDirect(err)))
		}
	}
	return errors.Join(errs...)
}

// direct tells how data of the pool go: as it is wanted, unless a LUN does not. With
// mu held.
func (e *Engine) direct(p *pool) bool {
	for _, v := range e.volumes {
		if v.pool == p && v.direct() != p.direct {
			return !p.direct
		}
	}
	return p.direct
}

// promised is what a pool has promised to the LUNs in service.
func (e *Engine) promised(p *pool) (sum int64) {
	for _, v := range e.of(p) {
		sum += v.size.Load()
	}
	return sum
}

func (e *Engine) closePool(name string) error {
	p := e.pool(name)
	if p == nil {
		return nil
	}
	if left := e.of(p); len(left) > 0 {
		return fmt.Errorf("LUN %s is in service in it", left[0].name())
	}
	e.mu.Lock()
	delete(e.pools, name)
	e.mu.Unlock()
	e.log.Debug("pool closed", "pool", name)
	return p.lock.Close()
}

// reserveLUN refuses: files of a shared file system have no room of their own.
func (e *Engine) reserveLUN(s lun.ReserveLUN) error {
	if !s.Thick {
		return nil
	}
	return errThick
}

var errThick = errors.New("a raw pool keeps no room for a LUN: leave `thick:` out, or take a pool of kind thin")

func (e *Engine) closeLUN(v *volume) error {
	retain := func() {
		v.pool.retained[v.name()] = retained{v.used.Load(), v.is.Load().id, v.size.Load(), v.meta.Block}
	}
	e.mu.Lock()
	delete(e.volumes, v.name())
	retain() // the pool has its data also while they are put on a disk that hangs
	e.mu.Unlock()
	err := v.close()
	e.mu.Lock()
	retain() // with what was written until then
	e.mu.Unlock()
	e.log.Debug("lun closed", "lun", v.name())
	return err
}

// Volume is a LUN in service; any other is lun.ErrClosed.
func (e *Engine) Volume(name string) (lun.Volume, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	v, ok := e.volumes[name]
	if !ok {
		return nil, fmt.Errorf("LUN %s: %w", name, lun.ErrClosed)
	}
	return v, nil
}

// Fill is how full the pools are.
func (e *Engine) Fill() []lun.Fill {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []lun.Fill
	for name, p := range e.pools {
		out = append(out, lun.Fill{Pool: name, Size: p.size.Load(), Used: p.used.Load()})
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
		st := lun.PoolStats{
			Name: name, Kind: lun.Raw, Size: p.size.Load(), Used: p.used.Load(),
			Limit: lun.Pool{Size: p.size.Load(), Overcommit: p.overcommit}.Limit(),
		}
		for _, r := range p.retained {
			st.Retained += r.used
		}
		for _, v := range e.volumes {
			if v.pool == p {
				st.Provisioned += v.size.Load()
			}
		}
		s.Pools = append(s.Pools, st)
	}
	for _, name := range slices.Sorted(maps.Keys(e.volumes)) {
		v := e.volumes[name]
		s.LUNs = append(s.LUNs, lun.LUNStats{Info: v.Info(), Pool: v.pool.name, Used: v.used.Load(), Exclusive: v.used.Load(), Fault: v.broken()})
	}
	return s
}

// Close takes everything out of service and keeps all data. What a disk that
// hangs holds for 30 s is left as it is.
func (e *Engine) Close() error {
	return errors.Join(e.lanes.Each("close pool", e.farewell, func(name string) error {
		var errs []error
		for _, v := range e.of(e.pool(name)) {
			errs = append(errs, wrap("close LUN "+v.name(), e.closeLUN(v)))
		}
		return errors.Join(append(errs, e.closePool(name))...)
	})...)
}

// validName tells whether a LUN's name can be that of its files.
func validName(name string) error {
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("name %q cannot be a file's: take letters, digits and hyphens", name)
	}
	return nil
}
