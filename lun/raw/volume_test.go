package raw

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"ripstop/internal/disktest"
	"ripstop/lun"
)

// part is sectors of a volume that one goroutine alone writes, so that it knows
// what must stand there. Neighbours share blocks of 4 KiB.
type part struct{ off, n int64 }

func parts(r *rand.Rand, size int64, workers int) [][]part {
	out := make([][]part, workers)
	for off := int64(0); off < size; {
		n := min(size-off, 512*(1+r.Int64N(40)))
		w := r.IntN(workers)
		out[w] = append(out[w], part{off, n})
		off += n
	}
	return out
}

// worker does random operations on its parts and keeps the model up to date.
type worker struct {
	t     *testing.T
	r     *rand.Rand
	v     *volume
	model []byte
	parts []part
}

func (w *worker) step() error {
	p := w.parts[w.r.IntN(len(w.parts))]
	from := w.r.Int64N(p.n / 512)
	n := 1 + w.r.Int64N(p.n/512-from)
	off := p.off + from*512
	want := w.model[off : off+n*512]
	data := make([]byte, len(want))
	ctx := w.t.Context()
	switch w.r.IntN(6) {
	case 0:
		clear(want)
		return w.v.Unmap(ctx, off, n*512)
	case 1:
		clear(want)
		return w.v.WriteZeroes(ctx, off, n*512)
	case 2:
		if err := w.read(data, off); err != nil {
			return err
		}
		if !bytes.Equal(data, want) {
			w.t.Errorf("read other data at %d", off)
		}
		return nil
	case 3:
		return w.compare(want, data, off)
	}
	w.fill(data)
	copy(want, data)
	switch w.r.IntN(3) {
	case 0:
		if done, err := w.v.TryWriteAt(data, off); done || err != nil {
			return err
		}
	case 1:
		ended := make(chan bool, 1)
		if w.v.StartWriteAt(data, off, func(ok bool) { ended <- ok }) && <-ended {
			return nil
		}
	}
	return w.v.WriteAt(ctx, data, off, w.r.IntN(20) == 0)
}

// read reads in one of the ways that there are.
func (w *worker) read(p []byte, off int64) error {
	switch w.r.IntN(3) {
	case 0:
		if done, err := w.v.TryReadAt(p, off); done || err != nil {
			return err
		}
	case 1:
		ended := make(chan bool, 1)
		if w.v.StartReadAt(p, off, func(ok bool) { ended <- ok }) && <-ended {
			return nil
		}
	}
	return w.v.ReadAt(w.t.Context(), p, off)
}

func (w *worker) fill(p []byte) {
	for i := range p {
		p[i] = byte(1 + w.r.IntN(255))
	}
}

func (w *worker) compare(want, data []byte, off int64) error {
	w.fill(data)
	wrong := bytes.Clone(want)
	at := w.r.IntN(len(wrong))
	wrong[at]++
	var miss *lun.Miscompare
	if err := w.v.CompareAndWrite(w.t.Context(), wrong, data, off); !errors.As(err, &miss) || miss.Offset != int64(at) {
		w.t.Errorf("compare with byte %d wrong at %d: %v", at, off, err)
	}
	old := bytes.Clone(want)
	copy(want, data)
	return w.v.CompareAndWrite(w.t.Context(), old, data, off)
}

// TestModel lets goroutines that share blocks work at random, and then compares
// content, bitmap, holes and accounts; and once more after opening anew.
func TestModel(t *testing.T) {
	const half, size = 3<<20 + 512, 6<<20 + 5*512
	for seed, way := range []string{"", "", "direct", "direct in blocks", "both"} {
		seed := uint64(seed)
		r := rand.New(rand.NewPCG(seed, 3))
		dir := t.TempDir()
		e := newEngine(t, Options{Ring: disktest.Ring(t, 16)})
		do(t, e, openPool(dir, 64<<20), openLUN("l", half, 512))
		v := vol(t, e, "l")
		setWay(t, e, v, way)
		model := make([]byte, size)
		var group sync.WaitGroup
		work := func(in [][]part, offset int64, steps int) {
			for i, ps := range in {
				for j := range ps {
					ps[j].off += offset
				}
				w := &worker{t, rand.New(rand.NewPCG(seed, uint64(i))), v, model, ps}
				group.Go(func() {
					for range steps {
						if err := w.step(); err != nil {
							t.Error(err)
						}
					}
				})
			}
		}
		work(parts(r, half, 4), 0, 300)
		group.Go(func() {
			for range 20 {
				if err := v.Extents(t.Context(), 0, half, func(int64, int64, bool) bool { return true }); err != nil {
					t.Error(err)
				}
				e.Stats()
			}
		})
		if way == "both" {
			group.Go(func() { switchWays(t, e) })
		}
		do(t, e, lun.GrowLUN{Name: "l", From: half, To: size})
		work(parts(r, size-half, 2), half, 300)
		group.Wait()
		compareAll(t, e, model)
		must(t, e.Close())
		e = newEngine(t, Options{})
		do(t, e, openPool(dir, 64<<20), openLUN("l", size, 512))
		compareAll(t, e, model)
	}
}

func compareAll(t *testing.T, e *Engine, model []byte) {
	t.Helper()
	verify(t, e, "l")
	v := vol(t, e, "l")
	got := make([]byte, len(model))
	must(t, v.ReadAt(t.Context(), got, 0))
	if !bytes.Equal(got, model) {
		t.Fatalf("content differs first at byte %d", firstDifference(got, model))
	}
	var next, sum int64
	last := -1
	must(t, v.Extents(t.Context(), 0, int64(len(model)), func(off, n int64, mapped bool) bool {
		kind := 0
		if mapped {
			kind = 1
			sum += up(off+n) - off
		} else if !bytes.Equal(model[off:off+n], make([]byte, n)) {
			t.Fatalf("%d bytes at %d are not mapped and hold data", n, off)
		}
		if off != next || n <= 0 || kind == last {
			t.Fatalf("run of %d at %d after %d, kind %d after %d", n, off, next, kind, last)
		}
		next, last = off+n, kind
		return true
	}))
	if next != int64(len(model)) || sum != v.used.Load() {
		t.Fatalf("runs end at %d of %d and map %d of %d", next, len(model), sum, v.used.Load())
	}
}

func TestRanges(t *testing.T) {
	e := newEngine(t, Options{})
	do(t, e, openPool(t.TempDir(), 1<<20), openLUN("l", 40<<20>>4, 4096))
	v := vol(t, e, "l")
	size := v.Info().Size
	tests := []struct {
		name   string
		off, n int64
	}{
		{"before", -4096, 4096}, {"behind", size, 4096}, {"across the end", size - 4096, 8192},
		{"odd offset", 512, 4096}, {"odd length", 0, 512}, {"overflow", 1<<63 - 4096, 4096}, {"negative", 0, -4096},
	}
	ctx := t.Context()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := make([]byte, max(0, tt.n))
			errs := []error{
				v.Unmap(ctx, tt.off, tt.n), v.WriteZeroes(ctx, tt.off, tt.n),
				v.Extents(ctx, tt.off, tt.n, func(int64, int64, bool) bool { return true }),
			}
			if tt.n > 0 {
				errs = append(errs, v.ReadAt(ctx, p, tt.off), v.WriteAt(ctx, p, tt.off, false), v.CompareAndWrite(ctx, p, p, tt.off))
			}
			for i, err := range errs {
				if !errors.Is(err, lun.ErrRange) {
					t.Errorf("operation %d: %v", i, err)
				}
			}
		})
	}
	must(t, errors.Join(v.ReadAt(ctx, nil, size), v.WriteAt(ctx, nil, size, true), v.Unmap(ctx, 0, 0), v.CompareAndWrite(ctx, nil, nil, 0)))
	if err := v.CompareAndWrite(ctx, make([]byte, 4096), nil, 0); !errors.Is(err, lun.ErrRange) {
		t.Errorf("unequal lengths: %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	for i, err := range []error{v.ReadAt(gone, nil, 0), v.Unmap(gone, 0, 4096), v.Flush(gone), e.Do(gone, openLUN("x", 4096, 4096))} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("operation %d with a cancelled context: %v", i, err)
		}
	}
	calls := 0
	must(t, v.WriteAt(ctx, make([]byte, 4096), 4096, false))
	must(t, v.Extents(ctx, 0, size, func(int64, int64, bool) bool { calls++; return false }))
	if calls != 1 {
		t.Errorf("yielded %d times after false", calls)
	}
}

// TestUnmapGivesBack: a whole range costs nothing after Unmap, however ragged
// the writes were, and pieces are joined over their borders.
func TestUnmapGivesBack(t *testing.T) {
	e := newEngine(t, Options{})
	const size = 40<<20 + 512
	do(t, e, openPool(t.TempDir(), 64<<20), openLUN("l", size, 512))
	v := vol(t, e, "l")
	ctx := t.Context()
	for _, off := range []int64{0, 16<<20 - 512, 16 << 20, 40<<20 - 512, 40 << 20} {
		must(t, v.WriteAt(ctx, bytes.Repeat([]byte{7}, 512), off, false))
	}
	if v.used.Load() != 5*4096 {
		t.Errorf("%d bytes used, want 5 blocks", v.used.Load())
	}
	must(t, v.WriteZeroes(ctx, 0, size))
	must(t, v.Unmap(ctx, 512, 1024))
	if v.used.Load() != 5*4096 {
		t.Errorf("%d bytes used after zeros, want 5 blocks still", v.used.Load())
	}
	must(t, v.Unmap(ctx, 0, size))
	verify(t, e, "l")
	if v.used.Load() != 0 {
		t.Errorf("%d bytes used after all was unmapped", v.used.Load())
	}
}

func TestBitmap(t *testing.T) {
	const n = 3*chunkBits + 7
	r := rand.New(rand.NewPCG(1, 4))
	var b bitmap
	b.grow(n / 2)
	model := make([]bool, n)
	for i := range 400 {
		if i == 200 {
			b.grow(n)
		}
		limit := int64(n / 2)
		if i >= 200 {
			limit = n
		}
		from := r.Int64N(limit)
		end := min(limit, from+r.Int64N(1<<r.IntN(16)))
		mapped := r.IntN(2) == 0
		b.set(from, end, mapped)
		var count int64
		for j := from; j < end; j++ {
			model[j] = mapped
		}
		from = r.Int64N(from + 1)
		for j := from; j < end; j++ {
			if model[j] {
				count++
			}
		}
		if got := b.count(from, end); got != count {
			t.Fatalf("step %d: %d mapped from %d to %d, want %d", i, got, from, end, count)
		}
		if from == end {
			continue
		}
		run, is := b.run(from, end)
		want := from
		for want < end && model[want] == model[from] {
			want++
		}
		if is != model[from] || run != want-from {
			t.Fatalf("step %d: run of %d %t at %d, want %d %t", i, run, is, from, want-from, model[from])
		}
	}
}
