package pdu

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
)

type mode byte

const (
	decoding mode = iota
	encoding
	printing
)

// walker visits the fields of one header: it reads them from p, writes them to
// p, or prints those that are not zero. After a fault it does nothing more.
type walker struct {
	mode mode
	p    []byte
	out  []byte
	err  error
}

// ErrShort says that a header is shorter than its fields need.
var ErrShort = errors.New("header is too short")

// in tells whether n bytes at off are there to be read or written.
func (w *walker) in(off, n int) bool {
	if w.err != nil || w.mode == printing {
		return false
	}
	if off+n > len(w.p) {
		w.err = fmt.Errorf("field at byte %d: %w", off, ErrShort)
		return false
	}
	return true
}

func (w *walker) print(name string, value any) { w.out = fmt.Appendf(w.out, " %s=%v", name, value) }

// one is a bit of byte 1 that is always set.
func (w *walker) one() {
	if w.mode == encoding && w.in(1, 1) {
		w.p[1] |= 0x80
	}
}

// flag is one bit of the byte at off.
func (w *walker) flag(off int, mask byte, name string, v *bool) {
	if w.mode == printing {
		if *v {
			w.out = append(append(w.out, ' '), name...)
		}
		return
	}
	if !w.in(off, 1) {
		return
	}
	if w.mode == decoding {
		*v = w.p[off]&mask != 0
	} else if *v {
		w.p[off] |= mask
	}
}

// bits is a field of one byte, mask wide after a shift to the right.
func (w *walker) bits(off int, shift, mask byte, name string, v *uint8) {
	if w.mode == printing {
		w.print(name, *v)
		return
	}
	if !w.in(off, 1) {
		return
	}
	if w.mode == decoding {
		*v = w.p[off] >> shift & mask
	} else {
		w.p[off] |= *v & mask << shift
	}
}

func (w *walker) u8(off int, name string, v *uint8) { w.bits(off, 0, 0xff, name, v) }

func (w *walker) u16(off int, name string, v *uint16) {
	if w.mode == printing {
		w.print(name, *v)
		return
	}
	if !w.in(off, 2) {
		return
	}
	if w.mode == decoding {
		*v = binary.BigEndian.Uint16(w.p[off:])
	} else {
		binary.BigEndian.PutUint16(w.p[off:], *v)
	}
}

func (w *walker) u32(off int, name string, v *uint32) {
	if w.mode == printing {
		if *v == Reserved {
			w.print(name, "none")
		} else {
			w.print(name, *v)
		}
		return
	}
	if !w.in(off, 4) {
		return
	}
	if w.mode == decoding {
		*v = binary.BigEndian.Uint32(w.p[off:])
	} else {
		binary.BigEndian.PutUint32(w.p[off:], *v)
	}
}

func (w *walker) u64(off int, name string, v *uint64) {
	if w.mode == printing {
		w.print(name, fmt.Sprintf("%#x", *v))
		return
	}
	if !w.in(off, 8) {
		return
	}
	if w.mode == decoding {
		*v = binary.BigEndian.Uint64(w.p[off:])
	} else {
		binary.BigEndian.PutUint64(w.p[off:], *v)
	}
}

func (w *walker) bytes(off int, name string, v []byte) {
	if w.mode == printing {
		w.print(name, hex.EncodeToString(v))
		return
	}
	if !w.in(off, len(v)) {
		return
	}
	if w.mode == decoding {
		copy(v, w.p[off:])
	} else {
		copy(w.p[off:], v)
	}
}
