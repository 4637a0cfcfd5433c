package image

import (
	"encoding/binary"
	"fmt"
	"io"

	"ripstop/internal/zeros"
)

// File is what is written to. Bytes that were not written are zeros.
type File interface {
	io.WriterAt
	Truncate(size int64) error
}

// Writer makes an image. Until Close has succeeded, the file is none.
type Writer interface {
	// Write adds p, which is the disk's at off: at or after the end of what was
	// written before, and inside the disk.
	Write(off int64, p []byte) error
	// Close finishes the image. It does not close or sync the file.
	Close() error
}

// NewWriter begins an image of a disk of size bytes in an empty file.
func NewWriter(w File, format Format, size int64) (Writer, error) {
	order := ascending{size: size}
	switch format {
	case Raw:
		return &rawWriter{order, w}, nil
	case QCOW2:
		if size%sector != 0 {
			return nil, fmt.Errorf("a disk of %d bytes: qcow2 has multiples of %d: export it as raw", size, sector)
		}
		return newQCOW2Writer(w, order), nil
	}
	return nil, fmt.Errorf("format %q: it is not written: write %s", format, join(Written))
}

// ascending holds callers to their order.
type ascending struct{ size, next int64 }

func (a *ascending) check(off int64, n int) error {
	if off < a.next || off > a.size || int64(n) > a.size-off {
		return fmt.Errorf("write %d bytes at %d: not after %d and inside %d", n, off, a.next, a.size)
	}
	a.next = off + int64(n)
	return nil
}

type rawWriter struct {
	ascending
	w File
}

func (r *rawWriter) Write(off int64, p []byte) error {
	if err := r.check(off, len(p)); err != nil {
		return err
	}
	return zeros.Dense(off, p, func(off int64, p []byte) error {
		_, err := r.w.WriteAt(p, off)
		return err
	})
}

func (r *rawWriter) Close() error { return r.w.Truncate(r.size) }

const (
	outBits    = 16 // clusters of 64 KiB, as QEMU makes them
	outCluster = 1 << outBits
	outL2      = outCluster / 8
	outCounts  = outCluster / 2 // reference counts of 16 bits in a cluster
)

// qcow2Writer puts clusters one after the other: header, L1 table, data with each
// L2 table after what it maps, reference counts. The header is written last.
type qcow2Writer struct {
	ascending
	w    File
	used int64 // clusters of the file

	l1   []uint64
	l2   []uint64
	of   int64 // index of l2 in l1, -1 for none
	data []byte
	at   int64 // index of the cluster in data, -1 for none
}

func newQCOW2Writer(w File, order ascending) *qcow2Writer {
	n := (order.size + outL2*outCluster - 1) / (outL2 * outCluster)
	return &qcow2Writer{
		ascending: order, w: w, used: 1 + clusters(n*8), of: -1, at: -1,
		l1: make([]uint64, n), l2: make([]uint64, outL2), data: make([]byte, outCluster),
	}
}

// clusters is how many n bytes take.
func clusters(n int64) int64 { return (n + outCluster - 1) / outCluster }

func (q *qcow2Writer) Write(off int64, p []byte) error {
	if err := q.check(off, len(p)); err != nil {
		return err
	}
	for len(p) > 0 {
		if i := off / outCluster; i != q.at {
			if err := q.endCluster(); err != nil {
				return err
			}
			q.at = i
			clear(q.data)
		}
		n := copy(q.data[off%outCluster:], p)
		off, p = off+int64(n), p[n:]
	}
	return nil
}

// take gives the next place of the file to p.
func (q *qcow2Writer) take(p []byte) (entry uint64, err error) {
	at := q.used * outCluster
	q.used++
	_, err = q.w.WriteAt(p, at)
	return uint64(at) | qcow2Copied, err
}

func (q *qcow2Writer) endCluster() error {
	if q.at < 0 || zeros.Only(q.data) {
		return nil
	}
	if of := q.at / outL2; of != q.of {
		if err := q.endTable(); err != nil {
			return err
		}
		q.of = of
		clear(q.l2)
	}
	e, err := q.take(q.data)
	q.l2[q.at%outL2] = e
	return err
}

func (q *qcow2Writer) endTable() error {
	if q.of < 0 {
		return nil
	}
	e, err := q.take(bigEndian(q.l2))
	q.l1[q.of] = e
	return err
}

func bigEndian(numbers []uint64) []byte {
	b := make([]byte, 0, 8*len(numbers))
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

func (q *qcow2Writer) Close() error {
	if err := q.endCluster(); err != nil {
		return err
	}
	if err := q.endTable(); err != nil {
		return err
	}
	blocks, tables := q.counts()
	if err := q.writeCounts(blocks, tables); err != nil {
		return err
	}
	if _, err := q.w.WriteAt(bigEndian(q.l1), outCluster); err != nil {
		return err
	}
	if err := q.w.Truncate((q.used + blocks + tables) * outCluster); err != nil {
		return err
	}
	h := make([]byte, 112) // the extensions end at once
	copy(h, qcow2Magic)
	be := binary.BigEndian
	be.PutUint32(h[4:], 3)
	be.PutUint32(h[20:], outBits)
	be.PutUint64(h[24:], uint64(q.size))
	be.PutUint32(h[36:], uint32(len(q.l1)))
	be.PutUint64(h[40:], outCluster)
	be.PutUint64(h[48:], uint64(q.used+blocks)*outCluster)
	be.PutUint32(h[56:], uint32(tables))
	be.PutUint32(h[96:], 4) // counts of 2^4 bits
	be.PutUint32(h[100:], 104)
	_, err := q.w.WriteAt(h, 0)
	return err
}

// counts is how many clusters reference counts take, those of themselves included.
func (q *qcow2Writer) counts() (blocks, tables int64) {
	for {
		need := (q.used + blocks + tables + outCounts - 1) / outCounts
		if need == blocks {
			return blocks, tables
		}
		blocks, tables = need, clusters(need*8)
	}
}

// writeCounts counts every cluster of the file once.
func (q *qcow2Writer) writeCounts(blocks, tables int64) error {
	all := q.used + blocks + tables
	index := make([]uint64, blocks)
	for i := range blocks {
		b := make([]byte, outCluster)
		for j := range min(outCounts, all-i*outCounts) {
			binary.BigEndian.PutUint16(b[2*j:], 1)
		}
		index[i] = uint64(q.used+i) * outCluster
		if _, err := q.w.WriteAt(b, int64(index[i])); err != nil {
			return err
		}
	}
	_, err := q.w.WriteAt(bigEndian(index), (q.used+blocks)*outCluster)
	return err
}
