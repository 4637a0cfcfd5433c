package scsi

import (
	"encoding/binary"
	"math/bits"
)

// physicalBlock is what the unit says that its medium likes to be written in.
const physicalBlock = 4096

// lastBlock is the address of the last block; an empty device has none, and
// then the answer is as for one block.
func (c *command) lastBlock() uint64 { return max(c.blocks(), 1) - 1 }

// readCapacity10 is READ CAPACITY(10) (SBC-3).
func readCapacity10(c *command) error {
	lba := uint64(binary.BigEndian.Uint32(c.cdb[2:]))
	if lba != 0 && c.cdb[8]&1 == 0 {
		return invalidCDB(2, -1)
	}
	if lba > c.lastBlock() {
		return outOfRange(lba)
	}
	var b [8]byte
	binary.BigEndian.PutUint32(b[:], uint32(min(c.lastBlock(), 0xffffffff)))
	binary.BigEndian.PutUint32(b[4:], uint32(c.bs))
	return c.reply(b[:], 8)
}

// promisesZeros tells whether the unit says that what is unmapped reads as
// zeros, which it always does. QEMU's initiator, told so of a block larger than
// 512 bytes, asks before long reads for the status of 2^31-512 bytes and ends on
// its own assertion that this is no whole number of blocks (block/iscsi.c,
// iscsi_co_readv and iscsi_co_block_status).
func (c *command) promisesZeros() bool { return c.bs == 512 }

// readCapacity16 is READ CAPACITY(16) (SBC-3).
func readCapacity16(c *command) error {
	lba, allocation := cdbRange(c.cdb)
	if lba != 0 && c.cdb[14]&1 == 0 {
		return invalidCDB(2, -1)
	}
	if lba > c.lastBlock() {
		return outOfRange(lba)
	}
	var b [32]byte
	binary.BigEndian.PutUint64(b[:], c.lastBlock())
	binary.BigEndian.PutUint32(b[8:], uint32(c.bs))
	b[13] = c.physicalExponent()
	b[14] = 0x80 // LBPME
	if c.promisesZeros() {
		b[14] |= 0x40 // LBPRZ
	}
	return c.reply(b[:], uint32(allocation))
}

// physicalExponent is LBPPBE: logical blocks in a physical one, as a power of 2.
func (c *command) physicalExponent() byte {
	return byte(bits.Len64(uint64(max(physicalBlock/c.bs, 1))) - 1)
}

// statusLimit bounds the answer of GET LBA STATUS, in descriptors.
const statusLimit = 512

// lbaStatus is GET LBA STATUS (SBC-3). It stops at the last descriptor that
// the initiator has room for.
func lbaStatus(c *command) error {
	lba, allocation := cdbRange(c.cdb)
	blocks := c.blocks()
	if lba >= blocks {
		return outOfRange(lba)
	}
	e := extent{off: int64(lba) * c.bs, n: int64(blocks-lba) * c.bs}
	room := int(min(max(allocation, 24)-8, 16*statusLimit) / 16)
	runs, err := c.runs(e, room)
	if err != nil {
		return err
	}
	b := make([]byte, 8, 8+16*len(runs))
	binary.BigEndian.PutUint32(b, uint32(4+16*len(runs)))
	for _, r := range runs {
		b = binary.BigEndian.AppendUint64(b, uint64(r.off/c.bs))
		b = binary.BigEndian.AppendUint32(b, uint32(r.n/c.bs))
		b = append(b, r.provisioning(), 0, 0, 0)
	}
	return c.reply(b, uint32(allocation))
}

// lbaRun is blocks of one provisioning status.
type lbaRun struct {
	extent
	mapped bool
}

func (r lbaRun) provisioning() byte {
	if r.mapped {
		return 0
	}
	return 1 // deallocated
}

// runs is the first room runs of e, neighbors of one kind joined. A run holds
// at most what fits the descriptor's 32 bits.
func (c *command) runs(e extent, room int) ([]lbaRun, error) {
	longest := int64(0xffffffff) * c.bs
	var runs []lbaRun
	add := func(off, n int64, mapped bool) bool {
		for n > 0 {
			if last := len(runs) - 1; last >= 0 && runs[last].mapped == mapped && runs[last].n < longest {
				piece := min(n, longest-runs[last].n)
				runs[last].n += piece
				off, n = off+piece, n-piece
				continue
			}
			if len(runs) == room {
				return false
			}
			runs = append(runs, lbaRun{extent{off: off}, mapped})
		}
		return true
	}
	if err := c.unit.dev.Extents(&c.ctx, e.off, e.n, add); err != nil {
		return nil, err
	}
	return runs, nil
}
