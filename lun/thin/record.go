package thin

import (
	"encoding/binary"
	"fmt"
)

// Kinds of records. The numbers are on disk.
const (
	recMap byte = iota + 1
	recUnmap
	recIntent
	recCreate
	recSnapshot
	recClone
	recRestore
	recDelete
	recGrow
	recReserve
	recRename
)

// record is one change of the map. Which fields it has depends on its kind.
type record struct {
	kind   byte
	volume uint32
	block  uint32 // map, unmap: the first; intent: the leaf; restore: the snapshot's number; reserve: 0 is off
	count  uint32 // map, unmap: blocks
	chunk  uint32 // map
	crcs   []byte // map: 4 bytes for each block
	size   int64  // create, grow: bytes
	shape  shape  // create, clone, rename
	items  []item // snapshot; clone and restore have one
}

// shape is what a volume is, besides its data.
type shape struct {
	id      [16]byte
	block   uint32 // bytes of a logical block
	created int64  // Unix nanoseconds
	name    string
}

const maxName = 255 // bytes, for one tells how many there are

// possible tells whether there can be a volume of that shape and size.
func (s shape) possible(size int64) bool {
	return (s.block == 512 || s.block == 4096) && s.name != "" && size > 0 && size <= maxVolumeSize && size%int64(s.block) == 0
}

// item is a volume that is made of another: a snapshot or a clone.
type item struct {
	from, to uint32
	shape    shape
}

func appendMap(b []byte, volume, block, chunk uint32, crcs []uint32) []byte {
	b = appendHead(b, recMap, volume, block, uint32(len(crcs)))
	b = binary.LittleEndian.AppendUint32(b, chunk)
	for _, c := range crcs {
		b = binary.LittleEndian.AppendUint32(b, c)
	}
	return b
}

// appendHead is a kind and its numbers.
func appendHead(b []byte, kind byte, numbers ...uint32) []byte {
	b = append(b, kind)
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

func appendCreate(b []byte, volume uint32, size int64, s shape) []byte {
	b = appendHead(b, recCreate, volume)
	b = binary.LittleEndian.AppendUint64(b, uint64(size))
	return s.append(b)
}

func appendItems(b []byte, kind byte, items []item) []byte {
	b = appendHead(b, kind, items[0].from, uint32(len(items)))
	for _, i := range items {
		b = i.append(b)
	}
	return b
}

func (i item) append(b []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, i.from)
	b = binary.LittleEndian.AppendUint32(b, i.to)
	return i.shape.append(b)
}

func appendGrow(b []byte, volume uint32, size int64) []byte {
	b = appendHead(b, recGrow, volume)
	return binary.LittleEndian.AppendUint64(b, uint64(size))
}

func appendReserve(b []byte, volume uint32, on bool) []byte {
	return appendHead(b, recReserve, volume, uint32(boolByte(on)))
}

func appendRename(b []byte, volume uint32, s shape) []byte {
	return s.append(appendHead(b, recRename, volume))
}

func (s shape) append(b []byte) []byte {
	b = append(b, s.id[:]...)
	b = binary.LittleEndian.AppendUint32(b, s.block)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.created))
	b = append(b, byte(len(s.name)))
	return append(b, s.name...)
}

func (d *decoder) shape() shape {
	var s shape
	copy(s.id[:], d.bytes(16))
	s.block, s.created, s.name = d.u32(), int64(d.u64()), d.text()
	return s
}

// record reads the next one.
func (d *decoder) record() record {
	r := record{kind: d.u8(), volume: d.u32()}
	switch r.kind {
	case recMap:
		r.block, r.count, r.chunk = d.u32(), d.u32(), d.u32()
		if r.count > chunkBlocks {
			d.err = errShort
		}
		r.crcs = d.bytes(int(min(r.count, chunkBlocks)) * 4)
	case recUnmap:
		r.block, r.count = d.u32(), d.u32()
	case recIntent, recReserve:
		r.block = d.u32()
	case recCreate:
		r.size = int64(d.u64())
		r.shape = d.shape()
	case recRestore:
		r.block = d.u32()
		r.items = []item{{d.u32(), d.u32(), d.shape()}}
	case recSnapshot, recClone:
		for n := d.u32(); n > 0 && d.err == nil; n-- {
			r.items = append(r.items, item{d.u32(), d.u32(), d.shape()})
		}
	case recRename:
		r.shape = d.shape()
	case recDelete:
	case recGrow:
		r.size = int64(d.u64())
	default:
		d.err = fmt.Errorf("record of kind %d is not known", r.kind)
	}
	return r
}
