package ebpf

import (
	"maps"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// tryContext is the head of struct __sk_buff in linux/bpf.h, as far as
// BPF_PROG_TEST_RUN lets it be set.
type tryContext struct {
	_       [10]uint32
	Ifindex uint32
	_       uint32
	CB      [5]uint32
}

// trial is a switch whose frames come from BPF_PROG_TEST_RUN.
type trial struct {
	*plane
	t    *testing.T
	prog *ebpf.Program
}

// lo is the device of all frames of a trial: only its ports' slots differ.
const lo = 1

func newTrial(t *testing.T, change func(*ebpf.CollectionSpec)) *trial {
	t.Helper()
	spec, err := loadPlane()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(spec)
	}
	p, err := newPlane(spec, "trial")
	if err != nil {
		t.Fatal(err)
	}
	var try struct {
		Prog *ebpf.Program `ebpf:"ripstop_try"`
	}
	if err := spec.LoadAndAssign(&try, &ebpf.CollectionOptions{MapReplacements: p.maps.byName()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
		if err := try.Prog.Close(); err != nil {
			t.Error(err)
		}
	})
	return &trial{p, t, try.Prog}
}

// port adds a port. Those with other devices than lo receive only.
func (tr *trial) port(m member) uint32 {
	tr.t.Helper()
	m.mtu = 1500
	slot, err := tr.put(m)
	if err != nil {
		tr.t.Fatal(err)
	}
	if err := tr.commit(); err != nil {
		tr.t.Fatal(err)
	}
	return slot
}

// send lets a frame enter a port; tag is protocol and control information of
// the outer tag.
func (tr *trial) send(slot, tag uint32, frame []byte) (verdict uint32, vid uint16, why string) {
	tr.t.Helper()
	vlans, drops := tr.traffic(), tr.losses()
	verdict, err := tr.prog.Run(&ebpf.RunOptions{Data: frame, Context: tryContext{Ifindex: lo, CB: [5]uint32{slot, tag}}})
	if err != nil {
		tr.t.Fatal(err)
	}
	for v, n := range tr.traffic() {
		if n != vlans[v] {
			vid = v
		}
	}
	for reason, n := range tr.losses() {
		if n != drops[reason] {
			why = reason
		}
	}
	return verdict, vid, why
}

func (tr *trial) traffic() map[uint16]uint64 {
	out := map[uint16]uint64{}
	all, err := tr.vlanTraffic()
	if err != nil {
		tr.t.Fatal(err)
	}
	for vid, n := range all {
		out[vid] = n.Frames
	}
	return out
}

func (tr *trial) losses() map[string]uint64 {
	all, err := tr.portLosses()
	if err != nil {
		tr.t.Fatal(err)
	}
	return maps.Clone(all[lo])
}

type bytesOf = []byte

var (
	macA      = bytesOf{2, 0, 0, 0, 0, 0xa}
	macB      = bytesOf{2, 0, 0, 0, 0, 0xb}
	broadcast = bytesOf{255, 255, 255, 255, 255, 255}
)

func ether(dst, src []byte, kind uint16, payload ...byte) []byte {
	f := slices.Concat(dst, src, []byte{byte(kind >> 8), byte(kind)}, payload)
	return append(f, make([]byte, max(0, 60-len(f)))...)
}

func TestClassify(t *testing.T) {
	const (
		shot     = 2 // TC_ACT_SHOT
		redirect = 7 // TC_ACT_REDIRECT
		q, ad    = unix.ETH_P_8021Q << 16, unix.ETH_P_8021AD << 16
	)
	access, trunk, native, down := member{pvid: 10}, member{tagged: []uint16{10, 4094}}, member{pvid: 20, tagged: []uint16{10}}, member{pvid: 10, down: true}
	ip := ether(broadcast, macA, unix.ETH_P_IP)
	tests := []struct {
		name  string
		port  member
		tag   uint32
		frame []byte
		vid   uint16 // that the frame was counted in, 0 for none
		why   string
	}{
		{"untagged on access", access, 0, ip, 10, ""},
		{"own tag on access", access, q | 10, ip, 0, "tagged-on-access"},
		{"other tag on access", access, q | 20, ip, 0, "tagged-on-access"},
		{"4095 on access", access, q | 4095, ip, 0, "tagged-on-access"},
		{"priority tag on access", access, q | 0xe000, ip, 10, ""},
		{"priority tag over a tag on access", access, q | 0xe000, ether(broadcast, macA, unix.ETH_P_8021Q, 0, 20, 8, 0), 0, "tagged-on-access"},
		{"802.1ad on access", access, ad | 20, ip, 10, ""},
		{"802.1ad over a tag on access", access, ad | 20, ether(broadcast, macA, unix.ETH_P_8021Q, 0, 20, 8, 0), 10, ""},
		{"untagged on trunk", trunk, 0, ip, 0, "no-native-vlan"},
		{"priority tag on trunk", trunk, q | 0xe000, ip, 0, "no-native-vlan"},
		{"802.1ad on trunk", trunk, ad | 10, ip, 0, "no-native-vlan"},
		{"carried tag on trunk", trunk, q | 10, ip, 10, ""},
		{"carried tag with priority on trunk", trunk, q | 0xf00a, ip, 10, ""},
		{"last VLAN on trunk", trunk, q | 4094, ip, 4094, ""},
		{"other tag on trunk", trunk, q | 20, ip, 0, "vlan-not-allowed"},
		{"4095 on trunk", trunk, q | 4095, ip, 0, "vlan-not-allowed"},
		{"two tags on trunk", trunk, q | 10, ether(broadcast, macA, unix.ETH_P_8021Q, 0, 20, 8, 0), 10, ""},
		{"untagged on native", native, 0, ip, 20, ""},
		{"native's tag on native", native, q | 20, ip, 20, ""},
		{"carried tag on native", native, q | 10, ip, 10, ""},
		{"priority tag on native", native, q, ether(broadcast, macA, unix.ETH_P_IP), 20, ""},
		{"other tag on native", native, q | 30, ip, 0, "vlan-not-allowed"},
		{"no VLAN at all", member{}, 0, ip, 0, "no-native-vlan"},
		{"port down", down, 0, ip, 0, "port-down"},
		{"BPDU", access, 0, ether(bytesOf{1, 0x80, 0xc2, 0, 0, 0}, macA, 4), 0, "reserved-multicast"},
		{"LLDP", access, 0, ether(bytesOf{1, 0x80, 0xc2, 0, 0, 0xe}, macA, 0x88cc), 0, "reserved-multicast"},
		{"last reserved", access, 0, ether(bytesOf{1, 0x80, 0xc2, 0, 0, 0xf}, macA, 4), 0, "reserved-multicast"},
		{"first that is not reserved", access, 0, ether(bytesOf{1, 0x80, 0xc2, 0, 0, 0x10}, macA, 4), 10, ""},
		{"reserved under a tag", trunk, q | 10, ether(bytesOf{1, 0x80, 0xc2, 0, 0, 2}, macA, 4), 0, "reserved-multicast"},
		{"pause", access, 0, ether(macB, macA, 0x8808), 0, "reserved-multicast"},
		{"multicast source", access, 0, ether(macB, bytesOf{3, 0, 0, 0, 0, 1}, unix.ETH_P_IP), 0, "bad-source"},
		{"broadcast source", access, 0, ether(macB, broadcast, unix.ETH_P_IP), 0, "bad-source"},
		{"zero source", access, 0, ether(macB, make([]byte, 6), unix.ETH_P_IP), 0, "bad-source"},
		{"hardly more than a header", access, 0, ip[:15], 10, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := newTrial(t, nil)
			// One receiver in every VLAN, so that what is admitted leaves.
			tr.port(member{ifindex: 1000, pvid: 4000, tagged: []uint16{10, 20, 4094}})
			tt.port.ifindex = lo
			verdict, vid, why := tr.send(tr.port(tt.port), tt.tag, tt.frame)
			if want := uint32(shot); vid != tt.vid || why != tt.why {
				t.Errorf("in VLAN %d, dropped as %q; want VLAN %d, %q", vid, why, tt.vid, tt.why)
			} else if tt.why == "" {
				want = redirect
				if verdict != want {
					t.Errorf("verdict is %d, want %d", verdict, want)
				}
			} else if verdict != want {
				t.Errorf("verdict is %d, want %d", verdict, want)
			}
		})
	}
}
