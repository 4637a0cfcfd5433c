package raw

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"ripstop/internal/disk"
	"ripstop/lun"
	"ripstop/lun/lane"
)

var _ lun.Recorder = (*Engine)(nil)

// recordSuffix is that of the file with a LUN's record.
const recordSuffix = ".lun.record"

// Record is the record of a LUN in a pool in service: a file beside its data.
func (e *Engine) Record(ctx context.Context, pool, name string) ([]byte, error) {
	if err := errors.Join(ctx.Err(), validName(name)); err != nil {
		return nil, err
	}
	what := "read the record of LUN " + name
	b, err := lane.Alone(ctx, e.lanes, pool, what, e.patience, func(context.Context) ([]byte, error) {
		path, err := e.recordPath(pool, name)
		if err != nil {
			return nil, err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		if err == nil && (len(b) == 0 || len(b) > lun.MaxRecord) {
			err = fmt.Errorf("%s: damaged: it has %d bytes: put back a copy", path, len(b))
		}
		return b, err
	})
	return b, wrap(what, err)
}

// Records is the LUNs of a pool in service that have a record.
func (e *Engine) Records(ctx context.Context, pool string) ([]string, error) {
	what := "find the records of pool " + pool
	names, err := lane.Alone(ctx, e.lanes, pool, what, e.patience, func(context.Context) (names []string, err error) {
		dir := e.pathOf(pool)
		if dir == "" {
			return nil, notInService(pool)
		}
		entries, err := os.ReadDir(dir)
		for _, x := range entries {
			if name, ok := strings.CutSuffix(x.Name(), recordSuffix); ok && validName(name) == nil {
				names = append(names, name)
			}
		}
		return names, err
	})
	return names, wrap(what, err)
}

// SetRecord makes or removes the record of a LUN, and overwrites the one it had.
func (e *Engine) SetRecord(ctx context.Context, pool, name string, record []byte) error {
	what := "keep the record of LUN " + name
	if err := errors.Join(ctx.Err(), validName(name)); err != nil {
		return wrap(what, err)
	}
	if len(record) > lun.MaxRecord {
		return fmt.Errorf("%s: %d bytes are too many", what, len(record))
	}
	return e.step(ctx, pool, what, func() error {
		path, err := e.recordPath(pool, name)
		if err != nil {
			return err
		}
		return e.keep(pool, path, record)
	})
}

func (e *Engine) keep(pool, path string, record []byte) error {
	old, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	switch {
	case len(record) > 0:
		err = disk.Replace(path, record)
	case old != nil:
		err = errors.Join(disk.Remove(path), disk.SyncDir(e.pathOf(pool)))
	default:
		err = nil
	}
	if old != nil {
		if err == nil {
			err = overwrite(old)
		}
		err = errors.Join(err, old.Close())
	}
	return err
}

// overwrite writes zeros over a file where it lies.
func overwrite(f *os.File) error {
	st, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(make([]byte, st.Size()), 0); err != nil {
		return err
	}
	return f.Sync()
}

// recordPath is where the record of a LUN is. It is asked for in the pool's lane: who waits
// for that may find the pool elsewhere.
func (e *Engine) recordPath(pool, name string) (string, error) {
	dir := e.pathOf(pool)
	if dir == "" {
		return "", notInService(pool)
	}
	return dir + "/" + name + recordSuffix, nil
}

func notInService(pool string) error { return fmt.Errorf("pool %s is not in service", pool) }

// pathOf is the directory of a pool in service, "" of any other.
func (e *Engine) pathOf(pool string) string {
	e.mu.RLock()
	defer e.mu.RUnlock()
	if p := e.pools[pool]; p != nil {
		return p.path
	}
	return ""
}
