package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// atomicUnit is a unit with a keeper over a disk of 64 blocks.
func atomicUnit(t *testing.T) (*Session, *memory, *shelf) {
	k, m := newShelf(), newMemory(t, 64, 512)
	u, err := OpenUnit(m, k)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, "a", map[uint16]*Unit{0: u}), m, k
}

func TestWriteAtomic(t *testing.T) {
	tests := []struct {
		name, cdb string
		n         int // bytes of data
		want      string
	}{
		{"one block", "9c 00 0000000000000003 0000 0001 00 00", 512, "good"},
		{"the last ones", "9c 18 000000000000003c 0000 0004 00 00", 2048, "good"},
		{"none", "9c 00 0000000000000040 0000 0000 00 00", 0, "good"},
		{"beyond", "9c 00 000000000000003d 0000 0004 00 00", 2048, "5 21/00"},
		{"far beyond", "9c 00 ffffffffffffffff 0000 0001 00 00", 512, "5 21/00"},
		{"protection", "9c 20 0000000000000003 0000 0001 00 00", 512, "5 24/00"},
		{"boundary", "9c 00 0000000000000003 0001 0001 00 00", 512, "5 24/00"},
		{"data missing", "9c 00 0000000000000003 0000 0002 00 00", 512, "5 0e/03"},
	}
	for _, tt := range tests {
		s, m, k := atomicUnit(t)
		data := pattern(tt.n, 0x5a)
		want(t, tt.name, do(s, tt.cdb, data).answer(), tt.want)
		want(t, tt.name+" leaves no record", len(k.records[m.info.ID]), 0)
		written := tt.want == "good" && tt.n > 0
		want(t, tt.name+" writes", bytes.Count(m.data, []byte{0x5a}) == tt.n && tt.n > 0, written)
		want(t, tt.name+" is stable", m.forced, map[bool]int{true: 1}[written])
	}
	s, _, _ := atomicUnit(t)
	want(t, "data-out", s.OutLength(0, unhex("9c 00 0000000000000003 0000 0004 00 00")), 2048)
	b0 := page(t, s, 0xb0)
	want(t, "maximum", binary.BigEndian.Uint32(b0[44:]), maxAtomic/512)
	want(t, "alignment, granularity, boundaries", b0[48:64], make([]byte, 16))
	u := NewUnit(newMemory(t, 8192, 512))
	without := open(t, "a", map[uint16]*Unit{0: u})
	want(t, "maximum without a keeper", binary.BigEndian.Uint32(page(t, without, 0xb0)[44:]), 0)
}

func TestWriteAtomicLimit(t *testing.T) {
	u, err := OpenUnit(newMemory(t, 8192, 512), newShelf())
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, "a", map[uint16]*Unit{0: u})
	want(t, "as long as can be", do(s, "9c 00 0000000000000000 0000 0800 00 00", make([]byte, maxAtomic)).answer(), "good")
	task := do(s, "9c 00 0000000000000000 0000 0801 00 00", make([]byte, maxAtomic+512))
	want(t, "longer", task.answer(), "5 24/00")
	want(t, "field pointer", task.Sense[15:18], []byte{0xc0, 0, 12})
}

// torn is a device that writes a part and then loses power for good.
type torn struct {
	*memory
	part int // bytes of the first write that arrive
	dead bool
}

func (d *torn) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if d.dead {
		return errors.New("no power")
	}
	d.dead = true
	copy(d.data[off:], p[:d.part])
	return errors.New("no power")
}

// frozen is the records as they were when the first was saved: what follows is
// after the power went.
type frozen struct {
	*shelf
	on bool
}

func (k *frozen) Save(id [16]byte, record []byte) error {
	if k.on {
		return errors.New("no power")
	}
	k.on = true
	return k.shelf.Save(id, record)
}

// TestWriteAtomicPowerCut cuts the power after each part of a write: whoever
// opens the unit then finds all of it, or nothing where it was not begun.
func TestWriteAtomicPowerCut(t *testing.T) {
	const all = 3 * 512
	for _, part := range []int{-1, 0, 1, 511, 512, 1000, all} {
		m := newMemory(t, 64, 512)
		copy(m.data, pattern(len(m.data), 0x11))
		k := &frozen{newShelf(), part < 0}
		u, err := OpenUnit(&torn{memory: m, part: part, dead: part < 0}, k)
		if err != nil {
			t.Fatal(err)
		}
		s := open(t, "a", map[uint16]*Unit{0: u})
		answer := do(s, "9c 00 0000000000000002 0000 0003 00 00", pattern(all, 0x5a)).answer()
		if answer == "good" {
			t.Error("a write without power is good")
		}
		if _, err := OpenUnit(m, k.shelf); err != nil {
			t.Fatal(err)
		}
		expected := pattern(len(m.data), 0x11)
		if part >= 0 {
			copy(expected[2*512:], pattern(all, 0x5a))
		}
		want(t, "medium", bytes.Equal(m.data, expected), true)
		want(t, "record", len(k.records[m.info.ID]), 0)
	}
}

// TestWriteAtomicFails puts back what was there where the medium fails but the
// process lives.
func TestWriteAtomicFails(t *testing.T) {
	m := newMemory(t, 64, 512)
	copy(m.data, pattern(len(m.data), 0x11))
	d := &half{memory: m}
	k := newShelf()
	u, err := OpenUnit(d, k)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, "a", map[uint16]*Unit{0: u})
	want(t, "write", do(s, "9c 00 0000000000000002 0000 0002 00 00", pattern(1024, 0x5a)).answer(), "3 0c/00")
	want(t, "medium", bytes.Equal(m.data, pattern(len(m.data), 0x11)), true)
	want(t, "record", len(k.records[m.info.ID]), 0)
	k.fault = errors.New("full")
	want(t, "not kept", do(s, "9c 00 0000000000000002 0000 0002 00 00", pattern(1024, 0x5a)).answer(), "4 44/00")
	want(t, "medium", bytes.Equal(m.data, pattern(len(m.data), 0x11)), true)
}

// half writes half of what it is first given.
type half struct {
	*memory
	again bool
}

func (d *half) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if d.again {
		return d.memory.WriteAt(ctx, p, off, fua)
	}
	d.again = true
	copy(d.data[off:], p[:len(p)/2])
	return &MediumError{Offset: off, Err: errors.New("bad")}
}

// TestWriteAtomicRecord refuses records that would write outside of the LUN.
func TestWriteAtomicRecord(t *testing.T) {
	for _, record := range []string{
		`{"format":1,"write":{"offset":0,"data":""}}`, `{"format":1,"write":{"offset":1,"data":"AAAA"}}`,
		`{"format":1,"write":{"offset":-512,"data":"AAAA"}}`, `{"format":1,"write":{"offset":0,"data":"AAAA"}}`,
	} {
		k, m := newShelf(), newMemory(t, 64, 512)
		k.records[m.info.ID] = []byte(record)
		_, err := OpenUnit(m, k)
		if err == nil || !strings.Contains(err.Error(), "outside") {
			t.Errorf("%s: %v", record, err)
		}
	}
}

// TestWriteAtomicAlone: no other command runs meanwhile, whatever its attribute,
// and it begins when all older ones have ended.
func TestWriteAtomicAlone(t *testing.T) {
	g := newGate(t)
	u, err := OpenUnit(g, newShelf())
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, "a", map[uint16]*Unit{0: u})
	ended := make(chan string, 8)
	startRead(t, s, 0, 0, ended)
	<-g.begun
	task := &Task{CDB: unhex("9c 00 0000000000000001 0000 0001 00 00"), Out: pattern(512, 1), Attr: attrHeadOfQueue}
	task.Done = func() { ended <- "atomic " + task.answer() }
	want(t, "waits for the older one", s.Begin(context.Background(), task), false)
	task.Start()
	want(t, "dormant", u.tasks.dormant, 1)
	startRead(t, s, 2, attrHeadOfQueue, ended)
	want(t, "dormant", u.tasks.dormant, 2)
	g.release(0)
	want(t, "first", <-ended, "a good")
	want(t, "its own read", <-g.begun, 1)
	want(t, "reads begun", len(g.begun), 0)
	g.release(1)
	want(t, "second", <-ended, "atomic good")
	want(t, "the younger one", <-g.begun, 2)
	g.release(2)
	want(t, "third", <-ended, "c good")
}
