package target

import (
	"math/bits"
	"sync"
	"unsafe"

	"ripstop/iscsi/pdu"
)

// Room in front of data-in for its header and header digest, and behind it
// for padding and data digest.
const (
	frontRoom = pdu.BHSLen + 4
	backRoom  = 3 + 4
)

// Pooled buffers hold from 4 KiB to 8 MiB of data; longer ones are made anew.
// Data begin at a multiple of align in memory, so that a device may pass them to
// the kernel without a copy (O_DIRECT).
const (
	minShift = 12
	maxShift = 23
	align    = 4096
)

// pool keeps buffers for data by size.
type pool struct {
	class [maxShift - minShift + 1]sync.Pool // of *buffer
}

// buffer is room for data, which stand at at, with frontRoom before them.
type buffer struct {
	class int // -1 for one that is not pooled
	at    int
	bytes []byte
}

// get gives a buffer for n bytes of data.
func (p *pool) get(n int) *buffer {
	class := max(0, bits.Len(uint(max(n, 1)-1))-minShift)
	if class >= len(p.class) {
		return newBuffer(-1, n)
	}
	if b, ok := p.class[class].Get().(*buffer); ok {
		return b
	}
	return newBuffer(class, 1<<(class+minShift))
}

func newBuffer(class, n int) *buffer {
	b := &buffer{class: class, bytes: make([]byte, frontRoom+align-1+n+backRoom)}
	start := uintptr(unsafe.Pointer(unsafe.SliceData(b.bytes))) // the heap does not move
	b.at = frontRoom + int(-(start+frontRoom)&(align-1))
	return b
}

// data is where n bytes of data stand in b.
func (b *buffer) data(n int) []byte { return b.bytes[b.at : b.at+n : b.at+n] }

// holds tells whether p, which is not empty, begins where the data of b do.
func (b *buffer) holds(p []byte) bool { return &p[0] == &b.bytes[b.at] }

func (p *pool) put(b *buffer) {
	if b.class >= 0 {
		p.class[b.class].Put(b)
	}
}
