// Package keep keeps small records in a directory, a file for each name, so
// that power loss leaves either the old record or the new one:
//
//	write .NAME.tmp ─► fsync ─► rename to NAME ─► fsync the directory
//
// The first line of a file is a format and the checksum of what follows. A file
// that does not match it is an error, which is different from no record.
package keep

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"ripstop/internal/disk"
)

// Dir is a directory of records. It is safe for concurrent use; the directory
// belongs to one Dir at a time.
type Dir struct {
	path string
	mu   sync.Mutex
}

// New is the records in the directory at path, which need not exist yet.
func New(path string) *Dir { return &Dir{path: path} }

// title is the first line of a file.
const title = "ripstop record 1 %x\n"

// maxRecord bounds what Load reads, in bytes.
const maxRecord = 16 << 20

// Load gives the record of that name, nil when there is none.
func (d *Dir) Load(name string) ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	path, err := d.file(name)
	if err != nil {
		return nil, err
	}
	b, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	first, record, _ := bytes.Cut(b, []byte("\n"))
	if string(first)+"\n" != fmt.Sprintf(title, sha256.Sum256(record)) {
		return nil, fmt.Errorf("%s: its content does not match its checksum: put back a copy that does, or remove it to forget what it keeps", path)
	}
	return record, nil
}

func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxRecord))
}

// Save makes record the one of that name; an empty one removes it. It is on
// stable storage when the error is nil. After an error either may be there.
func (d *Dir) Save(name string, record []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	path, err := d.file(name)
	if err != nil {
		return err
	}
	if len(record) == 0 {
		err := os.Remove(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, disk.SyncDir(d.path))
	}
	if err := d.make(); err != nil {
		return err
	}
	b := append(fmt.Appendf(nil, title, sha256.Sum256(record)), record...)
	return disk.Replace(path, b)
}

// file is the path of a name. It refuses what would not be a file of its own
// in the directory.
func (d *Dir) file(name string) (string, error) {
	if name == "" || filepath.Base(name) != name || name[0] == '.' {
		return "", fmt.Errorf("record %q: this cannot be a file's name", name)
	}
	return filepath.Join(d.path, name), nil
}

// make makes the directory, and sees that it stays.
func (d *Dir) make() error {
	err := os.Mkdir(d.path, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return disk.SyncDir(filepath.Dir(d.path))
}
