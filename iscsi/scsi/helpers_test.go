package scsi

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// nexusOf is a nexus of initiator name with ISID 1.
func nexusOf(name string) Nexus {
	return Nexus{Initiator: "iqn.2026-11.test:" + name, ISID: [6]byte{0x80, 5: 1}, Target: "iqn.2026-11.test:disk", TPGT: 1}
}

// open is a session to units whose power-on attentions are read already.
func open(t testing.TB, name string, units map[uint16]*Unit) *Session {
	s := NewSession(nexusOf(name), units)
	t.Cleanup(s.Close)
	for lun := range units {
		if got := run(s, lunField(lun), unhex("000000000000"), nil, 0).answer(); got != "6 29/00" {
			t.Fatalf("power on answers %q", got)
		}
	}
	return s
}

// disk is one unit at LUN 0 with a session to it.
func disk(t testing.TB, blocks, blockSize int) (*Session, *memory, *Unit) {
	m := newMemory(t, blocks, blockSize)
	u := NewUnit(m)
	return open(t, "a", map[uint16]*Unit{0: u}), m, u
}

// unhex reads hexadecimal digits, blanks between them ignored.
func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func run(s *Session, lun uint64, cdb, out []byte, limit int) *Task {
	t := &Task{LUN: lun, CDB: make([]byte, max(16, len(cdb))), Out: out, InLimit: limit}
	copy(t.CDB, cdb)
	s.Execute(context.Background(), t)
	return t
}

// do runs a CDB at LUN 0 with room for 64 KiB.
func do(s *Session, cdb string, out []byte) *Task { return run(s, 0, unhex(cdb), out, 64<<10) }

// answer is the status in short: "good", "conflict", "aborted", or key and code
// of the sense data.
func (t *Task) answer() string {
	switch t.Status {
	case StatusGood:
		return "good"
	case StatusReservationConflict:
		return "conflict"
	case StatusTaskAborted:
		return "aborted"
	case StatusCheckCondition:
		if t.Sense[0]&0x7f == 0x72 {
			return fmt.Sprintf("%x %02x/%02x d", t.Sense[1], t.Sense[2], t.Sense[3])
		}
		return fmt.Sprintf("%x %02x/%02x", t.Sense[2], t.Sense[12], t.Sense[13])
	default:
		return fmt.Sprintf("status %02x", t.Status)
	}
}

// information is the INFORMATION field of fixed sense data, -1 if not valid.
func (t *Task) information() int64 {
	if len(t.Sense) < 18 || t.Sense[0] != 0xf0 {
		return -1
	}
	return int64(binary.BigEndian.Uint32(t.Sense[3:]))
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}
