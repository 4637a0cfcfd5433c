// Package beside keeps the objects that verbs make, as `ripstop lun create`
// does. They live beside those of the file: no apply touches them, a restart
// finds them again, and only a verb takes them away.
//
//	file ─► config ─┐
//	                ├─► Merge ─► what the host shall be
//	verb ─► Store ──┘
//
// # Caveats
//
// What the file names is the file's: an object of the same name here is passed
// over by Merge, and given up by Adopt once the file was applied.
package beside

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"

	"ripstop/controller/config"
	"ripstop/internal/keep"
)

const format = 1

// Objects is what verbs have made. The zero value is nothing.
type Objects struct {
	LUNs map[string]config.LUN
}

// record is Objects as they are kept.
type record struct {
	Format int            `json:"format"`
	LUNs   map[string]lun `json:"luns"`
}

type lun struct {
	Pool  string `json:"pool"`
	Size  int64  `json:"size"`
	Block int    `json:"block"`
}

// Store is where Objects are kept, in a directory of their own.
type Store struct{ dir *keep.Dir }

// Open is the store in a directory, which need not exist yet.
func Open(path string) *Store { return &Store{keep.New(path)} }

const name = "objects"

// Load is what was saved last, nothing when nothing was. A record that cannot
// be read is an error and never nothing: LUNs would go out of service.
func (s *Store) Load() (Objects, error) {
	b, err := s.dir.Load(name)
	if err != nil || b == nil {
		return Objects{}, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var r record
	err = d.Decode(&r)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something follows the object")
		}
	}
	switch {
	case r.Format > format:
		return Objects{}, fmt.Errorf("read the objects that verbs made: format %d is newer than %d: run a newer ripstop", r.Format, format)
	case err != nil:
		return Objects{}, fmt.Errorf("read the objects that verbs made: %w: put back a copy of the state directory", err)
	}
	o := Objects{LUNs: map[string]config.LUN{}}
	for n, l := range r.LUNs {
		o.LUNs[n] = config.LUN{Pool: l.Pool, Size: l.Size, Block: l.Block}
	}
	return o, nil
}

// Save keeps o; it is on stable storage when the error is nil.
func (s *Store) Save(o Objects) error {
	r := record{Format: format, LUNs: map[string]lun{}}
	for n, l := range o.LUNs {
		r.LUNs[n] = lun{l.Pool, l.Size, l.Block}
	}
	b, err := json.Marshal(r)
	if err == nil {
		err = s.dir.Save(name, b)
	}
	if err != nil {
		return fmt.Errorf("keep the objects that verbs made: %w", err)
	}
	return nil
}

// Merge is c with the objects in it that c does not name. c stays as it is.
func (o Objects) Merge(c *config.Config) *config.Config {
	all := *c
	all.LUNs = maps.Clone(o.LUNs)
	if all.LUNs == nil {
		all.LUNs = map[string]config.LUN{}
	}
	maps.Copy(all.LUNs, c.LUNs)
	return &all
}

// Adopt is the objects without those that c names, and tells whether there
// were such.
func (o Objects) Adopt(c *config.Config) (rest Objects, changed bool) {
	rest = Objects{LUNs: maps.Clone(o.LUNs)}
	maps.DeleteFunc(rest.LUNs, func(n string, _ config.LUN) bool { _, ok := c.LUNs[n]; return ok })
	return rest, len(rest.LUNs) != len(o.LUNs)
}

// With is the objects with a LUN made, or changed.
func (o Objects) With(name string, l config.LUN) Objects {
	luns := maps.Clone(o.LUNs)
	if luns == nil {
		luns = map[string]config.LUN{}
	}
	luns[name] = l
	return Objects{LUNs: luns}
}

// Without is the objects without a LUN.
func (o Objects) Without(name string) Objects {
	luns := maps.Clone(o.LUNs)
	delete(luns, name)
	return Objects{LUNs: luns}
}
