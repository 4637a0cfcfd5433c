package lun

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"sync"
	"sync/atomic"
)

// mem is an engine whose LUNs are memory, and whose pools and data outlive it when
// another one is made of the same.
type mem struct {
	mu    sync.Mutex
	pools map[string]Pool            // in service
	data  map[string]map[string]*ram // by pool and name, in service or not
	fault atomic.Pointer[func(what string) error]
}

func newMem() *mem {
	m := &mem{pools: map[string]Pool{}, data: map[string]map[string]*ram{}}
	m.fail(func(string) error { return nil })
	return m
}

// fail has it fail at what f says.
func (m *mem) fail(f func(what string) error) { m.fault.Store(&f) }

func (m *mem) fails(what string) error { return (*m.fault.Load())(what) }

// ram is a LUN of a mem.
type ram struct {
	of     *mem
	mu     sync.Mutex
	name   string
	pool   string
	id     [16]byte
	block  int
	b      []byte
	mapped []bool // by 4 KiB
	open   bool
	failed bool // it takes no more writes
	snaps  []string
	torn   map[int64][]byte // what blocks of 4 KiB were at the last flush, where somebody looks at that
}

// change notes what n bytes at off are before they change.
func (r *ram) change(off, n int64) {
	for i := off / 4096; r.torn != nil && i*4096 < off+n; i++ {
		if _, known := r.torn[i]; !known {
			r.torn[i] = bytes.Clone(r.b[i*4096 : (i+1)*4096])
		}
	}
}

var ids atomic.Uint64

func (m *mem) all(f func(pool, name string, r *ram)) {
	for pool, luns := range m.data {
		if _, in := m.pools[pool]; in {
			for name, r := range luns {
				f(pool, name, r)
			}
		}
	}
}

func (m *mem) Observe(context.Context) (State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := State{Pools: maps.Clone(m.pools), LUNs: map[string]LUN{}}
	m.all(func(pool, name string, r *ram) {
		if r.open {
			s.LUNs[name] = LUN{Pool: pool, Size: int64(len(r.b)), Block: r.block}
		}
	})
	return s, nil
}

func (m *mem) Do(_ context.Context, step Step) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fails(fmt.Sprintf("%T", step)); err != nil {
		return err
	}
	switch s := step.(type) {
	case OpenPool:
		m.pools[s.Name] = s.Pool
		if m.data[s.Name] == nil {
			m.data[s.Name] = map[string]*ram{}
		}
	case ClosePool:
		delete(m.pools, s.Name)
	case OpenLUN:
		r := m.data[s.LUN.Pool][s.Name]
		for pool := range m.pools {
			if m.data[pool][s.Name] != nil && pool != s.LUN.Pool {
				return Elsewhere(s.Name, pool, s.LUN.Pool)
			}
		}
		if r == nil {
			var id [16]byte
			binary.LittleEndian.PutUint64(id[:], ids.Add(1))
			r = &ram{of: m, name: s.Name, pool: s.LUN.Pool, id: id, block: s.LUN.Block, b: make([]byte, s.LUN.Size), mapped: make([]bool, s.LUN.Size/4096)}
			m.data[s.LUN.Pool][s.Name] = r
		}
		r.open = true
		if int64(len(r.b)) != s.LUN.Size {
			return errors.New("it has another size")
		}
	case GrowLUN:
		m.all(func(_, name string, r *ram) {
			if name == s.Name && r.open {
				r.mu.Lock()
				r.b = append(r.b, make([]byte, s.To-s.From)...)
				r.mapped = append(r.mapped, make([]bool, (s.To-s.From)/4096)...)
				r.mu.Unlock()
			}
		})
	case CloseLUN:
		m.all(func(_, name string, r *ram) {
			if name == s.Name {
				r.mu.Lock()
				r.open = false
				r.mu.Unlock()
			}
		})
	}
	return nil
}

func (m *mem) HasPool(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.pools[name]
	return ok
}

func (m *mem) Keeps(lun string) (in string, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all(func(pool, name string, _ *ram) {
		if name == lun {
			in, ok = pool, true
		}
	})
	return in, ok
}

func (m *mem) Volume(lun string) (Volume, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out Volume
	m.all(func(_, name string, r *ram) {
		if name == lun && r.open {
			out = r
		}
	})
	if out == nil {
		return nil, ErrClosed
	}
	return out, nil
}

func (m *mem) Fill() []Fill { return nil }

func (m *mem) list(open bool) (out []LUNStats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all(func(pool, name string, r *ram) {
		if r.open == open {
			out = append(out, LUNStats{Info: Info{Name: name, ID: r.id, Size: int64(len(r.b))}, Pool: pool})
		}
	})
	return out
}

func (m *mem) Stats() Stats         { return Stats{LUNs: m.list(true)} }
func (m *mem) Retained() []LUNStats { return m.list(false) }
func (m *mem) Close() error         { return nil }

func (m *mem) Delete(_ context.Context, name string) (Deleted, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fails("delete"); err != nil {
		return Deleted{}, err
	}
	for pool, luns := range m.data {
		if r := luns[name]; r != nil && !r.open {
			delete(luns, name)
			return Deleted{ID: r.id, Pool: pool}, nil
		}
	}
	return Deleted{}, ErrUnknown
}

func (m *mem) Check(context.Context, string, func(int64)) ([]string, error) { return nil, nil }

func (m *mem) Rename(_ context.Context, pool, from, to string, id [16]byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fails("rename " + from); err != nil {
		return err
	}
	luns := m.data[pool]
	if r := luns[to]; r != nil && r.id == id {
		return nil
	}
	r := luns[from]
	if r == nil {
		return ErrUnknown
	}
	r.mu.Lock()
	r.name, r.id = to, id
	r.mu.Unlock()
	delete(luns, from)
	luns[to] = r
	return m.fails("renamed " + from)
}

func (m *mem) Snapshots() (out []SnapshotStats) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all(func(pool, name string, r *ram) {
		for _, s := range r.snaps {
			out = append(out, SnapshotStats{Info: Info{Name: name + "@" + s}, Pool: pool})
		}
	})
	return out
}

func (m *mem) Snapshot(_ context.Context, name string, luns ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all(func(_, lun string, r *ram) {
		if lun == luns[0] {
			r.snaps = append(r.snaps, name)
		}
	})
	return nil
}

func (m *mem) Clone(context.Context, string, string) (LUN, error)      { return LUN{}, nil }
func (m *mem) Restore(context.Context, string, string, string) error   { return nil }
func (m *mem) DeleteSnapshot(context.Context, string) (Deleted, error) { return Deleted{}, nil }
func (r *ram) Usage() Usage                                            { return Usage{PoolSize: 1} }
func (r *ram) TryReadAt(p []byte, off int64) (bool, error) {
	return true, r.ReadAt(context.Background(), p, off)
}
func (r *ram) TryWriteAt([]byte, int64) (bool, error)      { return true, nil }
func (r *ram) StartReadAt([]byte, int64, func(bool)) bool  { return true }
func (r *ram) StartWriteAt([]byte, int64, func(bool)) bool { return true }

func (r *ram) Info() Info {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Info{Name: r.name, ID: r.id, Size: int64(len(r.b)), BlockSize: r.block, ReadOnly: r.failed}
}

// enter locks the LUN for an access that may fail.
func (r *ram) enter(what string, off, n int64) error {
	if off+n > r.Info().Size {
		return ErrRange
	}
	if err := r.of.fails(what + " " + r.pool); err != nil {
		return err
	}
	runtime.Gosched() // lets others in between
	r.mu.Lock()
	if !r.open {
		r.mu.Unlock()
		return ErrClosed
	}
	return nil
}

func (r *ram) ReadAt(_ context.Context, p []byte, off int64) error {
	if err := r.enter("read", off, int64(len(p))); err != nil {
		return err
	}
	defer r.mu.Unlock()
	copy(p, r.b[off:])
	return nil
}

func (r *ram) WriteAt(_ context.Context, p []byte, off int64, fua bool) error {
	if err := r.enter("write", off, int64(len(p))); err != nil {
		return err
	}
	defer r.mu.Unlock()
	r.put(p, off)
	for i := off / 4096; fua && i*4096 < off+int64(len(p)); i++ {
		delete(r.torn, i)
	}
	return nil
}

func (r *ram) put(p []byte, off int64) {
	r.change(off, int64(len(p)))
	copy(r.b[off:], p)
	for i := off / 4096; i <= (off+int64(len(p))-1)/4096; i++ {
		r.mapped[i] = true
	}
}

func (r *ram) Unmap(_ context.Context, off, n int64) error {
	if err := r.enter("unmap", off, n); err != nil {
		return err
	}
	defer r.mu.Unlock()
	r.change(off, n)
	clear(r.b[off : off+n])
	for i := off / 4096; i < (off+n)/4096; i++ {
		r.mapped[i] = false
	}
	return nil
}

func (r *ram) WriteZeroes(ctx context.Context, off, n int64) error {
	if err := r.enter("zero", off, n); err != nil {
		return err
	}
	defer r.mu.Unlock()
	r.change(off, n)
	clear(r.b[off : off+n])
	return nil
}

func (r *ram) CompareAndWrite(_ context.Context, old, data []byte, off int64) error {
	if err := r.enter("compare", off, int64(len(old))); err != nil {
		return err
	}
	defer r.mu.Unlock()
	if !bytes.Equal(r.b[off:off+int64(len(old))], old) {
		return &Miscompare{}
	}
	r.put(data, off)
	return nil
}

func (r *ram) Flush(context.Context) error {
	if err := r.enter("flush", 0, 0); err != nil {
		return err
	}
	clear(r.torn)
	r.mu.Unlock()
	return nil
}

func (r *ram) Extents(_ context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error {
	if err := r.enter("extents", off, n); err != nil {
		return err
	}
	mapped := append([]bool(nil), r.mapped...)
	r.mu.Unlock()
	for end := off + n; off < end; {
		next := off
		for next < end && mapped[next/4096] == mapped[off/4096] {
			next = min((next/4096+1)*4096, end)
		}
		if !yield(off, next-off, mapped[off/4096]) {
			return nil
		}
		off = next
	}
	return nil
}
