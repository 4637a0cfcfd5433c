package ebpf

import (
	"errors"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// TestFloodLists writes lists of all lengths around those of pieces, many of them equal,
// and demands that the kernel gives back the same, and that equal ones take their place once.
func TestFloodLists(t *testing.T) {
	tr := newTrial(t, nil)
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 40 {
		var kinds [][]uint32 // each another list
		need := maxVLANs / pieceLen
		for i := range 1 + r.IntN(20) {
			n := 1 + r.IntN(3)*pieceLen + r.IntN(4)
			if i == 0 && round == 0 {
				n = int(maxPorts) - 1
			}
			slots := make([]uint32, n)
			for j := range slots {
				slots[j] = 1 + r.Uint32N(maxPorts-1)
			}
			slots[0] = uint32(i + 1)
			kinds = append(kinds, slots)
		}
		want, used := map[uint16][]uint32{}, map[int]bool{}
		for vid := range maxVLANs {
			if vid == 0 || r.IntN(8) == 0 {
				continue
			}
			kind := r.IntN(len(kinds))
			want[uint16(vid)] = kinds[kind]
			if !used[kind] {
				used[kind] = true
				need += len(kinds[kind])/pieceLen + 1 // for the 0 at the end, too
			}
		}
		pieces := encodeFloods(want)
		if len(pieces) != need {
			t.Errorf("%d lists are %d pieces, want %d", len(used), len(pieces), need)
		}
		if err := tr.writeFloods(pieces); err != nil {
			t.Fatal(err)
		}
		if got, err := tr.readFloods(); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("round %d: the lists are not those that were written (%v)", round, err)
		}
	}
}

// TestFloodReaches has random ports in random VLANs, most of them in all, and demands of the
// program that a flood reaches the VLAN's other members and nobody else, whatever the lists
// look like: after each change those before it lead nowhere else.
func TestFloodReaches(t *testing.T) {
	tr := newTrial(t, nil)
	r := rand.New(rand.NewPCG(3, 4))
	all := make([]uint16, 4094)
	for i := range all {
		all[i] = uint16(i + 1)
	}
	const base = 1000
	members := map[uint32]member{} // by slot
	change := func(i int) {
		m := member{ifindex: base + i, mtu: 1500, pvid: uint16(r.IntN(20))}
		switch r.IntN(4) {
		case 0, 1:
			m.tagged = all
		case 2:
			m.tagged = all[:1+r.IntN(30)]
		}
		if m.pvid != 0 {
			m.tagged = slices.DeleteFunc(slices.Clone(m.tagged), func(v uint16) bool { return v == m.pvid })
		}
		m.down = r.IntN(10) == 0
		slot, err := tr.put(m)
		if err != nil {
			t.Fatal(err)
		}
		members[slot] = m
	}
	sender, err := tr.put(member{ifindex: lo, mtu: 1500, pvid: 5, tagged: slices.DeleteFunc(slices.Clone(all), func(v uint16) bool { return v == 5 })})
	if err != nil {
		t.Fatal(err)
	}
	tracer := newTracer(t, tr)
	for range 130 {
		change(len(members))
	}
	for round := range 30 {
		if round%2 == 0 { // in others the lists are of the ports before
			if err := tr.commit(); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			vid := uint16(1 + r.IntN(40))
			if r.IntN(3) == 0 {
				vid = uint16(1 + r.IntN(4094))
			}
			want := map[uint32]planeForm{}
			for slot, m := range members {
				switch {
				case m.down:
				case m.pvid == vid:
					want[slot] = planeFormUNTAGGED
				case slices.Contains(m.tagged, vid):
					want[slot] = planeFormTAGGED
				}
			}
			got := tracer(sender, vid)
			if round%2 == 0 {
				if !maps.Equal(got, want) {
					t.Fatalf("VLAN %d: reached %v, want %v", vid, got, want)
				}
				continue
			}
			for slot, form := range got {
				if want[slot] != form {
					t.Fatalf("VLAN %d with older lists: reached %d as %d, want %d", vid, slot, form, want[slot])
				}
			}
		}
		for range 5 {
			change(r.IntN(130))
		}
	}
}

// newTracer gives a function that tells by whom a tagged broadcast from a slot is got,
// and as what, as ripstop_trace notes it.
func newTracer(t *testing.T, tr *trial) func(slot uint32, vid uint16) map[uint32]planeForm {
	t.Helper()
	spec, err := loadPlane()
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != planeProgRipstopTrace })
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: tr.maps.byName()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	keys := make([]uint32, maxPorts)
	for i := range keys {
		keys[i] = uint32(i)
	}
	frame := ether(broadcast, macA, experimental)
	return func(slot uint32, vid uint16) map[uint32]planeForm {
		t.Helper()
		copies := make([]planeCopy, maxPorts)
		if _, err := c.Maps[planeMapCopies].BatchUpdate(keys, copies, nil); err != nil {
			t.Fatal(err)
		}
		in := traceContext{Ifindex: lo, CB: [5]uint32{slot, unix.ETH_P_8021Q<<16 | uint32(vid)}}
		if _, err := c.Programs[planeProgRipstopTrace].Run(&ebpf.RunOptions{Data: frame, Context: in}); err != nil {
			t.Fatal(err)
		}
		var cursor ebpf.MapBatchCursor
		if _, err := c.Maps[planeMapCopies].BatchLookup(&cursor, keys, copies, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Fatal(err)
		}
		got := map[uint32]planeForm{}
		for i, c := range copies {
			if c.Form != planeFormNOT_A_MEMBER && c.Why == planeReasonREASONS {
				got[uint32(i)] = c.Form
			}
		}
		return got
	}
}
