package ebpf

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"ripstop/vswitch"
)

// Program.Benchmark gives no context: slot and direction are 0 there.
const groupSlot = 0

// filterTrial is the filter of one port whose frames come from BPF_PROG_TEST_RUN.
type filterTrial struct {
	*groupFilter
	t    testing.TB
	prog *ebpf.Program
	vid  uint16
}

func newFilterTrial(t testing.TB, vid uint16) *filterTrial {
	t.Helper()
	g, err := newGroupFilter(quiet, "trial", planeMaps{})
	if err != nil {
		t.Fatal(err)
	}
	spec, err := loadFilter()
	if err != nil {
		t.Fatal(err)
	}
	var try struct {
		Prog *ebpf.Program `ebpf:"ripstop_filter"`
	}
	if err := spec.LoadAndAssign(&try, &ebpf.CollectionOptions{MapReplacements: g.byName()}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := try.Prog.Close(); err != nil {
			t.Error(err)
		}
		if err := g.close(); err != nil {
			t.Error(err)
		}
	})
	return &filterTrial{g, t, try.Prog, vid}
}

// follow has the port follow a policy from now on.
func (f *filterTrial) follow(p *vswitch.Policy) {
	f.t.Helper()
	filters := map[uint16]*vswitch.Policy{}
	if p != nil {
		filters[f.vid] = p
	}
	for _, step := range []func() error{
		func() error { return f.prepare(groupSlot, filterFilterPort{Ifindex: lo, Pvid: f.vid}, filters) },
		func() error { return f.settle(groupSlot, filters) },
		f.regroup,
		f.sweep,
	} {
		if err := step(); err != nil {
			f.t.Fatal(err)
		}
	}
}

// regroup is plane.regroup for the trial's port.
func (f *filterTrial) regroup() error {
	return f.maps.Ports.Put(uint32(groupSlot), &filterPort{Ifindex: lo, Pvid: f.vid, Groups: rand.Uint32() | 1})
}

const passed = 1<<32 - 1 // TC_ACT_UNSPEC

func (f *filterTrial) passes(d vswitch.Direction, frame []byte) bool {
	f.t.Helper()
	context := tryContext{Ifindex: lo, CB: [5]uint32{groupSlot, 0, uint32(d)}}
	verdict, err := f.prog.Run(&ebpf.RunOptions{Data: frame, Context: context})
	if err != nil {
		f.t.Fatal(err)
	}
	return verdict == passed
}

// packet is one that a port sends or gets.
type packet struct {
	d           vswitch.Direction
	from, to    netip.Addr
	protocol    uint8
	sport, port uint16 // of ICMP: identifier; type and code
	flags       byte
}

func (p packet) remote() netip.Addr {
	if p.d == vswitch.Out {
		return p.to
	}
	return p.from
}

func (p packet) icmp() bool {
	return p.protocol == 1 && p.from.Is4() || p.protocol == 58 && p.from.Is6()
}

func (p packet) service() uint16 {
	switch p.protocol {
	case 6, 17, 33, 132, 136:
		return p.port
	}
	if p.icmp() {
		return p.port
	}
	return 0
}

func (p packet) upper() []byte {
	b := make([]byte, 20)
	if p.icmp() {
		binary.BigEndian.PutUint16(b, p.port)
		binary.BigEndian.PutUint16(b[4:], p.sport)
		return b
	}
	binary.BigEndian.PutUint16(b, p.sport)
	binary.BigEndian.PutUint16(b[2:], p.port)
	b[13] = p.flags
	return b
}

// ip is an IP header with what follows.
func (p packet) ip(content []byte) []byte {
	if p.from.Is4() {
		b := make([]byte, 20)
		b[0], b[8], b[9] = 0x45, 64, p.protocol
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(content)))
		copy(b[12:], p.from.AsSlice())
		copy(b[16:], p.to.AsSlice())
		return append(b, content...)
	}
	b := make([]byte, 40)
	b[0], b[6], b[7] = 0x60, p.protocol, 64
	binary.BigEndian.PutUint16(b[4:], uint16(len(content)))
	copy(b[8:], p.from.AsSlice())
	copy(b[24:], p.to.AsSlice())
	return append(b, content...)
}

func ethernet(ip []byte) []byte {
	head := []byte{2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0}
	if ip[0]>>4 == 6 {
		head[12], head[13] = 0x86, 0xdd
	}
	return append(head, ip...)
}

func (p packet) frame() []byte { return ethernet(p.ip(p.upper())) }

// model says what passes, in the plainest way: rules in a row, connections in a
// map, no clock.
type model struct {
	policy *vswitch.Policy
	flows  map[flowOf]*conn
}

type flowOf struct {
	local, remote netip.Addr
	protocol      uint8
	lport, rport  uint16
}

type conn struct {
	by      vswitch.Direction
	service uint16
	fresh   bool // no answer yet
}

func (m *model) allows(d vswitch.Direction, remote netip.Addr, protocol uint8, service uint16) bool {
	allowed := false
	for _, r := range m.policy.Rules {
		if !r.Matches(d, remote, protocol, service) {
			continue
		}
		if r.Deny {
			return false
		}
		allowed = true
	}
	return allowed
}

func (m *model) passes(p packet) bool {
	request, reply := uint16(8), uint16(0)
	if p.from.Is6() {
		request, reply = 128, 129
		if kind := p.port >> 8; p.icmp() && (kind >= 130 && kind <= 137 || kind == 143) {
			return true
		}
	}
	client, server := uint16(68), uint16(67)
	if p.from.Is6() {
		client, server = 546, 547
	}
	if p.protocol == 17 && (p.d == vswitch.Out && p.sport == client && p.port == server || p.d == vswitch.In && p.sport == server && p.port == client) {
		return true
	}
	kind := p.port >> 8
	echo := p.icmp() && (kind == request || kind == reply)
	if p.icmp() && !echo {
		return m.allows(p.d, p.remote(), p.protocol, p.port)
	}
	key := flowOf{p.from, p.to, p.protocol, 0, 0}
	switch {
	case echo:
		key.lport, key.rport = p.sport, p.sport
	case p.service() == p.port || p.protocol == 6:
		key.lport, key.rport = p.sport, p.port
	}
	if p.service() == 0 && !slices.Contains([]uint8{6, 17, 33, 132, 136}, p.protocol) && !echo {
		key.lport, key.rport = 0, 0
	}
	if p.d == vswitch.In {
		key.local, key.remote = p.to, p.from
		key.lport, key.rport = key.rport, key.lport
	}
	syn := p.protocol == 6 && p.flags&18 == 2
	if c := m.flows[key]; c != nil {
		begins := syn && !(c.fresh && c.by == p.d) || echo && (kind == request) != (c.by == p.d)
		if !begins {
			if !m.allows(c.by, key.remote, p.protocol, c.service) {
				delete(m.flows, key)
				return false
			}
			if c.by != p.d {
				c.fresh = false
			}
			return true
		}
	}
	c := &conn{by: p.d, service: p.service(), fresh: p.protocol != 6 || syn}
	if !m.allows(p.d, p.remote(), p.protocol, p.service()) {
		if p.protocol != 6 || syn {
			return false
		}
		c.by, c.service = 1-p.d, p.sport
		if !m.allows(c.by, p.remote(), p.protocol, p.sport) {
			return false
		}
	}
	if p.protocol == 6 && p.flags&4 != 0 || echo && kind != request {
		return true
	}
	if echo {
		c.service = request << 8
	}
	m.flows[key] = c
	return true
}

// gambler makes rules and packets that meet.
type gambler struct{ *rand.Rand }

func (g gambler) addr(six bool) netip.Addr {
	if six {
		return netip.AddrFrom16([16]byte{0xfd, 15: byte(g.IntN(8)), 7: byte(g.IntN(3) << 6)})
	}
	return netip.AddrFrom4([4]byte{10, byte(g.IntN(3)), byte(g.IntN(2) << 7), byte(g.IntN(8))})
}

func (g gambler) port() uint16 {
	return []uint16{0, 1, 22, 53, 67, 68, 79, 80, 81, 443, 65535}[g.IntN(11)]
}

func (g gambler) rule(place int) vswitch.FilterRule {
	r := vswitch.FilterRule{Deny: g.IntN(4) == 0, Direction: vswitch.Direction(g.IntN(2)), Protocol: vswitch.AnyProtocol, Last: 65535, Group: "g", Place: place}
	if g.IntN(4) > 0 {
		six := g.IntN(2) == 0
		bits := []int{0, 8, 9, 17, 24, 29, 30, 31, 32}[g.IntN(9)]
		if six {
			bits *= 4
		}
		r.Remote = netip.PrefixFrom(g.addr(six), bits).Masked()
	}
	switch g.IntN(4) {
	case 0:
		r.Protocol = []uint8{1, 58}[g.IntN(2)]
		kind := []uint16{0, 3, 8, 128, 129, 1, 134, 200}[g.IntN(8)]
		r.First, r.Last = kind<<8, kind<<8|255
	case 1, 2:
		r.Protocol = []uint8{6, 6, 6, 17, 17, 132}[g.IntN(6)]
		r.First, r.Last = g.port(), g.port()
		if r.Last < r.First {
			r.First, r.Last = r.Last, r.First
		}
	case 3:
		if g.IntN(3) == 0 {
			r.Protocol = 47
		}
	}
	return r
}

func (g gambler) policy() *vswitch.Policy {
	var rules []vswitch.FilterRule
	for i := range 1 + g.IntN(12) {
		rules = append(rules, g.rule(i))
	}
	return vswitch.NewPolicy([]string{"g"}, false, rules)
}

func (g gambler) packet() packet {
	six := g.IntN(2) == 0
	p := packet{d: vswitch.Direction(g.IntN(2)), from: g.addr(six), to: g.addr(six), protocol: []uint8{6, 6, 17, 1, 58, 47, 132}[g.IntN(7)], sport: g.port(), port: g.port()}
	p.flags = []byte{2, 2, 18, 16, 16, 17, 4, 20}[g.IntN(8)]
	if p.icmp() {
		p.port = []uint16{0, 8, 8, 3, 128, 128, 129, 134, 200}[g.IntN(9)] << 8
		if kind := p.port >> 8; six && kind <= 4 || !six && kind == 3 {
			p.port = 200 << 8 // errors have a test of their own
		}
	}
	return p
}

// TestFilterModel has random policies, swapped again and again, judge random
// packets, most of them answers to ones before.
func TestFilterModel(t *testing.T) {
	f := newFilterTrial(t, 10)
	for seed := range uint64(40) {
		g := gambler{rand.New(rand.NewPCG(seed, 13))}
		f.follow(nil)
		f.vid = uint16(10 + seed) // has connections of its own
		m := &model{flows: map[flowOf]*conn{}}
		var sent []packet
		for range 6 {
			m.policy = g.policy()
			f.follow(m.policy)
			for range 120 {
				p := g.packet()
				if len(sent) > 0 && g.IntN(3) > 0 {
					p = sent[g.IntN(len(sent))]
					if g.IntN(2) == 0 {
						p.d, p.from, p.to = 1-p.d, p.to, p.from
						if !p.icmp() {
							p.sport, p.port = p.port, p.sport
						} else if kind := p.port >> 8; kind == 8 || kind == 128 {
							p.port = map[uint16]uint16{8: 0, 128: 129}[kind] << 8
						}
					}
					p.flags = []byte{2, 18, 16, 16, 16, 17, 4}[g.IntN(7)]
				}
				sent = append(sent, p)
				if want, got := m.passes(p), f.passes(p.d, p.frame()); got != want {
					t.Fatalf("seed %d: %+v passes: %t, want %t, under %+v", seed, p, got, want, m.policy.Rules)
				}
			}
		}
	}
}

// TestManyRules has a policy of as many rules as a group may have find each of
// them, in the same number of steps.
func TestManyRules(t *testing.T) {
	f := newFilterTrial(t, 10)
	f.follow(manyRules(vswitch.In, 10000))
	for _, i := range []int{0, 1, 255, 256, 5000, 9999} {
		p := packet{d: vswitch.In, from: manyAddr(i), to: netip.MustParseAddr("10.0.0.1"), protocol: 6, sport: 999, port: uint16(1000 + i), flags: 2}
		if !f.passes(p.d, p.frame()) {
			t.Errorf("rule %d does not allow", i)
		}
		p.port++
		if f.passes(p.d, p.frame()) {
			t.Errorf("rule %d allows another port", i)
		}
	}
}

func manyAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}) }

func manyRules(d vswitch.Direction, n int) *vswitch.Policy {
	rules := make([]vswitch.FilterRule, n)
	for i := range rules {
		port := uint16(1000 + i)
		rules[i] = vswitch.FilterRule{Direction: d, Remote: netip.PrefixFrom(manyAddr(i), 32), Protocol: 6, First: port, Last: port, Group: "g", Place: i}
	}
	return vswitch.NewPolicy([]string{"g"}, false, rules)
}

// BenchmarkFilter is the time of one packet in the program, by the number of
// rules; known is one of a connection, new one that begins it.
func BenchmarkFilter(b *testing.B) {
	f := newFilterTrial(b, 10)
	for _, n := range []int{0, 10, 10000} {
		for _, known := range []bool{true, false} {
			b.Run(fmt.Sprintf("%d-rules-known-%t", n, known), func(b *testing.B) {
				f.t = b
				var p *vswitch.Policy
				if n > 0 {
					p = manyRules(vswitch.Out, n)
				}
				f.follow(p)
				packet := packet{d: vswitch.Out, from: netip.MustParseAddr("10.0.0.1"), to: manyAddr(max(n, 1) - 1), protocol: 6, sport: 999, port: uint16(1000 + max(n, 1) - 1), flags: 16}
				if !known {
					packet.flags, packet.sport = 4, 998 // makes no connection
				}
				var each []time.Duration
				for b.Loop() {
					verdict, took, err := f.prog.Benchmark(packet.frame(), 100000, nil)
					if err != nil || verdict != passed {
						b.Fatalf("verdict %d, %v", int32(verdict), err)
					}
					each = append(each, took)
				}
				slices.Sort(each)
				b.ReportMetric(float64(each[len(each)/2].Nanoseconds()), "ns/packet")
			})
		}
	}
}
