package scsi

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// TestTableLaws holds table, REPORT SUPPORTED OPERATION CODES, OutLength and
// the dispatcher against each other.
func TestTableLaws(t *testing.T) {
	u := newShelf().unit(t)
	s := open(t, "a", map[uint16]*Unit{0: u})
	all := do(s, "a3 0c 00 00 0000 0000ffff 00 00", nil).In
	want(t, "length", binary.BigEndian.Uint32(all), len(all)-4)
	want(t, "descriptors", (len(all)-4)/8, len(u.table.ops))
	listed := map[string]bool{}
	for d := all[4:]; len(d) > 0; d = d[8:] {
		action := binary.BigEndian.Uint16(d[2:])
		listed[fmt.Sprintf("%02x/%x", d[0], action)] = true
		option := byte(1)
		if d[5]&1 != 0 {
			option = 2
		}
		cdb := append([]byte{0xa3, 0x0c, option, d[0]}, d[2:4]...)
		one := run(s, 0, append(cdb, 0, 0, 1, 0, 0, 0), nil, 256).In
		want(t, "supported", one[1], 3)
		want(t, "CDB size", one[3], d[7])
		want(t, "usage opcode", one[4], d[0])
		cdb[2] = 3 - option
		want(t, "wrong option", run(s, 0, append(cdb, 0, 0, 1, 0, 0, 0), nil, 256).answer(), "5 24/00")
	}
	for code := range 256 {
		for action := range 32 {
			checkDispatch(t, s, u, listed, byte(code), byte(action))
		}
	}
}

// checkDispatch sends a CDB of zeros with one opcode and service action.
func checkDispatch(t *testing.T, s *Session, u *Unit, listed map[string]bool, code, action byte) {
	cdb := make([]byte, 16)
	cdb[0], cdb[1] = code, action
	op, _ := u.table.find(cdb)
	key := fmt.Sprintf("%02x/%x", code, action)
	if op != nil && !op.action {
		key = fmt.Sprintf("%02x/0", code)
	}
	if (op != nil) != listed[key] {
		t.Errorf("opcode %s: found %v, listed %v", key, op != nil, listed[key])
	}
	if op == nil || op.out == nil {
		want(t, key+" data-out", s.OutLength(0, cdb), 0)
	}
	if op == nil {
		answer := run(s, 0, cdb, nil, 0).answer()
		if answer != "5 20/00" && answer != "5 24/00" {
			t.Errorf("opcode %s: %s", key, answer)
		}
	}
}

// TestUsage sets each bit that a command does not know, and wants a field
// pointer to it.
func TestUsage(t *testing.T) {
	u := newShelf().unit(t)
	s := open(t, "a", map[uint16]*Unit{0: u})
	for _, op := range u.table.ops {
		for bit := 8; bit < 8*len(op.usage); bit++ {
			at, mask := bit/8, byte(1)<<(bit%8)
			if op.usage[at]&mask != 0 || at == 1 && op.action && mask < 0x20 {
				continue
			}
			cdb := make([]byte, 16)
			cdb[0], cdb[1] = op.code(), 0
			if op.action {
				cdb[1] = op.serviceAction()
			}
			cdb[at] |= mask
			task := run(s, 0, cdb, nil, 0)
			want(t, op.name, task.answer(), "5 24/00")
			want(t, op.name, task.Sense[15:18], []byte{0xc8 | byte(bit%8), 0, byte(at)})
		}
	}
}

func TestTableShape(t *testing.T) {
	sizes := map[byte]int{0: 6, 1: 10, 2: 10, 4: 16, 5: 12}
	seen := map[string]bool{}
	for _, op := range newTable(atomicCommands()...).ops {
		want(t, op.name+" size", len(op.usage), sizes[op.code()>>5])
		if op.run == nil || seen[op.name] {
			t.Errorf("%s: no code or twice", op.name)
		}
		seen[op.name] = true
	}
}

func TestOutLength(t *testing.T) {
	s, _, _ := disk(t, 64, 512)
	tests := []struct {
		cdb  string
		want int
	}{
		{"0a 000000 00 00", 256 * 512},
		{"2a 00 00000000 00 0003 00", 3 * 512},
		{"2f 00 00000000 00 0003 00", 0},
		{"2f 02 00000000 00 0003 00", 3 * 512},
		{"2f 06 00000000 00 0003 00", 512},
		{"89 00 0000000000000000 000000 02 00 00", 4 * 512},
		{"93 00 0000000000000000 00000009 00 00", 512},
		{"93 01 0000000000000000 00000009 00 00", 0},
		{"5f 00 00 00 00 00000018 00", 24},
		{"5f 00 00 00 00 ffffffff 00", maxTransfer},
		{"15 10 0000 18 00", 24},
		{"28 00 00000000 00 0003 00", 0},
		{"8a 00 0000000000", 0},
		{"ff", 0},
		{"", 0},
	}
	for _, tt := range tests {
		want(t, tt.cdb, s.OutLength(0, unhex(tt.cdb)), tt.want)
	}
	want(t, "absent", s.OutLength(lunField(1), unhex("2a000000000000000300")), 0)
}
