package raw

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/lun"
)

// TestSameBlocks: writers and unmappers of the same few blocks leave each
// block as one of them made it, and the bitmap as the file is.
func TestSameBlocks(t *testing.T) {
	const size = 8 * blockSize
	ctx := t.Context()
	e := newEngine(t, Options{})
	do(t, e, openPool(t.TempDir(), 1<<20), openLUN("l", size, 4096))
	v := vol(t, e, "l")
	for round := range 30 {
		var group sync.WaitGroup
		for i := range 4 {
			r := rand.New(rand.NewPCG(uint64(round), uint64(i)))
			page := bytes.Repeat([]byte{byte(i + 1)}, blockSize)
			group.Go(func() {
				for range 100 {
					off := r.Int64N(8) * blockSize
					err := v.WriteAt(ctx, page, off, false)
					if r.IntN(2) == 0 {
						err = errors.Join(err, v.Unmap(ctx, off, blockSize))
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		verify(t, e, "l")
	}
	got := make([]byte, size)
	must(t, v.ReadAt(ctx, got, 0))
	for off := 0; off < size; off += blockSize {
		if block := got[off : off+blockSize]; !bytes.Equal(block, bytes.Repeat(block[:1], blockSize)) {
			t.Errorf("the block at %d is of two writers", off)
		}
	}
}

// TestCompareAndWriteIsAtomic: nothing is lost of a counter that several
// increment, while plain writes change what stands beside it.
func TestCompareAndWriteIsAtomic(t *testing.T) {
	ctx := t.Context()
	e := newEngine(t, Options{})
	do(t, e, openPool(t.TempDir(), 1<<20), openLUN("l", 1<<20, 512))
	v := vol(t, e, "l")
	var group sync.WaitGroup
	var done atomic.Uint64
	for i := range 4 {
		group.Go(func() {
			old, data := make([]byte, 512), make([]byte, 512)
			for range 500 {
				if err := errors.Join(v.ReadAt(ctx, old, 0), v.WriteAt(ctx, data, int64(1+i)*512, false)); err != nil {
					t.Error(err)
				}
				binary.LittleEndian.PutUint64(data, binary.LittleEndian.Uint64(old)+1)
				var miss *lun.Miscompare
				switch err := v.CompareAndWrite(ctx, old, data, 0); {
				case err == nil:
					done.Add(1)
				case !errors.As(err, &miss):
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	got := make([]byte, 512)
	must(t, v.ReadAt(ctx, got, 0))
	if n := binary.LittleEndian.Uint64(got); n != done.Load() || n < 500 {
		t.Errorf("the counter is %d after %d increments", n, done.Load())
	}
}

func TestReserve(t *testing.T) {
	const room = 2_000_000
	var p pool
	p.size.Store(room)
	var group sync.WaitGroup
	var got atomic.Int64
	start := make(chan struct{})
	for range 8 {
		group.Go(func() {
			<-start
			for p.reserve(1) {
				got.Add(1)
			}
		})
	}
	close(start)
	group.Wait()
	if got.Load() != room || p.used.Load() != room || p.reserve(1) {
		t.Errorf("gave out %d of %d, %d accounted", got.Load(), room, p.used.Load())
	}
}

// TestSharedSync: a sync serves none who asked after it began.
func TestSharedSync(t *testing.T) {
	var s syncer
	broken := errors.New("broken")
	began, release := make(chan struct{}), make(chan error)
	first, late := make(chan error), make(chan error)
	go func() {
		first <- s.wait(func() error {
			close(began)
			return <-release
		})
	}()
	<-began
	for range 8 {
		go func() { late <- s.wait(func() error { return broken }) }()
	}
	nettest.Eventually(t, 10*time.Second, "a late caller waits for the next sync", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.next != nil
	})
	release <- nil
	if err := <-first; err != nil {
		t.Errorf("the first: %v", err)
	}
	for range 8 {
		if err := <-late; !errors.Is(err, broken) {
			t.Errorf("a late one: %v", err)
		}
	}
}
