package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"ripstop/lun"
	"ripstop/lun/thin"
)

// volume is a LUN in service.
type volume struct {
	is   atomic.Pointer[string] // the name, which Rename changes
	pool *pool
	thin *thin.Volume

	gate   sync.RWMutex // shared by I/O
	closed bool
}

var (
	_ lun.Gauge  = (*volume)(nil)
	_ lun.Prompt = (*volume)(nil)
	_ lun.Queue  = (*volume)(nil)
)

func newVolume(name string, p *pool, t *thin.Volume) *volume {
	v := &volume{pool: p, thin: t}
	v.is.Store(&name)
	return v
}

func (v *volume) name() string { return *v.is.Load() }

// Settle waits for every access that is under way.
func (v *volume) Settle() { v.thin.Settle() }

// Info is the LUN as it is now.
func (v *volume) Info() lun.Info { return v.thin.Info() }

// Usage is the accounts of the LUN and of its pool.
func (v *volume) Usage() lun.Usage { return v.thin.Usage() }

func (v *volume) shape() lun.LUN {
	i := v.thin.Info()
	return lun.LUN{Pool: v.pool.name, Size: i.Size, Block: i.BlockSize, Thick: v.thin.Reserved(), Fault: v.pool.fault()}
}

// enter lets I/O in while the LUN is in service.
func (v *volume) enter() error {
	v.pool.ops.Add(1)
	v.gate.RLock()
	if v.closed {
		v.gate.RUnlock()
		return fmt.Errorf("LUN %s: %w", v.name(), lun.ErrClosed)
	}
	return nil
}

// ReadAt fills p from off.
func (v *volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := v.enter(); err != nil {
		return err
	}
	defer v.gate.RUnlock()
	return v.thin.ReadAt(ctx, p, off)
}

// WriteAt writes p at off.
func (v *volume) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if err := v.enter(); err != nil {
		return err
	}
	defer v.gate.RUnlock()
	return v.thin.WriteAt(ctx, p, off, fua)
}

// try lets in what must not wait.
func (v *volume) try() bool {
	v.pool.ops.Add(1)
	if !v.gate.TryRLock() {
		return false
	}
	if v.closed {
		v.gate.RUnlock()
		return false
	}
	return true
}

// TryReadAt fills p from off if that is all in memory.
func (v *volume) TryReadAt(p []byte, off int64) (bool, error) {
	if !v.try() {
		return false, nil
	}
	defer v.gate.RUnlock()
	return v.thin.TryReadAt(p, off)
}

// TryWriteAt writes p at off if that is a copy into memory.
func (v *volume) TryWriteAt(p []byte, off int64) (bool, error) {
	if !v.try() {
		return false, nil
	}
	defer v.gate.RUnlock()
	return v.thin.TryWriteAt(p, off)
}

// StartReadAt begins a ReadAt.
func (v *volume) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	if !v.try() {
		return false
	}
	defer v.gate.RUnlock()
	return v.thin.StartReadAt(p, off, done)
}

// StartWriteAt begins a WriteAt.
func (v *volume) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	if !v.try() {
		return false
	}
	defer v.gate.RUnlock()
	return v.thin.StartWriteAt(p, off, done)
}

// Unmap makes n bytes at off read as zeros and gives their space back.
func (v *volume) Unmap(ctx context.Context, off, n int64) error {
	if err := v.enter(); err != nil {
		return err
	}
	defer v.gate.RUnlock()
	err := v.thin.Unmap(ctx, off, n)
	select {
	case v.pool.freed <- struct{}{}:
	default: // somebody looks soon
	}
	return err
}

// WriteZeroes makes n bytes at off read as zeros.
func (v *volume) WriteZeroes(ctx context.Context, off, n int64) error {
	if err := v.enter(); err != nil {
		return err
	}
	defer v.gate.RUnlock()
	return v.thin.WriteZeroes(ctx, off, n)
}

// CompareAndWrite writes data at off if old stands there.
func (v *volume) CompareAndWrite(ctx context.Context, old, data []byte, off int64) error {
	if err := v.enter(); err != nil {
		return err
	}
	defer v.gate.RUnlock()
	return v.thin.CompareAndWrite(ctx, old, data, off)
}

// Flush puts everything acknowledged before it on stable storage.
func (v *volume) Flush(ctx context.Context) error {
	if err := v.enter(); err != nil {
		return err
	}
	defer v.gate.RUnlock()
	return v.thin.Flush(ctx)
}

// Extents calls yield for the runs of n bytes at off.
func (v *volume) Extents(ctx context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error {
	if err := v.enter(); err != nil {
		return err
	}
	defer v.gate.RUnlock()
	return v.thin.Extents(ctx, off, n, yield)
}

// openLUN puts a LUN into service. Data that cannot become what is wanted are
// put into service as they are, and the error says what differs.
func (e *Engine) openLUN(ctx context.Context, name string, want lun.LUN) error {
	p := e.pool(want.Pool)
	if p == nil {
		return fmt.Errorf("pool %s is not in service", want.Pool)
	}
	if strings.Contains(name, "@") {
		return errors.New("a name with an @ is a snapshot's")
	}
	if hidden(name) {
		return fmt.Errorf("the name %s is the pool's own: choose another", name)
	}
	release, err := e.claim(name, want.Pool)
	if err != nil {
		return err
	}
	defer release()
	if other, ok := e.Keeps(name); ok && other != want.Pool {
		return lun.Elsewhere(name, other, want.Pool)
	}
	v := e.volume(name)
	if v == nil {
		if v, err = e.take(ctx, p, name, want); err != nil {
			return err
		}
	}
	is := v.shape()
	for _, s := range lun.Change(name, is, want) {
		if err := e.alter(ctx, v, s); err != nil {
			return err
		}
	}
	return nil
}

// claim keeps a LUN's name for a pool, so that no other makes one of it, until
// release is called.
func (e *Engine) claim(name, pool string) (release func(), err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if other, ok := e.making[name]; ok {
		return nil, fmt.Errorf("LUN %s: pool %s is about to make it: wait for the disk of that pool, or choose another name: %w", name, other, lun.ErrExists)
	}
	e.making[name] = pool
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.making, name)
	}, nil
}

// alter carries out a step on a LUN in service whose size nobody has seen yet.
func (e *Engine) alter(ctx context.Context, v *volume, step lun.Step) error {
	switch s := step.(type) {
	case lun.GrowLUN:
		return e.grow(ctx, v, s.To)
	case lun.ReserveLUN:
		return v.pool.thin.Reserve(ctx, s.Name, s.Thick)
	case lun.Refuse:
		return s.Err()
	}
	return fmt.Errorf("%v: it is no change of a LUN", step)
}

// take puts the volume of a name into service, made first when there is none.
func (e *Engine) take(ctx context.Context, p *pool, name string, want lun.LUN) (*volume, error) {
	t, err := p.thin.Volume(name)
	fresh := errors.Is(err, thin.ErrNotFound)
	size := want.Size
	if err == nil {
		size = t.Info().Size
	} else if !fresh {
		return nil, err
	}
	if err := p.promise(e.promised(p) + size); err != nil {
		return nil, err
	}
	if fresh {
		create := p.thin.Create
		if want.Thick {
			create = p.thin.CreateReserved
		}
		if t, err = create(ctx, name, want.Size, want.Block); err != nil {
			return nil, err
		}
	}
	v := newVolume(name, p, t)
	e.mu.Lock()
	e.volumes[name] = v
	e.mu.Unlock()
	e.log.Debug("lun opened", "lun", name, "pool", p.name, "size", size, "used", t.Usage().Used, "new", fresh)
	return v, nil
}

// growLUN grows a LUN and tells whoever wants to know.
func (e *Engine) growLUN(ctx context.Context, v *volume, size int64) error {
	err := e.grow(ctx, v, size)
	if err == nil && e.options.OnResize != nil {
		e.options.OnResize(v.name())
	}
	return err
}

func (e *Engine) grow(ctx context.Context, v *volume, size int64) error {
	is := v.shape()
	if size <= is.Size {
		return lun.Unchangeable(v.name(), is, lun.LUN{Pool: is.Pool, Size: size, Block: is.Block})
	}
	if err := v.pool.promise(e.promised(v.pool) + size - is.Size); err != nil {
		return err
	}
	if err := v.pool.thin.Grow(ctx, v.name(), size); err != nil {
		return err
	}
	e.log.Debug("lun grown", "lun", v.name(), "size", size)
	return nil
}

// closeLUN takes a LUN out of service and puts its data on stable storage.
func (e *Engine) closeLUN(ctx context.Context, v *volume) error {
	e.release(v)
	if v.pool.thin.Failed() != nil {
		return nil // told when it happened
	}
	return v.thin.Flush(ctx)
}

// release ends I/O to a LUN, and waits for what is under way.
func (e *Engine) release(v *volume) {
	e.mu.Lock()
	delete(e.volumes, v.name())
	e.mu.Unlock()
	v.shut()
	e.log.Debug("lun closed", "lun", v.name())
}

// shut ends I/O, and waits for what is under way.
func (v *volume) shut() {
	v.gate.Lock()
	v.closed = true
	v.gate.Unlock()
	v.thin.Settle() // what was begun and nobody waits for
}

// volume is a LUN of the pool that nobody sees yet.
func (p *pool) volume(name string) (*volume, error) {
	t, err := p.thin.Volume(name)
	if err != nil {
		return nil, err
	}
	return newVolume(name, p, t), nil
}
