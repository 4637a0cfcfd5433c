// Package revision keeps the configurations that were applied, in numbered
// directories under the state directory:
//
//	revisions/
//	  1/00-lab.yaml
//	  2/00-lab.yaml
//	  current -> 2
//
// # Caveats
//
// A revision is complete before current names it, and never changes after.
package revision

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"ripstop/controller/config"
)

// keep is how many revisions stay; older ones are removed.
const keep = 50

// Store is the revisions of one state directory.
type Store struct{ dir string }

// Open gives the store under a state directory, which it makes if absent.
func Open(state string) (*Store, error) {
	dir := filepath.Join(state, "revisions")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the state directory: %w: name a writable one with --state", err)
	}
	return &Store{dir}, nil
}

// Current is the revision that was applied last and its files; number 0 and no
// files when there is none.
func (s *Store) Current() (number int, files []config.File, err error) {
	link, err := os.Readlink(filepath.Join(s.dir, "current"))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, fmt.Errorf("read the current revision: %w", err)
	}
	if number, err = strconv.Atoi(link); err != nil {
		return 0, nil, fmt.Errorf("read the current revision: %q is no number: point %s/current at one", link, s.dir)
	}
	entries, err := os.ReadDir(filepath.Join(s.dir, link))
	if err != nil {
		return 0, nil, fmt.Errorf("read revision %d: %w", number, err)
	}
	for _, e := range entries {
		name := filepath.Join(s.dir, link, e.Name())
		data, err := os.ReadFile(name)
		if err != nil {
			return 0, nil, fmt.Errorf("read revision %d: %w", number, err)
		}
		files = append(files, config.File{Name: name, Data: data})
	}
	return number, files, nil
}

// Save keeps files as the next revision and makes it the current one. Files
// that are the current revision's own, byte for byte, make no new one.
func (s *Store) Save(files []config.File) (number int, err error) {
	number, have, err := s.Current()
	if err != nil {
		return 0, err
	}
	if number > 0 && same(have, files) {
		return number, nil
	}
	all, err := s.numbers()
	if err != nil {
		return 0, err
	}
	number = 1
	if len(all) > 0 {
		number = all[len(all)-1] + 1
	}
	if err := s.write(number, files); err != nil {
		return 0, fmt.Errorf("keep revision %d: %w", number, err)
	}
	return number, s.prune(append(all, number))
}

func same(a, b []config.File) bool {
	return slices.EqualFunc(a, b, func(x, y config.File) bool { return string(x.Data) == string(y.Data) })
}

func (s *Store) write(number int, files []config.File) error {
	dir := filepath.Join(s.dir, strconv.Itoa(number))
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for i, f := range files {
		name := filepath.Join(dir, fmt.Sprintf("%02d-%s", i, filepath.Base(f.Name)))
		if err := writeSynced(name, f.Data); err != nil {
			return err
		}
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	next := filepath.Join(s.dir, "next")
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(strconv.Itoa(number), next); err != nil {
		return err
	}
	if err := os.Rename(next, filepath.Join(s.dir, "current")); err != nil {
		return err
	}
	return syncDir(s.dir)
}

func writeSynced(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// numbers lists the revisions, oldest first.
func (s *Store) numbers() ([]int, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list the revisions: %w", err)
	}
	var all []int
	for _, e := range entries {
		if n, err := strconv.Atoi(e.Name()); err == nil {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

func (s *Store) prune(all []int) error {
	for len(all) > keep {
		if err := os.RemoveAll(filepath.Join(s.dir, strconv.Itoa(all[0]))); err != nil {
			return fmt.Errorf("remove revision %d: %w", all[0], err)
		}
		all = all[1:]
	}
	return nil
}
