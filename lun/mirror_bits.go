package lun

import (
	"math/bits"
	"slices"
)

// Regions of a mirror are what its records count in: 1<<shift bytes each.
const (
	maxRegions  = 1 << 14 // so that a record holds them
	leastShift  = 20      // 1 MiB
	wordsRegion = 64
)

// regions is a bit for each region of a LUN.
type regions struct {
	shift uint
	words []uint64
}

// shiftFor is the size of regions for a LUN, as a power of two.
func shiftFor(size int64) uint {
	shift := uint(leastShift)
	for (size+1<<shift-1)>>shift > maxRegions {
		shift++
	}
	return shift
}

func newRegions(size int64) regions {
	shift := shiftFor(size)
	n := (size + 1<<shift - 1) >> shift
	return regions{shift, make([]uint64, (n+wordsRegion-1)/wordsRegion)}
}

// span is the numbers of the regions of n bytes at off, from first to before end.
func (r regions) span(off, n int64) (first, end int) {
	if n <= 0 {
		return 0, 0
	}
	return int(off >> r.shift), min(int((off+n-1)>>r.shift)+1, len(r.words)*wordsRegion)
}

func (r regions) has(i int) bool { return r.words[i/wordsRegion]&(1<<(i%wordsRegion)) != 0 }
func (r regions) set(i int)      { r.words[i/wordsRegion] |= 1 << (i % wordsRegion) }
func (r regions) drop(i int)     { r.words[i/wordsRegion] &^= 1 << (i % wordsRegion) }

// all tells whether every region of n bytes at off is in it.
func (r regions) all(off, n int64) bool {
	for i, end := r.span(off, n); i < end; i++ {
		if !r.has(i) {
			return false
		}
	}
	return true
}

func (r regions) add(off, n int64) {
	for i, end := r.span(off, n); i < end; i++ {
		r.set(i)
	}
}

func (r regions) clone() regions { return regions{r.shift, slices.Clone(r.words)} }

// join adds those of another of the same shift.
func (r regions) join(o regions) {
	for i := range min(len(r.words), len(o.words)) {
		r.words[i] |= o.words[i]
	}
}

// meet leaves those that are in both.
func (r regions) meet(o regions) {
	for i := range r.words {
		if i >= len(o.words) {
			r.words[i] = 0
		} else {
			r.words[i] &= o.words[i]
		}
	}
}

func (r regions) fill() {
	for i := range r.words {
		r.words[i] = ^uint64(0)
	}
}

// count is how many regions of a LUN of size are in it.
func (r regions) count(size int64) (n int) {
	last := int((size + 1<<r.shift - 1) >> r.shift)
	for i, w := range r.words {
		if rest := last - i*wordsRegion; rest < wordsRegion {
			w &= 1<<max(rest, 0) - 1
		}
		n += bits.OnesCount64(w)
	}
	return n
}

// fit is the same for a LUN of another size: with it regions may become larger, and
// one that has a part of one that is in r is in it. A region beyond the former end is
// not.
func (r regions) fit(size int64) regions {
	out := newRegions(size)
	for i := range len(r.words) * wordsRegion {
		if !r.has(i) {
			continue
		}
		off, end := int64(i)<<r.shift, int64(i+1)<<r.shift
		for j := off >> out.shift; j<<out.shift < end && int(j) < len(out.words)*wordsRegion; j++ {
			out.set(int(j))
		}
	}
	return out
}
