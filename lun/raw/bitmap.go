package raw

import (
	"math/bits"
	"sync/atomic"
)

const (
	blockSize = 4096 // bytes of allocation and of a bit
	chunkBits = 1 << 15
)

// chunk is the bits of 128 MiB.
type chunk [chunkBits / 64]uint64

// bitmap tells which blocks are mapped. A chunk without a mapped block need not
// exist. Callers hold the stripes of the blocks that they name; blocks of
// different regions share no word.
type bitmap struct {
	chunks []atomic.Pointer[chunk]
}

// grow makes room for n blocks; the caller holds every stripe.
func (b *bitmap) grow(n int64) {
	chunks := make([]atomic.Pointer[chunk], (n+chunkBits-1)/chunkBits)
	for i := range b.chunks {
		chunks[i].Store(b.chunks[i].Load())
	}
	b.chunks = chunks
}

// run is how many blocks from i on, and before end, are mapped or unmapped alike.
func (b *bitmap) run(i, end int64) (n int64, mapped bool) {
	at, mapped := i, b.mapped(i)
	for at < end {
		n, whole := b.inWord(at, mapped)
		at += n
		if !whole {
			break
		}
	}
	return min(at, end) - i, mapped
}

func (b *bitmap) mapped(i int64) bool {
	c := b.chunks[i/chunkBits].Load()
	return c != nil && c[i%chunkBits/64]&(1<<(i%64)) != 0
}

// inWord is how many bits from i on in its word, or its absent chunk, are like
// mapped; whole tells that none was different.
func (b *bitmap) inWord(i int64, mapped bool) (n int64, whole bool) {
	c := b.chunks[i/chunkBits].Load()
	if c == nil {
		if mapped {
			return 0, false
		}
		return chunkBits - i%chunkBits, true
	}
	w := c[i%chunkBits/64]
	if mapped {
		w = ^w
	}
	left := 64 - i%64
	n = int64(bits.TrailingZeros64(w >> (i % 64)))
	return min(n, left), n >= left
}

// count is how many of the blocks from i to end are mapped.
func (b *bitmap) count(i, end int64) int64 {
	var sum int64
	for i < end {
		n, mapped := b.run(i, end)
		if mapped {
			sum += n
		}
		i += n
	}
	return sum
}

// set marks the blocks from i to end.
func (b *bitmap) set(i, end int64, mapped bool) {
	for i < end {
		n := min(64-i%64, end-i)
		mask := (^uint64(0) >> (64 - n)) << (i % 64)
		if w := b.word(i, mapped); w != nil && mapped {
			*w |= mask
		} else if w != nil {
			*w &^= mask
		}
		i += n
	}
}

// word is the word of block i; nil when its chunk is absent and create is false.
func (b *bitmap) word(i int64, create bool) *uint64 {
	p := &b.chunks[i/chunkBits]
	c := p.Load()
	if c == nil {
		if !create {
			return nil
		}
		p.CompareAndSwap(nil, new(chunk)) // another stripe may have made it
		c = p.Load()
	}
	return &c[i%chunkBits/64]
}
