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
	p, ok := e.pools[want.Pool]
	if !ok {
		return fmt.Errorf("pool %s is not in service", want.Pool)
	}
	if err := errors.Join(validName(name), checkShape(want.Size, want.Block), e.elsewhere(name, want.Pool)); err != nil {
		return err
	}
	v, open := e.volumes[name]
	if !open {
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
		if _, err := e.grow(name, want.Size); err != nil {
			return err
		}
	}
	if want.Thick {
		return errThick
	}
	return nil
}

// noDirect says what becomes of a LUN that cannot go past the page cache.
func noDirect(err error) error {
	if errors.Is(err, disk.ErrRefused) {
		return fmt.Errorf("%w, so they go through it: write `cache: writeback`, or put the pool on another file system", err)
	}
	return fmt.Errorf("go past the page cache, or through it again: %w", err)
}

// elsewhere refuses to make a LUN whose data lie in another pool: it would look
// as if they were lost.
func (e *Engine) elsewhere(name, pool string) error {
	for other, p := range e.pools {
		if _, err := os.Stat(p.meta(name)); err == nil && other != pool {
			return lun.Elsewhere(name, other, pool)
		}
	}
	return nil
}

// Keeps is the pool in service that has metadata of a LUN.
func (e *Engine) Keeps(name string) (string, bool) {
	e.control.Lock()
	defer e.control.Unlock()
	if v, ok := e.volumes[name]; ok {
		return v.pool.name, true
	}
	for _, p := range e.pools {
		if _, err := os.Stat(p.meta(name)); err == nil {
			return p.name, true
		}
	}
	return "", false
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
	if err := p.promise(e.provisioned(p.name) + meta.Size); err != nil {
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
	v := &volume{name: name, pool: p, meta: meta, file: f, onFault: e.options.OnFault, flights: sync.Pool{New: newFlight}}
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
	p.used.Add(v.used.Load() - p.retained[name])
	delete(p.retained, name)
	e.volumes[name] = v
	return v, nil
}

// growLUN grows a LUN and tells whoever wants to know, with no lock held.
func (e *Engine) growLUN(s lun.GrowLUN) error {
	e.control.Lock()
	grown, err := e.grow(s.Name, s.To)
	e.control.Unlock()
	if grown && e.options.OnResize != nil {
		e.options.OnResize(s.Name)
	}
	return wrap("grow LUN "+s.Name, err)
}

// grow makes a LUN larger: the file, then the metadata, then the volume.
func (e *Engine) grow(name string, size int64) (grown bool, err error) {
	v, ok := e.volumes[name]
	if !ok {
		return false, errors.New("it is not in service")
	}
	if size <= v.size.Load() {
		return false, lun.Unchangeable(name, v.shape(), lun.LUN{Pool: v.pool.name, Size: size, Block: v.meta.Block})
	}
	if err := checkShape(size, v.meta.Block); err != nil {
		return false, err
	}
	p := v.pool
	if err := p.promise(e.provisioned(p.name) + size - v.size.Load()); err != nil {
		return false, err
	}
	meta := v.meta
	meta.Size = size
	if err := v.file.Resize(size); err != nil {
		return false, err
	}
	if err := writeMeta(p.meta(name), meta); err != nil {
		return false, err
	}
	v.extend(size)
	e.log.Debug("lun grown", "lun", name, "size", size)
	return true, nil
}
