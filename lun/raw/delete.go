package raw

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"ripstop/internal/disk"
	"ripstop/lun"
	"ripstop/lun/lane"
)

// Delete destroys the data of a LUN that is out of service, in the pool that
// has them. What a crash leaves of it is taken by calling it again. A LUN in
// service is refused, and one that no pool in service has is lun.ErrUnknown.
func (e *Engine) Delete(ctx context.Context, name string) (lun.Deleted, error) {
	if err := ctx.Err(); err != nil {
		return lun.Deleted{}, err
	}
	if e.volume(name) != nil {
		return lun.Deleted{}, fmt.Errorf("delete LUN %s: it is in service", name)
	}
	if err := validName(name); err != nil {
		return lun.Deleted{}, fmt.Errorf("delete LUN: %w", err)
	}
	what := "delete LUN " + name
	e.mu.RLock()
	pools := slices.SortedFunc(maps.Values(e.pools), func(a, b *pool) int {
		_, first := a.retained[name]
		_, second := b.retained[name]
		if first != second { // who knows of data goes first: a disk that hangs elsewhere is not asked
			return cmp.Compare(btoi(second), btoi(first))
		}
		return strings.Compare(a.name, b.name)
	})
	e.mu.RUnlock()
	for _, p := range pools {
		d, err := lane.Alone(ctx, e.lanes, p.name, what, 0, func(context.Context) (lun.Deleted, error) { return e.deleteIn(p, name) })
		if !errors.Is(err, lun.ErrUnknown) {
			return d, wrap(what, err)
		}
	}
	return lun.Deleted{}, wrap(what, lun.ErrUnknown)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// deleteIn is Delete in one pool, in its lane.
func (e *Engine) deleteIn(p *pool, name string) (lun.Deleted, error) {
	if e.volume(name) != nil {
		return lun.Deleted{}, errors.New("it is in service")
	}
	if e.pool(p.name) != p { // it went out of service while its lane was waited for
		return lun.Deleted{}, lun.ErrUnknown
	}
	has, err := p.has(name)
	if err != nil {
		return lun.Deleted{}, err
	}
	if !has {
		return lun.Deleted{}, lun.ErrUnknown
	}
	return e.destroy(p, name)
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
	d.Freed = p.retained[name].used
	delete(p.retained, name)
	e.mu.Unlock()
	p.release(d.Freed)
	e.log.Debug("lun deleted", "lun", name, "pool", p.name, "freed", d.Freed)
	return d, disk.SyncDir(p.path)
}

// Retained lists the LUNs out of service whose data a pool in service keeps,
// sorted by name.
func (e *Engine) Retained() []lun.LUNStats {
	e.mu.RLock()
	defer e.mu.RUnlock()
	var out []lun.LUNStats
	for _, p := range e.pools {
		for name, r := range p.retained {
			out = append(out, lun.LUNStats{
				Info: lun.Info{Name: name, ID: r.id, Size: r.size, BlockSize: r.block}, Pool: p.name, Used: r.used, Exclusive: r.used,
			})
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
	v := e.volume(name)
	if v == nil {
		return nil, fmt.Errorf("check LUN %s: %w", name, lun.ErrClosed)
	}
	what := "check LUN " + name
	// Growing changes metadata and size one after the other.
	size, err := lane.Alone(ctx, e.lanes, v.pool.name, what, 0, func(context.Context) (int64, error) {
		fault, size := v.compare()
		faults = append(faults, fault...)
		return size, nil
	})
	if err != nil {
		return nil, wrap(what, err)
	}
	if why := v.failed.Load(); why != nil {
		faults = append(faults, "it takes no more writes: "+(*why).Error())
	}
	unread, err := lane.Apart(ctx, func() ([]string, error) { return v.readAll(ctx, size, read) })
	if err != nil {
		return nil, wrap(what, err)
	}
	return append(faults, unread...), nil
}

// compare holds the volume's files against it.
func (v *volume) compare() (faults []string, size int64) {
	meta, err := readMeta[lunMeta](v.pool.meta(v.name()))
	size = v.size.Load()
	if err == nil {
		err = complete(v.pool.data(v.name()), meta.Size)
	}
	switch {
	case err != nil:
		faults = append(faults, err.Error())
	case meta.ID != v.is.Load().id || meta.Block != v.meta.Block || meta.Size != size:
		faults = append(faults, fmt.Sprintf("%s is another LUN's: put back a copy of its own", v.pool.meta(v.name())))
	}
	return faults, size
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
