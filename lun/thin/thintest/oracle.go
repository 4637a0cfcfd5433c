package thintest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// Fill writes into p the sectors that stamp stands for; off is where p lies in
// its volume. Stamp 0 is zeros.
func Fill(p []byte, off int64, stamp uint64) {
	for i := 0; i < len(p); i += 8 {
		binary.LittleEndian.PutUint64(p[i:], word(stamp, (off+int64(i))/SectorSize))
	}
}

// word is eight bytes of a sector: the stamp is in all of them, and so is the
// sector's number, so that no part of another sector can pass for it.
func word(stamp uint64, sector int64) uint64 {
	if stamp == 0 {
		return 0
	}
	return stamp<<24 | uint64(sector)&0xffffff
}

// Oracle is what each sector of a volume may hold, as stamps.
type Oracle struct {
	now []uint64           // without a cut
	may map[int64][]uint64 // after a cut, besides now; of unflushed sectors alone
}

// NewOracle is a volume of zeros.
func NewOracle(size int64) *Oracle {
	return &Oracle{now: make([]uint64, size/SectorSize), may: map[int64][]uint64{}}
}

// Size is the bytes of the volume.
func (o *Oracle) Size() int64 { return int64(len(o.now)) * SectorSize }

// Write notes n bytes of stamp at off: 0 is zeros.
func (o *Oracle) Write(off, n int64, stamp uint64) {
	for s := off / SectorSize; s < (off+n)/SectorSize; s++ {
		o.may[s] = append(o.may[s], o.now[s])
		o.now[s] = stamp
	}
}

// Flush notes that what is now is stable.
func (o *Oracle) Flush() { clear(o.may) }

// Grow notes a larger size.
func (o *Oracle) Grow(size int64) {
	o.now = append(o.now, make([]uint64, size/SectorSize-int64(len(o.now)))...)
}

// Clone is a copy of what is now, stable.
func (o *Oracle) Clone() *Oracle {
	return &Oracle{now: slices.Clone(o.now), may: map[int64][]uint64{}}
}

// Exact demands that p, read at off, is what is now.
func (o *Oracle) Exact(p []byte, off int64) error { return o.check(p, off, false) }

// After demands that p, read at off after a cut, is what may be, and takes it
// for stable from then on.
func (o *Oracle) After(p []byte, off int64) error { return o.check(p, off, true) }

// Found takes p, read at off without a cut, for what is now if it may be; what
// was flushed last stays possible after a cut.
func (o *Oracle) Found(p []byte, off int64) error {
	seen := &Oracle{now: slices.Clone(o.now), may: maps.Clone(o.may)}
	if err := seen.After(p, off); err != nil {
		return err
	}
	o.now = seen.now
	return nil
}

func (o *Oracle) check(p []byte, off int64, cut bool) error {
	for i := 0; i < len(p); i += SectorSize {
		s := (off + int64(i)) / SectorSize
		got, whole := stampOf(p[i:i+SectorSize], s)
		may := whole && (got == o.now[s] || cut && slices.Contains(o.may[s], got))
		if !may {
			return fmt.Errorf("sector %d is %s, want %d%s", s, text(got, whole), o.now[s], o.others(s, cut))
		}
		if cut {
			o.now[s] = got
			delete(o.may, s)
		}
	}
	return nil
}

func (o *Oracle) others(s int64, cut bool) string {
	if !cut || len(o.may[s]) == 0 {
		return ""
	}
	return fmt.Sprintf(" or one of %d", o.may[s])
}

func text(stamp uint64, whole bool) string {
	if !whole {
		return "foreign or mixed"
	}
	return fmt.Sprint(stamp)
}

// stampOf is the stamp of a sector; whole tells that all of it is of it.
func stampOf(p []byte, sector int64) (stamp uint64, whole bool) {
	first := binary.LittleEndian.Uint64(p)
	stamp = first >> 24
	// All words of a sector are alike, so it is its own shifted copy.
	return stamp, first == word(stamp, sector) && bytes.Equal(p[8:], p[:len(p)-8])
}
