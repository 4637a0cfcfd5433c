package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"ripstop/internal/disk"
)

const dataName = "pool.data"

// openDir takes a directory.
func openDir(path string, o Options) (*File, error) {
	lock, err := disk.Lock(path)
	if err != nil {
		return nil, err
	}
	f := &File{lock: lock, record: record{path: filepath.Join(path, "pool.json")}, shadowPath: filepath.Join(path, shadowName)}
	if err := f.take(path, o); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return f, nil
}

// take opens the data. A pool.json of generation 0 says that a pool is to be
// made here and that it may not be there yet; so a crash on the way to the first
// one is told from data that are gone.
func (f *File) take(path string, o Options) error {
	known, err := f.record.load()
	if err != nil {
		return err
	}
	data := filepath.Join(path, dataName)
	st, err := os.Stat(data)
	there := err == nil
	switch {
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return err
	case !there && f.record.m.Generation > 0:
		return fmt.Errorf("%s is there, but %s is gone: put it back, or move pool.json away to begin anew", f.record.path, data)
	case there && !st.Mode().IsRegular():
		return fmt.Errorf("%s is not a file: move it away", data)
	}
	if !known {
		if there && st.Size() > 0 {
			if err := foreign(data); err != nil {
				return err
			}
		}
		if err := f.record.save(); err != nil {
			return err
		}
	}
	if !there {
		if err := create(data); err != nil {
			return err
		}
	}
	return f.openData(data, o)
}

// foreign is an error for a data file without a pool.
func foreign(data string) error {
	file, err := os.Open(data)
	if err != nil {
		return err
	}
	ours, err := holdsPool(file)
	if err == nil && !ours {
		err = fmt.Errorf("%s holds something that is no pool, and there is no pool.json: move it away, or choose another directory", data)
	}
	return errors.Join(err, file.Close())
}

func create(data string) error {
	file, err := os.OpenFile(data, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(file.Close(), disk.SyncDir(filepath.Dir(data)))
}

func (f *File) openData(data string, o Options) error {
	file, err := disk.Open(data, os.O_RDWR, o.Ring)
	if err != nil {
		return err
	}
	f.file = file
	st, err := file.Stat()
	if err == nil {
		f.size.Store(st.Size())
		var ours bool
		ours, err = holdsPool(file)
		f.fresh = !ours && f.record.m.Generation == 0
	}
	if err != nil {
		return errors.Join(err, file.Close())
	}
	return nil
}
