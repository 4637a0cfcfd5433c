package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"sync/atomic"

	"ripstop/lun"
	"ripstop/lun/thin"
)

// File is what a pool lives in, as package store opens it.
type File interface {
	thin.File
	Fresh() bool             // there is no pool yet
	IsDevice() bool          // it does not grow
	Direct() bool            // data go past the page cache
	SetDirect(on bool) error // while nobody writes
	Close() error
}

// pool is a pool in service.
type pool struct {
	name   string
	log    *slog.Logger
	file   File
	thin   *thin.Pool
	want   lun.Pool      // under the engine's mu, and changed in the lane
	freed  chan struct{} // something was unmapped
	ops    atomic.Uint64 // commands
	health atomic.Pointer[lun.Health]

	tending sync.WaitGroup // what is done for it in the background
	mu      sync.Mutex     // of what follows
	stop    func()         // ends that
	closing bool           // nothing more is begun
}

const (
	blockSize = 4 << 10
	chunkSize = 64 << 10
)

// layout is what a pool takes besides its data.
type layout struct {
	log   int64 // bytes
	slab  int64 // bytes that the file grows by
	limit int64 // bytes that the file may have
}

// layoutOf is the layout for data of so many bytes. The log is a 64th of it, from
// 1 to 64 MiB. The map takes 8 KiB for each 4 MiB of a volume or snapshot where
// they differ, so at most an eighth of chunks of which each has a map of its own,
// twice while a checkpoint moves them; room that is not needed is not taken.
func layoutOf(size int64) layout {
	l := layout{
		log:  whole(min(max(size/64, 1<<20), 64<<20)),
		slab: whole(min(max(size/64, 1<<20), 64<<20)),
	}
	const most = int64(1) << 45 // bytes; nothing overflows
	size = min(size, most)
	l.limit = whole(l.log + size + size/4 + 16*chunkSize + 2*l.slab)
	return l
}

// fits is the most bytes of data that a device of a size has room for: without the
// log, a reserve of a 64th up to 256 MiB, and a 64th for the map.
func (l layout) fits(device int64) int64 {
	left := device - l.log - 2*chunkSize - min(max(device/64, 8*chunkSize), 256<<20)
	return max(0, left-left/64)
}

func whole(n int64) int64 { return (n + chunkSize - 1) / chunkSize * chunkSize }

// shape is the pool as it is observed. With the engine's mu.
func (p *pool) shape() lun.Pool {
	s := p.want
	s.Direct, s.Fault = p.file.Direct(), p.fault()
	return s
}

// fault is why the pool takes no more writes, and what to do; "" while it does.
func (p *pool) fault() string {
	why := p.thin.Failed()
	if why == nil || errors.Is(why, thin.ErrClosed) {
		return ""
	}
	return fmt.Sprintf("pool %s takes no more writes: %v: what was not flushed may be lost: look at the disk, "+
		"then run `ripstop pool reopen %s`", p.name, why, p.name)
}

// promise tells whether the pool may promise so much in all.
func (p *pool) promise(total int64) error { return p.want.Promise(p.name, total) }

// promised is what a pool has promised to the LUNs in service.
func (e *Engine) promised(p *pool) int64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.provisioned(p)
}

// provisioned is promised with mu.
func (e *Engine) provisioned(p *pool) int64 {
	var sum int64
	for _, v := range e.volumes {
		if v.pool == p {
			sum += v.Info().Size
		}
	}
	return sum
}

func (e *Engine) openPool(ctx context.Context, name string, want lun.Pool) error {
	if p := e.pool(name); p != nil {
		if p.want.Path != want.Path {
			return fmt.Errorf("it is in service at %s: stop ripstop and move it", p.want.Path)
		}
		return e.setPool(name, want)
	}
	if want.Kind != lun.Thin {
		return fmt.Errorf("kind %q is not thin", want.Kind)
	}
	p, err := e.load(ctx, name, want, false)
	if err != nil {
		return err
	}
	e.put(p, nil)
	return p.setDirect(want.Direct)
}

// load opens the pool at a path, which nobody sees yet.
func (e *Engine) load(ctx context.Context, name string, want lun.Pool, giveUp bool) (*pool, error) {
	f, err := e.options.Open(want.Path, want.Direct)
	if err != nil {
		return nil, err
	}
	p := &pool{name: name, log: e.log, file: f, want: want, stop: func() {}, freed: make(chan struct{}, 1)}
	p.health.Store(&lun.Health{})
	if err := p.start(ctx, giveUp, e.failed); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	e.log.Debug("pool opened", "pool", name, "path", want.Path, "used", p.thin.Usage().Data)
	return p, nil
}

// start opens the pool in its file, which gets one first when it has none.
func (p *pool) start(ctx context.Context, giveUp bool, failed func(pool string, why error)) error {
	l := layoutOf(p.want.Size)
	if p.file.IsDevice() {
		size, err := p.file.Size()
		if err != nil {
			return err
		}
		if most := l.fits(size); p.want.Size > most {
			return fmt.Errorf("the device has %d bytes, of which log, map and reserve leave %d for data, and not %d: write `size: %dMiB` or less",
				size, most, p.want.Size, most>>20)
		}
		l.limit = 0 // all that there is
	}
	if p.file.Fresh() {
		if err := thin.Format(p.file, l.log); err != nil {
			return err
		}
	}
	t, err := thin.Open(ctx, p.file, thin.Options{
		Shadow: p.shadow(l), Limit: l.limit, Slab: l.slab, Data: whole(p.want.Size), GiveUp: giveUp,
		OnFail: func(why error) { failed(p.name, why) },
	})
	if err != nil {
		return err
	}
	p.thin = t
	return nil
}

// shadower is a File that has memory which outlives the process.
type shadower interface {
	Shadow(size int) ([]byte, error)
}

// shadow is for eight times the records that may be pending.
func (p *pool) shadow(l layout) []byte {
	f, ok := p.file.(shadower)
	if !ok {
		return nil
	}
	mem, err := f.Shadow(int(min(l.log, 8<<20)))
	if err != nil {
		p.log.Warn("writes that are not flushed are lost if this process is killed", "pool", p.name, "error", err)
	}
	return mem
}

// failed tells that a pool takes no more writes.
func (e *Engine) failed(pool string, why error) {
	e.log.Error("pool takes no more writes", "pool", pool, "error", why)
	if e.options.OnFault != nil {
		e.options.OnFault(pool)
	}
}

func (e *Engine) setPool(name string, to lun.Pool) error {
	p := e.pool(name)
	if p == nil {
		return errors.New("it is not in service")
	}
	if err := to.Promise(name, e.promised(p)); err != nil {
		return err
	}
	if !p.file.IsDevice() {
		p.thin.SetLimit(layoutOf(to.Size).limit)
	}
	p.thin.SetData(whole(to.Size))
	e.mu.Lock()
	p.want = to
	e.mu.Unlock()
	return p.setDirect(to.Direct)
}

// setDirect chooses the way of data, while nothing is written.
func (p *pool) setDirect(on bool) error {
	if p.file.Direct() == on {
		return nil
	}
	return p.thin.Quiet(func() error { return p.file.SetDirect(on) })
}

func (e *Engine) closePool(name string) error {
	p := e.pool(name)
	if p == nil {
		return nil
	}
	if luns := e.of(p); len(luns) > 0 {
		return fmt.Errorf("LUN %s is in service in it", luns[0].name())
	}
	e.mu.Lock()
	delete(e.pools, name)
	e.mu.Unlock()
	e.log.Debug("pool closed", "pool", name)
	return p.close()
}

// close lets go of the file, with everything on stable storage. What had failed
// was told when it happened.
func (p *pool) close() error {
	p.mu.Lock()
	p.closing = true
	p.stop()
	p.mu.Unlock()
	p.tending.Wait()
	broken := p.thin.Failed() != nil
	err := p.thin.Close()
	if broken {
		err = nil
	}
	return errors.Join(err, p.file.Close())
}

// Reopen has a pool opened anew, its LUNs too: it takes writes again, if its disk
// does. Accesses that are under way end first; one to a disk that hangs does not
// end. LUNs get new volumes. What cannot be opened is out of service, and the
// error says why. With giveUp, what lay under parts of the map that cannot be read
// is lost for good, and its space free.
func (e *Engine) Reopen(ctx context.Context, name string, giveUp bool) error {
	if e.pool(name) == nil {
		return fmt.Errorf("reopen pool %s: %w", name, lun.ErrUnknown)
	}
	what := "reopen pool " + name
	return wrap(what, e.verb(ctx, name, what, func(ctx context.Context) error { return e.reopen(ctx, name, giveUp) }))
}

func (e *Engine) reopen(ctx context.Context, name string, giveUp bool) error {
	old := e.pool(name)
	if old == nil {
		return lun.ErrUnknown
	}
	volumes := map[string]*volume{}
	for _, v := range e.of(old) {
		volumes[v.name()] = nil
		v.shut()
	}
	if err := old.close(); err != nil {
		e.log.Warn("pool closed with an error", "pool", name, "error", err)
	}
	p, err := e.load(ctx, name, old.want, giveUp)
	for l := range volumes {
		if err == nil {
			volumes[l], err = p.volume(l)
		}
	}
	if err == nil {
		e.put(p, volumes)
		return nil
	}
	e.mu.Lock()
	delete(e.pools, name)
	for l := range volumes {
		delete(e.volumes, l)
	}
	e.mu.Unlock()
	if p != nil {
		err = errors.Join(err, p.close())
	}
	return err
}

// put puts a pool into service, with LUNs in it.
func (e *Engine) put(p *pool, volumes map[string]*volume) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pools[p.name] = p
	maps.Copy(e.volumes, volumes)
	e.tend(p)
}
