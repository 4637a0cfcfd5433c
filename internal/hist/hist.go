// Package hist counts durations where every nanosecond matters: a Histogram is
// written to by any number of goroutines without a lock and without an
// allocation, and read as a Snapshot, a plain value that can be merged and asked
// for quantiles.
//
//	128 ns   1 µs         2 µs                  137 s
//	 ├┼┼┼┼┼┼┼┼─┼─┼─┼─┼─┼─┼─┼─┼── ── ── … ── ── ──┼─────►
//	  8 equal    8 per power of two               the rest
//
// # Caveats
//
// Durations below 1.024 µs are told apart by steps of 128 ns, and those of 137 s
// and more not at all, but for Max.
package hist

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	subBits  = 3                  // 2^3 buckets in each power of two
	unitBits = 7                  // the first buckets are 2^7 ns wide
	linear   = subBits + unitBits // and all below 2^10 ns
	topBits  = 37                 // from 2^37 ns on there is one bucket
	perPower = 1 << subBits
	overflow = (topBits - linear + 1) << subBits // the index of the last bucket
	buckets  = overflow + 1
)

// Histogram is the distribution of durations. The zero value is empty. It is
// safe for concurrent use and must not be copied.
type Histogram struct {
	max    atomic.Int64
	counts [buckets]atomic.Uint64
	sum    atomic.Int64
}

// Observe counts d; what is negative counts as 0. It does not allocate.
func (h *Histogram) Observe(d time.Duration) {
	// The order is that of Snapshot turned round: what it finds in the sum it
	// finds in the buckets, and what it finds there is not above the maximum.
	d = max(d, 0)
	raise(&h.max, int64(d))
	h.counts[index(d)].Add(1)
	h.sum.Add(int64(d))
}

// raise makes at least v of a.
func raise(a *atomic.Int64, v int64) {
	for {
		was := a.Load()
		if v <= was || a.CompareAndSwap(was, v) {
			return
		}
	}
}

// index is the bucket of d, which is not negative.
func index(d time.Duration) int {
	n := bits.Len64(uint64(d))
	switch {
	case n <= linear:
		return int(d >> unitBits)
	case n > topBits:
		return overflow
	}
	return (n-linear)<<subBits + int(d>>(n-1-subBits))&(perPower-1)
}

// Bound is the longest duration that counts in bucket i of a Snapshot.
func Bound(i int) time.Duration {
	switch {
	case i < perPower:
		return time.Duration(i+1)<<unitBits - 1
	case i >= overflow:
		return math.MaxInt64
	}
	power, step := i>>subBits, i&(perPower-1)
	return time.Duration(perPower+step+1)<<(power-1+unitBits) - 1
}

// Snapshot copies the histogram. What is observed meanwhile is in it as a whole
// or, in part, left out of Sum: Sum never holds what Counts do not, and Counts
// nothing above Max.
func (h *Histogram) Snapshot() Snapshot {
	var s Snapshot
	s.Sum = time.Duration(h.sum.Load())
	for i := range h.counts {
		s.Counts[i] = h.counts[i].Load()
	}
	s.Max = time.Duration(h.max.Load())
	return s
}

// Snapshot is a Histogram at one moment.
type Snapshot struct {
	Counts [buckets]uint64 // observations of at most Bound(i), and more than Bound(i-1)
	Sum    time.Duration
	Max    time.Duration
}

// Merge adds the observations of o.
func (s *Snapshot) Merge(o *Snapshot) {
	for i, n := range &o.Counts {
		s.Counts[i] += n
	}
	s.Sum += o.Sum
	s.Max = max(s.Max, o.Max)
}

// Count is the number of observations.
func (s *Snapshot) Count() uint64 {
	var n uint64
	for _, c := range &s.Counts {
		n += c
	}
	return n
}

// Mean is the arithmetic mean, 0 of nothing.
func (s *Snapshot) Mean() time.Duration {
	n := s.Count()
	if n == 0 {
		return 0
	}
	return s.Sum / time.Duration(n)
}

// Quantile is the duration that a share q (0 to 1) of the observations do not
// exceed, by nearest rank: never less than the true one, and at most an eighth or
// 128 ns more. Of nothing it is 0.
func (s *Snapshot) Quantile(q float64) time.Duration {
	n := s.Count()
	if n == 0 {
		return 0
	}
	rank := uint64(math.Ceil(q * float64(n)))
	rank = min(max(rank, 1), n)
	var below uint64
	for i, c := range &s.Counts {
		if below += c; below >= rank {
			return min(Bound(i), s.Max)
		}
	}
	return s.Max
}

// Gauge is a number that goes up and down, and the highest that it was. The zero
// value stands at 0. It is safe for concurrent use and must not be copied.
type Gauge struct{ now, top atomic.Int64 }

// Add changes the number by n.
func (g *Gauge) Add(n int64) { raise(&g.top, g.now.Add(n)) }

// Now is the number.
func (g *Gauge) Now() int64 { return g.now.Load() }

// Max is the highest that the number was, at least 0.
func (g *Gauge) Max() int64 { return g.top.Load() }
