package engine

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"ripstop/lun"
	"ripstop/lun/thin/thintest"
)

// memory is a pool file in memory that counts what is done to it, and whose bytes
// from one place on cannot be read on demand.
type memory struct {
	*thintest.Disk
	used     bool
	accesses atomic.Int64
	bad      atomic.Int64 // 0 is none
}

func newMemory() *memory {
	m := &memory{Disk: thintest.New(1, 0)}
	m.Inject(func(op thintest.Op, off, n int64) error {
		m.accesses.Add(1)
		if bad := m.bad.Load(); bad != 0 && op == thintest.Read && off <= bad && bad < off+n {
			return errors.New("a bad place")
		}
		return nil
	})
	return m
}

func (m *memory) Fresh() bool          { return !m.used }
func (m *memory) IsDevice() bool       { return false }
func (m *memory) Direct() bool         { return false }
func (m *memory) SetDirect(bool) error { return nil }
func (m *memory) Close() error         { return nil }

// TestChores: in quiet hours a pool is healed, gives space back and is read, while
// busy only read slowly; then it is left alone.
func TestChores(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		disk, log := newMemory(), &strings.Builder{}
		e := New(slog.New(slog.NewTextHandler(log, nil)), Options{Open: func(string, bool) (File, error) { return disk, nil }})
		done := make(chan error)
		served, end := context.WithCancel(ctx)
		go func() { done <- e.Serve(served, func() {}) }()
		become(t, e, lun.State{
			Pools: map[string]lun.Pool{"main": main("/p", 64<<20)},
			LUNs:  map[string]lun.LUN{"a": {Pool: "main", Size: 32 << 20, Block: 4096}},
		})
		v, pool := volumeOf(t, e, "a"), e.pools["main"]
		health := func() lun.Health { return e.Stats().Pools[0].Health }
		// Apart: every other block is written behind a snapshot, which then goes.
		must(t, v.WriteAt(ctx, pattern(16<<20, 1), 0, true))
		must(t, pool.thin.Snapshot(ctx, "s", "a"))
		for off := int64(0); off < 8<<20; off += 8192 {
			must(t, v.WriteAt(ctx, pattern(4096, 2), off, false))
		}
		must(t, v.Flush(ctx))
		must(t, pool.thin.Delete(ctx, "a@s"))
		must(t, v.Unmap(ctx, 12<<20, 4<<20))
		must(t, v.Flush(ctx))
		held := pool.thin.Usage().Data
		must(t, v.Unmap(ctx, 10<<20, 2<<20))
		time.Sleep(time.Second)
		before := pool.thin.Usage().Data
		if before > held-2<<20 {
			t.Errorf("a second after an UNMAP of 2 MiB the pool has %d, before it %d", before, held)
		}

		for range 60 { // busy
			must(t, v.ReadAt(ctx, make([]byte, 4096), 0))
			time.Sleep(time.Second)
		}
		if got := pool.thin.Usage().Data; got != before {
			t.Errorf("while it is busy, data went from %d to %d", before, got)
		}
		if h := health(); h.Scrubbed.IsZero() {
			t.Errorf("a minute is enough to read 12 MiB slowly: %+v", h)
		}
		time.Sleep(time.Minute) // quiet
		if got := pool.thin.Usage().Data; got > before-7<<20 {
			t.Errorf("in quiet hours, data went from %d to %d", before, got)
		}
		if h := health(); h.Unhealed != 0 || h.Bad != 0 {
			t.Errorf("after quiet hours: %+v", h)
		}
		idle := disk.accesses.Load()
		time.Sleep(time.Hour)
		if n := disk.accesses.Load() - idle; n != 0 {
			t.Errorf("there is nothing to do, and %d accesses in an hour", n)
		}

		// A place goes bad, and the next scrub finds it.
		first := health().Scrubbed
		disk.bad.Store(placeOf(t, disk, v))
		time.Sleep(8 * 24 * time.Hour)
		if h := health(); h.Bad != 4096 || !h.Scrubbed.After(first) {
			t.Errorf("with a bad place: %+v", h)
		}
		if bad := e.Bad(); bad["main"] != 4096 || !strings.Contains(log.String(), `"data cannot be read" pool=main lun=a`) {
			t.Errorf("known to be bad is %v, and the log has\n%s", bad, log)
		}
		end()
		must(t, <-done)
		must(t, e.Close())
	})
}

// placeOf is a byte of the file that a read of the volume's first block reads.
func placeOf(t *testing.T, disk *memory, v lun.Volume) (place int64) {
	t.Helper()
	disk.Inject(func(op thintest.Op, off, n int64) error {
		if op == thintest.Read && place == 0 {
			place = off
		}
		disk.accesses.Add(1)
		if bad := disk.bad.Load(); bad != 0 && op == thintest.Read && off <= bad && bad < off+n {
			return errors.New("a bad place")
		}
		return nil
	})
	must(t, v.ReadAt(t.Context(), make([]byte, 4096), 0))
	return place
}
