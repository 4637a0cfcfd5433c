package scsi

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

func TestInquiry(t *testing.T) {
	s, _, _ := disk(t, 64, 512)
	b := do(s, "12 00 00 00ff 00", nil).In
	want(t, "length", len(b), 96)
	want(t, "additional length", b[4], 91)
	want(t, "names", string(b[8:36]), "RIPSTOP LUN             1.0 ")
	for n := range 100 {
		task := run(s, 0, []byte{0x12, 0, 0, 0, byte(n), 0}, nil, 4096)
		want(t, "cut", len(task.In), min(n, 96))
		want(t, "had to send", task.ActualIn, min(n, 96))
	}
	want(t, "page without EVPD", do(s, "12 00 80 00ff 00", nil).answer(), "5 24/00")
	want(t, "unknown page", do(s, "12 01 c0 00ff 00", nil).answer(), "5 24/00")
}

func page(t *testing.T, s *Session, code byte) []byte {
	t.Helper()
	task := run(s, 0, []byte{0x12, 1, code, 0xff, 0, 0}, nil, 65536)
	want(t, "page", task.answer(), "good")
	want(t, "page code", task.In[1], code)
	want(t, "page length", int(binary.BigEndian.Uint16(task.In[2:])), len(task.In)-4)
	return task.In
}

func TestVitalPages(t *testing.T) {
	s, _, _ := disk(t, 64, 512)
	list := page(t, s, 0)[4:]
	want(t, "pages", list, []byte{0x00, 0x80, 0x83, 0x86, 0x8f, 0xb0, 0xb1, 0xb2, 0xb9})
	for _, code := range list {
		page(t, s, code)
	}
	want(t, "serial", string(page(t, s, 0x80)[4:]), "01020300000000000000000000000009")
	b0 := page(t, s, 0xb0)
	want(t, "limits length", len(b0), 64)
	want(t, "max compare and write", b0[5], 255)
	want(t, "max transfer", binary.BigEndian.Uint32(b0[8:]), 16384)
	want(t, "unmap granularity", binary.BigEndian.Uint32(b0[28:]), 128)
	want(t, "max unmap", binary.BigEndian.Uint32(b0[20:]), maxUnmapBlocks)
	want(t, "max write same", binary.BigEndian.Uint64(b0[36:]), maxSameBlocks)
	want(t, "provisioning", page(t, s, 0xb2)[4:], []byte{0, 0xe6, 2, 0})
	want(t, "ranges", page(t, s, 0xb9)[64:], unhex("0001000000000000 0000000000000000 0000000000000040 0000000000000000"))
}

func TestDesignators(t *testing.T) {
	s, _, _ := disk(t, 64, 512)
	var kinds []byte
	var texts []string
	for b := page(t, s, 0x83)[4:]; len(b) > 0; b = b[4+int(b[3]):] {
		kinds = append(kinds, b[1])
		texts = append(texts, strings.TrimRight(string(b[4:4+int(b[3])]), "\x00"))
		if b[1]&0xf == 3 {
			want(t, "NAA", b[4]>>4, 6)
			want(t, "NAA length", b[3], 16)
		}
	}
	want(t, "kinds", kinds, []byte{0x03, 0x02, 0x01, 0x94, 0x95, 0x98, 0xa8})
	want(t, "vendor", texts[2], "RIPSTOP 01020300000000000000000000000009")
	want(t, "port", texts[5], "iqn.2026-11.test:disk,t,0x0001")
	want(t, "device", texts[6], "iqn.2026-11.test:disk")
	a, b := naa([16]byte{1}), naa([16]byte{2})
	if bytes.Equal(a, b) {
		t.Error("two identifiers with one NAA")
	}
}

func TestCapacity(t *testing.T) {
	tests := []struct {
		blocks, size int
		exponent     byte
		flags        byte // LBPME, LBPRZ
		provisioning byte // LBPU, LBPWS, LBPWS10, LBPRZ
	}{{64, 512, 3, 0xc0, 0xe6}, {64, 4096, 0, 0x80, 0xe2}}
	for _, tt := range tests {
		s, m, _ := disk(t, tt.blocks, tt.size)
		ten := do(s, "25 00 00000000 0000 00 00", nil).In
		want(t, "10", []uint32{binary.BigEndian.Uint32(ten), binary.BigEndian.Uint32(ten[4:])}, []int{63, tt.size})
		sixteen := do(s, "9e 10 0000000000000000 00000020 00 00", nil).In
		want(t, "16", []uint64{binary.BigEndian.Uint64(sixteen), uint64(binary.BigEndian.Uint32(sixteen[8:]))}, []int{63, tt.size})
		want(t, "flags", sixteen[12:16], []byte{0, tt.exponent, tt.flags, 0})
		want(t, "provisioning", page(t, s, 0xb2)[5], tt.provisioning)
		want(t, "cut", len(do(s, "9e 10 0000000000000000 00000003 00 00", nil).In), 3)
		m.info.Size = int64(tt.size) << 32
		ten = do(s, "25 00 00000000 0000 00 00", nil).In
		want(t, "large", binary.BigEndian.Uint32(ten), uint32(0xffffffff))
		m.info.Size = 0
		want(t, "empty", do(s, "25 00 00000000 0000 00 00", nil).answer(), "good")
	}
	s, _, _ := disk(t, 64, 512)
	want(t, "LBA without PMI", do(s, "25 00 00000001 0000 00 00", nil).answer(), "5 24/00")
	want(t, "PMI beyond", do(s, "25 00 00000040 0000 01 00", nil).answer(), "5 21/00")
}

func TestLBAStatus(t *testing.T) {
	s, m, _ := disk(t, 64, 512)
	m.mark(10*512, 5*512, true)
	b := do(s, "9e 12 0000000000000002 00000100 00 00", nil).In
	want(t, "length", binary.BigEndian.Uint32(b), len(b)-4)
	want(t, "status", b[8:], unhex("0000000000000002 00000008 01000000 000000000000000a 00000005 00000000 000000000000000f 00000031 01000000"))
	want(t, "one", len(do(s, "9e 12 0000000000000002 00000018 00 00", nil).In), 24)
	want(t, "cut", len(do(s, "9e 12 0000000000000002 00000003 00 00", nil).In), 3)
}

func TestReports(t *testing.T) {
	s, _, _ := disk(t, 64, 512)
	tests := []struct{ name, cdb, want string }{
		{"groups", "a3 0a 00000000 000000ff 00 00", "0000000c 0001 0001 0000 0001 0000 0001"},
		{"groups, extended", "a3 2a 00000000 000000ff 00 00", "00000010 10000000 0001 0001 0000 0001 0000 0001"},
		{"functions", "a3 0d 00 000000 00000004 00 00", "da000000"},
		{"functions, extended", "a3 0d 80 000000 00000010 00 00", "da00000c 000000000000000000000000"},
		{"no such opcode", "a3 0c 01 ff 0000 000000ff 00 00", "00010000"},
		{"read10 with timeouts", "a3 0c 81 28 0000 000000ff 00 00", "0083000a 281affffffff1fffff00 000a00000000000000000000"},
		{"option 3", "a3 0c 03 9e 0010 000000ff 00 00", "00030010 9e10ffffffffffffffffffffffff0100"},
		{"option 3, no such action", "a3 0c 03 28 0001 000000ff 00 00", "00010000"},
	}
	for _, tt := range tests {
		task := do(s, tt.cdb, nil)
		want(t, tt.name, task.answer(), "good")
		if !bytes.Equal(task.In, unhex(tt.want)) {
			t.Errorf("%s: got %x, want %s", tt.name, task.In, tt.want)
		}
	}
	for _, cdb := range []string{
		"a3 4a 00000000 000000ff 00 00", "a3 0c 04 28 0000 000000ff 00 00", "a3 0d 00 000000 00000003 00 00",
	} {
		want(t, cdb, do(s, cdb, nil).answer(), "5 24/00")
	}
}

func TestDiagnostic(t *testing.T) {
	s, m, _ := disk(t, 8, 512)
	want(t, "self-test", do(s, "1d 04 00 0000 00", nil).answer(), "good")
	want(t, "reads", m.lastCall(), "read 0+1")
	want(t, "extended test", do(s, "1d 40 00 0000 00", nil).answer(), "5 24/00")
	want(t, "parameters", do(s, "1d 10 00 0004 00", make([]byte, 4)).answer(), "5 24/00")
	m.fault = func(string, int64) error { return &MediumError{} }
	want(t, "broken", do(s, "1d 04 00 0000 00", nil).answer(), "4 3e/03")
	m.fault = nil
	want(t, "stop", do(s, "1b 00 00 00 00 00", nil).answer(), "good")
	want(t, "stop flushes", m.lastCall(), "flush")
	want(t, "start", do(s, "1b 00 00 00 01 00", nil).answer(), "good")
	want(t, "eject", do(s, "1b 00 00 00 02 00", nil).answer(), "5 24/00")
}
