package target

import (
	"math/bits"
	"sync"

	"ripstop/iscsi/pdu"
)

// Room in front of data-in for its header and header digest, and behind it
// for padding and data digest.
const (
	frontRoom = pdu.BHSLen + 4
	backRoom  = 3 + 4
)

// Pooled buffers hold from 4 KiB to 4 MiB of data; longer ones are made anew.
const (
	minShift = 12
	maxShift = 22
)

// pool keeps buffers for data-in by size.
type pool struct {
	class [maxShift - minShift + 1]sync.Pool // of *buffer
}

// buffer is room for data-in: data stand at frontRoom.
type buffer struct {
	class int // -1 for one that is not pooled
	bytes []byte
}

// get gives a buffer for n bytes of data.
func (p *pool) get(n int) *buffer {
	class := max(0, bits.Len(uint(max(n, 1)-1))-minShift)
	if class >= len(p.class) {
		return &buffer{-1, make([]byte, frontRoom+n+backRoom)}
	}
	if b, ok := p.class[class].Get().(*buffer); ok {
		return b
	}
	return &buffer{class, make([]byte, frontRoom+1<<(class+minShift)+backRoom)}
}

// data is where n bytes of data-in stand in b.
func (b *buffer) data(n int) []byte { return b.bytes[frontRoom : frontRoom+n : frontRoom+n] }

func (p *pool) put(b *buffer) {
	if b.class >= 0 {
		p.class[b.class].Put(b)
	}
}
