package scsi

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
)

func pattern(n int, b byte) []byte { return bytes.Repeat([]byte{b}, n) }

// TestRange checks every command with a range at its edges, on 1024 blocks.
func TestRange(t *testing.T) {
	tests := []struct{ name, cdb, want string }{
		{"read6", "08 0003ff 01 00", "good"},
		{"read6 beyond", "08 0003ff 02 00", "5 21/00"},
		{"read6 0 is 256", "08 000300 00 00", "good"},
		{"read6 0 is 256 beyond", "08 000301 00 00", "5 21/00"},
		{"read10 last", "28 00 000003ff 00 0001 00", "good"},
		{"read10 none at the end", "28 00 00000400 00 0000 00", "good"},
		{"read10 none beyond", "28 00 00000401 00 0000 00", "5 21/00"},
		{"read10 beyond", "28 00 000003ff 00 0002 00", "5 21/00"},
		{"read10 top", "28 00 ffffffff 00 ffff 00", "5 21/00"},
		{"read10 protect", "28 20 00000000 00 0001 00", "5 24/00"},
		{"read10 naca", "28 00 00000000 00 0001 04", "5 24/00"},
		{"read10 dpo fua", "28 1a 00000000 00 0001 00", "good"},
		{"read12 beyond", "a8 00 00000400 00000001 00 00", "5 21/00"},
		{"read12 top", "a8 00 ffffffff ffffffff 00 00", "5 21/00"},
		{"read16 top", "88 00 ffffffffffffffff ffffffff 00 00", "5 21/00"},
		{"read16 wrap", "88 00 ffffffffffffffff 00000001 00 00", "5 21/00"},
		{"read16 sign", "88 00 8000000000000000 00000000 00 00", "5 21/00"},
		{"verify16 top", "8f 00 ffffffffffffffff ffffffff 00 00", "5 21/00"},
		{"write16 top", "8a 00 ffffffffffffffff ffffffff 00 00", "5 21/00"},
		{"compare and write beyond", "89 00 00000000000003ff 000000 02 00 00", "5 21/00"},
		{"orwrite beyond", "8b 00 00000000000003ff 00000002 00 00", "5 21/00"},
		{"write same beyond", "93 00 00000000000003ff 00000002 00 00", "5 21/00"},
		{"write same none", "93 00 0000000000000000 00000000 00 00", "5 24/00"},
		{"write same anchor alone", "93 10 0000000000000000 00000001 00 00", "5 24/00"},
		{"write atomic without a keeper", "9c 00 0000000000000000 0000 0001 00 00", "5 20/00"},
		{"prefetch10", "34 02 00000000 00 0000 00", "good"},
		{"prefetch16 beyond", "90 00 0000000000000400 00000001 00 00", "5 21/00"},
		{"synchronize10", "35 02 00000000 00 0000 00", "good"},
		{"synchronize16 beyond", "91 00 0000000000000000 00000401 00 00", "5 21/00"},
		{"verify reserved check", "2f 04 00000000 00 0001 00", "5 24/00"},
		{"verify none", "2f 02 00000000 00 0000 00", "good"},
		{"lba status beyond", "9e 12 0000000000000400 00000018 00 00", "5 21/00"},
		{"read toc", "43 00 00000000 00 0000 00", "5 20/00"},
		{"set target port groups", "a4 0a 00000000 00000000 00 00", "5 20/00"},
		{"unknown service action", "9e 1f 0000000000000000 00000000 00 00", "5 24/00"},
	}
	s, _, _ := disk(t, 1024, 512)
	for _, tt := range tests {
		want(t, tt.name, do(s, tt.cdb, nil).answer(), tt.want)
	}
}

// TestTransferLimit refuses more than VPD page B0h allows, and says where.
func TestTransferLimit(t *testing.T) {
	s, m, _ := disk(t, maxTransfer/512+8, 512)
	task := do(s, "88 00 0000000000000000 00004001 00 00", nil)
	want(t, "answer", task.answer(), "5 24/00")
	want(t, "field pointer", task.Sense[15:18], []byte{0xc0, 0, 10})
	want(t, "device calls", len(m.calls), 0)
	want(t, "data-out", s.OutLength(0, unhex("8a00 0000000000000000 ffffffff 0000")), maxTransfer)
	task = run(s, 0, unhex("88 00 0000000000000000 00004000 00 00"), nil, maxTransfer)
	want(t, "the whole limit", task.answer(), "good")
	want(t, "bytes", len(task.In), maxTransfer)
}

// TestWriteRead goes through each width with both block sizes.
func TestWriteRead(t *testing.T) {
	for _, bs := range []int{512, 4096} {
		s, m, _ := disk(t, 64, bs)
		for i, pair := range [][2]string{
			{"0a 000005 02 00", "08 000005 02 00"},
			{"2a 00 00000005 00 0002 00", "28 00 00000005 00 0002 00"},
			{"aa 00 00000005 00000002 00 00", "a8 00 00000005 00000002 00 00"},
			{"8a 00 0000000000000005 00000002 00 00", "88 00 0000000000000005 00000002 00 00"},
			{"2e 02 00000005 00 0002 00", "28 00 00000005 00 0002 00"},
			{"ae 02 00000005 00000002 00 00", "a8 00 00000005 00000002 00 00"},
			{"8e 00 0000000000000005 00000002 00 00", "88 00 0000000000000005 00000002 00 00"},
		} {
			data := pattern(2*bs, byte(i+1))
			want(t, pair[0], do(s, pair[0], data).answer(), "good")
			task := do(s, pair[1], nil)
			want(t, pair[1], task.answer(), "good")
			if !bytes.Equal(task.In, data) {
				t.Errorf("%s: data differ", pair[1])
			}
		}
		want(t, "before", m.data[5*bs-1], 0)
		want(t, "behind", m.data[7*bs], 0)
	}
}

// TestResidual is data-in and data-out that are not as long as the CDB says.
func TestResidual(t *testing.T) {
	const read2, write2 = "28 00 00000000 00 0002 00", "2a 00 00000000 00 0002 00"
	s, m, _ := disk(t, 8, 512)
	copy(m.data, pattern(1024, 'a'))
	for _, limit := range []int{0, 1, 511, 512, 600, 1024, 4096} {
		task := run(s, 0, unhex(read2), nil, limit)
		want(t, "answer", task.answer(), "good")
		want(t, "sent", len(task.In), min(limit, 1024))
		want(t, "had to send", task.ActualIn, 1024)
		if !bytes.Equal(task.In, pattern(len(task.In), 'a')) {
			t.Errorf("limit %d: data differ", limit)
		}
	}
	tests := []struct {
		name    string
		out     int
		want    string
		written int
	}{
		{"nothing", 0, "good", 0},
		{"part of a block", 200, "5 0e/03", 0},
		{"one of two blocks", 512, "good", 512},
		{"both", 1024, "good", 1024},
		{"more", 2048, "good", 1024},
	}
	for _, tt := range tests {
		clear(m.data)
		want(t, tt.name, do(s, write2, pattern(tt.out, 'b')).answer(), tt.want)
		want(t, tt.name, bytes.Count(m.data, []byte{'b'}), tt.written)
	}
}

// TestVerify compares with BYTCHK 0, 1 and 3.
func TestVerify(t *testing.T) {
	s, m, _ := disk(t, 2048, 512)
	copy(m.data, pattern(len(m.data), 'v'))
	tests := []struct {
		name, cdb string
		out       []byte
		want      string
		at        int64
	}{
		{"no check", "2f 00 00000000 00 0400 00", nil, "good", -1},
		{"equal", "2f 02 00000000 00 0002 00", pattern(1024, 'v'), "good", -1},
		{"short", "2f 02 00000000 00 0002 00", pattern(512, 'v'), "5 0e/03", -1},
		{"differ", "8f 02 0000000000000000 00000002 00 00", append(pattern(1000, 'v'), pattern(24, 'w')...), "e 1d/00", 1000},
		{"one block for all", "af 06 00000000 00000400 00 00", pattern(512, 'v'), "good", -1},
		{"one block differs", "2f 06 00000000 00 0400 00", append(pattern(511, 'v'), 'w'), "e 1d/00", 511},
	}
	for _, tt := range tests {
		task := do(s, tt.cdb, tt.out)
		want(t, tt.name, task.answer(), tt.want)
		want(t, tt.name+" at", task.information(), tt.at)
	}
}

// TestFaults is the sense data of each kind of error.
func TestFaults(t *testing.T) {
	const readAt3, writeAt3 = "28 00 00000003 00 0001 00", "2a 00 00000003 00 0001 00"
	tests := []struct {
		name string
		err  error
		cdb  string
		want string
		info int64
	}{
		{"no space", ErrNoSpace, writeAt3, "7 27/07", -1},
		{"read-only", ErrReadOnly, writeAt3, "7 27/00", -1},
		{"gone", ErrGone, readAt3, "5 25/00", -1},
		{"medium, reading", &MediumError{Offset: 1536, Err: errors.New("crc")}, readAt3, "3 11/00", 3},
		{"medium, writing", &MediumError{Offset: 1536, Err: errors.New("crc")}, writeAt3, "3 0c/00", 3},
		{"canceled", context.Canceled, readAt3, "b 00/00", -1},
		{"anything", errors.New("lost"), readAt3, "4 44/00", -1},
	}
	s, m, _ := disk(t, 8, 512)
	for _, tt := range tests {
		m.fault = func(string, int64) error { return tt.err }
		task := do(s, tt.cdb, pattern(512, 1))
		want(t, tt.name, task.answer(), tt.want)
		want(t, tt.name+" information", task.information(), tt.info)
		want(t, tt.name+" data", len(task.In)+task.ActualIn, 0)
	}
}

func TestReadOnly(t *testing.T) {
	s, m, _ := disk(t, 8, 512)
	m.info.ReadOnly = true
	for _, cdb := range []string{
		"0a 000000 01 00", "2a 00 00000000 00 0001 00", "2e 00 00000000 00 0001 00", "41 00 00000000 00 0001 00",
		"8b 00 0000000000000000 00000001 00 00", "89 00 0000000000000000 000000 01 00 00",
	} {
		want(t, cdb, do(s, cdb, pattern(512, 1)).answer(), "7 27/00")
	}
	want(t, "unmap", do(s, "42 00 00000000 00 0008 00", make([]byte, 8)).answer(), "7 27/00")
	want(t, "WP", do(s, "1a 08 3f 00 ff 00", nil).In[2], 0x90)
}

func TestForce(t *testing.T) {
	s, m, u := disk(t, 8, 512)
	do(s, "2a 00 00000000 00 0001 00", pattern(512, 1))
	want(t, "plain", m.forced, 0)
	do(s, "2a 08 00000000 00 0001 00", pattern(512, 1))
	want(t, "FUA", m.forced, 1)
	u.mode.set(0)
	do(s, "2a 00 00000000 00 0001 00", pattern(512, 1))
	want(t, "cache off", m.forced, 2)
	do(s, "41 00 00000000 00 0001 00", pattern(512, 0))
	want(t, "cache off, write same", m.lastCall(), "flush")
}

func TestCompareWrite(t *testing.T) {
	const cdb = "89 00 0000000000000002 000000 02 00 00"
	s, m, _ := disk(t, 8, 512)
	both := append(pattern(1024, 0), pattern(1024, 'x')...)
	want(t, "short", do(s, cdb, both[:1024]).answer(), "5 24/00")
	want(t, "long", do(s, cdb, append(both[:2048:2048], both...)).answer(), "5 24/00")
	want(t, "equal", do(s, cdb, both).answer(), "good")
	want(t, "written", bytes.Count(m.data[1024:2048], []byte{'x'}), 1024)
	task := do(s, cdb, both)
	want(t, "differ", task.answer(), "e 1d/00")
	want(t, "at", task.information(), 0)
	want(t, "none", do(s, "89 00 0000000000000002 000000 00 00 00", nil).answer(), "good")
	fua := "89 08" + cdb[5:]
	want(t, "FUA", do(s, fua, append(pattern(1024, 'x'), both[:1024]...)).answer(), "good")
	want(t, "FUA flushes", m.flushes, 1)
}

func TestOrWrite(t *testing.T) {
	s, m, _ := disk(t, 8, 512)
	copy(m.data, pattern(1024, 0xa0))
	want(t, "answer", do(s, "8b 00 0000000000000000 00000001 00 00", pattern(512, 0x05)).answer(), "good")
	want(t, "merged", m.data[511], 0xa5)
	want(t, "next", m.data[512], 0xa0)
}

// TestWriteSame covers what the pattern and UNMAP make of it.
func TestWriteSame(t *testing.T) {
	tests := []struct {
		name, cdb string
		out       []byte
		want      string
		call      string
	}{
		{"pattern", "41 00 00000001 00 0003 00", pattern(512, 'p'), "good", "write 1+3"},
		{"zeros", "93 00 0000000000000001 00000003 00 00", pattern(512, 0), "good", "zero 1+3"},
		{"unmap", "41 08 00000001 00 0003 00", pattern(512, 0), "good", "unmap 1+3"},
		{"unmap of data", "93 08 0000000000000001 00000003 00 00", pattern(512, 7), "good", "write 1+3"},
		{"unmap without data", "93 08 0000000000000001 00000003 00 00", nil, "good", "unmap 1+3"},
		{"no data-out buffer", "93 01 0000000000000001 00000003 00 00", nil, "good", "zero 1+3"},
		{"no data-out buffer, unmap", "93 09 0000000000000001 00000003 00 00", nil, "good", "unmap 1+3"},
		{"without data", "93 00 0000000000000001 00000003 00 00", nil, "5 0e/03", ""},
		{"half a block", "41 08 00000001 00 0003 00", pattern(256, 0), "5 0e/03", ""},
		{"two blocks", "41 08 00000001 00 0003 00", pattern(1024, 0), "5 0e/03", ""},
		{"protect", "41 20 00000001 00 0003 00", pattern(512, 0), "5 24/00", ""},
	}
	for _, tt := range tests {
		s, m, _ := disk(t, 8, 512)
		want(t, tt.name, do(s, tt.cdb, tt.out).answer(), tt.want)
		want(t, tt.name, m.lastCall(), tt.call)
	}
	s, m, _ := disk(t, maxSameBlocks+8, 512)
	want(t, "too long", do(s, "93 00 0000000000000000 00008001 00 00", pattern(512, 1)).answer(), "5 24/00")
	want(t, "as long as can be", do(s, "93 00 0000000000000001 00008000 00 00", pattern(512, 1)).answer(), "good")
	want(t, "filled", bytes.Count(m.data, []byte{1}), maxSameBlocks*512)
}

func TestUnmap(t *testing.T) {
	list := func(length, descriptors string, ranges ...string) []byte {
		return unhex(length + descriptors + "00000000" + strings.Join(ranges, ""))
	}
	const one, two = "0000000000000001 00000002 00000000", "0000000000000004 00000001 00000000"
	many := make([]string, maxUnmapRanges+1)
	for i := range many {
		many[i] = two
	}
	tests := []struct {
		name string
		n    int // parameter list length of the CDB
		out  []byte
		want string
		call string
	}{
		{"no list", 0, nil, "good", ""},
		{"short header", 7, make([]byte, 7), "5 1a/00", ""},
		{"list missing", 24, make([]byte, 8), "5 1a/00", ""},
		{"no descriptors", 8, list("0006", "0000"), "good", ""},
		{"one", 24, list("0016", "0010", one), "good", "unmap 1+2"},
		{"two", 40, list("0026", "0020", one, two), "good", "unmap 4+1"},
		{"claims more", 24, list("0016", "0020", one), "5 1a/00", ""},
		{"part of a descriptor", 40, list("0026", "0018", one, two), "good", "unmap 1+2"},
		{"nothing at the end", 24, list("0016", "0010", "0000000000000008 00000000 00000000"), "good", ""},
		{"beyond", 24, list("0016", "0010", "0000000000000008 00000001 00000000"), "5 21/00", ""},
		{"second beyond", 40, list("0026", "0020", one, "ffffffffffffffff ffffffff 00000000"), "5 21/00", ""},
		{"too many", 8 + 16*len(many), list("1016", "1010", many...), "5 26/00", ""},
	}
	for _, tt := range tests {
		s, m, _ := disk(t, 8, 512)
		cdb := unhex("42 00 00000000 00 0000 00")
		cdb[7], cdb[8] = byte(tt.n>>8), byte(tt.n)
		want(t, tt.name, run(s, 0, cdb, tt.out, 0).answer(), tt.want)
		want(t, tt.name, m.lastCall(), tt.call)
	}
}

// TestPartOfBlock reads where the initiator has no room for the last block.
func TestPartOfBlock(t *testing.T) {
	s, m, _ := disk(t, 64, 512)
	for i := range m.data {
		m.data[i] = byte(i / 3)
	}
	for _, limit := range []int{1, 511, 512, 513, 700, 1023} {
		task := run(s, 0, unhex("28 00 00000003 00 0002 00"), nil, limit)
		want(t, "status", task.answer(), "good")
		if !bytes.Equal(task.In, m.data[3*512:3*512+limit]) {
			t.Errorf("other data than the first %d bytes", limit)
		}
	}
}

// TestUnmapLimit asks for more blocks in all than VPD page B0h allows.
func TestUnmapLimit(t *testing.T) {
	m := newMemory(t, 64, 512)
	m.info.Size = 2 * maxUnmapBlocks * 512
	s := open(t, "a", map[uint16]*Unit{0: NewUnit(m)})
	list := unhex("0026 0020 00000000  0000000000000000 00080000 00000000  0000000000080000 00080001 00000000")
	want(t, "two ranges", do(s, "42 00 00000000 00 0028 00", list).answer(), "5 26/00")
	want(t, "calls", m.calls, []string{})
}
