package initiator

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
)

// transfer is the most bytes that one command reads or writes.
const transfer = 256 << 10

// mostSame is the most blocks that one WRITE SAME makes zeros where the target says
// no other number.
const mostSame = 0xffff

// Disk is one logical unit behind a session. Offsets and lengths are bytes, in
// multiples of its block. It is safe for concurrent use.
type Disk struct {
	s   *Session
	lun uint16

	Size  int64 // bytes, as it was when the disk was opened
	Block int   // bytes

	holes bool  // what it says is not mapped reads as zeros
	same  int64 // most bytes of a WRITE SAME

	mu     sync.Mutex
	noSame bool // it has no WRITE SAME
}

// Open looks at the unit behind a LUN number, 0–16383.
func (s *Session) Open(ctx context.Context, lun uint16) (*Disk, error) {
	d := &Disk{s: s, lun: lun}
	if _, err := s.command(ctx, lun, make([]byte, 6), nil, nil); err != nil { // TEST UNIT READY
		return nil, fmt.Errorf("LUN %d: %w", lun, err)
	}
	b := make([]byte, 32)
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = 0x9e, 0x10 // READ CAPACITY(16)
	binary.BigEndian.PutUint32(cdb[10:], uint32(len(b)))
	n, err := s.command(ctx, lun, cdb, b, nil)
	if err != nil {
		return nil, fmt.Errorf("capacity of LUN %d: %w", lun, err)
	}
	last, block := binary.BigEndian.Uint64(b), binary.BigEndian.Uint32(b[8:])
	if n < 12 || block < 512 || block > 1<<16 || block&(block-1) != 0 || last >= (1<<62)/uint64(block) {
		return nil, fmt.Errorf("capacity of LUN %d: %w: %d blocks of %d bytes", lun, ErrProtocol, last, block)
	}
	d.Block, d.Size = int(block), int64(last+1)*int64(block)
	d.same = d.limit(ctx) * int64(block)
	return d, nil
}

// limit is the most blocks of a WRITE SAME (SBC-3, VPD page B0h).
func (d *Disk) limit(ctx context.Context) int64 {
	b := make([]byte, 64)
	n, err := d.s.command(ctx, d.lun, []byte{0x12, 1, 0xb0, 0, byte(len(b)), 0}, b, nil)
	if err != nil || n < 44 {
		return mostSame
	}
	if most := binary.BigEndian.Uint64(b[36:]); most > 0 && most < mostSame {
		return int64(most)
	}
	return mostSame
}

// cdb16 is a command of an LBA and a count of blocks.
func (d *Disk) cdb16(op, flags byte, off, n int64) []byte {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = op, flags
	binary.BigEndian.PutUint64(cdb[2:], uint64(off/int64(d.Block)))
	binary.BigEndian.PutUint32(cdb[10:], uint32(n/int64(d.Block)))
	return cdb
}

// check refuses what the disk has not, before a target is asked.
func (d *Disk) check(off, n int64) error {
	if off < 0 || n < 0 || (off|n)%int64(d.Block) != 0 || off > d.Size-n {
		return fmt.Errorf("%d bytes at %d are not in the %d bytes of LUN %d, in blocks of %d", n, off, d.Size, d.lun, d.Block)
	}
	return nil
}

// ReadAt fills p from off.
func (d *Disk) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := d.check(off, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		part := p[:min(len(p), transfer)]
		n, err := d.s.command(ctx, d.lun, d.cdb16(0x88, 0, off, int64(len(part))), part, nil)
		if err == nil && n != len(part) {
			err = fmt.Errorf("%w: %d bytes of %d", ErrProtocol, n, len(part))
		}
		if err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", len(part), off, err)
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// WriteAt writes p at off.
func (d *Disk) WriteAt(ctx context.Context, p []byte, off int64) error {
	if err := d.check(off, int64(len(p))); err != nil {
		return err
	}
	for len(p) > 0 {
		part := p[:min(len(p), transfer)]
		if _, err := d.s.command(ctx, d.lun, d.cdb16(0x8a, 0, off, int64(len(part))), nil, part); err != nil {
			return fmt.Errorf("write %d bytes at %d: %w", len(part), off, err)
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// Zero makes n bytes at off zeros, and gives their space back where the target can.
// It is WRITE SAME and not UNMAP, which a target may carry out in parts (SBC-3 4.7.3.3).
func (d *Disk) Zero(ctx context.Context, off, n int64) error {
	if err := d.check(off, n); err != nil {
		return err
	}
	d.mu.Lock()
	none := d.noSame
	d.mu.Unlock()
	for n > 0 && !none {
		part := min(n, d.same)
		_, err := d.s.command(ctx, d.lun, d.cdb16(0x93, 0x08, off, part), nil, make([]byte, d.Block))
		if Unsupported(err) {
			d.mu.Lock()
			d.noSame = true
			d.mu.Unlock()
			break
		}
		if err != nil {
			return fmt.Errorf("make %d bytes at %d zeros: %w", part, off, err)
		}
		off, n = off+part, n-part
	}
	zeros := make([]byte, min(n, transfer))
	for n > 0 {
		part := min(n, int64(len(zeros)))
		if err := d.WriteAt(ctx, zeros[:part], off); err != nil {
			return err
		}
		off, n = off+part, n-part
	}
	return nil
}

// Flush puts everything that was written on stable storage.
func (d *Disk) Flush(ctx context.Context) error {
	cdb := make([]byte, 10)
	cdb[0] = 0x35 // SYNCHRONIZE CACHE(10) of all blocks
	if _, err := d.s.command(ctx, d.lun, cdb, nil, nil); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// Extents calls yield for the runs of the disk, in order, until it returns false;
// what is not mapped holds nobody's data. A target that cannot tell has all of it mapped.
func (d *Disk) Extents(ctx context.Context, yield func(off, n int64, mapped bool) bool) error {
	b := make([]byte, 8+16*64)
	for off := int64(0); off < d.Size; {
		cdb := d.cdb16(0x9e, 0x12, off, 0)
		binary.BigEndian.PutUint32(cdb[10:], uint32(len(b)))
		n, err := d.s.command(ctx, d.lun, cdb, b, nil)
		if Unsupported(err) {
			yield(off, d.Size-off, true)
			return nil
		}
		if err != nil {
			return fmt.Errorf("ask what is mapped: %w", err)
		}
		n = min(n, int(binary.BigEndian.Uint32(b))+4)
		from := off
		for at := 8; at+16 <= n; at += 16 {
			lba, blocks := binary.BigEndian.Uint64(b[at:]), binary.BigEndian.Uint32(b[at+8:])
			if lba != uint64(off/int64(d.Block)) || blocks == 0 {
				break
			}
			run := min(int64(blocks)*int64(d.Block), d.Size-off)
			if !yield(off, run, b[at+12]&0x0f == 0) {
				return nil
			}
			off += run
		}
		if off == from {
			return fmt.Errorf("%w: what is mapped at %d", ErrProtocol, off)
		}
	}
	return nil
}
