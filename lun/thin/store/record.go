package store

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"ripstop/internal/disk"
)

const (
	format = 1
	kind   = "thin"
)

// meta is pool.json. What the pool itself says in its super is exact; this is for
// people, and to notice an older copy.
type meta struct {
	Format     int    `json:"format"`
	Kind       string `json:"kind"`
	ID         string `json:"id,omitempty"` // 32 hexadecimal digits; none before the first super
	Block      int    `json:"block"`        // bytes
	Chunk      int    `json:"chunk"`        // bytes
	Epoch      uint64 `json:"epoch"`        // how often the pool was opened
	Generation uint64 `json:"generation"`   // of the last super; 0 is none yet
}

// record is a meta and its file.
type record struct {
	path string // "" while it is not known, or kept nowhere
	dir  string // of records by id
	mu   sync.Mutex
	m    meta
}

// Record notes outside of the pool that a super is on stable storage: whose
// super, of which opening, and its sequence, which only grows.
func (f *File) Record(id [16]byte, epoch, generation uint64) error {
	r := &f.record
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.find(id); err != nil || r.path == "" {
		return err
	}
	old := r.m
	r.m.ID, r.m.Epoch, r.m.Generation = hex.EncodeToString(id[:]), epoch, generation
	if r.m == old {
		return nil
	}
	if err := r.save(); err != nil {
		r.m = old
		return fmt.Errorf("note generation %d of the pool: %w", generation, help(err))
	}
	return nil
}

// Recorded is the generation that was noted last for the pool of that id; 0 is
// none. A pool with an older super is an older copy.
func (f *File) Recorded(id [16]byte) (generation uint64, err error) {
	r := &f.record
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.find(id); err != nil {
		return 0, err
	}
	if is := hex.EncodeToString(id[:]); r.m.ID != "" && r.m.ID != is {
		return 0, fmt.Errorf("%s is of pool %s, and the data are of pool %s: put together what belongs together, "+
			"or remove pool.json when the data are the right ones", r.path, r.m.ID, is)
	}
	return r.m.Generation, nil
}

// find loads the record of a pool on a device, whose id is its name.
func (r *record) find(id [16]byte) error {
	if r.path != "" || r.dir == "" {
		return nil
	}
	if err := os.MkdirAll(r.dir, 0o700); err != nil {
		return err
	}
	r.path = filepath.Join(r.dir, hex.EncodeToString(id[:])+".json")
	_, err := r.load()
	if err != nil {
		r.path = ""
	}
	return err
}

// load is false when there is no record; then it is that of no pool.
func (r *record) load() (known bool, err error) {
	r.m = meta{Format: format, Kind: kind, Block: 4096, Chunk: 64 << 10}
	data, err := os.ReadFile(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	m, err := decode(data)
	if err != nil {
		return false, fmt.Errorf("%s: %w", r.path, err)
	}
	r.m = m
	return true, nil
}

// decode refuses what another program, or a newer one, has written.
func decode(data []byte) (meta, error) {
	var head struct {
		Format int    `json:"format"`
		Kind   string `json:"kind"`
	}
	var m meta
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	err := json.Unmarshal(data, &head)
	switch {
	case err != nil:
	case head.Kind == "":
		return m, errors.New("it is of a pool of kind raw: write `kind: raw`, or choose another directory")
	case head.Kind != kind:
		return m, fmt.Errorf("it is of a pool of kind %q: run the ripstop that made it, or choose another directory", head.Kind)
	case head.Format > format:
		return m, fmt.Errorf("format %d is newer than %d: run the ripstop that made it", head.Format, format)
	default:
		err = d.Decode(&m)
	}
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something follows the object")
		}
	}
	if err == nil && (m.Format != format || m.Block != 4096 || m.Chunk != 64<<10) {
		err = fmt.Errorf("format %d, block %d, chunk %d do not exist", m.Format, m.Block, m.Chunk)
	}
	if err != nil {
		return m, fmt.Errorf("it is damaged: %w: put back a copy, or remove it when the data are the right ones", err)
	}
	return m, nil
}

// save replaces the file so that any crash leaves the old or the new one.
func (r *record) save() error {
	data, err := json.MarshalIndent(r.m, "", "  ")
	if err != nil {
		return err
	}
	return disk.Replace(r.path, append(data, '\n'))
}
