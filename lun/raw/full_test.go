package raw

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/lun"
)

// TestFullPool: who finds no room writes nothing, and nobody else notices.
func TestFullPool(t *testing.T) {
	ctx := t.Context()
	e := newEngine(t, Options{})
	do(t, e, openPool(t.TempDir(), 1<<20), openLUN("a", 1<<20, 4096), openLUN("b", 2<<20, 512))
	a, b := vol(t, e, "a"), vol(t, e, "b")
	must(t, b.WriteAt(ctx, bytes.Repeat([]byte{1}, 8192), 0, false))
	must(t, a.WriteAt(ctx, bytes.Repeat([]byte{2}, 1<<20-8192), 0, false))

	over := bytes.Repeat([]byte{3}, 12288) // two blocks mapped, one not
	if err := b.WriteAt(ctx, over, 0, false); !errors.Is(err, lun.ErrNoSpace) {
		t.Fatalf("write over the pool's size: %v", err)
	}
	if err := b.CompareAndWrite(ctx, make([]byte, 512), over[:512], 8192); !errors.Is(err, lun.ErrNoSpace) {
		t.Errorf("compare and write over the pool's size: %v", err)
	}
	got := make([]byte, 12288)
	must(t, b.ReadAt(ctx, got, 0))
	if want := append(bytes.Repeat([]byte{1}, 8192), make([]byte, 4096)...); !bytes.Equal(got, want) {
		t.Error("a write that found no room changed something")
	}
	must(t, b.WriteAt(ctx, over[:8192], 0, true))
	must(t, a.WriteAt(ctx, over, 4096, true))
	must(t, a.WriteZeroes(ctx, 0, 1<<20))
	must(t, a.Unmap(ctx, 0, 4096))
	must(t, b.WriteAt(ctx, over, 0, false))
	verify(t, e, "a", "b")
	if got, want := b.Usage(), (lun.Usage{PoolSize: 1 << 20, PoolUsed: 1 << 20, Used: 12288}); got != want {
		t.Errorf("usage of a full pool is %+v, want %+v", got, want)
	}

	do(t, e, lun.SetPool{Name: "main", To: lun.Pool{Size: 800 << 10, Overcommit: 8}})
	must(t, a.Unmap(ctx, 4096, 4096))
	if err := a.WriteAt(ctx, over[:4096], 0, false); !errors.Is(err, lun.ErrNoSpace) {
		t.Errorf("write into a pool that became too small: %v", err)
	}
	must(t, a.WriteAt(ctx, over[:4096], 8192, false))
}

// TestRoomIsNeverPassed: many writers at once do not take more than there is.
func TestRoomIsNeverPassed(t *testing.T) {
	const room = 64 * blockSize
	e := newEngine(t, Options{})
	do(t, e, openPool(t.TempDir(), room), openLUN("a", 2*room, 4096), openLUN("b", 2*room, 4096))
	var group sync.WaitGroup
	var refused atomic.Int64
	for i, v := range []*volume{vol(t, e, "a"), vol(t, e, "b"), vol(t, e, "a"), vol(t, e, "b")} {
		r := rand.New(rand.NewPCG(uint64(i), 6))
		group.Go(func() {
			for range 400 {
				off, n := r.Int64N(120)*blockSize, (1+r.Int64N(8))*blockSize
				err := v.WriteAt(t.Context(), make([]byte, n), off, false)
				if errors.Is(err, lun.ErrNoSpace) {
					refused.Add(1)
					err = v.Unmap(t.Context(), off, n)
				}
				if err != nil {
					t.Error(err)
				}
				if used := v.pool.used.Load(); used > room {
					t.Errorf("%d of %d bytes used", used, room)
				}
			}
		})
	}
	group.Wait()
	if refused.Load() == 0 {
		t.Error("the pool was never full")
	}
	verify(t, e, "a", "b")
}

// TestFullDisk: a pool that promises more than its file system has.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	must(t, unix.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"))
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	ctx := t.Context()
	e := newEngine(t, Options{})
	do(t, e, openPool(filepath.Join(dir, "main"), 1<<30), openLUN("a", 64<<20, 4096), openLUN("b", 64<<20, 4096))
	a, b := vol(t, e, "a"), vol(t, e, "b")
	page := bytes.Repeat([]byte{4}, 64<<10)
	must(t, b.WriteAt(ctx, page, 0, true))
	var off int64
	var err error
	for ; err == nil && off < 4<<20; off += 64 << 10 {
		err = a.WriteAt(ctx, page, off, false)
	}
	if !errors.Is(err, lun.ErrNoSpace) {
		t.Fatalf("write to a full file system: %v", err)
	}
	verify(t, e, "a", "b")
	must(t, b.WriteAt(ctx, page, 0, true))
	// A full disk may still give single pages; fill it to the last.
	for err = nil; err == nil; off += 4096 {
		err = a.WriteAt(ctx, page[:4096], off, false)
	}
	wants(t, e.Do(ctx, openLUN("c", 1<<20, 4096)), "no space left on device: free space on the file system")
	wants(t, e.Do(ctx, lun.GrowLUN{Name: "b", To: 65 << 20}), "no space left on device: free space on the file system")
	if b.Info().Size != 64<<20 {
		t.Errorf("b has %d bytes after growing failed", b.Info().Size)
	}
	must(t, a.Unmap(ctx, 0, 1<<20))
	must(t, b.WriteAt(ctx, page, 1<<20, true))
	do(t, e, openLUN("c", 1<<20, 4096), lun.GrowLUN{Name: "b", To: 65 << 20})
	verify(t, e, "a", "b", "c")
}
