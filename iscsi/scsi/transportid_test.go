package scsi

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func transport(name string) []byte { return appendTransportID(nil, nexusOf(name)) }

// specified is the parameter list of SPEC_I_PT from byte 24 on.
func specified(ids ...[]byte) []byte {
	b := make([]byte, 4)
	for _, id := range ids {
		b = append(b, id...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// initiatorID is a TransportID without ISID.
func initiatorID(name string) []byte {
	text := padded(nexusOf(name).Initiator)
	for len(text) < 20 {
		text = append(text, 0, 0, 0, 0)
	}
	return append([]byte{0x05, 0, 0, byte(len(text))}, text...)
}

func TestSpecifiedPorts(t *testing.T) {
	const specify = 0x08
	a, b := pair(t)
	want(t, "not with ignore", prOutList(a, 6, 0, 1, specify, specified()...), "5 26/00")
	want(t, "register", prOutList(a, 0, 0, 1, specify, specified(transport("C"), initiatorID("b"), transport("a"))...), "good")
	want(t, "keys", prInData(b, 0), unhex("00000001 00000018 0000000000000001 0000000000000001 0000000000000001"))
	want(t, "when registered", prOutList(a, 0, 1, 2, specify, specified(transport("d"))...), "5 26/00")
	want(t, "b has it", prOutDo(b, 1, 1, 0, typeExclusiveRegistr), "good")
	c := NewSession(nexusOf("c"), map[uint16]*Unit{0: unitOf(a)})
	defer c.Close()
	do(c, tur, nil)
	want(t, "c has access", do(c, "28 00 00000000 00 0001 00", nil).answer(), "good")

	long := specified(transport("d"))
	binary.BigEndian.PutUint32(long, uint32(len(long)))
	wrong := map[string][]byte{
		"no length": {0, 0}, "wrong length": long, "other protocol": specified(append([]byte{0x46}, transport("d")[1:]...)),
		"cut": specified(transport("d")[:12]), "no ISID": specified(append([]byte{0x45}, initiatorID("d")[1:]...)),
		"short": specified([]byte{5, 0, 0, 4, 'a', 0, 0, 0}), "no end": specified([]byte("\x05\x00\x00\x14aaaaaaaaaaaaaaaaaaaa")),
		"no name": specified(append([]byte("\x45\x00\x00\x14,i,0x1"), make([]byte, 14)...)),
		"no hex":  specified(append([]byte("\x45\x00\x00\x14a,i,0xg"), make([]byte, 13)...)),
	}
	for name, list := range wrong {
		fresh, _ := pair(t)
		answer := prOutList(fresh, 0, 0, 1, specify, list...)
		if answer != "5 26/00" && answer != "5 1a/00" {
			t.Errorf("%s: got %s", name, answer)
		}
		want(t, name, len(prInData(fresh, 0)), 8)
	}
	want(t, "24 bytes without", prOutList(a, 0, 1, 2, 0, 0), "5 1a/00")
}

func TestRegistrationLimit(t *testing.T) {
	a, _ := pair(t)
	var ids [][]byte
	for i := range maxRegistrations - 1 {
		ids = append(ids, transport(fmt.Sprint(i)))
	}
	want(t, "too many", prOutList(a, 0, 0, 1, 8, specified(append(ids, transport("x"))...)...), "5 55/04")
	want(t, "none", len(prInData(a, 0)), 8)
	for i := 0; i < len(ids); i += 512 {
		part := specified(ids[i:min(i+512, len(ids))]...)
		prOutList(a, 6, 0, 0, 0)
		want(t, "part", prOutList(a, 0, 0, 1, 8, part...), "good")
	}
	want(t, "full", binary.BigEndian.Uint32(prInData(a, 0)[4:]), 8*maxRegistrations)
	b := open(t, "new", map[uint16]*Unit{0: unitOf(a)})
	want(t, "one more", prOutDo(b, 0, 0, 1, 0), "5 55/04")
}

// moveList is REGISTER AND MOVE with its flags and port.
func prMoveDo(s *Session, key, service uint64, flags byte, port uint16, id []byte) string {
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], service)
	list[17] = flags
	binary.BigEndian.PutUint16(list[18:], port)
	binary.BigEndian.PutUint32(list[20:], uint32(len(id)))
	list = append(list, id...)
	cdb := []byte{0x5f, prMove, 0, 0, 0, 0, 0, 0, byte(len(list)), 0}
	return run(s, 0, cdb, list, 0).answer()
}

func TestRegisterAndMove(t *testing.T) {
	const leave = 0x02
	a, b := pair(t)
	want(t, "unregistered", prMoveDo(a, 1, 2, 0, 1, transport("b")), "conflict")
	prOutDo(a, 0, 0, 1, 0)
	want(t, "wrong key", prMoveDo(a, 9, 2, 0, 1, transport("b")), "conflict")
	want(t, "no reservation", prMoveDo(a, 1, 2, 0, 1, transport("b")), "5 24/00")
	prOutDo(a, 1, 1, 0, typeWriteAllRegistr)
	want(t, "all registrants", prMoveDo(a, 1, 2, 0, 1, transport("b")), "conflict")
	prOutDo(a, 2, 1, 0, typeWriteAllRegistr)
	prOutDo(a, 1, 1, 0, typeExclusiveAccess)
	for _, tt := range []struct {
		name    string
		service uint64
		port    uint16
		id      []byte
	}{
		{"no key", 0, 1, transport("b")}, {"another port", 2, 2, transport("b")}, {"itself", 2, 1, transport("a")},
		{"an initiator", 2, 1, initiatorID("b")}, {"two", 2, 1, append(transport("b"), transport("c")...)},
	} {
		want(t, tt.name, prMoveDo(a, 1, tt.service, 0, tt.port, tt.id), "5 26/00")
	}
	want(t, "nobody", prMoveDo(a, 1, 2, 0, 1, nil), "5 1a/00")
	want(t, "APTPL without a keeper", prMoveDo(a, 1, 2, 1, 1, transport("b")), "5 26/00")

	want(t, "move", prMoveDo(a, 1, 2, 0, 1, transport("b")), "good")
	want(t, "both registered", prInData(a, 0)[4:], unhex("00000010 0000000000000001 0000000000000002"))
	want(t, "b holds", do(b, "28 00 00000000 00 0001 00", nil).answer(), "good")
	want(t, "a does not", do(a, "28 00 00000000 00 0001 00", nil).answer(), "conflict")
	want(t, "not the holder", prMoveDo(a, 1, 2, 0, 1, transport("c")), "5 24/00")
	want(t, "move back", prMoveDo(b, 2, 5, leave, 1, transport("a")), "good")
	want(t, "b left", prInData(a, 0)[4:], unhex("00000008 0000000000000005"))
	want(t, "a holds", do(a, "28 00 00000000 00 0001 00", nil).answer(), "good")
	want(t, "b is out", do(b, "28 00 00000000 00 0001 00", nil).answer(), "conflict")
}

// TestOldCommands is RESERVE and RELEASE beside persistent reservations (SPC-3 5.6.3).
func TestOldCommands(t *testing.T) {
	tests := []struct {
		kind               byte
		holder, registrant string
	}{
		{typeWriteExclusive, "good", "conflict"}, {typeExclusiveAccess, "good", "conflict"},
		{typeWriteRegistrants, "good", "good"}, {typeExclusiveRegistr, "good", "good"},
		{typeWriteAllRegistr, "good", "good"}, {typeExclusiveAllRegist, "good", "good"},
	}
	for _, tt := range tests {
		a, b := pair(t)
		c := open(t, "c", map[uint16]*Unit{0: unitOf(a)})
		prOutDo(a, 0, 0, 1, 0)
		prOutDo(b, 0, 0, 2, 0)
		prOutDo(a, 1, 1, 0, tt.kind)
		before := prInData(a, 3)
		for _, cdb := range []string{"16", "17", "56", "57"} {
			want(t, "holder", do(a, cdb, nil).answer(), tt.holder)
			want(t, "registrant", do(b, cdb, nil).answer(), tt.registrant)
			want(t, "other", do(c, cdb, nil).answer(), "conflict")
		}
		want(t, "unchanged", prInData(a, 3), before)
		want(t, "no old reservation", unitOf(a).holder == nil, true)
	}
}

// FuzzReserveOut gives any parameter list to PERSISTENT RESERVE OUT, after
// which the state still makes sense.
func FuzzReserveOut(f *testing.F) {
	f.Add(byte(0), byte(1), append(make([]byte, 24), specified(transport("b"), initiatorID("c"))...))
	f.Add(byte(7), byte(1), append(make([]byte, 24), transport("b")...))
	f.Add(byte(4), byte(5), make([]byte, 24))
	f.Fuzz(func(t *testing.T, action, kind byte, list []byte) {
		u := NewUnit(newMemory(t, 8, 512))
		s := open(t, "a", map[uint16]*Unit{0: u})
		prOutDo(s, 6, 0, 1, 0)
		prOutDo(s, 1, 1, 0, typeWriteExclusive)
		cdb := []byte{0x5f, action & 0x1f, kind, 0, 0, 0, 0, byte(len(list) >> 8), byte(len(list)), 0}
		run(s, 0, cdb, list, 0)
		r := u.snapshot()
		if _, registered := r.key(r.owner); r.held() && !r.kind.everyone() && !registered || r.held() && !r.any() {
			t.Errorf("a reservation without holder: %+v", r)
		}
		for _, reg := range r.list {
			if reg.key == 0 || reg.nexus.Initiator == "" {
				t.Errorf("a registration of nothing: %+v", reg)
			}
		}
	})
}

// FuzzModeSelect gives any parameter list to MODE SELECT: what it takes MODE
// SENSE shows, and nothing else changes.
func FuzzModeSelect(f *testing.F) {
	f.Add(unhex("0000000000000000 0812 00"+zeros(17)+"0a0a 06100840"+zeros(6)), true)
	f.Add(unhex("00000008 0000000000000200 4a01001c 01"+zeros(27)), false)
	f.Fuzz(func(t *testing.T, list []byte, ten bool) {
		s, _, u := disk(t, 64, 512)
		before := u.mode.flags()
		cdb := []byte{0x15, 0x10, 0, 0, byte(len(list)), 0}
		if ten {
			cdb = []byte{0x55, 0x10, 0, 0, 0, 0, 0, byte(len(list) >> 8), byte(len(list)), 0}
		}
		task := run(s, 0, cdb, list, 0)
		after := u.mode.flags()
		if task.Status != StatusGood && after != before {
			t.Errorf("refused, and changed from %b to %b", before, after)
		}
		if after&^modeAll != 0 || after&modeConflictAttention != 0 && after&modeKeepAttention == 0 {
			t.Errorf("flags %b make no sense", after)
		}
	})
}
