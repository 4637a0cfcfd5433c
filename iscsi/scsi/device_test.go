package scsi

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
)

// memory is a Device in memory that checks its contract: ranges lie inside it
// and are whole blocks.
type memory struct {
	t    testing.TB
	info Info

	mu      sync.Mutex
	data    []byte
	mapped  []bool // by block
	flushes int
	forced  int // writes with fua
	calls   []string

	fault func(verb string, off int64) error // nil: none
}

func newMemory(t testing.TB, blocks, blockSize int) *memory {
	m := &memory{t: t, data: make([]byte, blocks*blockSize), mapped: make([]bool, blocks)}
	m.info = Info{Name: "db", ID: [16]byte{1, 2, 3, 15: 9}, Size: int64(blocks * blockSize), BlockSize: blockSize}
	return m
}

func (m *memory) begin(ctx context.Context, verb string, off, n int64) error {
	bs := int64(m.info.BlockSize)
	if off < 0 || n <= 0 || off%bs != 0 || n%bs != 0 || off > m.info.Size-n {
		m.t.Errorf("%s of %d bytes at %d is outside the contract", verb, n, off)
	}
	m.calls = append(m.calls, fmt.Sprintf("%s %d+%d", verb, off/bs, n/bs))
	if m.fault != nil {
		if err := m.fault(verb, off); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (m *memory) Info() Info {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.info
}

func (m *memory) ReadAt(ctx context.Context, p []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "read", off, int64(len(p))); err != nil {
		return err
	}
	copy(p, m.data[off:])
	return nil
}

func (m *memory) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "write", off, int64(len(p))); err != nil {
		return err
	}
	if fua {
		m.forced++
	}
	m.put(p, off)
	return nil
}

func (m *memory) put(p []byte, off int64) {
	copy(m.data[off:], p)
	m.mark(off, int64(len(p)), true)
}

func (m *memory) mark(off, n int64, mapped bool) {
	bs := int64(m.info.BlockSize)
	for i := off / bs; i < (off+n)/bs; i++ {
		m.mapped[i] = mapped
	}
}

func (m *memory) Unmap(ctx context.Context, off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "unmap", off, n); err != nil {
		return err
	}
	clear(m.data[off : off+n])
	m.mark(off, n, false)
	return nil
}

func (m *memory) WriteZeroes(ctx context.Context, off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "zero", off, n); err != nil {
		return err
	}
	clear(m.data[off : off+n])
	m.mark(off, n, true)
	return nil
}

func (m *memory) CompareAndWrite(ctx context.Context, old, data []byte, off int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.begin(ctx, "compare", off, int64(len(old))); err != nil {
		return err
	}
	now := m.data[off : off+int64(len(old))]
	if !bytes.Equal(old, now) {
		return &Miscompare{Offset: int64(mismatch(old, now))}
	}
	m.put(data, off)
	return nil
}

func (m *memory) Flush(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.flushes++
	m.calls = append(m.calls, "flush")
	if m.fault != nil {
		return m.fault("flush", 0)
	}
	return ctx.Err()
}

func (m *memory) Extents(_ context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	bs := int64(m.info.BlockSize)
	for at := off; at < off+n; at += bs {
		if !yield(at, bs, m.mapped[at/bs]) {
			return nil
		}
	}
	return nil
}

func (m *memory) lastCall() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.calls) == 0 {
		return ""
	}
	return m.calls[len(m.calls)-1]
}
