package raw

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"ripstop/internal/disk"
	"ripstop/lun"
)

// openLUN puts a LUN into service. Data that cannot become what is wanted are
// put into service as they are, and the error says what differs.
func (e *Engine) openLUN(name string, want lun.LUN) error {
	p := e.pool(want.Pool)
	if p == nil {
		return fmt.Errorf("pool %s is not in service", want.Pool)
	}
	if err := errors.Join(validName(name), checkShape(want.Size, want.Block)); err != nil {
		return err
	}
	if err := e.claim(name, want.Pool); err != nil {
		return err
	}
	defer e.release(name)
	v := e.volume(name)
	if v == nil {
		var err error
		if v, err = e.loadLUN(p, name, want); err != nil {
			return err
		}
	}
	if err := v.setDirect(p.direct); err != nil {
		return noDirect(err)
	}
	if err := lun.Unchangeable(name, v.shape(), want); err != nil {
		return err
	}
	if v.size.Load() < want.Size {
		if _, err := e.grow(v, want.Size); err != nil {
			return err
		}
	}
	if want.Thick {
		return errThick
	}
	return nil
}

// claim has a LUN be opened by one pool at a time. It refuses to make one whose data
// lie in another pool: it would look as if they were lost.
func (e *Engine) claim(name, pool string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if other, ok := e.keeper(name); ok && other != pool {
		return lun.Elsewhere(name, other, pool)
	}
	if other, ok := e.making[name]; ok {
		return lun.Elsewhere(name, other, pool)
	}
	e.making[name] = pool
	return nil
}

func (e *Engine) release(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.making, name)
}

// keeper is the pool in service that has data of a LUN. With mu held.
func (e *Engine) keeper(name string) (string, bool) {
	if v, ok := e.volumes[name]; ok {
		return v.pool.name, true
	}
	for _, p := range e.pools {
		if _, ok := p.retained[name]; ok {
			return p.name, true
		}
	}
	return "", false
}

// noDirect says what becomes of a LUN that cannot go past the page cache.
func noDirect(err error) error {
	if errors.Is(err, disk.ErrRefused) {
		return fmt.Errorf("%w, so they go through it: write `cache: writeback`, or put the pool on another file system", err)
	}
	return fmt.Errorf("go past the page cache, or through it again: %w", err)
}

// Keeps is the pool in service that has data of a LUN.
func (e *Engine) Keeps(name string) (string, bool) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.keeper(name)
}

// loadLUN opens the data of a LUN, made first when there are none.
func (e *Engine) loadLUN(p *pool, name string, want lun.LUN) (*volume, error) {
	meta, err := readMeta[lunMeta](p.meta(name))
	fresh := errors.Is(err, os.ErrNotExist)
	if fresh {
		meta = lunMeta{Format: format, ID: newID(), Block: want.Block, Size: want.Size, Created: time.Now().UTC()}
	} else if err != nil {
		return nil, err
	}
	if err := p.promise(e.promised(p) + meta.Size); err != nil {
		return nil, err
	}
	if fresh {
		err = e.create(p, name, meta)
	} else {
		err = complete(p.data(name), meta.Size)
	}
	if err != nil {
		return nil, err
	}
	v, err := e.attach(p, name, meta)
	if err != nil {
		return nil, err
	}
	e.log.Debug("lun opened", "lun", name, "pool", p.name, "size", meta.Size, "used", v.used.Load(), "new", fresh)
	return v, nil
}

// create makes the files of a LUN: data first, so that metadata never speak of
// data that are not there. What a crash left between the two is taken over, if
// it is empty.
func (e *Engine) create(p *pool, name string, meta lunMeta) error {
	path := p.data(name)
	f, err := e.open(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	err = vacant(path, f)
	if err == nil {
		err = f.Resize(meta.Size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return writeMeta(p.meta(name), meta) // and syncs the directory, for both files
}

// vacant is nil for a data file in which nothing was ever written.
func vacant(path string, f file) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	full := false
	if err := f.Data(st.Size(), func(int64, int64) { full = true }); err != nil {
		return err
	}
	if full {
		return fmt.Errorf("%s holds data, but its metadata %s are gone: put back a copy of them, or move the data away", path, path+".json")
	}
	return nil
}

// complete is nil when the data file has what its metadata promise. It may have
// more, where a crash cut growing short; less means that data are gone.
func complete(path string, size int64) error {
	st, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("its metadata %s are there, but its data %s are gone: put them back, or move the metadata away", path+".json", path)
	}
	if err != nil {
		return err
	}
	if st.Size() < size {
		return fmt.Errorf("%s has %d bytes of %d, the rest of the data is gone: put back a copy; "+
			"to go on with zeros in their place, run `truncate -s %d %s`", path, st.Size(), size, size, path)
	}
	return nil
}

// attach opens the data file, reads its holes and puts the LUN into service.
func (e *Engine) attach(p *pool, name string, meta lunMeta) (*volume, error) {
	f, err := e.open(p.data(name), os.O_RDWR)
	if err != nil {
		return nil, err
	}
	v := &volume{pool: p, meta: meta, file: f, onFault: e.options.OnFault, flights: sync.Pool{New: newFlight}}
	v.is.Store(&label{name, meta.ID})
	v.size.Store(meta.Size)
	v.bitmap.grow(up(meta.Size) / blockSize)
	err = f.Data(meta.Size, func(off, end int64) {
		v.bitmap.set(off/blockSize, up(end)/blockSize, true)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("find the holes of %s: %w", p.data(name), err), f.Close())
	}
	v.used.Store(v.bitmap.count(0, up(meta.Size)/blockSize) * blockSize)
	e.mu.Lock()
	defer e.mu.Unlock()
	p.used.Add(v.used.Load() - p.retained[name].used)
	delete(p.retained, name)
	e.volumes[name] = v
	return v, nil
}

// growLUN grows a LUN and tells whoever wants to know.
func (e *Engine) growLUN(v *volume, size int64) error {
	grown, err := e.grow(v, size)
	if grown && e.options.OnResize != nil {
		e.options.OnResize(v.name())
	}
	return err
}

// grow makes a LUN larger: the file, then the metadata, then the volume.
func (e *Engine) grow(v *volume, size int64) (grown bool, err error) {
	if size <= v.size.Load() {
		return false, lun.Unchangeable(v.name(), v.shape(), lun.LUN{Pool: v.pool.name, Size: size, Block: v.meta.Block})
	}
	if err := checkShape(size, v.meta.Block); err != nil {
		return false, err
	}
	p := v.pool
	if err := p.promise(e.promised(p) + size - v.size.Load()); err != nil {
		return false, err
	}
	meta := v.meta
	meta.Size, meta.ID = size, v.is.Load().id
	if err := v.file.Resize(size); err != nil {
		return false, err
	}
	if err := writeMeta(p.meta(v.name()), meta); err != nil {
		return false, err
	}
	v.extend(size)
	e.log.Debug("lun grown", "lun", v.name(), "size", size)
	return true, nil
}
