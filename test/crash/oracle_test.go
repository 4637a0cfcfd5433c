package crash

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
)

// value is what a command left in a block: 0 is zeros. Values are never reused.
type value uint64

// anywhere marks values that WRITE SAME put into several blocks.
const anywhere value = 1 << 62

// fill writes block lba with a value: it is in every word, beside the block's
// number, so that nothing else passes for it.
func (v value) fill(p []byte, lba int64) {
	if v == 0 {
		clear(p)
		return
	}
	if v&anywhere != 0 {
		lba = -1
	}
	for i := 0; i < len(p); i += 16 {
		binary.LittleEndian.PutUint64(p[i:], uint64(v))
		binary.LittleEndian.PutUint64(p[i+8:], uint64(lba))
	}
}

// valueOf reads a block; ok is false when no command can have left it.
func valueOf(p []byte, lba int64) (v value, ok bool) {
	v = value(binary.LittleEndian.Uint64(p))
	want := make([]byte, len(p))
	v.fill(want, lba)
	return v, bytes.Equal(p, want)
}

// version is a value that a block may have.
type version struct {
	value value
	acked uint64 // when its command was answered, counted by disk.clock; 0 for not
}

// disk is what a LUN may hold. Of each block: the last stable version and all
// that came after it, in order. A command that was not answered may be done.
type disk struct {
	lun   int
	block int

	mu     sync.Mutex
	clock  uint64
	last   value
	blocks [][]version
	busy   []bool
	open   []*snapshot // those that are being taken
}

// newDisk is a LUN of zeros.
func newDisk(lun, blocks, block int) *disk {
	d := &disk{lun: lun, block: block, clock: 1, blocks: make([][]version, blocks), busy: make([]bool, blocks)}
	for i := range d.blocks {
		d.blocks[i] = []version{{0, 1}}
	}
	return d
}

// claim takes up to n free blocks from lba on, none when the first is taken. Of
// claimed blocks there is one command at a time.
func (d *disk) claim(lba int64, n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	i := 0
	for ; i < n && int(lba)+i < len(d.blocks) && !d.busy[int(lba)+i]; i++ {
		d.busy[int(lba)+i] = true
	}
	return i
}

func (d *disk) release(lba int64, n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range n {
		d.busy[int(lba)+i] = false
	}
}

// fresh is a value that was never written.
func (d *disk) fresh() value {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last++
	return d.last
}

// begin notes that a command may leave v in n claimed blocks from now on.
func (d *disk) begin(lba int64, n int, v value) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := int(lba); i < int(lba)+n; i++ {
		d.blocks[i] = append(d.blocks[i], version{v, 0})
		for _, s := range d.open {
			s.may[i] = append(s.may[i], v)
		}
	}
}

// acked notes that the command was answered; with stable, what it left stays.
func (d *disk) acked(lba int64, n int, stable bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clock++
	for i := int(lba); i < int(lba)+n; i++ {
		b := d.blocks[i]
		b[len(b)-1].acked = d.clock
		if stable {
			d.blocks[i] = b[len(b)-1:]
		}
	}
}

// now is the moment up to which a flush that begins now makes all stable.
func (d *disk) now() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.clock
}

// flushed notes that what was answered up to a moment is stable.
func (d *disk) flushed(moment uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, b := range d.blocks {
		for k := len(b) - 1; k > 0; k-- {
			if b[k].acked != 0 && b[k].acked <= moment {
				d.blocks[i] = b[k:]
				break
			}
		}
	}
}

// newest is the versions that a block may have while nothing is under way: what
// was answered last, and what came after it without an answer.
func newest(b []version) []version {
	for k := len(b) - 1; k > 0; k-- {
		if b[k].acked != 0 {
			return b[k:]
		}
	}
	return b
}

// look compares what claimed blocks hold with what they may.
func (d *disk) look(lba int64, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := 0; i < len(p); i += d.block {
		at := lba + int64(i/d.block)
		if _, err := permitted(p[i:i+d.block], at, newest(d.blocks[at])); err != nil {
			return fmt.Errorf("LUN %d: %w", d.lun, err)
		}
	}
	return nil
}

// settle compares what the blocks hold after the daemon was killed with what
// they may, and takes it for stable from then on. What was answered is there,
// flushed or not: an initiator that only logs in again believes so.
func (d *disk) settle(lba int64, p []byte) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := 0; i < len(p); i += d.block {
		at := lba + int64(i/d.block)
		v, err := permitted(p[i:i+d.block], at, newest(d.blocks[at]))
		if err != nil {
			return fmt.Errorf("LUN %d after a crash: %w", d.lun, err)
		}
		d.blocks[at] = []version{{v, d.clock}}
	}
	return nil
}

func permitted(p []byte, lba int64, may []version) (value, error) {
	v, ok := valueOf(p, lba)
	if !ok {
		return 0, fmt.Errorf("block %d is foreign or mixed: %x…, may be %v", lba, p[:32], may)
	}
	if !slices.ContainsFunc(may, func(x version) bool { return x.value == v }) {
		return 0, fmt.Errorf("block %d is %d, may be %v", lba, v, may)
	}
	return v, nil
}

// sole is the value of a block that can have one alone.
func (d *disk) sole(lba int64) (value, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := newest(d.blocks[lba])
	return b[0].value, len(b) == 1
}

// snapshot is what a snapshot may hold: what was answered before it, or what
// was under way until it was there.
type snapshot struct {
	name  string
	block int
	may   [][]value
}

// freeze begins a snapshot.
func (d *disk) freeze(name string) *snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &snapshot{name, d.block, make([][]value, len(d.blocks))}
	for i, b := range d.blocks {
		for _, v := range newest(b) {
			s.may[i] = append(s.may[i], v.value)
		}
	}
	d.open = append(d.open, s)
	return s
}

// before is a snapshot of all that a LUN may be, no command being under way.
func (d *disk) before(name string) *snapshot {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &snapshot{name, d.block, make([][]value, len(d.blocks))}
	for i, b := range d.blocks {
		for _, v := range b {
			s.may[i] = append(s.may[i], v.value)
		}
	}
	return s
}

// frozen ends it.
func (d *disk) frozen(s *snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = slices.DeleteFunc(d.open, func(o *snapshot) bool { return o == s })
}

// restored notes that the LUN is what a snapshot is.
func (d *disk) restored(s *snapshot) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clock++
	for i, may := range s.may {
		d.blocks[i] = nil
		for _, v := range may {
			d.blocks[i] = append(d.blocks[i], version{v, 0})
		}
	}
}

// clone is a LUN that begins as a snapshot.
func (s *snapshot) clone(lun int) *disk {
	d := newDisk(lun, len(s.may), s.block)
	d.restored(s)
	d.last = 1 << 48 // apart from those of the origin
	return d
}

// settle compares what a snapshot holds with what it may, and wants just that
// from then on.
func (s *snapshot) settle(lba int64, p []byte) error {
	for i := 0; i < len(p); i += s.block {
		at := lba + int64(i/s.block)
		v, ok := valueOf(p[i:i+s.block], at)
		if !ok || !slices.Contains(s.may[at], v) {
			return fmt.Errorf("snapshot %s: block %d is %d (whole: %v), may be %v", s.name, at, v, ok, s.may[at])
		}
		s.may[at] = []value{v}
	}
	return nil
}
