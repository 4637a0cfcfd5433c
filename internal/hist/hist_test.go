package hist

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"
)

// TestBoundsAndIndexAgree walks over every bucket: each begins right behind the
// one before, and is at most an eighth of its beginning wide.
func TestBoundsAndIndexAgree(t *testing.T) {
	first := time.Duration(0)
	for i := range overflow {
		last := Bound(i)
		if index(first) != i || index(last) != i || index(last+1) != i+1 {
			t.Fatalf("bucket %d from %d to %d: index %d, %d, %d", i, first, last, index(first), index(last), index(last+1))
		}
		if wide := last - first; wide > max(first/8, 1<<unitBits) {
			t.Errorf("bucket %d from %v is %v wide", i, first, wide)
		}
		first = last + 1
	}
	if first != 1<<topBits || index(math.MaxInt64) != overflow || Bound(overflow) != math.MaxInt64 {
		t.Errorf("the last bucket begins at %v", first)
	}
}

// sample is durations of many sizes.
func sample(r *rand.Rand, n int) []time.Duration {
	all := make([]time.Duration, n)
	mean, spread := r.Float64()*20+8, r.Float64()*4 // powers of two
	for i := range all {
		all[i] = time.Duration(math.Exp2(mean + r.NormFloat64()*spread))
	}
	return all
}

func observe(h *Histogram, all []time.Duration) {
	for _, d := range all {
		h.Observe(d)
	}
}

// check compares a snapshot with the sorted observations.
func check(t *testing.T, s *Snapshot, sorted []time.Duration) {
	t.Helper()
	var sum time.Duration
	for _, d := range sorted {
		sum += d
	}
	n := len(sorted)
	if s.Count() != uint64(n) || s.Sum != sum || s.Max != sorted[n-1] || s.Mean() != sum/time.Duration(n) {
		t.Fatalf("count %d, sum %v, max %v, mean %v of %d, %v, %v", s.Count(), s.Sum, s.Max, s.Mean(), n, sum, sorted[n-1])
	}
	for _, q := range []float64{0, 0.001, 0.25, 0.5, 0.9, 0.99, 0.999, 1} {
		rank := max(int(math.Ceil(q*float64(n))), 1)
		want, got := sorted[rank-1], s.Quantile(q)
		if want < 1<<topBits && (got < want || got > want+max(want/8, 1<<unitBits)) {
			t.Errorf("quantile %v of %d is %v, truly %v", q, n, got, want)
		}
	}
}

// TestQuantiles compares with sorted samples of many shapes and sizes.
func TestQuantiles(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		all := sample(r, 1+r.IntN(3000))
		var h Histogram
		observe(&h, all)
		slices.Sort(all)
		s := h.Snapshot()
		check(t, &s, all)
	}
}

// TestMerge adds parts up: it is as if one had seen all.
func TestMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		var whole []time.Duration
		var sum Snapshot
		for range 1 + r.IntN(5) {
			var h Histogram
			part := sample(r, 1+r.IntN(500))
			observe(&h, part)
			s := h.Snapshot()
			sum.Merge(&s)
			whole = append(whole, part...)
		}
		slices.Sort(whole)
		check(t, &sum, whole)
	}
}

func TestEdges(t *testing.T) {
	var h Histogram
	s := h.Snapshot()
	if s.Count() != 0 || s.Quantile(0.5) != 0 || s.Mean() != 0 || s.Max != 0 {
		t.Errorf("of nothing: %d, %v, %v, %v", s.Count(), s.Quantile(0.5), s.Mean(), s.Max)
	}
	h.Observe(-time.Second)
	h.Observe(time.Hour)
	s = h.Snapshot()
	if s.Counts[0] != 1 || s.Counts[overflow] != 1 || s.Quantile(0.5) != 127 || s.Quantile(1) != time.Hour || s.Max != time.Hour {
		t.Errorf("of -1s and 1h: %v", s)
	}
}

// TestSnapshotsHoldTogether reads while others write: the parts of each snapshot
// belong together, nothing goes back, and in the end all is there.
func TestSnapshotsHoldTogether(t *testing.T) {
	const writers, each = 4, 20000
	var h Histogram
	var running sync.WaitGroup
	for w := range writers {
		running.Go(func() {
			r := rand.New(rand.NewPCG(5, uint64(w)))
			for range each {
				h.Observe(time.Duration(r.IntN(1 << 30)))
			}
		})
	}
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	var before uint64
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
		}
		s := h.Snapshot()
		if n := s.Count(); n < before {
			t.Fatalf("%d observations after %d", n, before)
		} else {
			before = n
		}
		var most time.Duration // that Sum may be
		for i, n := range s.Counts {
			if n > 0 && i > 0 && Bound(i-1) >= s.Max {
				t.Fatalf("something above the maximum %v in bucket %d", s.Max, i)
			}
			most += time.Duration(n) * min(Bound(i), s.Max)
		}
		if s.Sum > most {
			t.Fatalf("sum %v, the counts allow %v", s.Sum, most)
		}
	}
	if before != writers*each {
		t.Errorf("%d observations", before)
	}
}

func TestGauge(t *testing.T) {
	var g Gauge
	var running sync.WaitGroup
	for range 8 {
		running.Go(func() {
			for range 1000 {
				g.Add(1)
				if g.Now() < 1 || g.Max() < 1 {
					t.Error("the own one is missing")
				}
				g.Add(-1)
			}
		})
	}
	running.Wait()
	if g.Now() != 0 || g.Max() < 1 || g.Max() > 8 {
		t.Errorf("now %d, at most %d", g.Now(), g.Max())
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	var h Histogram
	var g Gauge
	d := time.Duration(0)
	if n := testing.AllocsPerRun(1000, func() { d += 977; h.Observe(d); g.Add(1); g.Add(-1) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	var h Histogram
	d := time.Duration(0)
	for b.Loop() {
		d = (d*1103515245 + 12345) & (1<<27 - 1)
		h.Observe(d)
	}
}

func BenchmarkObserveShared(b *testing.B) {
	var h Histogram
	b.RunParallel(func(pb *testing.PB) {
		d := time.Duration(0)
		for pb.Next() {
			d = (d*1103515245 + 12345) & (1<<27 - 1)
			h.Observe(d)
		}
	})
}

func BenchmarkNow(b *testing.B) {
	for b.Loop() {
		time.Now()
	}
}
