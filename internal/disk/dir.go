package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock is the lock of a pool directory, the same for pools of all kinds. It goes
// with the file, and so with the process.
func Lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = fmt.Errorf("%s is in use by another pool or another ripstop: stop that one, or choose another directory", dir)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Mkdir makes a directory that outlives a crash, and its parents where that is
// wished: elsewhere one that is missing may be a file system that is not mounted.
// One that is there is no error. Among device files it makes none: it would be in
// memory, in the place of a device that is missing.
func Mkdir(path string, parents bool) error {
	if amongDevices(path) {
		return fmt.Errorf("%s does not exist: attach the device, or name a directory outside of /dev", path)
	}
	parent := filepath.Dir(path)
	err := os.Mkdir(path, 0o700)
	if errors.Is(err, os.ErrNotExist) && parents {
		if err := Mkdir(parent, true); err != nil {
			return err
		}
		err = os.Mkdir(path, 0o700)
	}
	switch {
	case errors.Is(err, os.ErrExist):
		return nil
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%s does not exist: mount its file system or make the directory", parent)
	case err != nil:
		return err
	}
	return SyncDir(parent)
}

// amongDevices tells whether what is missing at a path would be made on the file
// system of the device files.
func amongDevices(path string) bool {
	const devices = "/dev"
	path, err := filepath.Abs(path)
	if err != nil || !strings.HasPrefix(path, devices+"/") {
		return false
	}
	var is, dev unix.Stat_t
	if unix.Stat(path, &is) == nil || unix.Stat(devices, &dev) != nil {
		return false
	}
	for err = unix.ENOENT; errors.Is(err, unix.ENOENT); err = unix.Stat(path, &is) {
		path = filepath.Dir(path)
	}
	return err == nil && is.Dev == dev.Dev
}

// Replace replaces a small file so that any crash leaves the old or the new one,
// and returns when the new one is on stable storage.
func Replace(path string, data []byte) error {
	dir, name := filepath.Split(path)
	temp := filepath.Join(dir, "."+name+".tmp")
	if err := writeSynced(temp, data); err != nil {
		return errors.Join(err, Remove(temp))
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, Remove(temp))
	}
	return SyncDir(dir)
}

// Remove is os.Remove of what may be gone already.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func writeSynced(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// SyncDir puts a directory's entries on stable storage.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
