//go:build !race

// The race detector makes sync.Pool forget at random, so it counts nothing here.

package thin

import (
	"testing"
)

// flat is a file of plain memory, which allocates nothing itself.
type flat struct{ b []byte }

func (f *flat) ReadAt(p []byte, off int64) (int, error)  { return copy(p, f.b[off:]), nil }
func (f *flat) WriteAt(p []byte, off int64) (int, error) { return copy(f.b[off:], p), nil }
func (f *flat) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	f.ReadAt(p, off)
	done(true)
	return true
}

func (f *flat) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	f.WriteAt(p, off)
	done(true)
	return true
}

func (f *flat) Sync() error              { return nil }
func (f *flat) Size() (int64, error)     { return int64(len(f.b)), nil }
func (f *flat) Grow(int64) error         { return nil }
func (f *flat) Punch(int64, int64) error { return nil }

// TestSteadyPathAllocatesNothing: a read and an overwrite cost no memory.
func TestSteadyPathAllocatesNothing(t *testing.T) {
	ctx := t.Context()
	f := &flat{make([]byte, 32<<20)}
	must(t, Format(f, 4<<20))
	p, err := Open(ctx, f, Options{})
	must(t, err)
	v := create(t, p, "v", 8<<20)
	for _, n := range []int{4096, 256 << 10} {
		b := make([]byte, n)
		for range 3 { // the map is there, the intent is held, buffers have grown
			must(t, v.WriteAt(ctx, b, 3<<20, true))
		}
		if got := testing.AllocsPerRun(100, func() { must(t, v.WriteAt(ctx, b, 3<<20, false)) }); got > 0 {
			t.Errorf("a write of %d bytes allocates %v times", n, got)
		}
		if got := testing.AllocsPerRun(100, func() { must(t, v.ReadAt(ctx, b, 3<<20)) }); got > 0 {
			t.Errorf("a read of %d bytes allocates %v times", n, got)
		}
		ended := 0
		done := func(ok bool) {
			if ok {
				ended++
			}
		}
		if got := testing.AllocsPerRun(100, func() { v.StartWriteAt(b, 3<<20, done) }); got > 0 {
			t.Errorf("a write of %d bytes that does not wait allocates %v times", n, got)
		}
		if got := testing.AllocsPerRun(100, func() { v.StartReadAt(b, 3<<20, done) }); got > 0 {
			t.Errorf("a read of %d bytes that does not wait allocates %v times", n, got)
		}
		if ended != 202 {
			t.Errorf("%d of 202 accesses of %d bytes took the short way", ended, n)
		}
	}
}
