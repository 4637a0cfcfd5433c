package scsi

import (
	"bytes"
	"testing"
)

// TestAnchor: anchored blocks are zeros and have their space, which deallocated
// ones have not.
func TestAnchor(t *testing.T) {
	list := unhex("0016 0010 00000000 0000000000000001 00000003 00000000")
	tests := []struct {
		name, cdb string
		out       []byte
		want      string
		mapped    bool
	}{
		{"WRITE SAME(10)", "41 18 00000001 00 0003 00", make([]byte, 512), "good", true},
		{"WRITE SAME(16)", "93 18 0000000000000001 00000003 00 00", make([]byte, 512), "good", true},
		{"WRITE SAME(16) without data", "93 19 0000000000000001 00000003 00 00", nil, "good", true},
		{"WRITE SAME(16) that deallocates", "93 08 0000000000000001 00000003 00 00", make([]byte, 512), "good", false},
		{"UNMAP", "42 01 00000000 00 0018 00", list, "good", true},
		{"UNMAP that deallocates", "42 00 00000000 00 0018 00", list, "good", false},
		{"WRITE SAME(10) without UNMAP", "41 10 00000001 00 0003 00", make([]byte, 512), "5 24/00", false},
	}
	for _, tt := range tests {
		for _, before := range []bool{false, true} {
			s, m, _ := disk(t, 8, 512)
			copy(m.data, pattern(len(m.data), 0x33))
			m.mark(512, 3*512, before)
			want(t, tt.name, do(s, tt.cdb, tt.out).answer(), tt.want)
			if tt.want != "good" {
				continue
			}
			want(t, tt.name+" has space", m.mapped[1:4], []bool{tt.mapped, tt.mapped, tt.mapped})
			want(t, tt.name+" leaves its neighbours", m.mapped[4] || m.data[511] != 0x33 || m.data[2048] != 0x33, false)
			want(t, tt.name+" reads as zeros", bytes.Count(m.data[512:2048], []byte{0}), 3*512)
		}
	}
	s, m, _ := disk(t, 8, 512)
	want(t, "ANC_SUP", page(t, s, 0xb2)[5]&0x02, 2)
	m.fault = func(verb string, _ int64) error { return ErrNoSpace }
	want(t, "no space", do(s, "42 01 00000000 00 0018 00", list).answer(), "7 27/07")
}
