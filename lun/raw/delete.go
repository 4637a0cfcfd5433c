package raw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"ripstop/internal/disk"
	"ripstop/lun"
)

// Delete destroys the data of a LUN that is out of service, in the pool that
// has them. What a crash leaves of it is taken by calling it again. A LUN in
// service is refused, and one that no pool in service has is lun.ErrUnknown.
func (e *Engine) Delete(ctx context.Context, name string) (lun.Deleted, error) {
	if err := ctx.Err(); err != nil {
		return lun.Deleted{}, err
	}
	e.control.Lock()
	defer e.control.Unlock()
	if _, ok := e.volumes[name]; ok {
		return lun.Deleted{}, fmt.Errorf("delete LUN %s: it is in service", name)
	}
	if err := validName(name); err != nil {
		return lun.Deleted{}, fmt.Errorf("delete LUN: %w", err)
	}
	for _, p := range e.pools {
		has, err := p.has(name)
		if err != nil {
			return lun.Deleted{}, wrap("delete LUN "+name, err)
		}
		if has {
			d, err := e.destroy(p, name)
			return d, wrap("delete LUN "+name, err)
		}
	}
	return lun.Deleted{}, fmt.Errorf("delete LUN %s: %w", name, lun.ErrUnknown)
}

// has tells whether any file of the LUN is in the pool.
func (p *pool) has(name string) (bool, error) {
	for _, path := range []string{p.meta(name), p.data(name)} {
		_, err := os.Lstat(path)
		if err == nil || !errors.Is(err, os.ErrNotExist) {
			return err == nil, err
		}
	}
	return false, nil
}

// destroy removes the metadata first: without them nothing takes the data for
// those of a LUN.
func (e *Engine) destroy(p *pool, name string) (lun.Deleted, error) {
	d := lun.Deleted{Pool: p.name}
	if meta, err := readMeta[lunMeta](p.meta(name)); err == nil {
		d.ID = meta.ID
	}
	if err := disk.Remove(p.meta(name)); err != nil {
		return d, err
	}
	if err := disk.SyncDir(p.path); err != nil {
		return d, err
	}
	if err := disk.Remove(p.data(name)); err != nil {
		return d, err
	}
	e.mu.Lock()
	d.Freed = p.retained[name]
	delete(p.retained, name)
	e.mu.Unlock()
	p.release(d.Freed)
	e.log.Debug("lun deleted", "lun", name, "pool", p.name, "freed", d.Freed)
	return d, disk.SyncDir(p.path)
}

// Retained lists the LUNs out of service whose data a pool in service keeps,
// sorted by name. Where the metadata cannot be read, their part of it is zero.
func (e *Engine) Retained() []lun.LUNStats {
	e.control.Lock()
	defer e.control.Unlock()
	var out []lun.LUNStats
	for _, p := range e.pools {
		for name, used := range p.retained {
			s := lun.LUNStats{Info: lun.Info{Name: name}, Pool: p.name, Used: used, Exclusive: used}
			if m, err := readMeta[lunMeta](p.meta(name)); err == nil {
				s.ID, s.Size, s.BlockSize = m.ID, m.Size, m.Block
			}
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b lun.LUNStats) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Pool, b.Pool))
	})
	return out
}

// readSize is the piece in which Check reads, in bytes.
const readSize = 1 << 20

// Check reads everything that a LUN in service has and holds its files against
// each other. It gives what is wrong, one sentence each; I/O goes on meanwhile.
// The error says that the check itself could not be made.
func (e *Engine) Check(ctx context.Context, name string, read func(n int64)) (faults []string, err error) {
	e.mu.RLock()
	v, ok := e.volumes[name]
	e.mu.RUnlock()
	if !ok {
		return nil, fmt.Errorf("check LUN %s: %w", name, lun.ErrClosed)
	}
	e.control.Lock() // growing changes metadata and size one after the other
	meta, err := readMeta[lunMeta](v.pool.meta(name))
	size := v.size.Load()
	if err == nil {
		err = complete(v.pool.data(name), meta.Size)
	}
	e.control.Unlock()
	switch {
	case err != nil:
		faults = append(faults, err.Error())
	case meta.ID != v.meta.ID || meta.Block != v.meta.Block || meta.Size != size:
		faults = append(faults, fmt.Sprintf("%s is another LUN's: put back a copy of its own", v.pool.meta(name)))
	}
	if why := v.failed.Load(); why != nil {
		faults = append(faults, "it takes no more writes: "+(*why).Error())
	}
	unread, err := v.readAll(ctx, size, read)
	if err != nil {
		return nil, fmt.Errorf("check LUN %s: %w", name, err)
	}
	return append(faults, unread...), nil
}

// readAll reads what is mapped and gives what could not be read.
func (v *volume) readAll(ctx context.Context, size int64, read func(n int64)) (faults []string, err error) {
	p := make([]byte, readSize)
	var stop error
	err = v.Extents(ctx, 0, size, func(off, n int64, mapped bool) bool {
		for end := off + n; mapped && off < end; off += readSize {
			n := min(end-off, readSize)
			err := v.ReadAt(ctx, p[:n], off)
			read(n)
			var medium *lun.MediumError
			switch {
			case errors.As(err, &medium):
				faults = append(faults, fmt.Sprintf("the data at byte %d cannot be read: %v", medium.Offset, medium.Err))
			case err != nil:
				stop = err
				return false
			}
		}
		return true
	})
	return faults, errors.Join(err, stop)
}
