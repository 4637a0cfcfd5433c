package revision

import (
	"errors"
	"os"
	"path/filepath"
)

// disk is what a store does to its directory, by names in it. Each method is one
// step between which power may fail. Only a file's own data are on stable storage
// when it returns; names are after sync of their directory.
type disk interface {
	mkdir(name string) error
	writeFile(name string, data []byte) error // a new one
	symlink(to, name string) error
	rename(from, to string) error
	removeAll(name string) error
	sync(dir string) error

	readlink(name string) (string, error)
	readDir(name string) ([]string, error) // sorted
	readFile(name string) ([]byte, error)
}

// dir is a directory of the host.
type dir string

// openDir makes the directory if it is absent.
func openDir(name string) (dir, error) {
	if err := os.MkdirAll(name, 0o700); err != nil {
		return "", err
	}
	return dir(name), syncDir(filepath.Dir(name))
}

func (d dir) path(name string) string { return filepath.Join(string(d), name) }

func (d dir) mkdir(name string) error           { return os.Mkdir(d.path(name), 0o700) }
func (d dir) symlink(to, name string) error     { return os.Symlink(to, d.path(name)) }
func (d dir) rename(from, to string) error      { return os.Rename(d.path(from), d.path(to)) }
func (d dir) removeAll(name string) error       { return os.RemoveAll(d.path(name)) }
func (d dir) sync(name string) error            { return syncDir(d.path(name)) }
func (d dir) readFile(n string) ([]byte, error) { return os.ReadFile(d.path(n)) }
func (d dir) readlink(n string) (string, error) { return os.Readlink(d.path(n)) }

func (d dir) writeFile(name string, data []byte) error {
	f, err := os.OpenFile(d.path(name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func (d dir) readDir(name string) ([]string, error) {
	entries, err := os.ReadDir(d.path(name))
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, err
}

func syncDir(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
