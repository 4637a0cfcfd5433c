package raw

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"ripstop/internal/disk"
	"ripstop/lun"
)

// pool is a pool in service.
type pool struct {
	name string
	path string
	lock *os.File
	size atomic.Int64 // bytes that may be used
	used atomic.Int64 // bytes of mapped blocks, and of data out of service

	// Under the engine's mu, and changed in the lane.
	overcommit float64
	direct     bool                // as it is wanted
	retained   map[string]retained // data out of service, by LUN name
}

// retained is the data of a LUN out of service. What only its metadata tell is zero
// where these cannot be read.
type retained struct {
	used  int64 // bytes
	id    [16]byte
	size  int64
	block int
}

// reserve takes n bytes of room, or nothing and is false.
func (p *pool) reserve(n int64) bool {
	for {
		used := p.used.Load()
		if n > p.size.Load()-used {
			return false
		}
		if p.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

func (p *pool) release(n int64) { p.used.Add(-n) }

// promise tells whether the pool may promise the bytes in all.
func (p *pool) promise(total int64) error {
	return lun.Pool{Size: p.size.Load(), Overcommit: p.overcommit}.Promise(p.name, total)
}

func (p *pool) data(lun string) string { return filepath.Join(p.path, lun+dataSuffix) }
func (p *pool) meta(lun string) string { return filepath.Join(p.path, lun+metaSuffix) }

const (
	dataSuffix = ".lun"
	metaSuffix = ".lun.json"
)

// openPool makes or takes the directory, locks it, and counts what is in it.
func (e *Engine) openPool(name string, want lun.Pool) (*pool, error) {
	if err := disk.Mkdir(want.Path, e.inState(filepath.Dir(want.Path))); err != nil {
		return nil, err
	}
	p := &pool{name: name, path: want.Path, overcommit: want.Overcommit, direct: want.Direct, retained: map[string]retained{}}
	p.size.Store(want.Size)
	var err error
	if p.lock, err = disk.Lock(want.Path); err != nil {
		return nil, err
	}
	if err = errors.Join(p.identify(), p.scan(e)); err != nil {
		return nil, errors.Join(err, p.lock.Close())
	}
	return p, nil
}

// inState tells whether missing parents of a pool may be made there.
func (e *Engine) inState(path string) bool {
	rel, err := filepath.Rel(e.options.StateDir, path)
	return err == nil && filepath.IsLocal(rel)
}

// identify reads pool.json, and makes it in a directory that has none.
func (p *pool) identify() error {
	path := filepath.Join(p.path, "pool.json")
	if kind := kindOf(path); kind != "" {
		return fmt.Errorf("%s is of a pool of kind %s: write `kind: %s`, or choose another directory", path, kind, kind)
	}
	_, err := readMeta[poolMeta](path)
	if errors.Is(err, os.ErrNotExist) {
		return writeMeta(path, poolMeta{Format: format, UUID: newID(), Created: time.Now().UTC()})
	}
	return err
}

// scan counts the data in the directory; none of it is in service yet.
func (p *pool) scan(e *Engine) error {
	entries, err := os.ReadDir(p.path)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), dataSuffix)
		if !ok || !entry.Type().IsRegular() {
			continue
		}
		n, err := e.measure(p.data(name))
		if err != nil {
			return err
		}
		r := retained{used: n}
		if m, err := readMeta[lunMeta](p.meta(name)); err == nil {
			r.id, r.size, r.block = m.ID, m.Size, m.Block
		}
		p.retained[name] = r
		p.used.Add(n)
	}
	return nil
}

// measure is the bytes of 4 KiB blocks that a file has data in. Where the file
// cannot tell, it is what the file takes on the disk: one bad file shall not
// keep the pool out of service.
func (e *Engine) measure(path string) (int64, error) {
	st, err := os.Stat(path)
	if err != nil {
		return 0, err
	}
	f, err := e.open(path, os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	var sum, last int64
	err = f.Data(st.Size(), func(off, end int64) {
		from := max(down(off), last)
		last = up(end)
		sum += max(last-from, 0)
	})
	if err != nil {
		e.log.Warn("count data by disk usage", "file", path, "error", err)
		sum = up(st.Sys().(*syscall.Stat_t).Blocks * 512)
	}
	return sum, f.Close()
}

// down and up are the edges of the 4 KiB block around a byte.
func down(off int64) int64 { return off &^ (blockSize - 1) }
func up(off int64) int64   { return (off + blockSize - 1) &^ (blockSize - 1) }
