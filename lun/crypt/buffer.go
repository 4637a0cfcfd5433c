package crypt

import (
	"math/bits"
	"sync"

	"ripstop/internal/disk"
)

// buffers is memory for what is encrypted, aligned for disks, by powers of two from
// 4 KiB to 16 MiB.
var buffers pools

const (
	leastBuffer = 12 // binary logarithms of bytes
	mostBuffer  = 24
)

type pools [mostBuffer - leastBuffer + 1]sync.Pool

type buffer struct {
	p     []byte
	whole []byte
	class int // -1 for one that is not kept
}

// get is a buffer of n bytes that hold anything.
func (s *pools) get(n int) *buffer {
	class := max(0, bits.Len(uint(max(n, 1)-1))-leastBuffer)
	if class >= len(s) {
		return &buffer{p: disk.Aligned(n), class: -1}
	}
	b, _ := s[class].Get().(*buffer)
	if b == nil {
		b = &buffer{whole: disk.Aligned(1 << (class + leastBuffer)), class: class}
	}
	b.p = b.whole[:n]
	return b
}

func (s *pools) put(b *buffer) {
	if b.class >= 0 {
		s[b.class].Put(b)
	}
}
