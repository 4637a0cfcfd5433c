package raw

import (
	"context"
	"errors"
	"fmt"
	"os"

	"ripstop/internal/disk"
	"ripstop/lun"
)

var _ lun.Renamer = (*Engine)(nil)

// Rename gives data of a pool in service another name and identifier; I/O goes on.
// What a crash leaves of it is done by calling it again: data first, then the
// metadata that speak of them, so that there is never a second LUN.
func (e *Engine) Rename(ctx context.Context, pool, from, to string, id [16]byte) error {
	what := "rename LUN " + from + " to " + to
	if err := errors.Join(ctx.Err(), validName(from), validName(to)); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return e.step(ctx, pool, what, func() error {
		p := e.pool(pool)
		if p == nil {
			return fmt.Errorf("pool %s is not in service", pool)
		}
		if err := p.rename(from, to, id); err != nil {
			return err
		}
		if m, err := readMeta[lunMeta](p.meta(from)); err == nil && m.ID != id {
			return nil // another LUN has the name since
		}
		e.relabel(p, from, to, id)
		e.log.Debug("lun renamed", "lun", from, "to", to, "pool", pool)
		return nil
	})
}

// rename does what there is to do of it.
func (p *pool) rename(from, to string, id id) error {
	is, err := readMeta[lunMeta](p.meta(to))
	if err == nil && is.ID != id {
		return lun.ErrExists
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	whole := err == nil
	if _, err := os.Lstat(p.data(from)); err == nil {
		_, err := os.Lstat(p.data(to))
		if err == nil && whole {
			return nil // from is another LUN's since
		}
		if whole || !errors.Is(err, os.ErrNotExist) {
			return errors.Join(lun.ErrExists, err)
		}
		if err := errors.Join(os.Rename(p.data(from), p.data(to)), disk.SyncDir(p.path)); err != nil {
			return err
		}
	}
	if !whole {
		meta, err := readMeta[lunMeta](p.meta(from))
		if errors.Is(err, os.ErrNotExist) {
			return lun.ErrUnknown
		}
		if err != nil {
			return err
		}
		if _, err := os.Lstat(p.data(to)); err != nil { // also where it could not be seen whether they had the other name
			return err
		}
		meta.ID = id
		if err := writeMeta(p.meta(to), meta); err != nil {
			return err
		}
	}
	return errors.Join(disk.Remove(p.meta(from)), disk.SyncDir(p.path))
}

// relabel has memory say what the disk says, which is read before all that asks for a
// volume has to wait.
func (e *Engine) relabel(p *pool, from, to string, id id) {
	m, err := readMeta[lunMeta](p.meta(to))
	e.mu.Lock()
	defer e.mu.Unlock()
	if v, ok := e.volumes[from]; ok && v.pool == p {
		v.is.Store(&label{to, id})
		delete(e.volumes, from)
		e.volumes[to] = v
	} else if r, ok := p.retained[from]; ok {
		delete(p.retained, from)
		r.id = id
		p.retained[to] = r
	} else if r, ok := p.retained[to]; ok { // whose data had been renamed
		if err == nil {
			r.id, r.size, r.block = m.ID, m.Size, m.Block
			p.retained[to] = r
		}
	}
}
