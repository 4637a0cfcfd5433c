package scsi

import (
	"bytes"
	"testing"
)

func TestModeSense(t *testing.T) {
	s, _, _ := disk(t, 64, 512)
	tests := []struct{ name, cdb, want string }{
		{"caching", "1a 08 08 00 ff 00", "17001000 0812 04" + zeros(17)},
		{"caching, changeable", "1a 08 48 00 ff 00", "17001000 0812 04" + zeros(17)},
		{"control, changeable", "1a 08 4a 00 ff 00", "0f001000 0a0a 04003800" + zeros(6)},
		{"control, default", "1a 08 8a 00 ff 00", "0f001000 0a0a 02100040" + zeros(6)},
		{"block descriptor", "1a 00 1c 00 ff 00", "17001008 0000004000000200 1c0a" + zeros(10)},
		{"10", "5a 08 1c 00 000000 00ff 00", "0012 00 10 0000 0000 1c0a" + zeros(10)},
		{"10, long", "5a 10 1c 00 000000 00ff 00", "0022 00 10 0100 0010 0000000000000040 00000000 00000200 1c0a" + zeros(10)},
		{"error recovery", "1a 08 01 00 ff 00", "0f001000 010a c0 00000000 80 00000000"},
		{"control extension", "1a 08 0a 01 ff 00", "23001000 4a01001c 01" + zeros(27)},
		{"both control pages", "1a 08 0a ff ff 00", "2f001000 0a0a 02100040" + zeros(6) + "4a01001c 01" + zeros(27)},
		{"control extension, changeable", "1a 08 4a 01 ff 00", "23001000 4a01001c" + zeros(28)},
		{"power condition", "1a 08 1a 00 ff 00", "2b001000 1a26" + zeros(38)},
		{"cut", "1a 00 3f 00 04 00", "6b001008"},
		{"cut to none", "1a 00 3f 00 00 00", ""},
	}
	for _, tt := range tests {
		task := do(s, tt.cdb, nil)
		want(t, tt.name, task.answer(), "good")
		if !bytes.Equal(task.In, unhex(tt.want)) {
			t.Errorf("%s: got %x, want %s", tt.name, task.In, tt.want)
		}
	}
	want(t, "saved", do(s, "1a 00 ff 00 ff 00", nil).answer(), "5 39/00")
	want(t, "no such page", do(s, "1a 00 02 00 ff 00", nil).answer(), "5 24/00")
	want(t, "no such subpage", do(s, "1a 00 0a 02 ff 00", nil).answer(), "5 24/00")
	want(t, "no thresholds", do(s, "1a 00 1c 02 ff 00", nil).answer(), "5 24/00")
}

func zeros(n int) string { return string(bytes.Repeat([]byte("00"), n)) }

func TestModeSelect(t *testing.T) {
	cacheOff := "0812 00" + zeros(17)
	tests := []struct{ name, cdb, list, want string }{
		{"nothing", "15 10 0000 00 00", "", "good"},
		{"cache off", "15 10 0000 18 00", "00000000" + cacheOff, "good"},
		{"with block descriptor", "15 10 0000 20 00", "00000008 0000004000000200" + cacheOff, "good"},
		{"10", "55 10 0000000000 001c 00", "0000000000000000" + cacheOff, "good"},
		{"unchanged", "15 10 0000 18 00", "00000000 0812 04" + zeros(17), "good"},
		{"save", "15 11 0000 18 00", "00000000" + cacheOff, "5 24/00"},
		{"no page format", "15 00 0000 18 00", "00000000" + cacheOff, "5 24/00"},
		{"list missing", "15 10 0000 18 00", "00000000", "5 1a/00"},
		{"header cut", "15 10 0000 03 00", "000000", "5 1a/00"},
		{"page cut", "15 10 0000 10 00", "00000000" + cacheOff, "5 1a/00"},
		{"page header cut", "15 10 0000 05 00", "00000000 08", "5 1a/00"},
		{"descriptor cut", "15 10 0000 08 00", "00000008 00000040", "5 1a/00"},
		{"other block size", "15 10 0000 20 00", "00000008 0000004000001000" + cacheOff, "5 26/00"},
		{"odd descriptor", "15 10 0000 20 00", "00000007 0000004000000200" + cacheOff, "5 26/00"},
		{"unknown page", "15 10 0000 08 00", "00000000 02020000", "5 26/00"},
		{"wrong page length", "15 10 0000 18 00", "00000000 0813 00" + zeros(17), "5 26/00"},
		{"other number of blocks", "15 10 0000 20 00", "00000008 0000004100000200" + cacheOff, "5 26/00"},
		{"all blocks", "15 10 0000 20 00", "00000008 ffffffff00000200" + cacheOff, "good"},
		{"other number, long", "55 10 0000000000 002c 00", "0000000001000010 0000000000000041 00000000 00000200" + cacheOff, "5 26/00"},
		{"reserved interlock", "15 10 0000 10 00", "00000000 0a0a 02101040" + zeros(6), "5 26/00"},
		{"subpage cut", "15 10 0000 07 00", "00000000 4a0100", "5 1a/00"},
		{"unknown subpage", "15 10 0000 08 00", "00000000 4a02001c", "5 26/00"},
		{"subpage unchanged, then cache off", "15 10 0000 38 00", "00000000 4a01001c 01" + zeros(27) + cacheOff, "good"},
		{"subpage changed", "15 10 0000 24 00", "00000000 4a01001c 02" + zeros(27), "5 26/00"},
		{"unchangeable", "15 10 0000 18 00", "00000000 0812 05" + zeros(17), "5 26/00"},
	}
	for _, tt := range tests {
		s, m, u := disk(t, 64, 512)
		other := open(t, "b", map[uint16]*Unit{0: u})
		want(t, tt.name, do(s, tt.cdb, unhex(tt.list)).answer(), tt.want)
		off := !u.mode.writeCache()
		want(t, tt.name+" flushed", m.flushes == 1, off)
		want(t, tt.name+" told", do(other, "00", nil).answer() == "6 2a/01", off)
		want(t, tt.name+" self", do(s, "00", nil).answer(), "good")
	}
}

// TestControlPage sets D_SENSE and SWP.
func TestControlPage(t *testing.T) {
	s, _, _ := disk(t, 64, 512)
	control := func(b2, b4 string) *Task {
		return do(s, "15 10 0000 10 00", unhex("00000000 0a0a"+b2+"10"+b4+"40"+zeros(6)))
	}
	want(t, "set", control("06", "08").answer(), "good")
	task := do(s, "2a 00 00000000 00 0001 00", make([]byte, 512))
	want(t, "write", task.answer(), "7 27/02 d")
	want(t, "read", do(s, "28 00 00000000 00 0001 00", nil).answer(), "good")
	task = do(s, "88 00 00000000ffffffff 00000001 00 00", nil)
	want(t, "information", task.Sense[8:], unhex("000a8000 00000000ffffffff"))
	task = do(s, "28 20 00000000 00 0001 00", nil)
	want(t, "field pointer", task.Sense[8:], unhex("02060000 cd0001 00"))
	want(t, "clear", control("02", "00").answer(), "good")
	want(t, "write again", do(s, "2a 00 00000000 00 0001 00", make([]byte, 512)).answer(), "good")
}

// TestInterlock is UA_INTLCK: who hears of a unit attention how often.
func TestInterlock(t *testing.T) {
	tests := []struct {
		name, bits      string
		again, conflict string
	}{
		{"off", "00", "good", "good"},
		{"kept", "20", "6 2a/09", "good"},
		{"kept, and conflicts", "30", "6 2a/09", "6 2c/09"},
	}
	for _, tt := range tests {
		a, b := pair(t)
		want(t, tt.name, do(a, "15 10 0000 10 00", unhex("00000000 0a0a0210"+tt.bits+"40"+zeros(6))).answer(), "good")
		do(b, "03 00 00 00 ff 00", nil) // mode parameters changed
		unitOf(b).Resized()
		want(t, tt.name, do(b, tur, nil).answer(), "6 2a/09")
		want(t, tt.name+", again", do(b, tur, nil).answer(), tt.again)
		do(b, "03 00 00 00 ff 00", nil)
		want(t, tt.name+", after request sense", do(b, tur, nil).answer(), "good")
		do(a, "03 00 00 00 ff 00", nil)
		do(a, "16", nil)
		want(t, tt.name+", reserved", do(b, tur, nil).answer(), "conflict")
		do(a, "17", nil)
		want(t, tt.name+", after the conflict", do(b, tur, nil).answer(), tt.conflict)
	}
}

func unitOf(s *Session) *Unit { return s.at(0).unit }

// TestCacheOff: with WCE 0 whatever writes is stable when it is acknowledged.
func TestCacheOff(t *testing.T) {
	for _, op := range newTable().ops {
		if op.access != accessWrite || op.out == nil && op.code() != 0x42 {
			continue
		}
		cdb, out, ok := smallWrite(op)
		if !ok {
			continue
		}
		s, m, u := disk(t, 64, 512)
		u.mode.set(0)
		task := run(s, 0, cdb, out, 4096)
		want(t, op.name, task.answer(), "good")
		if m.flushes+m.forced == 0 {
			t.Errorf("%s: nothing was made stable, device calls %v", op.name, m.calls)
		}
	}
}

// smallWrite is a CDB and data with which a command writes one block.
func smallWrite(op opcode) (cdb, out []byte, ok bool) {
	cdb = make([]byte, 16)
	cdb[0], cdb[1] = op.code(), op.serviceAction()
	switch op.code() {
	case 0x0a:
		cdb[4] = 1
	case 0x2a, 0x2e, 0x41:
		cdb[8] = 1
	case 0xaa, 0xae:
		cdb[9] = 1
	case 0x8a, 0x8b, 0x8e, 0x89, 0x93:
		cdb[13] = 1
	case 0x42:
		cdb[8] = 24
		return cdb, unhex("0016 0010 00000000 0000000000000000 00000001 00000000"), true
	default:
		return nil, nil, false
	}
	if !op.action {
		cdb[1] = 0
	}
	return cdb, make([]byte, op.out(cdb, 512)), true
}
