package scsi

import (
	"encoding/binary"
	"fmt"
	"testing"
)

// prOutDo sends PERSISTENT RESERVE OUT and gives the answer.
func prOutDo(s *Session, action byte, key, service uint64, kind byte) string {
	cdb := []byte{0x5f, action, kind, 0, 0, 0, 0, 0, 24, 0}
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], service)
	return run(s, 0, cdb, list, 0).answer()
}

func prInData(s *Session, action byte) []byte {
	return run(s, 0, []byte{0x5e, action, 0, 0, 0, 0, 0, 0x40, 0, 0}, nil, 1<<14).In
}

// pair is one unit with two sessions.
func pair(t *testing.T) (a, b *Session) {
	u := NewUnit(newMemory(t, 64, 512))
	return open(t, "a", map[uint16]*Unit{0: u}), open(t, "b", map[uint16]*Unit{0: u})
}

func TestReserve(t *testing.T) {
	for _, cdb := range [][2]string{{"16", "17"}, {"56", "57"}} {
		a, b := pair(t)
		want(t, "reserve", do(a, cdb[0], nil).answer(), "good")
		want(t, "again", do(a, cdb[0], nil).answer(), "good")
		want(t, "by the other", do(b, cdb[0], nil).answer(), "conflict")
		want(t, "mode sense", do(a, "1a 00 3f 00 ff 00", nil).answer(), "good")
		want(t, "mode sense by the other", do(b, "1a 00 3f 00 ff 00", nil).answer(), "conflict")
		want(t, "test unit ready by the other", do(b, tur, nil).answer(), "conflict")
		want(t, "inquiry by the other", do(b, "12 00 00 00ff 00", nil).answer(), "good")
		want(t, "allow by the other", do(b, "1e 00 00 00 00 00", nil).answer(), "good")
		want(t, "prevent by the other", do(b, "1e 00 00 00 01 00", nil).answer(), "conflict")
		want(t, "register", prOutDo(a, 0, 0, 1, 0), "conflict")
		want(t, "release by the other", do(b, cdb[1], nil).answer(), "good")
		want(t, "still", do(b, tur, nil).answer(), "conflict")
		want(t, "release", do(a, cdb[1], nil).answer(), "good")
		want(t, "free", do(b, cdb[0], nil).answer(), "good")
		b.Close()
		want(t, "gone with its nexus", do(a, tur, nil).answer(), "good")
		want(t, "register", prOutDo(a, 0, 0, 1, 0), "good")
		want(t, "reserve with registrations", do(a, cdb[0], nil).answer(), "conflict")
		want(t, "release with registrations", do(a, cdb[1], nil).answer(), "conflict")
	}
}

// TestAccess is the access tables of SPC-4 and SBC-3, as rows of reservation type
// and columns of command, for a nexus that is registered and one that is not.
func TestAccess(t *testing.T) {
	commands := []string{
		tur, "12 00 00 00ff 00", "25", "28 00 00000000 00 0001 00", "2f 00 00000000 00 0001 00",
		"2a 00 00000000 00 0000 00", "42 00 00000000 00 0000 00", "35", "1a 00 3f 00 ff 00", "15 10 0000 00 00", "1b 00 00 00 01 00", "1b",
	}
	tests := []struct {
		kind               byte
		registered, others string // g good, c conflict
	}{
		{typeWriteExclusive, "gggggcccgcgc", "gggggcccgcgc"},
		{typeExclusiveAccess, "gggcccccccgc", "gggcccccccgc"},
		{typeWriteRegistrants, "gggggggggggg", "gggggcccgcgc"},
		{typeExclusiveRegistr, "gggggggggggg", "gggcccccccgc"},
		{typeWriteAllRegistr, "gggggggggggg", "gggggcccgcgc"},
		{typeExclusiveAllRegist, "gggggggggggg", "gggcccccccgc"},
	}
	for _, tt := range tests {
		a, b := pair(t)
		prOutDo(a, 0, 0, 1, 0)
		want(t, "reserve", prOutDo(a, 1, 1, 0, tt.kind), "good")
		answers := func(s *Session) (row string) {
			for _, cdb := range commands {
				row += do(s, cdb, nil).answer()[:1]
			}
			return row
		}
		name := fmt.Sprintf("type %d, ", tt.kind)
		want(t, name+"holder", answers(a), "gggggggggggg")
		want(t, name+"other", answers(b), tt.others)
		prOutDo(b, 0, 0, 2, 0)
		want(t, name+"registered", answers(b), tt.registered)
	}
}

func TestReserveOutErrors(t *testing.T) {
	a, b := pair(t)
	want(t, "unregistered reserve", prOutDo(a, 1, 0, 0, 1), "conflict")
	want(t, "register with a key", prOutDo(a, 0, 7, 1, 0), "conflict")
	want(t, "register nothing", prOutDo(a, 0, 0, 0, 0), "good")
	want(t, "register", prOutDo(a, 0, 0, 1, 0), "good")
	want(t, "wrong key", prOutDo(a, 1, 2, 0, 1), "conflict")
	want(t, "type 0", prOutDo(a, 1, 1, 0, 0), "5 24/00")
	want(t, "type 2", prOutDo(a, 1, 1, 0, 2), "5 24/00")
	want(t, "scope", prOutDo(a, 1, 1, 0, 0x11), "5 24/00")
	want(t, "reserve", prOutDo(a, 1, 1, 0, 3), "good")
	want(t, "reserve another type", prOutDo(a, 1, 1, 0, 1), "conflict")
	want(t, "release another type", prOutDo(a, 2, 1, 0, 1), "5 26/04")
	want(t, "preempt with service key 0", prOutDo(a, 4, 1, 0, 1), "5 26/00")
	want(t, "preempt a key nobody has", prOutDo(a, 4, 1, 99, 1), "conflict")
	want(t, "register b", prOutDo(b, 6, 55, 2, 0), "good")
	want(t, "release by another", prOutDo(b, 2, 2, 0, 3), "good")
	want(t, "still held", prInData(b, 1)[21], 3)
	for _, tt := range []struct{ name, cdb, list, want string }{
		{"short length", "5f 00 00 0000 00000017 00", zeros(24), "5 1a/00"},
		{"long length", "5f 00 00 0000 ffffffff 00", zeros(24), "5 1a/00"},
		{"list missing", "5f 00 00 0000 00000018 00", zeros(23), "5 1a/00"},
		{"APTPL", "5f 06 00 0000 00000018 00", zeros(20) + "01000000", "5 26/00"},
		{"all target ports", "5f 06 00 0000 00000018 00", zeros(15) + "01" + zeros(4) + "04000000", "good"},
		{"initiator ports", "5f 06 00 0000 00000018 00", zeros(20) + "08000000", "5 26/00"},
	} {
		want(t, tt.name, do(a, tt.cdb, unhex(tt.list)).answer(), tt.want)
	}
}

func TestReserveIn(t *testing.T) {
	a, b := pair(t)
	want(t, "capabilities", prInData(a, 2), unhex("00081c90ea010000"))
	want(t, "no keys", prInData(a, 0), make([]byte, 8))
	want(t, "no reservation", prInData(a, 1), make([]byte, 8))
	prOutDo(a, 0, 0, 1, 0)
	prOutDo(b, 0, 0, 2, 0)
	prOutDo(b, 1, 2, 0, typeExclusiveRegistr)
	want(t, "keys", prInData(a, 0), unhex("00000002 00000010 0000000000000001 0000000000000002"))
	want(t, "reservation", prInData(a, 1), unhex("00000002 00000010 0000000000000002 00000000 0006 0000"))
	want(t, "cut", len(run(a, 0, unhex("5e 00 0000000000 000c 00"), nil, 99).In), 12)
	full := prInData(a, 3)
	want(t, "full status length", binary.BigEndian.Uint32(full[4:]), len(full)-8)
	want(t, "a holds nothing", full[8+12], 0)
	second := full[8+24+int(binary.BigEndian.Uint32(full[8+20:])):]
	want(t, "b holds", second[12:14], []byte{1, 6})
	want(t, "port", second[18:20], []byte{0, 1})
	want(t, "transport id", second[24], 0x45)
	want(t, "name", string(second[28:]), "iqn.2026-11.test:b,i,0x800000000001\x00")
}

// TestUnitAttentions is who hears of what.
func TestUnitAttentions(t *testing.T) {
	tests := []struct {
		name string
		kind byte // reserved by a
		do   func(a, b *Session) string
		a, b string
	}{
		{"release, registrants only", typeWriteRegistrants, func(a, b *Session) string { return prOutDo(a, 2, 1, 0, typeWriteRegistrants) }, "good", "6 2a/04"},
		{"release, all registrants", typeWriteAllRegistr, func(a, b *Session) string { return prOutDo(b, 2, 2, 0, typeWriteAllRegistr) }, "6 2a/04", "good"},
		{"release, exclusive", typeExclusiveAccess, func(a, b *Session) string { return prOutDo(a, 2, 1, 0, typeExclusiveAccess) }, "good", "good"},
		{"unregister, registrants only", typeExclusiveRegistr, func(a, b *Session) string { return prOutDo(a, 0, 1, 0, 0) }, "good", "6 2a/04"},
		{"unregister, exclusive", typeWriteExclusive, func(a, b *Session) string { return prOutDo(a, 0, 1, 0, 0) }, "good", "good"},
		{"clear", typeWriteExclusive, func(a, b *Session) string { return prOutDo(b, 3, 2, 0, 0) }, "6 2a/03", "good"},
		{"preempt", typeWriteExclusive, func(a, b *Session) string { return prOutDo(b, 4, 2, 1, typeWriteExclusive) }, "6 2a/05", "good"},
		{"preempt all", typeWriteAllRegistr, func(a, b *Session) string { return prOutDo(b, 4, 2, 0, typeWriteExclusive) }, "6 2a/05", "good"},
	}
	for _, tt := range tests {
		a, b := pair(t)
		prOutDo(a, 0, 0, 1, 0)
		prOutDo(b, 0, 0, 2, 0)
		want(t, tt.name, prOutDo(a, 1, 1, 0, tt.kind), "good")
		want(t, tt.name, tt.do(a, b), "good")
		want(t, tt.name+", a", do(a, tur, nil).answer(), tt.a)
		want(t, tt.name+", b", do(b, tur, nil).answer(), tt.b)
	}
}

// TestRelogin: registrations and the reservation are the nexus', not the
// session's.
func TestRelogin(t *testing.T) {
	u := NewUnit(newMemory(t, 8, 512))
	a, b := open(t, "a", map[uint16]*Unit{0: u}), open(t, "b", map[uint16]*Unit{0: u})
	prOutDo(a, 0, 0, 1, 0)
	want(t, "reserve", prOutDo(a, 1, 1, 0, typeExclusiveAccess), "good")
	a.Close()
	want(t, "still reserved", do(b, "28 00 00000000 00 0001 00", nil).answer(), "conflict")
	b.LUNReset(0)()
	do(b, tur, nil)
	want(t, "after a reset", do(b, "28 00 00000000 00 0001 00", nil).answer(), "conflict")
	a = open(t, "a", map[uint16]*Unit{0: u})
	want(t, "the holder again", do(a, "28 00 00000000 00 0001 00", nil).answer(), "good")
	other := NewSession(Nexus{Initiator: nexusOf("a").Initiator, ISID: [6]byte{7}}, map[uint16]*Unit{0: u})
	defer other.Close()
	do(other, tur, nil)
	want(t, "another ISID", do(other, "28 00 00000000 00 0001 00", nil).answer(), "conflict")
}
