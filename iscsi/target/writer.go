package target

import (
	"encoding/binary"
	"net"

	"ripstop/iscsi/pdu"
)

// Limits of what is gathered before it is written, whatever comes in.
const (
	maxPieces = 512 // iovecs of one writev, half of the kernel's UIO_MAXIOV
	maxGather = 1 << 20
	arenaSize = 64 << 10 // bytes for headers and short data
	shortData = 1024     // data that is copied behind its header
)

// writer gathers PDUs and writes them with one writev.
type writer struct {
	write                    func(*net.Buffers) error
	digest                   pdu.Digest
	headerDigest, dataDigest bool
	buffers                  *pool

	coder  pdu.Coder
	pieces [][]byte
	out    net.Buffers // pieces while they are written, which consumes it
	size   int
	arena  []byte
	held   []*buffer // given back after the write
}

// empty tells whether nothing waits to be written.
func (w *writer) empty() bool { return len(w.pieces) == 0 }

// flush writes everything that was gathered.
func (w *writer) flush() error {
	if w.empty() {
		return nil
	}
	w.out = w.pieces
	err := w.write(&w.out)
	clear(w.pieces)
	w.pieces, w.arena, w.size = w.pieces[:0], w.arena[:0], 0
	w.release()
	return err
}

// release gives the buffers back.
func (w *writer) release() {
	for _, b := range w.held {
		w.buffers.put(b)
	}
	clear(w.held)
	w.held = w.held[:0]
}

// hold keeps a buffer until what was gathered is written.
func (w *writer) hold(b *buffer) { w.held = append(w.held, b) }

// reserve gives n bytes of the arena, which lengthen the last piece where they
// follow it. It writes what there is when the arena is full.
func (w *writer) reserve(n int) ([]byte, error) {
	if w.arena == nil {
		w.arena = make([]byte, 0, arenaSize)
	}
	if len(w.arena)+n > cap(w.arena) {
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	at := len(w.arena)
	w.arena = w.arena[:at+n]
	p := w.arena[at : at+n : at+n]
	if last := len(w.pieces) - 1; last >= 0 && at > 0 {
		tail := w.pieces[last]
		if len(tail) > 0 && &tail[len(tail)-1] == &w.arena[at-1] {
			w.pieces[last] = w.arena[at-len(tail) : at+n : at+n]
			w.size += n
			return p, nil
		}
	}
	w.piece(p)
	return p, nil
}

func (w *writer) piece(p []byte) {
	w.pieces = append(w.pieces, p)
	w.size += len(p)
}

// full tells whether it is time to write.
func (w *writer) full() bool { return len(w.pieces) >= maxPieces || w.size >= maxGather }

// put gathers one PDU. Data of more than shortData bytes must stay as they are
// until the next flush.
func (w *writer) put(m pdu.Message, data []byte) error {
	m.Common().DataLen = len(data)
	head := w.headLen()
	tail := w.tailLen(len(data))
	if len(data) <= shortData {
		p, err := w.reserve(head + len(data) + tail)
		if err != nil {
			return err
		}
		w.header(p[:head], m)
		copy(p[head:], data)
		w.tail(p[head:], len(data))
		return nil
	}
	p, err := w.reserve(head)
	if err != nil {
		return err
	}
	w.header(p, m)
	w.piece(data)
	return w.after(data, tail)
}

// putInPlace gathers one PDU whose data stand in b, off bytes into them. The first
// has its header in front of it, and the last its tail behind it.
func (w *writer) putInPlace(m pdu.Message, b *buffer, off, n int, last bool) error {
	m.Common().DataLen = n
	from, to := b.at+off, b.at+off+n
	head := w.headLen()
	tail := w.tailLen(n)
	if off == 0 {
		from -= head
		w.header(b.bytes[from:from+head], m)
	} else {
		p, err := w.reserve(head)
		if err != nil {
			return err
		}
		w.header(p, m)
	}
	if last {
		w.tail(b.bytes[b.at+off:to+tail], n)
		w.piece(b.bytes[from : to+tail])
		return nil
	}
	w.piece(b.bytes[from:to])
	return w.after(b.bytes[b.at+off:to], tail)
}

// after gathers padding and digest of data that have no room behind them.
func (w *writer) after(data []byte, tail int) error {
	if tail == 0 {
		return nil
	}
	p, err := w.reserve(tail)
	if err != nil {
		return err
	}
	clear(p)
	if w.dataDigest {
		pad := tail - 4
		binary.LittleEndian.PutUint32(p[pad:], w.digest.Sum(data, p[:pad]))
	}
	return nil
}

func (w *writer) headLen() int {
	if w.headerDigest {
		return pdu.BHSLen + 4
	}
	return pdu.BHSLen
}

func (w *writer) tailLen(n int) int {
	tail := -n & 3
	if w.dataDigest && n > 0 {
		tail += 4
	}
	return tail
}

// header writes m and its digest over p.
func (w *writer) header(p []byte, m pdu.Message) {
	w.coder.Encode(p, m)
	if w.headerDigest {
		binary.LittleEndian.PutUint32(p[pdu.BHSLen:], w.digest.Sum(p[:pdu.BHSLen]))
	}
}

// tail writes padding and digest behind the first n bytes of p.
func (w *writer) tail(p []byte, n int) {
	clear(p[n:])
	if w.dataDigest && n > 0 {
		padded := (n + 3) &^ 3
		binary.LittleEndian.PutUint32(p[padded:], w.digest.Sum(p[:padded]))
	}
}
