package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"
	"time"
)

// overwriteList is the parameter list of SANITIZE, OVERWRITE.
func overwriteList(flags byte, pattern ...byte) []byte {
	return append([]byte{flags, 0, byte(len(pattern) >> 8), byte(len(pattern))}, pattern...)
}

// sanitizeDo sends SANITIZE with byte 1 of its CDB and a list.
func sanitizeDo(s *Session, first byte, list []byte) string {
	cdb := []byte{0x48, first, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint16(cdb[7:], uint16(len(list)))
	return run(s, 0, cdb, list, 0).answer()
}

// TestSanitize goes through the CDB and the list, and what is on the medium then.
func TestSanitize(t *testing.T) {
	tests := []struct {
		name  string
		first byte
		list  []byte
		want  string
		block []byte // what repeats on the medium; nil: as before
	}{
		{"overwrite by a block", 0x01, overwriteList(1, pattern(512, 0xaa)...), "good", []byte{0xaa}},
		{"by 4 bytes", 0x01, overwriteList(1, 1, 2, 3, 4), "good", []byte{1, 2, 3, 4}},
		{"two passes", 0x01, overwriteList(2, 5), "good", []byte{5}},
		{"inverted between passes", 0x01, overwriteList(0x80|2, 5), "good", []byte{0xfa}},
		{"inverted three times", 0x01, overwriteList(0x80|3, 5), "good", []byte{5}},
		{"zeros", 0x01, overwriteList(1, 0), "good", []byte{0}},
		{"block erase", 0x02, nil, "good", []byte{0}},
		{"with AUSE", 0x22, nil, "good", []byte{0}},
		{"no list", 0x01, nil, "5 24/00", nil},
		{"list of 4 bytes", 0x01, overwriteList(1), "5 24/00", nil},
		{"list longer than a block", 0x01, overwriteList(1, pattern(513, 1)...), "5 24/00", nil},
		{"no pass", 0x01, overwriteList(0, 1), "5 26/00", nil},
		{"test", 0x01, overwriteList(0x21, 1), "5 26/00", nil},
		{"pattern of 0 bytes", 0x01, []byte{1, 0, 0, 0, 1}, "5 26/00", nil},
		{"pattern longer than the list", 0x01, []byte{1, 0, 0, 2, 1}, "5 26/00", nil},
		{"block erase with a list", 0x02, overwriteList(1, 1), "5 24/00", nil},
		{"ZNR", 0x42, nil, "5 24/00", nil},
		{"cryptographic erase", 0x03, nil, "5 24/00", nil},
		{"exit failure mode", 0x1f, nil, "good", nil},
	}
	for _, tt := range tests {
		s, m, _ := disk(t, 2000, 512)
		copy(m.data, pattern(len(m.data), 0x77))
		m.mark(0, m.info.Size/2, true)
		before := bytes.Clone(m.data)
		want(t, tt.name, sanitizeDo(s, tt.first, tt.list), tt.want)
		if tt.block == nil {
			want(t, tt.name+" changes nothing", bytes.Equal(before, m.data), true)
			continue
		}
		if len(tt.block) == 1 && tt.block[0] == 0 { // holes are left out
			m.data = m.data[:len(m.data)/2]
		}
		expected := bytes.Repeat(tt.block, len(m.data)/len(tt.block))
		want(t, tt.name+" overwrites all", bytes.Equal(m.data, expected), true)
		want(t, tt.name+" is stable", m.lastCall(), "flush")
		want(t, tt.name+" is over", do(s, tur, nil).answer(), "good")
	}
}

// TestBlockErase gives all space back, but overwrites it before.
func TestBlockErase(t *testing.T) {
	s, m, _ := disk(t, 64, 512)
	m.mark(512, 1024, true)
	want(t, "block erase", sanitizeDo(s, 0x02, nil), "good")
	want(t, "calls", m.calls, []string{"write 1+2", "flush", "unmap 0+64", "flush"})
	want(t, "WABEREQ", page(t, s, 0xb1)[7], 0x40)
}

// sanitizing starts an operation with IMMED that goes on when goOn is closed.
func sanitizingUnit(t *testing.T, k Keeper, first byte) (s *Session, m *memory, u *Unit, goOn chan struct{}) {
	m = newMemory(t, 2048, 512)
	slow := &slowWrites{memory: m, first: make(chan struct{}), goOn: make(chan struct{})}
	u, err := OpenUnit(slow, k)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	s = open(t, "a", map[uint16]*Unit{0: u})
	want(t, "started", sanitizeDo(s, 0x80|first, overwriteList(1, 0x55)), "good")
	<-slow.first
	return s, m, u, slow.goOn
}

// slowWrites lets one write pass, and the others when goOn is closed.
type slowWrites struct {
	*memory
	first, goOn chan struct{}
	writes      int
}

func (d *slowWrites) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	d.writes++
	if d.writes == 2 {
		close(d.first)
	}
	if d.writes >= 2 {
		select {
		case <-d.goOn:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return d.memory.WriteAt(ctx, p, off, fua)
}

// over waits until no operation is running.
func over(t *testing.T, u *Unit) {
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if j := u.sanitize.current(); j == nil || j.Failed {
			return
		}
	}
	t.Fatal("the operation does not end")
}

// TestSanitizing is what other commands say meanwhile, and that neither resets
// nor aborts end the operation.
func TestSanitizing(t *testing.T) {
	s, m, u, goOn := sanitizingUnit(t, nil, 0x01)
	for _, tt := range []struct{ name, cdb, want string }{
		{"test unit ready", tur, "2 04/1b"}, {"read", "28 00 00000000 00 0001 00", "2 04/1b"},
		{"start with a wrong CDB", "1b 01 00 0f 03 00", "2 04/1b"}, {"read capacity", "25", "2 04/1b"},
		{"inquiry", "12 00 00 00 ff 00", "good"}, {"report LUNs", "a0 00 00 000000 00001000 00 00", "good"},
		{"request sense", "03 00 00 00 ff 00", "good"}, {"log sense", "4d 00 40 00 00 0000 00ff 00", "good"},
		{"another", "48 02", "2 04/1b"}, {"exit failure mode", "48 1f", "2 04/1b"},
	} {
		want(t, tt.name, do(s, tt.cdb, nil).answer(), tt.want)
	}
	half := unhex("80 4000") // of 1 MiB the first 256 KiB
	want(t, "progress", do(s, tur, nil).Sense[15:18], half)
	told := do(s, "03 00 00 00 ff 00", nil).In
	want(t, "request sense", fmt.Sprintf("%x %x %x", told[2], told[12:14], told[15:18]), "2 041b 804000")
	told = do(s, "03 01 00 00 ff 00", nil).In
	want(t, "in descriptors", told, unhex("72 02 041b 000000 08 02 06 0000 804000 00"))
	s.LUNReset(0)()
	s.AbortTaskSet(0)()
	want(t, "after a reset", do(s, tur, nil).answer(), "6 29/03")
	want(t, "still going", do(s, tur, nil).answer(), "2 04/1b")
	close(goOn)
	over(t, u)
	want(t, "ready", do(s, tur, nil).answer(), "good")
	want(t, "overwritten", bytes.Equal(m.data, pattern(len(m.data), 0x55)), true)
}

// TestSanitizeFails is the failure modes: restricted, and with AUSE not.
func TestSanitizeFails(t *testing.T) {
	broken := func(verb string, _ int64) error {
		if verb == "write" {
			return errors.New("broken")
		}
		return nil
	}
	for _, free := range []byte{0, 0x20} {
		s, m, _ := disk(t, 64, 512)
		m.fault = broken
		list := overwriteList(1, 1)
		want(t, "sanitize", sanitizeDo(s, 0x01|free, list), "3 31/03")
		want(t, "test unit ready", do(s, tur, nil).answer(), "3 31/03")
		want(t, "request sense", do(s, "03 00 00 00 ff 00", nil).In[12:14], []byte{0x31, 0x03})
		if free != 0 {
			want(t, "exit", sanitizeDo(s, 0x1f, nil), "good")
			want(t, "test unit ready", do(s, tur, nil).answer(), "good")
			continue
		}
		want(t, "exit", sanitizeDo(s, 0x1f, nil), "5 24/00")
		want(t, "with AUSE now", sanitizeDo(s, 0x21, list), "5 24/00")
		want(t, "once more", sanitizeDo(s, 0x01, list), "3 31/03")
		m.fault = nil
		want(t, "repaired", sanitizeDo(s, 0x01, list), "good")
		want(t, "test unit ready", do(s, tur, nil).answer(), "good")
	}
}

// TestSanitizeAgain: a unit that was closed in the middle begins again when it
// is opened, and one that failed has failed still.
func TestSanitizeAgain(t *testing.T) {
	k := newShelf()
	s, m, u, goOn := sanitizingUnit(t, k, 0x01)
	s.Close()
	u.Close()
	want(t, "kept", len(k.records[m.info.ID]) > 0, true)
	close(goOn)
	again, err := OpenUnit(m, k)
	if err != nil {
		t.Fatal(err)
	}
	over(t, again)
	again.Close()
	want(t, "overwritten", bytes.Equal(m.data, pattern(len(m.data), 0x55)), true)
	want(t, "kept", len(k.records[m.info.ID]), 0)

	m.fault = func(string, int64) error { return errors.New("broken") }
	broken, err := OpenUnit(m, k)
	if err != nil {
		t.Fatal(err)
	}
	s = open(t, "a", map[uint16]*Unit{0: broken})
	want(t, "fails", sanitizeDo(s, 0x02, nil), "3 31/03")
	broken.Close()
	m.fault = nil
	third, err := OpenUnit(m, k)
	if err != nil {
		t.Fatal(err)
	}
	s = NewSession(nexusOf("a"), map[uint16]*Unit{0: third})
	defer s.Close()
	do(s, tur, nil)
	want(t, "failed still", do(s, tur, nil).answer(), "3 31/03")
}

// TestSanitizeNotKept: where the end of an operation cannot be kept, a restart
// would begin again, so the unit takes no data until then.
func TestSanitizeNotKept(t *testing.T) {
	k := newShelf()
	s, m, u, goOn := sanitizingUnit(t, k, 0x01)
	u.changing.Lock()
	k.fault = errors.New("no space left")
	u.changing.Unlock()
	close(goOn)
	over(t, u)
	want(t, "write", run(s, 0, unhex("2a 00 00000000 00 0001 00"), make([]byte, 512), 0).answer(), "3 31/03")
	want(t, "kept", len(k.records[m.info.ID]) > 0, true)
}

// TestSanitizeWaits: what was under way has ended before the first block goes.
func TestSanitizeWaits(t *testing.T) {
	g := newGate(t)
	u := NewUnit(g)
	t.Cleanup(u.Close)
	s := open(t, "a", map[uint16]*Unit{0: u})
	ended := make(chan string, 2)
	startRead(t, s, 3, 0, ended)
	<-g.begun
	erased := make(chan string)
	go func() { erased <- sanitizeDo(s, 0x02, nil) }()
	for u.sanitize.current() == nil {
	}
	want(t, "meanwhile", do(s, tur, nil).answer(), "2 04/1b")
	want(t, "device calls", g.lastCall(), "")
	g.release(3)
	want(t, "the read", <-ended, "d good")
	want(t, "the operation", <-erased, "good")
}
