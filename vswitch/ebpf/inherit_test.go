package ebpf

import (
	"bytes"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/cilium/ebpf/btf"

	"ripstop/vswitch"
)

// number is an unsigned integer of so many bytes.
func number(size uint32) *btf.Int { return &btf.Int{Name: "number", Size: size} }

// structOf lays members out one after the other.
func structOf(size uint32, members ...btf.Member) *btf.Struct {
	offset := btf.Bits(0)
	for i := range members {
		members[i].Offset = offset
		n, err := btf.Sizeof(members[i].Type)
		if err != nil {
			panic(err)
		}
		offset += btf.Bits(8 * n)
	}
	return &btf.Struct{Name: "thing", Size: size, Members: members}
}

func enumOf(names ...string) *btf.Enum {
	e := &btf.Enum{Name: "flags", Size: 4}
	for i, n := range names {
		e.Values = append(e.Values, btf.EnumValue{Name: n, Value: 1 << i})
	}
	return e
}

func TestTranslate(t *testing.T) {
	array := func(n uint32, of btf.Type) btf.Type { return &btf.Array{Index: number(4), Type: of, Nelems: n} }
	from := structOf(12, btf.Member{Name: "gone", Type: number(2)}, btf.Member{Name: "vid", Type: number(2)},
		btf.Member{Name: "flags", Type: enumOf("A", "B", "C")}, btf.Member{Name: "rates", Type: array(2, number(2))})
	to := structOf(24, btf.Member{Name: "rates", Type: array(3, number(4))}, btf.Member{Name: "fresh", Type: number(4)},
		btf.Member{Name: "flags", Type: enumOf("C", "D", "A")}, btf.Member{Name: "vid", Type: number(4)})
	way, err := between(to, from)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 24)
	way(got, []byte{9, 9, 10, 1, 7, 0, 0, 0, 5, 0, 6, 0})
	want := []byte{5, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 10, 1, 0, 0}
	if !bytes.Equal(got, want) {
		t.Errorf("the thing is %v, want %v", got, want)
	}
	other := structOf(4, btf.Member{Name: "vid", Type: array(2, number(2))})
	if _, err := between(to, other); !errors.Is(err, errForeign) {
		t.Errorf("a number that was a list: %v", err)
	}
}

// TestInherit demands that a copy of a switch is the switch.
func TestInherit(t *testing.T) {
	tr := newTrial(t, nil)
	security := vswitch.Security{
		AllowedMACs: []vswitch.MAC{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}},
		AllowedIPs:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::1/128")},
		MACLimit:    7, Storm: vswitch.Storm{Broadcast: 100}, BPDUGuard: true,
	}
	tr.port(member{ifindex: lo, pvid: 10})
	tr.port(member{ifindex: 1001, pvid: 20, tagged: []uint16{1, 10, 4094}, isolated: true, limit: vswitch.Limit{Send: 1e6, Receive: 2e6}})
	tr.port(member{ifindex: 1002, pvid: 10, security: security})
	if _, vid, why := tr.send(1, 0, ether(broadcast, macA, experimental)); vid != 10 || why != "" {
		t.Fatalf("a frame goes into VLAN %d, %s", vid, why)
	}
	if err := tr.maps.Activities.Put(uint32(3), &planeActivity{Shut: 99, Due: [2]uint64{7, 8}}); err != nil {
		t.Fatal(err)
	}
	tr.send(2, 0, ether(broadcast, macA, experimental)) // is none of lo's: a drop
	spec, err := loadPlane()
	if err != nil {
		t.Fatal(err)
	}
	id, err := tr.id()
	if err != nil {
		t.Fatal(err)
	}
	r, err := openRelic(spec, planeProgRipstopSwitch, id)
	if err != nil {
		t.Fatal(err)
	}
	p, err := inheritPlane(spec, r, planeProgRipstopSwitch)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := errors.Join(p.read(), p.compare(), p.inherit(spec), p.commit()); err != nil {
		t.Fatal(err)
	}
	if p.name != "trial" || !slices.Equal(p.ports, tr.ports) || !reflect.DeepEqual(p.trunks, tr.trunks) {
		t.Errorf("switch %q has the ports %v, %v; want %v, %v", p.name, p.slots, p.trunks, tr.slots, tr.trunks)
	}
	if got := p.security(3); !reflect.DeepEqual(got, security) {
		t.Errorf("security is %+v, want %+v", got, security)
	}
	if got, want := p.limited(2), (vswitch.Limit{Send: 1e6, Receive: 2e6, Burst: vswitch.DefaultBurst}); got != want {
		t.Errorf("limit is %+v, want %+v", got, want)
	}
	var a planeActivity
	if err := p.maps.Activities.Lookup(uint32(3), &a); err != nil || a.Shut != 99 || a.Due != [2]uint64{7, 8} {
		t.Errorf("what happened at a port is %+v, %v", a, err)
	}
	if vids, err := p.vlanTraffic(); err != nil || vids[10].Frames != 1 {
		t.Errorf("traffic is %v, %v", vids, err)
	}
	have, err := p.portLosses()
	if want, old := tr.portLosses(); err != nil || old != nil || !reflect.DeepEqual(have, want) || len(have) == 0 {
		t.Errorf("losses are %v, %v; want %v, %v", have, err, want, old)
	}
	old, err := tr.stations()
	if err != nil {
		t.Fatal(err)
	}
	all, err := p.stations()
	if err != nil || len(all) != len(old) || len(all) == 0 {
		t.Errorf("stations are %v, %v; want %v", all, err, old)
	}
	lists, err := p.readFloods()
	if want, old := tr.readFloods(); len(want[10]) == 0 || err != nil || old != nil || !reflect.DeepEqual(lists, want) {
		t.Errorf("flood lists are %v, %v; want %v", lists, err, want)
	}
}
