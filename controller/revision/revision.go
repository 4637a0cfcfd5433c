// Package revision keeps the configurations that were applied, in numbered
// directories under the state directory:
//
//	revisions/
//	  1/00-lab.yaml  about.json  confirmed
//	  2/00-lab.yaml  about.json  confirmed
//	  3/00-lab.yaml  about.json  reverted
//	  current -> 2
//
// Add makes a revision, Keep makes one current. The current one is the last that
// was confirmed, with which a daemon starts; a newer one without `confirmed` was
// on trial, and who tried it went back, or is gone if there is no `reverted`.
//
//	write new/ ─► sync ─► rename to 3 ─► sync          Add: it is whole, or is not there
//	link next ─► rename to current ─► sync             Keep: the old one, or the new one
//
// # Caveats
//
// A revision never changes after it was made: its files must have the sums that
// about.json holds. Secrets are in files of their own, whose names alone stand in
// a configuration, so that a revision holds none; its modes are 0700 and 0600
// nevertheless.
package revision

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"time"

	"ripstop/controller/config"
)

// keep is how many revisions stay; older ones are removed.
const keep = 50

const (
	format  = 1
	about   = "about.json"
	stays   = "confirmed"
	undone  = "reverted"
	current = "current"
	draft   = "new"  // a revision that is being written
	next    = "next" // the link that becomes current
	rubbish = "old"  // a revision that is being removed
)

// Store is the revisions of one state directory. Its user sees that one call at a
// time changes it.
type Store struct {
	dir  string
	disk disk
	most int // revisions that stay
}

// Note is what is known of a revision besides its files.
type Note struct {
	Number  int
	Time    time.Time // of making it; zero when it is not known
	By      string    // who asked for it, in their own words
	Comment string
	Host    string   // of the fabric whose part the files were applied as; "" for none, and where it is not known
	Base    int      // the revision that it replaced; 0 for none
	Added   int      // lines more than Base
	Removed int      // lines less than Base
	Files   []string // their names

	Confirmed bool
	Reverted  bool  // it was on trial, and was seen to be taken back
	Damage    error // why it cannot be read
}

// record is about.json.
type record struct {
	Format  int       `json:"format"`
	Time    time.Time `json:"time"`
	By      string    `json:"by"`
	Comment string    `json:"comment"`
	Host    string    `json:"host,omitempty"`
	Base    int       `json:"base"`
	Added   int       `json:"added"`
	Removed int       `json:"removed"`
	Files   []sum     `json:"files"`
}

type sum struct {
	Name   string `json:"name"` // as given, without the directory
	Stored string `json:"stored"`
	SHA256 string `json:"sha256"`
}

// Open gives the store under a state directory, which it makes if absent.
func Open(state string) (*Store, error) {
	dir := filepath.Join(state, "revisions")
	d, err := openDir(dir)
	if err != nil {
		return nil, fmt.Errorf("open the state directory: %w: name a writable one with --state", err)
	}
	return &Store{dir, d, keep}, nil
}

// Kept is the number of the revision that was confirmed last; 0 when there is none.
func (s *Store) Kept() (int, error) {
	link, err := s.disk.readlink(current)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the current revision: %w", err)
	}
	n, ok := number(link)
	if !ok {
		return 0, fmt.Errorf("read the current revision: %q is no number: point %s/%s at one", link, s.dir, current)
	}
	return n, nil
}

// Read gives the files of a revision. There is none of the number when the error
// is an fs.ErrNotExist.
func (s *Store) Read(n int) ([]config.File, Note, error) {
	note, r, err := s.note(n)
	if err != nil {
		return nil, note, err
	}
	files := make([]config.File, len(r.Files))
	for i, f := range r.Files {
		data, err := s.disk.readFile(path.Join(strconv.Itoa(n), f.Stored))
		if err != nil {
			return nil, note, s.damaged(n, err)
		}
		if f.SHA256 != "" && f.SHA256 != digest(data) {
			return nil, note, s.damaged(n, fmt.Errorf("%s is not what was applied", f.Stored))
		}
		files[i] = config.File{Name: filepath.Join(s.dir, strconv.Itoa(n), f.Stored), Data: data}
	}
	return files, note, nil
}

// History is the notes of all revisions, oldest first.
func (s *Store) History() ([]Note, error) {
	all, err := s.numbers()
	if err != nil {
		return nil, err
	}
	notes := make([]Note, len(all))
	for i, n := range all {
		var err error
		if notes[i], _, err = s.note(n); err != nil {
			notes[i].Damage = err
		}
	}
	return notes, nil
}

// Add keeps files as a revision that is not confirmed, and removes the oldest ones
// over 50 that are not the current one. Number, Added, Removed and Files of the
// note are its own matter; base is the files of note.Base. On return without an
// error the revision is on stable storage.
func (s *Store) Add(files, base []config.File, note Note) (Note, error) {
	all, err := s.numbers()
	if err != nil {
		return note, err
	}
	kept, err := s.Kept()
	if err != nil {
		return note, err
	}
	note.Number = kept + 1
	if len(all) > 0 {
		note.Number = max(note.Number, all[len(all)-1]+1)
	}
	note.Added, note.Removed = s.size(base, files)
	if err := s.write(files, &note); err != nil {
		return note, fmt.Errorf("keep revision %d: %w", note.Number, err)
	}
	return note, s.prune(append(all, note.Number), kept)
}

func (s *Store) write(files []config.File, note *Note) error {
	if err := s.disk.removeAll(draft); err != nil {
		return err
	}
	if err := s.disk.mkdir(draft); err != nil {
		return err
	}
	r := record{Format: format, Time: note.Time, By: note.By, Comment: note.Comment, Host: note.Host, Base: note.Base, Added: note.Added, Removed: note.Removed}
	note.Files = nil
	for i, f := range files {
		name := s.Name(f)
		stored := fmt.Sprintf("%02d-%s", i, plain(name))
		r.Files = append(r.Files, sum{name, stored, digest(f.Data)})
		note.Files = append(note.Files, name)
		if err := s.disk.writeFile(path.Join(draft, stored), f.Data); err != nil {
			return err
		}
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := s.disk.writeFile(path.Join(draft, about), append(b, '\n')); err != nil {
		return err
	}
	if err := s.disk.sync(draft); err != nil {
		return err
	}
	if err := s.disk.rename(draft, strconv.Itoa(note.Number)); err != nil {
		return err
	}
	return s.disk.sync(".")
}

// inStore is what write calls a file; the rest is its name.
var inStore = regexp.MustCompile(`^\d\d+-(.*)$`)

// Name is a file's own name, also of one that came from a revision.
func (s *Store) Name(f config.File) string {
	base := filepath.Base(f.Name)
	if filepath.Dir(filepath.Dir(f.Name)) != s.dir {
		return base
	}
	if m := inStore.FindStringSubmatch(base); m != nil {
		return m[1]
	}
	return base
}

// plain is a name that any file system takes.
func plain(name string) string {
	b := []byte(name)
	for i, c := range b {
		if c <= ' ' || c > '~' || c == '/' {
			b[i] = '_'
		}
	}
	return string(b[max(0, len(b)-100):])
}

func digest(data []byte) string {
	h := sha256.Sum256(data)
	return hex.EncodeToString(h[:])
}

// Keep makes a revision the current one, which is to be confirmed; with 0 there is
// none. After an error either may be current.
func (s *Store) Keep(n int) error {
	former, err := s.Kept()
	if err == nil && former != n {
		err = s.confirmed(former) // if power failed after it had become current
	}
	if err == nil {
		err = s.point(n)
	}
	if err != nil {
		return fmt.Errorf("make revision %d current: %w", n, err)
	}
	return s.confirmed(n)
}

// Revert notes that a revision that was on trial was taken back.
func (s *Store) Revert(n int) error {
	if err := s.mark(n, undone); err != nil {
		return fmt.Errorf("note that revision %d was taken back: %w", n, err)
	}
	return nil
}

func (s *Store) point(n int) error {
	if n == 0 {
		return errors.Join(s.disk.removeAll(current), s.disk.sync("."))
	}
	if err := s.disk.removeAll(next); err != nil {
		return err
	}
	if err := s.disk.symlink(strconv.Itoa(n), next); err != nil {
		return err
	}
	if err := s.disk.rename(next, current); err != nil {
		return err
	}
	return s.disk.sync(".")
}

// confirmed marks a revision, so that it is told from others when it is no longer
// the current one.
func (s *Store) confirmed(n int) error { return s.mark(n, stays) }

// mark puts an empty file into a revision's directory; there is none of revision 0,
// nor of one that somebody removed.
func (s *Store) mark(n int, name string) error {
	dir := strconv.Itoa(n)
	if _, err := s.disk.readDir(dir); n == 0 || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := s.disk.writeFile(path.Join(dir, name), nil)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return errors.Join(err, s.disk.sync(dir))
}

// note reads what is known of a revision.
func (s *Store) note(n int) (Note, record, error) {
	note := Note{Number: n}
	dir := strconv.Itoa(n)
	names, err := s.disk.readDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return note, record{}, fmt.Errorf("revision %d: %w: `ripstop history` lists those that there are", n, fs.ErrNotExist)
	}
	if err != nil {
		return note, record{}, s.damaged(n, err)
	}
	kept, err := s.Kept()
	note.Confirmed = slices.Contains(names, stays) || err == nil && kept == n
	note.Reverted = slices.Contains(names, undone)
	var r record
	if slices.Contains(names, about) {
		if r, err = s.record(dir); err != nil {
			return note, r, s.damaged(n, err)
		}
	} else {
		// It was made before revisions had notes, when each was kept as it was applied.
		note.Confirmed = true
		for _, name := range names {
			if m := inStore.FindStringSubmatch(name); m != nil {
				r.Files = append(r.Files, sum{Name: m[1], Stored: name})
			}
		}
	}
	note.Time, note.By, note.Comment, note.Host, note.Base, note.Added, note.Removed = r.Time, r.By, r.Comment, r.Host, r.Base, r.Added, r.Removed
	for _, f := range r.Files {
		note.Files = append(note.Files, f.Name)
	}
	return note, r, nil
}

func (s *Store) record(dir string) (r record, err error) {
	b, err := s.disk.readFile(path.Join(dir, about))
	if err != nil {
		return r, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&r); err != nil {
		return record{}, fmt.Errorf("%s: %w", about, err)
	}
	if r.Format != format {
		return record{}, fmt.Errorf("%s: format %d is not %d: run a newer ripstop", about, r.Format, format)
	}
	for _, f := range r.Files {
		if f.Stored == "" || path.Base(f.Stored) != f.Stored {
			return record{}, fmt.Errorf("%s: %q is no file of it", about, f.Stored)
		}
	}
	return r, nil
}

func (s *Store) damaged(n int, err error) error {
	return fmt.Errorf("read revision %d: %w: put back a copy of %s", n, err, filepath.Join(s.dir, strconv.Itoa(n)))
}

// numbers lists the revisions, oldest first.
func (s *Store) numbers() ([]int, error) {
	names, err := s.disk.readDir(".")
	if err != nil {
		return nil, fmt.Errorf("list the revisions: %w", err)
	}
	var all []int
	for _, name := range names {
		if n, ok := number(name); ok {
			all = append(all, n)
		}
	}
	slices.Sort(all)
	return all, nil
}

// number is what a revision's directory is called by.
func number(name string) (int, bool) {
	n, err := strconv.Atoi(name)
	return n, err == nil && n > 0 && strconv.Itoa(n) == name
}

// prune removes the oldest revisions over the most, each in one step; not the current one.
func (s *Store) prune(all []int, kept int) error {
	for over := len(all) - s.most; over > 0; over-- {
		oldest := all[0]
		if oldest == kept {
			oldest, all = all[1], append([]int{kept}, all[2:]...)
		} else {
			all = all[1:]
		}
		err := s.disk.removeAll(rubbish)
		if err == nil {
			err = s.disk.rename(strconv.Itoa(oldest), rubbish)
		}
		if err == nil {
			err = s.disk.sync(".")
		}
		if err == nil {
			err = s.disk.removeAll(rubbish)
		}
		if err != nil {
			return fmt.Errorf("remove revision %d: %w", oldest, err)
		}
	}
	return nil
}
