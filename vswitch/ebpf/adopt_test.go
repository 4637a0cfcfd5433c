package ebpf

import (
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"ripstop/vswitch"
)

func TestOpenPlane(t *testing.T) {
	tr := newTrial(t, nil)
	tr.port(member{ifindex: 1000, pvid: 10})
	tr.port(member{ifindex: 1001, pvid: 20, tagged: []uint16{1, 10, 63, 64, 4094}, isolated: true})
	tr.port(member{ifindex: 1002, pvid: 10, down: true})
	spec, err := loadPlane()
	if err != nil {
		t.Fatal(err)
	}
	id, err := tr.id()
	if err != nil {
		t.Fatal(err)
	}
	p, err := openPlane(spec, planeProgRipstopSwitch, id)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := p.read(); err != nil {
		t.Fatal(err)
	}
	if p.name != "trial" || p.ageing != trialAgeing {
		t.Errorf("switch is %q, ageing %v", p.name, p.ageing)
	}
	if !slices.Equal(p.ports, tr.ports) || !reflect.DeepEqual(p.trunks, tr.trunks) || !reflect.DeepEqual(p.slots, tr.slots) {
		t.Errorf("ports were %v, %v; are %v, %v", tr.slots, tr.trunks, p.slots, p.trunks)
	}
	if err := p.compare(); err != nil || p.dirty {
		t.Errorf("flood lists look changed: %v, %v", p.dirty, err)
	}
	if changed, err := p.upgrade(spec); changed || err != nil {
		t.Errorf("the same program is taken for another: %v", err)
	}
	if next, err := p.put(member{ifindex: 1003, pvid: 10}); err != nil || next != 4 {
		t.Errorf("a new port gets slot %d, %v; want 4", next, err)
	}
}

func TestUpgrade(t *testing.T) {
	tr := newTrial(t, nil)
	tr.port(member{ifindex: 1000, pvid: 10})
	spec, err := loadPlane()
	if err != nil {
		t.Fatal(err)
	}
	before := programID(t, tr.plane.prog)
	prog := spec.Programs[planeProgRipstopSwitch]
	prog.Instructions = slices.Insert(prog.Instructions, 1, asm.Mov.Imm(asm.R0, 0)) // of the same meaning
	if changed, err := tr.upgrade(spec); !changed || err != nil {
		t.Fatalf("another program is not taken: %v", err)
	}
	if programID(t, tr.plane.prog) == before {
		t.Error("the old program is kept")
	}
	if err := tr.read(); err != nil || tr.slots[1000] != 1 {
		t.Errorf("the port is lost with the new program: %v, %v", tr.slots, err)
	}
}

func TestOpenForeign(t *testing.T) {
	spec, err := loadPlane()
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: planeProgRipstopSwitch, Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer foreign.Close()
	old := newTrial(t, nil)
	if err := old.maps.Self.Put(uint32(0), &planeIdentity{Layout: planeLayoutLAYOUT + 1}); err != nil {
		t.Fatal(err)
	}
	id, err := old.id()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		id   ebpf.ProgramID
	}{
		{"a program of the same name", programID(t, foreign)},
		{"another layout", id},
	}
	for _, tt := range tests {
		if _, err := openPlane(spec, planeProgRipstopSwitch, tt.id); !errors.Is(err, errForeign) {
			t.Errorf("%s: %v, want %v", tt.name, err, errForeign)
		}
	}
}

func programID(t *testing.T, p *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, ok := info.ID()
	if !ok {
		t.Fatal("program has no id")
	}
	return id
}

func TestCompareFindsDrift(t *testing.T) {
	tr := newTrial(t, nil)
	for i := range 3 {
		tr.port(member{ifindex: 1000 + i, pvid: 10, tagged: []uint16{20}})
	}
	want := map[uint16][]uint32{10: {1, 2, 3}, 20: {1, 2, 3}}
	harms := map[string]map[uint16][]uint32{
		"a member is missing": {10: {1, 2}, 20: {1, 2, 3}},
		"a VLAN is missing":   {10: {1, 2, 3}},
		"one VLAN too many":   {10: {1, 2, 3}, 20: {1, 2, 3}, 30: {1}},
		"all are missing":     {},
	}
	for name, harm := range harms {
		if err := tr.writeFloods(encodeFloods(harm)); err != nil {
			t.Fatal(err)
		}
		if err := tr.compare(); err != nil || !tr.dirty {
			t.Fatalf("%s: not seen (%v)", name, err)
		}
		if err := tr.plane.commit(); err != nil {
			t.Fatal(err)
		}
		if got, err := tr.readFloods(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: flood lists are %v, %v; want %v", name, got, err, want)
		}
		if err := tr.compare(); err != nil || tr.dirty {
			t.Errorf("%s: still seen after it was mended (%v)", name, err)
		}
	}
}

func TestSlots(t *testing.T) {
	if n := int(maxPorts) - 1; n != vswitch.EBPF.MaxPorts() {
		t.Errorf("the program has room for %d ports, and the switch believes %d", n, vswitch.EBPF.MaxPorts())
	}
	tr := newTrial(t, nil)
	for i := range int(maxPorts) - 1 {
		if slot, err := tr.put(member{ifindex: 1000 + i, pvid: 10}); err != nil || slot != uint32(i+1) {
			t.Fatalf("port %d has slot %d, %v", i, slot, err)
		}
	}
	if _, err := tr.put(member{ifindex: 9000, pvid: 10}); err == nil {
		t.Error("there is room for one port too many")
	}
	if err := tr.clear(1004); err != nil {
		t.Fatal(err)
	}
	if err := tr.clear(1004); err != nil {
		t.Errorf("clearing a second time: %v", err)
	}
	if slot, err := tr.put(member{ifindex: 9000, pvid: 10}); err != nil || slot != 5 {
		t.Errorf("the free slot 5 was not given out: %d, %v", slot, err)
	}
}
