package image

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"ripstop/internal/zeros"
)

// Layout: docs/interop/qcow2.txt of QEMU. All numbers are big-endian.
const (
	qcow2Magic = "QFI\xfb"

	qcow2MinBits, qcow2MaxBits = 9, 21 // of a cluster

	qcow2Offset     = 1<<56 - 1<<9 // of L1 and L2 entries
	qcow2Compressed = 1 << 62
	qcow2Copied     = 1 << 63
	qcow2Zero       = 1

	// Incompatible features.
	qcow2Dirty    = 1 << 0 // reference counts may be wrong, which no reader needs
	qcow2Corrupt  = 1 << 1
	qcow2External = 1 << 2
	qcow2Packing  = 1 << 3 // another compression than deflate
	qcow2Extended = 1 << 4
)

// qcow2 is an open file of version 2 or 3.
type qcow2 struct {
	f       *file
	version uint32
	bits    uint // of a cluster
	size    int64
	l1      *table
	zstd    bool
}

func openQCOW2(f *file) (Image, error) {
	h := make([]byte, 112)
	n := min(f.size, int64(len(h)))
	if n < 72 {
		return nil, damaged("header: %d bytes are too few", n)
	}
	if err := f.at("header", h[:n], 0); err != nil {
		return nil, err
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(h[at:]) }
	u64 := func(at int) uint64 { return binary.BigEndian.Uint64(h[at:]) }
	q := &qcow2{f: f, version: u32(4), bits: uint(u32(20))}
	switch {
	case q.version != 2 && q.version != 3:
		return nil, errRefused("qcow2 of version %d: only 2 and 3 are known", q.version)
	case u64(8) != 0:
		return nil, errRefused("qcow2 with a backing file %s: only its difference to that is in it", q.backing(u64(8), u32(16)))
	case u32(32) != 0:
		return nil, errLocked("qcow2 that is encrypted (method %d): ripstop has no key to it", u32(32))
	case q.bits < qcow2MinBits || q.bits > qcow2MaxBits:
		return nil, damaged("header: clusters of 2^%d bytes", q.bits)
	case u64(24) > maxSize:
		return nil, damaged("header: a disk of %d bytes", u64(24))
	}
	q.size = int64(u64(24))
	if q.version == 3 {
		if n < 104 || u32(100) < 104 {
			return nil, damaged("header: %d bytes are too few for version 3", min(n, int64(u32(100))))
		}
		if err := q.features(u64(72), u32(100), h); err != nil {
			return nil, err
		}
	}
	need := (q.size + 1<<(2*q.bits-3) - 1) >> (2*q.bits - 3)
	if int64(u32(36)) < need {
		return nil, damaged("header: an L1 table of %d entries for a disk of %d bytes", u32(36), q.size)
	}
	var err error
	q.l1, err = newTable(f, "L1 table", int64(u64(40)&^(1<<63)), need, 8, binary.BigEndian.Uint64)
	return q, err
}

// backing is the name of a backing file, for people.
func (q *qcow2) backing(off uint64, n uint32) string {
	name := make([]byte, min(n, 1023))
	if off > maxSize || q.f.at("backing file", name, int64(off)) != nil {
		return "(its name cannot be read)"
	}
	return fmt.Sprintf("%q", name)
}

func (q *qcow2) features(bits uint64, length uint32, h []byte) error {
	switch {
	case bits&qcow2Corrupt != 0:
		return errors.New("qcow2 that is marked corrupt: `qemu-img check -r all FILE` mends it")
	case bits&qcow2External != 0:
		return errRefused("qcow2 whose data are in another file")
	case bits&qcow2Extended != 0:
		return errRefused("qcow2 with extended L2 entries")
	case bits&^(qcow2Dirty|qcow2Packing) != 0:
		return errRefused("qcow2 with features that are not known here (%#x)", bits)
	}
	if bits&qcow2Packing != 0 && length > 104 {
		if h[104] > 1 {
			return errRefused("qcow2 with compression %d, which is not known here", h[104])
		}
		q.zstd = h[104] == 1
	}
	return nil
}

func (q *qcow2) Size() int64 { return q.size }

func (q *qcow2) Walk(yield func(off int64, p []byte) error) error {
	cluster := int64(1) << q.bits
	q.f.left = q.f.size + cluster // of the last, what is past the end of the disk may not be there
	w := &qcow2Walk{qcow2: q, cluster: cluster, buf: make([]byte, min(cluster, piece)), yield: yield}
	defer w.close()
	for i := range q.l1.n {
		e, err := q.l1.get(i)
		if err != nil {
			return err
		}
		if at := int64(e & qcow2Offset); at != 0 {
			if err := w.l2(at, i<<(2*q.bits-3)); err != nil {
				return err
			}
		}
	}
	return nil
}

type qcow2Walk struct {
	*qcow2
	cluster int64
	buf     []byte
	yield   func(off int64, p []byte) error
	from    []byte // a cluster that is compressed, and what follows it in its last sector
	whole   []byte // a cluster that was compressed
	unpack  io.Reader
}

// l2 walks the clusters of the L2 table at, the first of which is the disk's at off.
func (w *qcow2Walk) l2(at, off int64) error {
	if at%w.cluster != 0 {
		return damaged("L2 table at %d: not at a cluster", at)
	}
	if err := w.f.refer(w.cluster); err != nil {
		return err
	}
	t, err := newTable(w.f, "L2 table", at, w.cluster/8, 8, binary.BigEndian.Uint64)
	if err != nil {
		return err
	}
	for j := int64(0); j < t.n && off < w.size; j, off = j+1, off+w.cluster {
		e, err := t.get(j)
		if err != nil {
			return err
		}
		if err := w.one(e, off); err != nil {
			return err
		}
	}
	return nil
}

// one hands on the cluster of an L2 entry.
func (w *qcow2Walk) one(e uint64, off int64) error {
	n := min(w.cluster, w.size-off)
	if e&qcow2Compressed != 0 {
		return w.packed(e, off, n)
	}
	at := int64(e & qcow2Offset)
	if at == 0 || w.version == 3 && e&qcow2Zero != 0 {
		return nil
	}
	if at%w.cluster != 0 {
		return damaged("cluster of the disk at %d: place %d is none of a cluster", off, at)
	}
	if err := w.f.refer(w.cluster); err != nil {
		return err
	}
	return w.f.bytesAt(at, off, n, w.buf, w.yield)
}

// leastPacked is fewer bytes than any compressed cluster takes.
const leastPacked = 8

// packed hands on a compressed cluster.
func (w *qcow2Walk) packed(e uint64, off, n int64) error {
	x := 62 - (w.bits - 8)
	at := int64(e & (1<<x - 1))
	length := int64(e&(qcow2Compressed-1)>>x+1)*sector - at%sector
	if at >= w.f.size {
		return damaged("cluster of the disk at %d: place %d in the file of %d", off, at, w.f.size)
	}
	packed := make([]byte, min(length, w.f.size-at)) // the last is not padded
	if cap(w.from) >= len(packed) {
		packed = w.from[:len(packed)]
	}
	w.from = packed
	if err := w.f.at("compressed cluster", packed, at); err != nil {
		return err
	}
	from := bytes.NewReader(packed)
	if err := w.reset(from); err != nil {
		return err
	}
	if w.whole == nil {
		w.whole = make([]byte, w.cluster)
	}
	if _, err := io.ReadFull(w.unpack, w.whole); err != nil {
		return damaged("compressed cluster of the disk at %d: %v", off, err)
	}
	// Neither way of unpacking reads further than it needs: no two clusters share that.
	if err := w.f.refer(max(leastPacked, int64(len(packed)-from.Len()))); err != nil {
		return err
	}
	for at := int64(0); at < n; at += piece {
		if err := zeros.Dense(off+at, w.whole[at:min(n, at+piece)], w.yield); err != nil {
			return err
		}
	}
	return nil
}

func (w *qcow2Walk) reset(from io.Reader) error {
	switch u := w.unpack.(type) {
	case flate.Resetter:
		return u.Reset(from, nil)
	case *zstd.Decoder:
		return u.Reset(from)
	}
	if !w.zstd {
		w.unpack = flate.NewReader(from)
		return nil
	}
	d, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(1<<qcow2MaxBits*4))
	w.unpack = d
	return err
}

func (w *qcow2Walk) close() {
	if d, ok := w.unpack.(*zstd.Decoder); ok {
		d.Close()
	}
}
