package scsi

import (
	"bytes"
	"testing"
)

// pooled is a device in a pool.
type pooled struct {
	*memory
	now Usage
}

func (p *pooled) Usage() Usage { return p.now }

func newPooled(t *testing.T) (*pooled, *Unit) {
	p := &pooled{memory: newMemory(t, 64, 512), now: Usage{PoolSize: 100 << 20, PoolUsed: 10 << 20, Used: 5 << 20}}
	return p, NewUnit(p)
}

// TestThresholds fills and empties a pool under two sessions.
func TestThresholds(t *testing.T) {
	p, u := newPooled(t)
	a, b := open(t, "a", map[uint16]*Unit{0: u}), open(t, "b", map[uint16]*Unit{0: u})
	for _, step := range []struct {
		used int64 // percent
		a    string
	}{
		{79, "good"}, {80, "6 38/07"}, {80, "good"}, {90, "6 38/07"}, {79, "good"}, {80, "good"}, {78, "good"}, {81, "6 38/07"},
		{95, "6 38/07"}, {95, "6 38/07"}, {99, "good"}, {50, "good"},
		{96, "6 38/07"}, {96, "6 38/07"}, {96, "6 38/07"}, {96, "good"},
	} {
		p.now.PoolUsed = step.used << 20
		want(t, "a", do(a, tur, nil).answer(), step.a)
		if step.a != "good" && step.used < 96 {
			want(t, "b", do(b, tur, nil).answer(), step.a)
		}
		want(t, "b again", do(b, "12 00 00 0024 00", nil).answer(), "good")
	}
	want(t, "b, 80", do(b, tur, nil).information(), 16)
	want(t, "b, 90", do(b, tur, nil).information(), 24)
	want(t, "b, 95", do(b, tur, nil).information(), 32)
	want(t, "b, no more", do(b, tur, nil).answer(), "good")
	late := open(t, "c", map[uint16]*Unit{0: u})
	want(t, "who comes later", do(late, tur, nil).answer(), "good")
}

// TestThresholdsOff clears LBPERE.
func TestThresholdsOff(t *testing.T) {
	p, u := newPooled(t)
	s := open(t, "a", map[uint16]*Unit{0: u})
	want(t, "clear", do(s, "15 10 0000 10 00", unhex("00000000 010a c0 00000000 00 00000000")).answer(), "good")
	p.now.PoolUsed = 99 << 20
	want(t, "silent", do(s, tur, nil).answer(), "good")
}

func TestThresholdPages(t *testing.T) {
	p, u := newPooled(t)
	s := open(t, "a", map[uint16]*Unit{0: u})
	const header, rest = "5c020024 00 0000000000 0000000000 00", "80010000 00000014 80010000 0000000a 80010000 00000005"
	tests := []struct{ name, cdb, want string }{
		{"mode page", "1a 08 1c 02 ff 00", "2b001000" + header + rest},
		{"changeable", "1a 08 5c 02 ff 00", "2b001000 5c020024" + zeros(36)},
		{"log pages", "4d 00 40 00 00 0000 00ff 00", "00000004 000c0d2f"},
		{"log subpages", "4d 00 40 ff 00 0000 00ff 00", "40ff000a 0000 00ff 0c00 0d00 2f00"},
		{"provisioning", "4d 00 4c 00 00 0000 00ff 00", "0c000018 0001 03 08 0000005a 02000000 0002 03 08 00000005 01000000"},
		{"from used on", "4d 00 4c 00 00 0002 00ff 00", "0c00000c 0002 03 08 00000005 01000000"},
		{"cut", "4d 00 4c 00 00 0000 0006 00", "0c000018 0001"},
		{"temperature", "4d 00 4d 00 00 0000 00ff 00", "0d000006 0000 03 02 00ff"},
		{"exceptions", "4d 00 6f 00 00 0000 00ff 00", "2f000008 0000 03 04 0000ff00"},
		{"provisioning, vital", "12 01 b2 00ff 00", "00b20004 0be6 0200"},
	}
	for _, tt := range tests {
		task := do(s, tt.cdb, nil)
		want(t, tt.name, task.answer(), "good")
		if !bytes.Equal(task.In, unhex(tt.want)) {
			t.Errorf("%s: got %x, want %s", tt.name, task.In, tt.want)
		}
	}
	for _, cdb := range []string{
		"4d 00 4e 00 00 0000 00ff 00", "4d 00 4c 01 00 0000 00ff 00", "4d 00 40 00 00 0001 00ff 00",
		"4d 00 4c 00 00 0003 00ff 00", "4d 01 4c 00 00 0000 00ff 00",
	} {
		want(t, cdb, do(s, cdb, nil).answer(), "5 24/00")
	}
	p.now = Usage{}
	want(t, "unknown", do(s, "4d 00 4c 00 00 0000 00ff 00", nil).answer(), "5 24/00")
	want(t, "log pages without", do(s, "4d 00 40 00 00 0000 00ff 00", nil).In, unhex("00000003 000d2f"))
}
