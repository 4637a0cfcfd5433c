package thin

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	version  = 1
	superGap = 32 << 10 // bytes from copy A to copy B
)

var magic = [8]byte{'R', 'S', 'T', 'H', 'I', 'N', '0', '1'}

// super is where everything begins. It fits a sector, so a cut cannot tear it.
type super struct {
	id       [16]byte
	seq      uint64 // of this super; the larger is the newer
	epoch    uint64 // how often the pool was opened
	clean    bool   // nothing follows in the log
	chunks   uint32 // of the file
	logStart uint32 // chunk
	logSize  uint32 // chunks
	logPos   uint64 // byte of the ring where replay starts
	logSeq   uint64 // of the first frame to replay
	table    tableRef
	ledger   tableRef // size 0 is none
}

type tableRef struct {
	chunk uint32
	size  uint32 // bytes of the payload
	crc   uint32
}

func (s *super) encode() []byte {
	p := aligned(blockSize)
	b := append(p[:0], magic[:]...)
	le := binary.LittleEndian
	b = le.AppendUint32(b, version)
	b = append(b, s.id[:]...)
	b = le.AppendUint64(b, s.seq)
	b = le.AppendUint64(b, s.epoch)
	b = append(b, boolByte(s.clean))
	for _, x := range []uint32{s.chunks, s.logStart, s.logSize} {
		b = le.AppendUint32(b, x)
	}
	b = le.AppendUint64(b, s.logPos)
	b = le.AppendUint64(b, s.logSeq)
	for _, x := range []uint32{s.table.chunk, s.table.size, s.table.crc, s.ledger.chunk, s.ledger.size, s.ledger.crc} {
		b = le.AppendUint32(b, x)
	}
	le.PutUint32(p[sectorSize-4:], checksum(p[:sectorSize-4]))
	return p
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}

// errNoSuper is the place of a super without one.
var errNoSuper = errors.New("there is no thin pool")

func decodeSuper(p []byte) (super, error) {
	var s super
	if [8]byte(p) != magic {
		return s, errNoSuper
	}
	if binary.LittleEndian.Uint32(p[sectorSize-4:]) != checksum(p[:sectorSize-4]) {
		return s, errors.New("the super is damaged")
	}
	d := decoder{p: p[8:]}
	if v := d.u32(); v != version {
		return s, newerFormat(v)
	}
	copy(s.id[:], d.bytes(16))
	s.seq, s.epoch = d.u64(), d.u64()
	s.clean = d.u8() != 0
	s.chunks, s.logStart, s.logSize = d.u32(), d.u32(), d.u32()
	s.logPos, s.logSeq = d.u64(), d.u64()
	s.table = tableRef{d.u32(), d.u32(), d.u32()}
	s.ledger = tableRef{d.u32(), d.u32(), d.u32()} // zeros where the program that wrote it knew of none
	return s, d.err
}

func newerFormat(v uint32) error {
	return fmt.Errorf("%w: it has format %d, and this is format %d: run the ripstop that made it", ErrFormat, v, version)
}

// readSupers is the newest super. bad are the copies that cannot be read, which
// the other makes up for.
func readSupers(f File) (s super, bad []error, err error) {
	var found bool
	for i := range 2 {
		p := aligned(blockSize)
		_, rerr := f.ReadAt(p, int64(i)*superGap)
		var got super
		if rerr == nil {
			got, rerr = decodeSuper(p)
		}
		switch {
		case errors.Is(rerr, ErrFormat):
			return s, nil, rerr
		case rerr != nil:
			bad = append(bad, fmt.Errorf("super copy %d: %w", i, rerr))
		case !found:
			s, found = got, true
		default: // a cut between the two writes leaves one generation between them
			if gap := int64(got.seq - s.seq); gap < -1 || gap > 1 || gap == 0 && got != s {
				bad = append(bad, fmt.Errorf("super: its copies are of generations %d and %d: one was not written", s.seq, got.seq))
			}
			if got.seq > s.seq {
				s = got
			}
		}
	}
	if !found {
		return s, bad, errors.Join(bad...)
	}
	return s, bad, nil
}

// decoder reads numbers and remembers the first time that there were none.
type decoder struct {
	p   []byte
	err error
}

var errShort = errors.New("it ends too early")

func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.p) {
		d.err, d.p = errShort, nil
		return make([]byte, max(0, min(n, 16)))
	}
	b := d.p[:n]
	d.p = d.p[n:]
	return b
}

func (d *decoder) u8() byte    { return d.bytes(1)[0] }
func (d *decoder) u32() uint32 { return binary.LittleEndian.Uint32(d.bytes(4)) }
func (d *decoder) u64() uint64 { return binary.LittleEndian.Uint64(d.bytes(8)) }

func (d *decoder) text() string { return string(d.bytes(int(d.u8()))) }
