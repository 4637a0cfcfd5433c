package thin

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// entry is a volume or snapshot in the table.
type entry struct {
	number   uint32
	parent   uint32 // the volume that a snapshot is of
	snapshot bool
	reserved bool
	size     int64
	shape    shape
	pages    []nodeRef // place 0 is a page without leaves
}

const tableHead = 8 // next chunk 4, bytes 4

// newTable is the payload for the entries and the next number.
func newTable(entries []entry, next uint32) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, next)
	b = le.AppendUint32(b, uint32(len(entries)))
	for _, e := range entries {
		b = le.AppendUint32(b, e.number)
		b = le.AppendUint32(b, e.parent)
		b = append(b, boolByte(e.snapshot)|boolByte(e.reserved)<<1)
		b = le.AppendUint64(b, uint64(e.size))
		b = e.shape.append(b)
		b = le.AppendUint32(b, uint32(len(e.pages)))
		for _, r := range e.pages {
			b = le.AppendUint64(b, r.loc)
			b = le.AppendUint32(b, r.crc)
		}
	}
	return b
}

func decodeTable(p []byte) (entries []entry, next uint32, err error) {
	d := decoder{p: p}
	next = d.u32()
	for n := d.u32(); n > 0 && d.err == nil; n-- {
		e := entry{number: d.u32(), parent: d.u32()}
		kind := d.u8()
		e.snapshot, e.reserved = kind&1 != 0, kind&2 != 0
		e.size, e.shape = int64(d.u64()), d.shape()
		for k := d.u32(); k > 0 && d.err == nil; k-- {
			e.pages = append(e.pages, nodeRef{loc: d.u64(), crc: d.u32()})
		}
		if !e.shape.possible(e.size) || len(entries) == maxVolumes || len(e.pages) != pagesFor(e.size) || e.number == 0 || e.number >= next {
			d.err = fmt.Errorf("entry %q is impossible", e.shape.name)
		}
		entries = append(entries, e)
	}
	return entries, next, d.err
}

// pagesFor is how many pages a volume of size bytes has.
func pagesFor(size int64) int {
	return int((size + pageLeaves*leafSize - 1) / (pageLeaves * leafSize))
}

// tableChunksFor is how many chunks a table of n bytes takes.
func tableChunksFor(n int) int { return max(1, (n+chunkSize-tableHead-1)/(chunkSize-tableHead)) }

// writeTable writes the payload over the chunks, which are enough.
func writeTable(f File, payload []byte, chunks []uint32) error {
	b := aligned(chunkSize)
	for i, c := range chunks {
		clear(b)
		if i+1 < len(chunks) {
			binary.LittleEndian.PutUint32(b, chunks[i+1])
		}
		n := copy(b[tableHead:], payload)
		payload = payload[n:]
		binary.LittleEndian.PutUint32(b[4:], uint32(n))
		if _, err := f.WriteAt(b, int64(c)*chunkSize); err != nil {
			return fmt.Errorf("write the table: %w", err)
		}
	}
	return nil
}

// readTable is the payload that the super names, and the chunks that hold it.
func readTable(f File, r tableRef, count uint32) (payload []byte, chunks []uint32, err error) {
	b := aligned(chunkSize)
	c := r.chunk
	for len(payload) < int(r.size) {
		if c == 0 || c >= count || slices.Contains(chunks, c) {
			return nil, nil, damaged("table", fmt.Errorf("it goes on in chunk %d", c))
		}
		if _, err := f.ReadAt(b, int64(c)*chunkSize); err != nil {
			return nil, nil, fmt.Errorf("read the table: %w", err)
		}
		n := binary.LittleEndian.Uint32(b[4:])
		if n == 0 || n > chunkSize-tableHead {
			return nil, nil, damaged("table", fmt.Errorf("chunk %d holds %d bytes", c, n))
		}
		payload = append(payload, b[tableHead:tableHead+n]...)
		chunks = append(chunks, c)
		c = binary.LittleEndian.Uint32(b)
	}
	if c != 0 || len(payload) != int(r.size) || checksum(payload) != r.crc {
		return nil, nil, damaged("table", errChecksum)
	}
	return payload, chunks, nil
}
