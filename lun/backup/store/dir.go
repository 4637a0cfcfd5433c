package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"ripstop/lun/backup"
)

// dir is a directory. What a link in it points to outside of it is not followed.
type dir struct {
	path string
	root *os.Root
	sync func(name string) error // puts a directory's entries on the disk
}

func openDir(name string) (*dir, error) {
	r, err := os.OpenRoot(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("store %s: there is no such directory: make it, or mount what has it", name)
	}
	if err != nil {
		return nil, fmt.Errorf("store %s: %w", name, err)
	}
	d := &dir{path: name, root: r}
	d.sync = d.syncDir
	return d, nil
}

func (d *dir) Close() error { return d.root.Close() }

// wrong says where it happened.
func (d *dir) wrong(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("store %s: %w", d.path, err)
}

// Put writes a file that has its name when it is whole and on the disk.
func (d *dir) Put(ctx context.Context, name string, p []byte) error {
	if err := errors.Join(ctx.Err(), checkName(name)); err != nil {
		return err
	}
	for _, dir := range []string{strings.TrimSuffix(backup.TmpDir, "/"), path.Dir(name)} {
		if err := d.mkdir(dir); err != nil {
			return d.wrong(err)
		}
	}
	tmp := backup.TmpDir + strings.ToLower(rand.Text())
	err := d.write(tmp, p)
	if err == nil {
		err = d.root.Rename(tmp, name)
	}
	if err != nil {
		if gone := d.root.Remove(tmp); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
		return d.wrong(err)
	}
	return d.wrong(d.sync(path.Dir(name)))
}

func (d *dir) write(name string, p []byte) error {
	f, err := d.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(p)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// mkdir makes a directory and those that it is in.
func (d *dir) mkdir(name string) error {
	if _, err := d.root.Stat(name); err == nil {
		return nil
	}
	if up := path.Dir(name); up != "." {
		if err := d.mkdir(up); err != nil {
			return err
		}
	}
	if err := d.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return d.sync(path.Dir(name))
}

func (d *dir) syncDir(name string) error {
	f, err := d.root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Get reads a file.
func (d *dir) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := errors.Join(ctx.Err(), checkName(name)); err != nil {
		return nil, err
	}
	f, err := d.root.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, backup.ErrNotFound
	}
	if err != nil {
		return nil, d.wrong(err)
	}
	p, err := io.ReadAll(io.LimitReader(f, limit+1))
	err = errors.Join(err, f.Close())
	if err == nil && int64(len(p)) > limit {
		return nil, tooLong(name, limit)
	}
	return p, d.wrong(err)
}

// List walks through a directory.
func (d *dir) List(ctx context.Context, prefix string, yield func(backup.Object) bool) error {
	top := path.Clean(prefix + ".")
	err := fs.WalkDir(d.root.FS(), top, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was removed meanwhile
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil || !e.Type().IsRegular() || checkName(name) != nil {
			return err
		}
		i, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !yield(backup.Object{Name: name, Size: i.Size(), Modified: i.ModTime()}) {
			return fs.SkipAll
		}
		return err
	})
	return d.wrong(err)
}

// Delete removes a file, and its directory's entry from the disk.
func (d *dir) Delete(ctx context.Context, name string) error {
	if err := errors.Join(ctx.Err(), checkName(name)); err != nil {
		return err
	}
	err := d.root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = d.sync(path.Dir(name))
	}
	return d.wrong(err)
}
