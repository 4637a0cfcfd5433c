package backup

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ripstop/internal/zeros"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mem is a store in memory, whose clock is the test's.
type mem struct {
	mu      sync.Mutex
	objects map[string]memObject
	now     time.Time
	ops     int
	before  func(op int, what, name string) error // each access; it may use the store
}

type memObject struct {
	p  []byte
	at time.Time
}

func newMem() *mem {
	return &mem{objects: map[string]memObject{}, now: time.Date(2026, 1, 5, 0, 0, 0, 0, time.UTC)}
}

func (m *mem) step(ctx context.Context, what, name string) error {
	m.mu.Lock()
	m.ops++
	op, before := m.ops, m.before
	m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if before != nil {
		return before(op, what, name)
	}
	return nil
}

func (m *mem) Put(ctx context.Context, name string, p []byte) error {
	if err := m.step(ctx, "put", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.objects[name] = memObject{bytes.Clone(p), m.now}
	return nil
}

func (m *mem) Get(ctx context.Context, name string, limit int64) ([]byte, error) {
	if err := m.step(ctx, "get", name); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, ok := m.objects[name]
	if !ok {
		return nil, ErrNotFound
	}
	if int64(len(o.p)) > limit {
		return nil, damaged(name, "too long")
	}
	return bytes.Clone(o.p), nil
}

func (m *mem) List(ctx context.Context, prefix string, yield func(Object) bool) error {
	if err := m.step(ctx, "list", prefix); err != nil {
		return err
	}
	m.mu.Lock()
	all := maps.Clone(m.objects)
	m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if strings.HasPrefix(name, prefix) && !yield(Object{name, int64(len(all[name].p)), all[name].at}) {
			break
		}
	}
	return nil
}

func (m *mem) Delete(ctx context.Context, name string) error {
	if err := m.step(ctx, "delete", name); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.objects, name)
	return nil
}

// names is the objects of a directory.
func (m *mem) names(prefix string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(m.objects)), func(n string) bool { return !strings.HasPrefix(n, prefix) })
}

// bytes is the sum of all chunks.
func (m *mem) bytes() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, o := range m.objects {
		if strings.HasPrefix(name, chunksDir) {
			n += len(o.p)
		}
	}
	return n
}

func (m *mem) advance(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now = m.now.Add(d)
}

var errKilled = errors.New("killed")

// testKey is a key that is always the same.
func testKey(t testing.TB, first byte) *Key {
	t.Helper()
	k := Key{}
	k.secret[0] = first
	return &k
}

func newRepo(t testing.TB, m *mem, key *Key) *Repo {
	t.Helper()
	r, err := Init(t.Context(), m, key, minChunk)
	must(t, err)
	r.poll = time.Millisecond
	return r
}

// reopen is another process.
func reopen(t testing.TB, m *mem, key *Key) *Repo {
	t.Helper()
	r, err := Open(t.Context(), m, key)
	must(t, err)
	r.poll = time.Millisecond
	return r
}

// model is a disk, and where it was changed since its last backup.
type model struct {
	data    []byte
	changed map[int64]bool // chunks
}

func newModel(size int64) *model { return &model{make([]byte, size), map[int64]bool{}} }

func (d *model) write(off int64, p []byte) {
	copy(d.data[off:], p)
	for c := off / minChunk; c*minChunk < off+int64(len(p)); c++ {
		d.changed[c] = true
	}
}

// backUp makes a backup of all, or of what changed since a parent.
func backUp(ctx context.Context, r *Repo, d *model, parent *Backup, at time.Time) (Backup, error) {
	w, err := r.Begin(ctx, Backup{Host: "h", LUN: "data", Created: at, Size: int64(len(d.data)), Block: 512}, parent)
	if err != nil {
		return Backup{}, err
	}
	defer w.Close()
	for c := int64(0); c*minChunk < int64(len(d.data)); c++ {
		p := d.data[c*minChunk : min((c+1)*minChunk, int64(len(d.data)))]
		if parent != nil {
			if !d.changed[c] {
				continue
			}
			if err := w.Anew(c*minChunk, int64(len(p))); err != nil {
				return Backup{}, err
			}
		}
		for off := 0; off < len(p); off += 4096 { // as the daemon tells it: what is mapped
			if q := p[off:min(len(p), off+4096)]; !zeros.Only(q) {
				if err := w.Data(c*minChunk+int64(off), q); err != nil {
					return Backup{}, err
				}
			}
		}
	}
	b, err := w.Finish(ctx)
	if err == nil {
		clear(d.changed)
	}
	return b, err
}

// restore is what is read of a backup.
func restore(ctx context.Context, r *Repo, b Backup) ([]byte, error) {
	out, at := make([]byte, b.Size), int64(0)
	err := r.Read(ctx, b, func(off int64, p []byte) error {
		if off < at {
			return errors.New("not ascending")
		}
		at = off + int64(copy(out[off:], p))
		return nil
	})
	return out, err
}

// same demands that a backup is a disk.
func same(t testing.TB, r *Repo, b Backup, want []byte) {
	t.Helper()
	got, err := restore(t.Context(), r, b)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatalf("backup %s is another disk", b.ID)
	}
}
