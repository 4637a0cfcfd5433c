package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"testing"
)

// copyRequest is a parameter list of EXTENDED COPY in the making.
type copyRequest struct {
	id, flags byte
	devices   []byte
	segments  []byte
}

// device appends a CSCD descriptor with the NAA of u.
func (r copyRequest) device(u *Unit) copyRequest {
	d := make([]byte, 32)
	d[0], d[4], d[5], d[7] = 0xe4, 1, 3, 16
	copy(d[8:], naa(u.dev.Info().ID))
	r.devices = append(bytes.Clone(r.devices), d...)
	return r
}

// segment appends a copy of n blocks between two descriptors.
func (r copyRequest) segment(flags byte, from, to int, fromLBA, toLBA uint64, n uint16) copyRequest {
	d := make([]byte, 28)
	d[0], d[1], d[3], d[5], d[7] = 0x02, flags, 0x18, byte(from), byte(to)
	binary.BigEndian.PutUint16(d[10:], n)
	binary.BigEndian.PutUint64(d[12:], fromLBA)
	binary.BigEndian.PutUint64(d[20:], toLBA)
	r.segments = append(bytes.Clone(r.segments), d...)
	return r
}

func (r copyRequest) list() []byte {
	h := make([]byte, 16)
	h[0], h[1] = r.id, r.flags
	binary.BigEndian.PutUint16(h[2:], uint16(len(r.devices)))
	binary.BigEndian.PutUint32(h[8:], uint32(len(r.segments)))
	return append(append(h, r.devices...), r.segments...)
}

func copyDo(s *Session, list []byte) *Task {
	cdb := make([]byte, 16)
	cdb[0] = 0x83
	binary.BigEndian.PutUint32(cdb[10:], uint32(len(list)))
	return run(s, 0, cdb, list, 0)
}

// results is the data of RECEIVE COPY RESULTS with a service action.
func results(s *Session, action, id byte) *Task {
	return do(s, fmt.Sprintf("84 %02x %02x 00000000000000 00001000 00 00", action, id), nil)
}

// copyPair is two units of one session, with block sizes of their own, whose
// blocks each have a pattern, the first unit's last four no space.
func copyPair(t *testing.T, bs0, bs1 int) (*Session, [2]*memory, [2]*Unit) {
	var m [2]*memory
	var u [2]*Unit
	for i, bs := range []int{bs0, bs1} {
		m[i] = newMemory(t, 1<<16/bs, bs)
		m[i].info.ID[0] = byte(0x10 + i)
		u[i] = NewUnit(m[i])
		t.Cleanup(u[i].Close)
		for at := range m[i].data {
			m[i].data[at] = byte(at/bs*7 + i + 1)
		}
		m[i].mark(0, 1<<16, true)
	}
	clear(m[0].data[1<<16-4*bs0:])
	m[0].mark(int64(1<<16-4*bs0), int64(4*bs0), false)
	return open(t, "a", map[uint16]*Unit{0: u[0], 1: u[1]}), m, u
}

// TestCopy copies, and holds the medium against copies of slices.
func TestCopy(t *testing.T) {
	tests := []struct {
		name             string
		bs0, bs1         int
		from, to         int
		flags            byte
		fromLBA, toLBA   uint64
		n                uint16
		answer           string
		src, dst, length int // bytes, of what must have been copied
	}{
		{"to another unit", 512, 512, 0, 1, 0, 3, 60, 9, "good", 3 * 512, 60 * 512, 9 * 512},
		{"from another unit", 512, 512, 1, 0, 0, 3, 60, 9, "good", 3 * 512, 60 * 512, 9 * 512},
		{"holes", 512, 512, 0, 1, 0, 120, 2, 8, "good", 120 * 512, 2 * 512, 8 * 512},
		{"none", 512, 512, 0, 1, 0, 3, 60, 0, "good", 0, 0, 0},
		{"inside", 512, 512, 0, 0, 0, 3, 60, 9, "good", 3 * 512, 60 * 512, 9 * 512},
		{"overlap forwards", 512, 512, 0, 0, 0, 3, 5, 100, "good", 3 * 512, 5 * 512, 100 * 512},
		{"overlap backwards", 512, 512, 0, 0, 0, 5, 3, 100, "good", 5 * 512, 3 * 512, 100 * 512},
		{"onto itself", 512, 512, 0, 0, 0, 5, 5, 100, "good", 5 * 512, 5 * 512, 100 * 512},
		{"to larger blocks", 512, 4096, 0, 1, 0, 8, 1, 16, "good", 8 * 512, 4096, 8192},
		{"to smaller blocks", 4096, 512, 0, 1, 0, 1, 3, 2, "good", 4096, 3 * 512, 8192},
		{"counted by the destination", 512, 4096, 0, 1, 2, 8, 1, 2, "good", 8 * 512, 4096, 8192},
		{"a part of a block", 512, 4096, 0, 1, 0, 8, 1, 7, "a 26/0a", 0, 0, 0},
		{"beyond the source", 512, 512, 0, 1, 0, 125, 0, 4, "a 00/00", 0, 0, 0},
		{"beyond the destination", 512, 512, 0, 1, 0, 0, 125, 4, "a 00/00", 0, 0, 0},
		{"far beyond", 512, 512, 0, 1, 0, 1 << 63, 0, 1, "a 00/00", 0, 0, 0},
		{"no such descriptor", 512, 512, 0, 2, 0, 0, 0, 1, "a 08/04", 0, 0, 0},
	}
	for _, tt := range tests {
		s, m, u := copyPair(t, tt.bs0, tt.bs1)
		before := [2][]byte{bytes.Clone(m[0].data), bytes.Clone(m[1].data)}
		r := copyRequest{}.device(u[0]).device(u[1]).segment(tt.flags, tt.from, tt.to, tt.fromLBA, tt.toLBA, tt.n)
		want(t, tt.name, copyDo(s, r.list()).answer(), tt.answer)
		expected := [2][]byte{bytes.Clone(before[0]), bytes.Clone(before[1])}
		copy(expected[tt.to&1][tt.dst:tt.dst+tt.length], before[tt.from][tt.src:])
		for i := range m {
			if !bytes.Equal(m[i].data, expected[i]) {
				t.Errorf("%s: unit %d has other data", tt.name, i)
			}
		}
		if tt.name == "holes" {
			want(t, "destination of a hole takes space", m[1].mapped[6:10], []bool{false, false, false, false})
			want(t, "destination of data takes none", m[1].mapped[2:6], []bool{true, true, true, true})
		}
	}
}

// TestCopyLarge goes through more than one scratch buffer in both directions.
func TestCopyLarge(t *testing.T) {
	s, m, u := disk(t, 8192, 512)
	for shift, toLBA := range []uint64{700, 0} {
		for i := range m.data {
			m.data[i] = byte(i / 512 * 13)
		}
		m.mark(0, m.info.Size, true)
		before := bytes.Clone(m.data)
		fromLBA := uint64(350)
		r := copyRequest{}.device(u).segment(0, 0, 0, fromLBA, toLBA, 7000)
		want(t, "copy", copyDo(s, r.list()).answer(), "good")
		if !bytes.Equal(m.data[toLBA*512:toLBA*512+7000*512], before[fromLBA*512:fromLBA*512+7000*512]) {
			t.Errorf("shift %d: other data", shift)
		}
	}
}

// TestCopyList refuses what is not well formed before anything is copied.
func TestCopyList(t *testing.T) {
	s, m, u := copyPair(t, 512, 512)
	good := copyRequest{}.device(u[0]).device(u[1]).segment(0, 0, 1, 0, 0, 8)
	edit := func(at int, b ...byte) []byte {
		l := good.list()
		copy(l[at:], b)
		return l
	}
	many := copyRequest{}
	for range maxCopyDevices + 1 {
		many = many.device(u[0])
	}
	long := copyRequest{}.device(u[0])
	for range maxCopySegments + 1 {
		long = long.segment(0, 0, 0, 0, 0, 1)
	}
	tests := []struct {
		name string
		list []byte
		want string
	}{
		{"none", nil, "good"},
		{"header cut", good.list()[:15], "5 1a/00"},
		{"device cut", good.list()[:16+63], "5 1a/00"},
		{"segment cut", good.list()[:16+64+27], "5 1a/00"},
		{"too long", make([]byte, copyHeader+maxCopyLength+1), "5 1a/00"},
		{"half a device", edit(2, 0, 31), "5 1a/00"},
		{"list of 4 GiB", edit(8, 0xff, 0xff, 0xff, 0xff), "5 1a/00"},
		{"inline data", edit(12, 0, 0, 0, 1), "5 26/0b"},
		{"reserved usage", edit(1, 0x08), "5 26/00"},
		{"identifier without one", edit(0, 1, 0x18), "5 26/00"},
		{"device type", edit(16, 0xe0), "5 26/07"},
		{"peripheral type", edit(17, 0x01), "5 26/00"},
		{"segment type", edit(16+64, 0x03), "5 26/09"},
		{"segment length", edit(16+64+3, 0x17), "5 26/00"},
		{"too many devices", many.segment(0, 0, 0, 0, 0, 1).list(), "5 26/06"},
		{"too many segments", long.list(), "5 26/08"},
		{"too much of both", func() []byte { r := many; r.segments = long.segments; return r.list() }(), "5 1a/00"},
	}
	for _, tt := range tests {
		want(t, tt.name, copyDo(s, tt.list).answer(), tt.want)
	}
	want(t, "list missing", do(s, "83 00 0000000000000000 00000010 00 00", nil).answer(), "5 1a/00")
	want(t, "device calls", len(m[0].calls)+len(m[1].calls), 0)
	want(t, "data-out", s.OutLength(0, unhex("83 00 0000000000000000 ffffffff 00 00")), copyHeader+maxCopyLength)
}

// TestCopySees: only what the session sees can be named.
func TestCopySees(t *testing.T) {
	_, m, u := copyPair(t, 512, 512)
	s := open(t, "b", map[uint16]*Unit{0: u[0]})
	for _, r := range []copyRequest{
		copyRequest{}.device(u[0]).device(u[1]).segment(0, 1, 0, 0, 0, 8),
		copyRequest{}.device(u[0]).device(u[1]).segment(0, 0, 1, 0, 0, 8),
	} {
		task := copyDo(s, r.list())
		want(t, "copy", task.answer(), "a 08/04")
	}
	want(t, "device calls", len(m[0].calls)+len(m[1].calls), 0)
	r := copyRequest{}.device(u[0]).segment(0, 0, 0, 0, 8, 8)
	d := r.devices
	clear(d[8:28])
	d[4], d[5], d[7] = 1, 2, 16
	copy(d[8:], eui(u[0].dev.Info().ID))
	want(t, "by EUI-64", copyDo(s, r.list()).answer(), "good")
	d[7] = 0
	want(t, "by an empty name", copyDo(s, r.list()).answer(), "a 08/04")
	d[7] = 255
	want(t, "by a long name", copyDo(s, r.list()).answer(), "a 08/04")
}

// TestCopyStands is what stands in the way of a copy at its units.
func TestCopyStands(t *testing.T) {
	tests := []struct {
		name  string
		unit  int // where
		make  func(other *Session, m *memory, u *Unit)
		wants [2]string // with it as source, as destination
	}{
		{"write exclusive", 1, hold(typeWriteExclusive), [2]string{"good", "a 00/00"}},
		{"exclusive access", 1, hold(typeExclusiveAccess), [2]string{"a 00/00", "a 00/00"}},
		{"RESERVE", 1, func(o *Session, _ *memory, _ *Unit) { run(o, lunField(1), unhex("16"), nil, 0) }, [2]string{"a 00/00", "a 00/00"}},
		{"read-only", 1, func(_ *Session, m *memory, _ *Unit) { m.info.ReadOnly = true }, [2]string{"good", "a 00/00"}},
		{"software write protect", 1, func(_ *Session, _ *memory, u *Unit) { u.mode.set(modeProtect) }, [2]string{"good", "a 00/00"}},
		{"medium error", 1, func(_ *Session, m *memory, _ *Unit) {
			m.fault = func(string, int64) error { return &MediumError{Err: errors.New("bad")} }
		}, [2]string{"a 00/00", "a 00/00"}},
		{"no space", 1, func(_ *Session, m *memory, _ *Unit) {
			m.fault = func(verb string, _ int64) error {
				if verb == "write" {
					return ErrNoSpace
				}
				return nil
			}
		}, [2]string{"good", "a 00/00"}},
		{"write exclusive here", 0, hold(typeWriteExclusive), [2]string{"conflict", "conflict"}},
	}
	for _, tt := range tests {
		for role := range 2 {
			s, m, u := copyPair(t, 512, 512)
			other := open(t, "b", map[uint16]*Unit{0: u[0], 1: u[1]})
			tt.make(other, m[tt.unit], u[tt.unit])
			r := copyRequest{}.device(u[0]).device(u[1]).segment(0, 1-role, role, 0, 0, 8)
			want(t, fmt.Sprintf("%s, role %d", tt.name, role), copyDo(s, r.list()).answer(), tt.wants[role])
		}
	}
}

// hold reserves the unit.
func hold(kind byte) func(*Session, *memory, *Unit) {
	return func(o *Session, _ *memory, u *Unit) {
		for lun, a := range *o.luns.Load() {
			if a.unit == u {
				run(o, lunField(lun), unhex("5f 00 00 0000 00000018 00"), unhex(zeros(15)+"01"+zeros(8)), 0)
				run(o, lunField(lun), []byte{0x5f, 1, kind, 0, 0, 0, 0, 0, 24, 0}, unhex(zeros(7)+"01"+zeros(16)), 0)
			}
		}
	}
}

// TestCopyAbort ends copies at each of their units, as PREEMPT AND ABORT,
// LOGICAL UNIT RESET and CLEAR TASK SET do.
func TestCopyAbort(t *testing.T) {
	for lun, answer := range []string{"aborted", "a 00/00"} {
		s, m, u := copyPair(t, 512, 512)
		reading, goOn := make(chan struct{}), make(chan struct{})
		m[0].fault = barrier(reading, goOn)
		done := make(chan string)
		go func() {
			done <- copyDo(s, copyRequest{}.device(u[0]).device(u[1]).segment(0, 0, 1, 0, 0, 8).list()).answer()
		}()
		<-reading
		reset := make(chan struct{})
		go func() { s.LUNReset(uint64(lun) << 48)(); close(reset) }()
		for !aborting(u[lun]) {
		}
		close(goOn)
		want(t, "copy", <-done, answer)
		<-reset
		if m[1].data[0] != 2 {
			t.Error("the copy wrote after it was aborted")
		}
	}
}

// barrier is a fault that tells of the first call and lets none pass until goOn.
func barrier(first, goOn chan struct{}) func(string, int64) error {
	var once sync.Once
	return func(string, int64) error {
		once.Do(func() { close(first) })
		<-goOn
		return nil
	}
}

// aborting tells whether a command of the unit is aborted and still there.
func aborting(u *Unit) bool {
	u.tasks.mu.Lock()
	defer u.tasks.mu.Unlock()
	return u.tasks.newest != nil && u.tasks.newest.ctx.aborted.Load()
}

func TestCopyResults(t *testing.T) {
	s, _, u := copyPair(t, 512, 512)
	good := copyRequest{id: 7}.device(u[0]).device(u[1]).segment(0, 0, 1, 0, 0, 8).segment(0, 0, 1, 0, 0, 2)
	bad := good.segment(0, 0, 1, 128, 0, 1)
	want(t, "status of none", results(s, 0, 7).answer(), "5 24/00")
	want(t, "details of none", results(s, 4, 7).answer(), "5 24/00")
	want(t, "copy", copyDo(s, good.list()).answer(), "good")
	want(t, "details of success", results(s, 4, 7).In, unhex("00000000"))
	want(t, "status", results(s, 0, 7).In, unhex("00000008 01 0002 01 00000005"))
	want(t, "told once", results(s, 0, 7).answer(), "5 24/00")
	failed := copyDo(s, bad.list())
	want(t, "failing copy", failed.answer(), "a 00/00")
	want(t, "its segment", binary.BigEndian.Uint32(failed.Sense[8:]), 2)
	want(t, "status", results(s, 0, 7).In[4], 0x02)
	details := results(s, 4, 7).In
	want(t, "length", binary.BigEndian.Uint32(details), 56+18)
	want(t, "status of the command", details[56], StatusCheckCondition)
	want(t, "sense data", details[60:], failed.Sense)
	want(t, "told once", results(s, 4, 7).answer(), "5 24/00")
	other := open(t, "b", map[uint16]*Unit{0: u[0]})
	bad.id = 9
	copyDo(s, bad.list())
	want(t, "of another nexus", results(other, 0, 9).answer(), "5 24/00")
	bad.id, bad.flags = 0, 0x18
	copyDo(s, bad.list())
	want(t, "without identifier", results(s, 0, 0).answer(), "5 24/00")
	good.flags = 0
	for id := range 256 {
		good.id = byte(id)
		copyDo(s, good.list())
	}
	want(t, "held", len((*s.luns.Load())[0].copies.list), maxCopyResults)
}

// TestCopyInProgress: a list identifier names one copy at a time.
func TestCopyInProgress(t *testing.T) {
	s, m, u := copyPair(t, 512, 512)
	r := copyRequest{id: 7}.device(u[0]).device(u[1]).segment(0, 0, 1, 0, 0, 8)
	reading, goOn := make(chan struct{}), make(chan struct{})
	m[1].fault = barrier(reading, goOn)
	done := make(chan string)
	go func() { done <- copyDo(s, r.list()).answer() }()
	<-reading
	want(t, "running", results(s, 0, 7).In, unhex("00000008 00 0000 01 00000004"))
	want(t, "again", copyDo(s, r.list()).answer(), "5 00/16")
	want(t, "details of a running one", results(s, 4, 7).answer(), "5 24/00")
	close(goOn)
	want(t, "the first", <-done, "good")
}

// TestCopyParameters: what is announced is what holds, in both places.
func TestCopyParameters(t *testing.T) {
	s, _, _ := copyPair(t, 512, 512)
	p := results(s, 3, 0).In
	want(t, "length", binary.BigEndian.Uint32(p), len(p)-4)
	want(t, "SNLID", p[4], 1)
	want(t, "devices", binary.BigEndian.Uint16(p[8:]), maxCopyDevices)
	want(t, "segments", binary.BigEndian.Uint16(p[10:]), maxCopySegments)
	want(t, "list", binary.BigEndian.Uint32(p[12:]), maxCopyLength)
	want(t, "segment", binary.BigEndian.Uint32(p[16:]), maxCopySegment)
	want(t, "concurrent", p[36], laneDepth)
	want(t, "descriptors", p[43:], []byte{2, 0x02, 0xe4})
	found := map[uint16][]byte{}
	for b := page(t, s, 0x8f)[4:]; len(b) > 0; {
		n := 4 + int(binary.BigEndian.Uint16(b[2:]))
		want(t, "multiple of 4", n%4, 0)
		found[binary.BigEndian.Uint16(b)] = b[4:n]
		b = b[n:]
	}
	want(t, "commands", found[1][:9], []byte{8, 0x83, 1, 0, 0x84, 3, 0, 3, 4})
	want(t, "limits", found[4][4:12], p[8:16])
	want(t, "types", found[8][:3], p[43:])
	want(t, "general", binary.BigEndian.Uint32(found[0x8001][8:]), maxCopySegment)
	want(t, "3PC", do(s, "12 00 00 00 ff 00", nil).In[5]&0x08, 8)
}

// FuzzCopy gives any parameter list: nothing outside of the units that it names
// changes, and what is refused changes nothing.
func FuzzCopy(f *testing.F) {
	u := NewUnit(newMemory(f, 64, 512))
	r := copyRequest{}.device(u)
	f.Add(r.segment(0, 0, 0, 0, 8, 8).list())
	f.Add(r.segment(2, 0, 0, 8, 0, 60).list())
	f.Add(r.segment(0, 0, 0, 1, 0, 63).segment(0, 0, 0, 0, 1, 63).list())
	f.Add(r.segment(0, 0, 1, 0, 0, 1).list())
	f.Fuzz(func(t *testing.T, list []byte) {
		m := newMemory(t, 64, 512)
		for i := range m.data {
			m.data[i] = byte(i / 512)
		}
		m.mark(0, m.info.Size, true)
		hidden := newMemory(t, 8, 512)
		hidden.info.ID[0] = 0x55
		s := open(t, "a", map[uint16]*Unit{0: NewUnit(m)})
		before := bytes.Clone(m.data)
		cdb := make([]byte, 16)
		cdb[0] = 0x83
		binary.BigEndian.PutUint32(cdb[10:], uint32(len(list)))
		task := &Task{CDB: cdb, Out: list}
		s.Execute(context.Background(), task)
		if task.Status == StatusCheckCondition && task.Sense[2]&0xf == keyIllegalRequest && !bytes.Equal(before, m.data) {
			t.Error("a refused list changed the medium")
		}
		for block := 0; block < len(m.data); block += 512 {
			if !oneOf(m.data[block:block+512], before) {
				t.Fatalf("block %d is none of the blocks that were there", block/512)
			}
		}
	})
}

// oneOf tells whether block is one of the blocks of all.
func oneOf(block, all []byte) bool {
	for at := 0; at < len(all); at += 512 {
		if bytes.Equal(block, all[at:at+512]) {
			return true
		}
	}
	return false
}
