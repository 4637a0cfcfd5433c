package scsi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// shelf is a Keeper in memory.
type shelf struct {
	records map[[16]byte][]byte
	saves   int
	fault   error
}

func newShelf() *shelf { return &shelf{records: map[[16]byte][]byte{}} }

func (k *shelf) Load(id [16]byte) ([]byte, error) { return k.records[id], k.fault }

func (k *shelf) Save(id [16]byte, record []byte) error {
	k.saves++
	if k.fault != nil {
		return k.fault
	}
	k.records[id] = bytes.Clone(record)
	return nil
}

func (k *shelf) unit(t *testing.T) *Unit {
	t.Helper()
	u, err := OpenUnit(newMemory(t, 64, 512), k)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// prOutList sends PERSISTENT RESERVE OUT with flags in byte 20 and more behind it.
func prOutList(s *Session, action byte, key, service uint64, flags byte, more ...byte) string {
	list := make([]byte, 24)
	binary.BigEndian.PutUint64(list, key)
	binary.BigEndian.PutUint64(list[8:], service)
	list[20] = flags
	list = append(list, more...)
	cdb := []byte{0x5f, action, 0, 0, 0, 0, 0, 0, 0, 0}
	binary.BigEndian.PutUint32(cdb[5:], uint32(len(list)))
	return run(s, 0, cdb, list, 0).answer()
}

// TestPersist takes the process away between two states.
func TestPersist(t *testing.T) {
	k := newShelf()
	a := open(t, "a", map[uint16]*Unit{0: k.unit(t)})
	want(t, "capable", prInData(a, 2)[2:4], []byte{0x1d, 0x90})
	want(t, "register", prOutList(a, 0, 0, 7, 0x01), "good")
	want(t, "reserve", prOutDo(a, 1, 7, 0, typeExclusiveAccess), "good")
	want(t, "active", prInData(a, 2)[2:4], []byte{0x1d, 0x91})

	u := k.unit(t)
	b := open(t, "b", map[uint16]*Unit{0: u})
	want(t, "b is fenced", do(b, "28 00 00000000 00 0001 00", nil).answer(), "conflict")
	want(t, "keys, new generation", prInData(b, 0), unhex("00000000 00000008 0000000000000007"))
	a = open(t, "A", map[uint16]*Unit{0: u})
	want(t, "the holder", do(a, "28 00 00000000 00 0001 00", nil).answer(), "good")
	want(t, "release", prOutDo(a, 2, 7, 0, typeExclusiveAccess), "good")

	u = k.unit(t)
	a = open(t, "a", map[uint16]*Unit{0: u})
	want(t, "released", len(prInData(a, 1)), 8)
	want(t, "another key, not to persist", prOutList(a, 0, 7, 8, 0), "good")
	want(t, "inactive", prInData(a, 2)[3], 0x90)
	want(t, "nothing kept", len(prInData(open(t, "b", map[uint16]*Unit{0: k.unit(t)}), 0)), 8)
	saves := k.saves
	want(t, "not to persist", prOutDo(a, 1, 8, 0, 1), "good")
	want(t, "saved", k.saves, saves)
}

// TestNotKept: what cannot be kept does not happen.
func TestNotKept(t *testing.T) {
	k := newShelf()
	u := k.unit(t)
	a, b := open(t, "a", map[uint16]*Unit{0: u}), open(t, "b", map[uint16]*Unit{0: u})
	k.fault = errors.New("no space left on device")
	want(t, "register", prOutList(a, 0, 0, 1, 1), "5 55/04")
	want(t, "nothing", len(prInData(a, 0)), 8)
	k.fault = nil
	want(t, "register", prOutList(a, 0, 0, 1, 1), "good")
	want(t, "register b", prOutList(b, 6, 0, 2, 1), "good")
	k.fault = errors.New("input/output error")
	before := prInData(a, 3)
	for _, tt := range []struct {
		action byte
		want   string
	}{{prReserve, "4 44/00"}, {prClear, "4 44/00"}, {prPreempt, "4 44/00"}} {
		want(t, "action", prOutDo(a, tt.action, 1, 2, typeWriteExclusive), tt.want)
		want(t, "state", prInData(a, 3), before)
	}
	want(t, "b not told", do(b, tur, nil).answer(), "good")
	k.fault = nil
	saves := k.saves
	want(t, "again", prOutList(a, 6, 0, 1, 1), "good")
	want(t, "saved again, for nobody knows what is there", k.saves, saves+1)
}

func TestDamagedRecord(t *testing.T) {
	k := newShelf()
	a := open(t, "a", map[uint16]*Unit{0: k.unit(t)})
	prOutList(a, 0, 0, 7, 1)
	prOutDo(a, 1, 7, 0, typeWriteExclusive)
	id := newMemory(t, 1, 512).info.ID
	good := string(k.records[id])
	for _, tt := range []struct{ name, old, new, want string }{
		{"newer", `"format": 1`, `"format": 2`, "run the version that wrote it"},
		{"cut", `}`, ``, "no record"},
		{"unknown field", `"registrations"`, `"resignations"`, "unknown field"},
		{"no key", `"key": "7"`, `"key": "0"`, "no proper ISID or key"},
		{"short ISID", `800000000001`, `8000`, "no proper ISID or key"},
		{"no type", `"type": 1`, `"type": 2`, "no proper type or holder"},
		{"no holder", `"holder": 0`, `"holder": 1`, "no proper type or holder"},
	} {
		k.records[id] = []byte(strings.ReplaceAll(good, tt.old, tt.new))
		u, err := OpenUnit(newMemory(t, 1, 512), k)
		if u != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.want)
		}
	}
	k.fault = errors.New("damaged")
	if _, err := OpenUnit(newMemory(t, 1, 512), k); !errors.Is(err, k.fault) {
		t.Errorf("got %v", err)
	}
}

// TestSavedMode saves mode pages and takes the process away.
func TestSavedMode(t *testing.T) {
	k := newShelf()
	s := open(t, "a", map[uint16]*Unit{0: k.unit(t)})
	want(t, "savable", do(s, "1a 08 08 00 ff 00", nil).In[4:7], unhex("881204"))
	want(t, "select", do(s, "15 11 0000 18 00", unhex("00000000 0812 00"+zeros(17))).answer(), "good")
	want(t, "saved", do(s, "1a 08 c8 00 ff 00", nil).In[6], 0)
	want(t, "default", do(s, "1a 08 88 00 ff 00", nil).In[6], 4)

	s = open(t, "a", map[uint16]*Unit{0: k.unit(t)})
	want(t, "kept", do(s, "1a 08 08 00 ff 00", nil).In[6], 0)
	want(t, "on, not saved", do(s, "15 10 0000 18 00", unhex("00000000 0812 04"+zeros(17))).answer(), "good")
	want(t, "on", do(s, "1a 08 08 00 ff 00", nil).In[6], 4)
	s.LUNReset(0)()
	do(s, tur, nil)
	want(t, "reset", do(s, "1a 08 08 00 ff 00", nil).In[6], 0)
	k.fault = errors.New("no space left on device")
	want(t, "not kept", do(s, "15 11 0000 18 00", unhex("00000000 0812 04"+zeros(17))).answer(), "4 44/00")
	want(t, "unchanged", do(s, "1a 08 08 00 ff 00", nil).In[6], 0)
	want(t, "saved, unchanged", do(s, "1a 08 c8 00 ff 00", nil).In[6], 0)
	k.fault = nil
	want(t, "save as it is", do(s, "15 11 0000 00 00", nil).answer(), "good")
}

// FuzzRecord gives any bytes to the reader of records: what it takes, it
// writes again as the same state.
func FuzzRecord(f *testing.F) {
	r := reservations{persist: true, kind: typeWriteExclusive, owner: nexusOf("b"),
		list: []registration{{nexusOf("a"), 1}, {nexusOf("b"), 2}}}
	seed, err := recordOf(r, new(modeFlags)).encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := decodeRecord(b)
		if err != nil {
			return
		}
		r, err := k.reservations()
		if err != nil {
			t.Fatal(err)
		}
		if r.held() && !r.any() {
			t.Fatal("a reservation of nobody")
		}
		again, err := recordOf(r, k.Mode).encode()
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > 0 {
			if _, err := decodeRecord(again); err != nil {
				t.Fatalf("%v\n%s", err, again)
			}
		}
	})
}
