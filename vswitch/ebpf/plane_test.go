package ebpf

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
	"ripstop/vswitch"
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

// trialAgeing is that of a trial's FDB: of a kernel that has just started, no frame
// was seen longer ago than it runs.
const trialAgeing = 20 * time.Second

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
	p, err := newPlane(spec, planeProgRipstopSwitch, "trial")
	if err != nil {
		t.Fatal(err)
	}
	p.ageing = trialAgeing
	p.self.Ageing = uint64(trialAgeing)
	if err := p.wrote(); err != nil {
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

// emptied is the trial for a subtest, without these ports and what they learned.
func (tr *trial) emptied(t *testing.T, ports ...uint32) *trial {
	t.Helper()
	for _, ifindex := range ports {
		if err := tr.clear(ifindex); err != nil {
			t.Fatal(err)
		}
	}
	if err := tr.commit(); err != nil {
		t.Fatal(err)
	}
	return &trial{tr.plane, t, tr.prog}
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
		out[uint16(vid)] = n.Frames
	}
	return out
}

func (tr *trial) losses() map[string]uint64 {
	all, err := tr.portLosses()
	if err != nil {
		tr.t.Fatal(err)
	}
	sum := map[string]uint64{}
	for _, lost := range all[lo] {
		for why, n := range lost {
			sum[why] += n
		}
	}
	return sum
}

// From linux/pkt_cls.h, and the upper half of trial.send's tag.
const (
	shot     = 2
	redirect = 7
	q, ad    = unix.ETH_P_8021Q << 16, unix.ETH_P_8021AD << 16
)

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
		{"priority tag over a tag on access", access, q | 0xe000, ether(broadcast, macA, unix.ETH_P_8021Q, 0, 20, 8, 0), 0, "double-tagged"},
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
		{"two tags on trunk", trunk, q | 10, ether(broadcast, macA, unix.ETH_P_8021Q, 0, 20, 8, 0), 0, "double-tagged"},
		{"an 802.1ad tag inside on trunk", trunk, q | 10, ether(broadcast, macA, unix.ETH_P_8021AD, 0, 20, 8, 0), 10, ""},
		{"untagged on native", native, 0, ip, 20, ""},
		{"native's tag on native", native, q | 20, ip, 20, ""},
		{"carried tag on native", native, q | 10, ip, 10, ""},
		{"priority tag on native", native, q, ether(broadcast, macA, unix.ETH_P_IP), 20, ""},
		{"priority tag over a tag on native", native, q, ether(broadcast, macA, unix.ETH_P_8021Q, 0, 10, 8, 0), 0, "double-tagged"},
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
	}
	all := newTrial(t, nil)
	// One receiver in every VLAN, so that what is admitted leaves.
	all.port(member{ifindex: 1000, pvid: 4000, tagged: []uint16{10, 20, 4094}})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := all.emptied(t, lo)
			tt.port.ifindex = lo
			verdict, vid, why := tr.send(tr.port(tt.port), tt.tag, tt.frame)
			if vid != tt.vid || why != tt.why {
				t.Errorf("in VLAN %d, dropped as %q; want VLAN %d, %q", vid, why, tt.vid, tt.why)
			}
			if (verdict == redirect) != (tt.why == "") || (verdict == shot) != (tt.why != "") {
				t.Errorf("verdict is %d, dropped as %q", verdict, why)
			}
		})
	}
}

// sighted writes an entry of the FDB as if a frame had come.
func (tr *trial) sighted(mac []byte, vid uint16, slot, ifindex uint32, age time.Duration) {
	tr.t.Helper()
	var now time.Duration
	nettest.Eventually(tr.t, time.Minute, "the kernel is as old as the entry", func() bool {
		var err error
		if now, err = clock(); err != nil {
			tr.t.Fatal(err)
		}
		return now > age
	})
	key := planeStation{Vid: vid, Mac: [6]byte(mac)}
	if err := tr.maps.Fdb.Put(&key, &planeSighting{Slot: slot, Ifindex: ifindex, Seen: uint64(now - age)}); err != nil {
		tr.t.Fatal(err)
	}
}

func TestUnicast(t *testing.T) {
	const far = 1000 // ifindex of the receiver
	access, isolated := member{pvid: 10}, member{pvid: 10, isolated: true}
	service := ether(macB, macA, unix.ETH_P_8021AD, 0, 30, 8, 0)
	tests := []struct {
		name     string
		from, to member
		seenAt   uint32 // ifindex where macB was seen, 0 for nowhere
		age      time.Duration
		tag      uint32
		frame    []byte
		why      string
	}{
		{"known", access, access, far, 0, 0, nil, ""},
		{"known just in time", access, access, far, trialAgeing - 10*time.Second, 0, nil, ""},
		{"unknown", access, access, 0, 0, 0, nil, ""},
		{"sender's own port", access, access, lo, 0, 0, nil, "same-port"},
		{"sender isolated", isolated, access, far, 0, 0, nil, ""},
		{"receiver isolated", access, isolated, far, 0, 0, nil, ""},
		{"both isolated", isolated, isolated, far, 0, 0, nil, "isolated"},
		{"both isolated, unknown", isolated, isolated, 0, 0, 0, nil, "no-destination"},
		{"receiver down", access, member{pvid: 10, down: true}, far, 0, 0, nil, "no-destination"},
		{"receiver moved to another VLAN", access, member{pvid: 20}, far, 0, 0, nil, "no-destination"},
		{"unknown and nobody there", access, member{pvid: 20}, 0, 0, 0, nil, "no-destination"},
		{"port's slot given to another device", access, member{pvid: 20}, 999, 0, 0, nil, "no-destination"},
		{"aged out", member{pvid: 10}, access, lo, trialAgeing + time.Second, 0, nil, ""},
		{"tagged to access", member{tagged: []uint16{10}}, access, far, 0, q | 10, nil, ""},
		{"access to tagged", access, member{tagged: []uint16{10}}, far, 0, 0, nil, ""},
		{"an 802.1ad tag inside to access", member{tagged: []uint16{10}}, access, far, 0, q | 10, service, ""},
		{"an 802.1ad tag inside to native", member{tagged: []uint16{10}}, member{pvid: 10, tagged: []uint16{30}}, far, 0, q | 10, service, ""},
		{"too big", access, access, far, 0, 0, ether(macB, macA, unix.ETH_P_IP, make([]byte, 1505)...), "too-big"},
		{"too big for a flood", access, access, 0, 0, 0, ether(macB, macA, unix.ETH_P_IP, make([]byte, 1505)...), "too-big"},
		{"just small enough", access, access, far, 0, 0, ether(macB, macA, unix.ETH_P_IP, make([]byte, 1504)...), ""},
	}
	all := newTrial(t, nil)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tr := all.emptied(t, lo, far)
			tt.from.ifindex, tt.to.ifindex = lo, far
			slots := map[uint32]uint32{lo: tr.port(tt.from), far: tr.port(tt.to)}
			slots[999] = slots[far]
			if tt.seenAt != 0 {
				tr.sighted(macB, 10, slots[tt.seenAt], tt.seenAt, tt.age)
			}
			if tt.frame == nil {
				tt.frame = ether(macB, macA, unix.ETH_P_IP)
			}
			verdict, vid, why := tr.send(slots[lo], tt.tag, tt.frame)
			// A flood that reached nobody may have a finer reason before it.
			if tt.why == "too-big" {
				why = tt.why
				if tr.losses()[tt.why] != 1 {
					t.Errorf("drops are %v, want one %s", tr.losses(), tt.why)
				}
			}
			if vid != 10 || why != tt.why || (verdict == redirect) != (tt.why == "") {
				t.Errorf("verdict %d in VLAN %d, dropped as %q; want VLAN 10, %q", verdict, vid, why, tt.why)
			}
		})
	}
}

func TestLearn(t *testing.T) {
	tr := newTrial(t, func(s *ebpf.CollectionSpec) { s.Maps[planeMapFdb].MaxEntries = 2 })
	here, there := tr.port(member{ifindex: lo, pvid: 10}), tr.port(member{ifindex: 1000, pvid: 10})
	tr.sighted(macA, 10, there, 1000, 0)
	if _, _, why := tr.send(here, 0, ether(macB, macA, unix.ETH_P_IP)); why != "" {
		t.Errorf("a station that moves is dropped as %q", why)
	}
	all, err := tr.stations()
	if err != nil || len(all) != 1 || all[0].Slot != here || all[0].Ifindex != lo || [6]byte(macA) != all[0].Mac {
		t.Errorf("FDB is %+v, %v; want macA behind slot %d", all, err, here)
	}
	tr.send(here, 0, ether(macA, macB, unix.ETH_P_IP))
	verdict, _, why := tr.send(here, 0, ether(broadcast, bytesOf{2, 0, 0, 0, 0, 0xc}, unix.ETH_P_IP))
	if verdict != redirect || why != "fdb-full" {
		t.Errorf("with a full FDB the verdict is %d, %q; want a flood that is counted", verdict, why)
	}
	if all, err = tr.stations(); err != nil || len(all) != 2 {
		t.Errorf("FDB is %+v, %v; want 2 stations", all, err)
	}
}

// TestRecent: what the program remembers of a port's last frame is worth nothing
// as soon as the FDB says something else.
func TestRecent(t *testing.T) {
	tr := newTrial(t, nil)
	here := tr.port(member{ifindex: lo, pvid: 10})
	there := tr.port(member{ifindex: 1000, pvid: 10})
	both := tr.ports[here]
	if err := tr.maps.Ports.Put(there, &both); err != nil { // two ports at one device, which a trial has
		t.Fatal(err)
	}
	frame := ether(macB, macA, unix.ETH_P_IP)
	key := planeStation{Vid: 10, Mac: [6]byte(macA)}
	at := func() (s planeSighting) {
		t.Helper()
		if err := tr.maps.Fdb.Lookup(&key, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	for range 200 { // most of them within one tick of the clock
		for _, slot := range []uint32{here, here, there, there} {
			if _, err := tr.prog.Run(&ebpf.RunOptions{Data: frame, Context: tryContext{Ifindex: lo, CB: [5]uint32{slot}}}); err != nil {
				t.Fatal(err)
			}
			if got := at().Slot; got != slot {
				t.Fatalf("a station that sent at port %d is sought at port %d", slot, got)
			}
		}
	}
	for range 20 {
		tr.sighted(macA, 10, here, lo, 0)
		if err := tr.wrote(); err != nil {
			t.Fatal(err)
		}
		if _, _, why := tr.send(here, 0, frame); why != "" {
			t.Fatalf("a frame was dropped as %q before its sender's address was another port's", why)
		}
		if err := tr.maps.Fdb.Put(&key, &planeSighting{Slot: there, Ifindex: lo, Seen: isStatic}); err != nil {
			t.Fatal(err)
		}
		if err := tr.wrote(); err != nil {
			t.Fatal(err)
		}
		if _, _, why := tr.send(here, 0, frame); why != "mac-spoofed" {
			t.Fatalf("a frame from an address that is another port's was dropped as %q", why)
		}
	}
}

func TestUnknownPort(t *testing.T) {
	tr := newTrial(t, nil)
	tr.port(member{ifindex: 1000, pvid: 10})
	for _, slot := range []uint32{0, 1, 2, uint32(maxPorts) + 7} {
		if verdict, _, why := tr.send(slot, 0, ether(macB, macA, unix.ETH_P_IP)); verdict != shot || why != "port-unknown" {
			t.Errorf("slot %d: verdict %d, %q; want a drop as port-unknown", slot, verdict, why)
		}
	}
}

func TestExpire(t *testing.T) {
	tr := newTrial(t, nil)
	a, b := tr.port(member{ifindex: lo, pvid: 10}), tr.port(member{ifindex: 1000, pvid: 10, tagged: []uint16{20}})
	tr.sighted(macA, 10, a, lo, time.Second)
	tr.sighted(macB, 10, b, 1000, trialAgeing+time.Second)
	tr.sighted(macB, 20, b, 1000, time.Second)
	tr.sighted(macA, 20, a, lo, time.Second)  // where a is no member
	tr.sighted(macA, 30, b, 999, time.Second) // where another device was
	if n, err := tr.expire(); n != 3 || err != nil {
		t.Errorf("%d entries expired, %v; want 3", n, err)
	}
	if _, err := tr.put(member{ifindex: 1000, pvid: 10, mtu: 1500}); err != nil {
		t.Fatal(err)
	}
	if err := tr.commit(); err != nil {
		t.Fatal(err)
	}
	if all, err := tr.stations(); err != nil || len(all) != 1 || all[0].Mac != [6]byte(macA) {
		t.Errorf("FDB is %+v, %v; want macA in VLAN 10 alone", all, err)
	}
}

func TestWhatAPortLeaves(t *testing.T) {
	tr := newTrial(t, nil)
	mine := vswitch.MAC(macA)
	allowed := vswitch.Security{AllowedMACs: []vswitch.MAC{mine}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("fd00::/64")}}
	slot := tr.port(member{ifindex: lo, pvid: 10, tagged: []uint16{20}, security: allowed})
	if _, _, why := tr.send(slot, q|20, ether(broadcast, macB, unix.ETH_P_IP)); why != "mac-spoofed" {
		t.Errorf("another's address is dropped as %q", why)
	}
	if err := tr.read(); err != nil {
		t.Fatal(err)
	}
	if s := tr.security(slot); !slices.Equal(s.AllowedMACs, allowed.AllowedMACs) || !slices.Equal(s.AllowedIPs, allowed.AllowedIPs) {
		t.Errorf("read back %v, want %v", s, allowed)
	}
	all, err := tr.stations()
	if err != nil || len(all) != 2 || !all[0].static || all[0].Mac != mine || all[0].Slot != slot {
		t.Errorf("FDB is %+v, %v; want one static entry in each VLAN", all, err)
	}
	if err := errors.Join(tr.clear(lo), tr.commit(), tr.read()); err != nil {
		t.Fatal(err)
	}
	all, err = tr.stations()
	losses, err2 := tr.portLosses()
	if err := errors.Join(err, err2); err != nil || len(all)+len(losses)+len(tr.macs)+len(tr.ips) != 0 {
		t.Errorf("a port that is gone left %v, %v, %v, %v, %v", all, losses, tr.macs, tr.ips, err)
	}
}
