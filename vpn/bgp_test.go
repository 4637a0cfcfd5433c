package vpn

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// randomBGP draws from few values, so that two of them have much in common.
func randomBGP(r *rand.Rand) BGP {
	b := BGP{Neighbors: map[string]Neighbor{}, Announced: map[netip.Prefix]string{}}
	if r.IntN(5) == 0 {
		return b
	}
	b.Speaker = &Speaker{ASN: 64512 + uint32(r.IntN(2)), RouterID: netip.MustParseAddr("10.0.0.1"), Multipath: 8}
	free := r.Perm(4)
	for i := range r.IntN(4) {
		b.Neighbors[fmt.Sprint("n", r.IntN(4))] = Neighbor{
			Address: netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + free[i])}), ASN: 64513 + uint32(r.IntN(2)), PrefixLimit: uint32(1 + r.IntN(2)),
		}
	}
	for range r.IntN(4) {
		b.Announced[netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), 0, 0}), 16)] = fmt.Sprint("what", r.IntN(2))
	}
	b.Networks = map[uint32]Network{}
	for range r.IntN(3) {
		b.Networks[uint32(1+r.IntN(3))] = Network{uint16(10 + r.IntN(2)), vtep(1)}
	}
	if r.IntN(3) > 0 {
		b.L3 = &L3VNI{VNI: uint32(9 + r.IntN(2)), VTEP: vtep(1), Port: 4789, MTU: 1400 + r.IntN(2)}
		b.Prefixes = map[netip.Prefix]string{}
		for range r.IntN(4) {
			b.Prefixes[netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(r.IntN(4)), 0, 0}), 16)] = fmt.Sprint("what", r.IntN(2))
		}
		b.L3Import = []Filter{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Longest: 8 + r.IntN(2), Table: Main}}
	}
	for range r.IntN(3) {
		b.Import = append(b.Import, Filter{Reject: r.IntN(2) == 0, Prefix: netip.MustParsePrefix("10.0.0.0/8"), Longest: 8 + r.IntN(2), Table: Main})
	}
	return b
}

// TestBGPDiff: nothing to do between equals, and all steps lead to what is wanted.
func TestBGPDiff(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		want, have := randomBGP(r), randomBGP(r)
		if steps := DiffBGP(have, have.Clone()); len(steps) > 0 {
			t.Fatalf("seed %d: %v between equals", seed, steps)
		}
		for _, s := range DiffBGP(want, have) {
			if s.String() == "" || s.Object() == "" {
				t.Fatalf("seed %d: %T says nothing", seed, s)
			}
			have = have.Apply(s)
		}
		if left := DiffBGP(want, have); len(left) > 0 {
			t.Fatalf("seed %d: %v are left", seed, left)
		}
	}
}

// TestBGPLeavesOthersAlone: the change of one neighbor is a step of its own object alone.
func TestBGPLeavesOthersAlone(t *testing.T) {
	have := BGP{Speaker: &Speaker{ASN: 1}, Neighbors: map[string]Neighbor{
		"a": {Address: netip.MustParseAddr("10.0.0.1"), ASN: 2}, "b": {Address: netip.MustParseAddr("10.0.0.2"), ASN: 3, Password: "sesame"}}}
	want := have.Clone()
	want.Neighbors["b"] = Neighbor{Address: netip.MustParseAddr("10.0.0.2"), ASN: 3, Password: "changed"}
	steps := DiffBGP(want, have)
	if len(steps) != 1 || steps[0].Object() != "neighbor/b" || steps[0].Removes() || steps[0].Disturbs() == "" {
		t.Fatalf("got %v", steps)
	}
	for _, text := range []string{steps[0].String(), fmt.Sprintf("%v %+v %#v", steps[0], steps[0], steps[0]), fmt.Sprint(want.Describe())} {
		if strings.Contains(text, "sesame") || strings.Contains(text, "changed") {
			t.Errorf("the password is told: %s", text)
		}
	}
	want.Neighbors["b"] = Neighbor{Address: netip.MustParseAddr("10.0.0.2"), ASN: 3, Password: "sesame", PrefixLimit: 9}
	if steps := DiffBGP(want, have); len(steps) != 1 || steps[0].Disturbs() != "" {
		t.Errorf("another limit: %v", steps)
	}
}

func TestBGPStepsAsCommands(t *testing.T) {
	n := Neighbor{
		Address: netip.MustParseAddr("10.10.0.254"), ASN: 64513, Password: "x", Hops: 1, Hold: 90 * time.Second, PrefixLimit: 10000,
		Client: true, BFD: 300 * time.Millisecond, Source: netip.MustParseAddr("10.10.0.1"), Passive: true,
	}
	moved := n
	moved.Address, moved.Hops, moved.Multihop = netip.MustParseAddr("10.10.0.253"), 0, 4
	six := netip.MustParsePrefix("fd00::/64")
	for _, tt := range []struct {
		step BGPStep
		want string
	}{
		{AddSpeaker{Speaker{ASN: 64512, RouterID: netip.MustParseAddr("10.99.0.1"), Restart: time.Minute, Multipath: 8}}, "gobgp global as 64512 router-id 10.99.0.1 use-multipath # graceful restart 1m0s"},
		{SetSpeaker{To: Speaker{ASN: 64512, RouterID: netip.MustParseAddr("10.99.0.1")}}, "gobgp global del all\ngobgp global as 64512 router-id 10.99.0.1 # no graceful restart"},
		{DelSpeaker{}, "gobgp global del all"},
		{AddNeighbor{"tor1", n}, "gobgp neighbor add 10.10.0.254 as 64513 auth-password (secret) route-reflector-client # hold time 1m30s, at most 10000 prefixes, from 10.10.0.1, at most 1 hops away, BFD each 300ms, which connects to this host"},
		{SetNeighbor{"tor1", n, moved}, "gobgp neighbor del 10.10.0.254\ngobgp neighbor add 10.10.0.253 as 64513 auth-password (secret) multihop-ttl 4 route-reflector-client # hold time 1m30s, at most 10000 prefixes, from 10.10.0.1, BFD each 300ms, which connects to this host"},
		{DelNeighbor{"tor1", n.Address}, "gobgp neighbor del 10.10.0.254"},
		{Announce{six, "vlan blue"}, "gobgp global rib add fd00::/64 -a ipv6"},
		{Withdraw{netip.MustParsePrefix("10.0.0.0/8"), "x"}, "gobgp global rib del 10.0.0.0/8"},
		{AddNetwork{7, Network{10, vtep(1)}}, "gobgp global rib add -a evpn multicast 192.0.2.1 etag 0 rd ROUTER-ID:10 rt ASN:7 encap vxlan # VNI 7"},
		{DelNetwork{7, Network{10, vtep(1)}}, "gobgp global rib del -a evpn multicast 192.0.2.1 etag 0 rd ROUTER-ID:10 rt ASN:7 encap vxlan # VNI 7"},
		{SetImport{}, "# import nothing"},
		{SetImport{To: []Filter{{Reject: true, Prefix: netip.MustParsePrefix("10.66.0.0/16"), Longest: 32},
			{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Longest: 8, Default: true, Table: 100, From: []string{"a", "b"}}}},
			"# import: reject 10.66.0.0/16 up to /32; accept 10.0.0.0/8 and the default route into table 100 from a b"},
	} {
		if got := tt.step.String(); got != tt.want {
			t.Errorf("%T:\ngot  %s\nwant %s", tt.step, got, tt.want)
		}
	}
}

// TestSelect is a host with two routers, each on a link of its own, and one beyond.
func TestSelect(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	around := NewAround([]KernelRoute{
		{Prefix: p("10.10.0.1/32"), Table: 255, Local: true},
		{Prefix: p("10.98.0.7/32"), Table: 255, Local: true},
		{Prefix: p("10.10.0.0/24"), Table: Main, Connected: true, Ways: []Way{{Device: "blue"}}},
		{Prefix: p("10.30.0.0/24"), Table: Main, Connected: true, Ways: []Way{{Device: "san"}}},
		{Prefix: p("10.80.0.0/16"), Table: Main, Ways: []Way{{Device: "site"}}}, // a tunnel's allowed IP
		{Prefix: p("192.0.2.0/24"), Table: Main, Ways: []Way{{Gateway: a("10.10.0.254"), Device: "blue"}}},
		{Prefix: p("198.51.100.0/24"), Table: 100, Ways: []Way{{Gateway: a("10.10.0.254"), Device: "blue"}}},
		{Prefix: p("203.0.113.0/24"), Table: Main}, // unreachable
		{Prefix: p("0.0.0.0/0"), Table: Main, Ways: []Way{{Gateway: a("10.10.0.254"), Device: "blue"}}},
		{Prefix: p("fd00:10::/64"), Table: Main, Connected: true, Ways: []Way{{Device: "blue"}}},
	})
	bgp := BGP{
		Speaker: &Speaker{ASN: 64512, Multipath: 2},
		Neighbors: map[string]Neighbor{
			"tor1": {Address: a("10.10.0.254"), ASN: 64513}, "tor2": {Address: a("10.30.0.254"), ASN: 64513}, "tor3": {Address: a("10.30.0.253"), ASN: 64513},
			"far": {Address: a("192.0.2.9"), ASN: 64514, Multihop: 4}, "rr": {Address: a("10.10.0.200"), ASN: 64512},
			"six": {Address: a("fd00:10::fe"), ASN: 64513}, "lost": {Address: a("203.0.113.9"), ASN: 64515, Multihop: 4},
		},
		Announced: map[netip.Prefix]string{p("10.99.0.7/32"): "the file"},
		Import: []Filter{
			{Reject: true, Prefix: p("10.66.0.0/16"), Longest: 32},
			{Prefix: p("198.51.0.0/16"), Longest: 24, Table: 100, From: []string{"tor1"}},
			{Prefix: p("0.0.0.0/0"), Longest: 32, Table: Main},
			{Prefix: p("::/0"), Longest: 128, Table: Main},
		},
	}
	tests := []struct {
		name, neighbor, prefix, hop string
		why                         string // "" is used
	}{
		{"plain", "tor1", "10.50.0.0/16", "10.10.0.254", ""},
		{"third party on the link", "tor1", "10.50.0.0/16", "10.10.0.77", ""},
		{"rejected", "tor1", "10.66.1.0/24", "10.10.0.254", "import[0] rejects it"},
		{"rejects reach the default", "tor1", "0.0.0.0/0", "10.10.0.254", "no import filter accepts the default route"},
		{"too long for its filter", "tor1", "198.51.100.128/25", "10.10.0.254", ""},
		{"somebody else's route", "tor1", "198.51.100.0/24", "10.10.0.254", "another route to it"},
		{"own announcement", "tor1", "10.99.0.7/32", "10.10.0.254", "this host announces it itself (the file)"},
		{"own address", "tor1", "10.10.0.1/32", "10.10.0.254", "is an address of this host, too"},
		{"own address in no network", "tor1", "10.98.0.7/32", "10.10.0.254", "is an address of this host, too"},
		{"own network", "tor1", "10.10.0.0/25", "10.10.0.254", "the host's own on blue"},
		{"other own network", "tor1", "10.30.0.128/25", "10.10.0.254", "the host's own on san"},
		{"tunnel", "tor1", "10.80.1.0/24", "10.10.0.254", "the host's own on site"},
		{"way to a neighbor", "tor1", "192.0.2.8/29", "10.10.0.254", "way to the neighbor far itself"},
		{"wider than the way to a neighbor", "tor1", "192.0.0.0/16", "10.10.0.254", ""},
		{"multicast", "tor1", "239.0.0.0/8", "10.10.0.254", "no unicast"},
		{"loopback", "tor1", "127.1.0.0/16", "10.10.0.254", "no unicast"},
		{"link-local", "six", "fe80::/64", "fd00:10::fe", "no unicast"},
		{"next hop is the host", "tor1", "10.50.0.0/16", "10.10.0.1", "is this host"},
		{"next hop of nobody", "tor1", "10.50.0.0/16", "0.0.0.0", "is no host"},
		{"next hop on another link", "tor1", "10.50.0.0/16", "10.30.0.254", "not on the neighbor's link"},
		{"next hop beyond a gateway", "tor1", "10.50.0.0/16", "192.0.2.1", "not on the neighbor's link"},
		{"next hop by the default route", "tor1", "10.50.0.0/16", "8.8.8.8", "no way to the next hop"},
		{"next hop of the other version", "six", "fd00:50::/64", "10.10.0.254", "other IP version"},
		{"several hops", "far", "10.50.0.0/16", "192.0.2.9", ""},
		{"internal", "rr", "10.50.0.0/16", "10.30.0.9", ""},
		{"six", "six", "fd00:50::/64", "fd00:10::fe", ""},
		{"six by link-local", "six", "fd00:50::/64", "fe80::1", ""},
		{"no way to the neighbor", "lost", "10.50.0.0/16", "203.0.113.9", "no way to the neighbor"},
		{"of nobody", "gone", "10.50.0.0/16", "10.10.0.254", "its neighbor is gone"},
	}
	for _, tt := range tests {
		v := bgp.Select([]Path{{Prefix: p(tt.prefix), Neighbor: tt.neighbor, NextHop: a(tt.hop), External: true}}, around).Verdicts[0]
		if v.Used != (tt.why == "") || v.Used != v.Accepted || !strings.Contains(v.Why, tt.why) {
			t.Errorf("%s: %+v, want %q", tt.name, v, tt.why)
		}
	}
	// Recursion gives the gateway that the host has.
	routes := bgp.Select([]Path{{Prefix: p("10.50.0.0/16"), Neighbor: "far", NextHop: a("192.0.2.9"), External: true}}, around).Routes
	if got, want := routes[Destination{Main, p("10.50.0.0/16")}], []Way{{a("10.10.0.254"), "blue"}}; !reflect.DeepEqual(got, want) {
		t.Errorf("recursive: got %v, want %v", got, want)
	}
}

// TestEqualCost: paths that equal the first accepted one share its traffic, the
// others say why not; what is refused does not stand in the way.
func TestEqualCost(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	around := NewAround([]KernelRoute{{Prefix: p("10.10.0.0/24"), Table: Main, Connected: true, Ways: []Way{{Device: "blue"}}}})
	bgp := BGP{Speaker: &Speaker{ASN: 64512, Multipath: 2}, Neighbors: map[string]Neighbor{}, Import: []Filter{{Prefix: p("10.0.0.0/8"), Longest: 32, Table: Main}}}
	var paths []Path
	for i, n := range []string{"liar", "a", "b", "c", "longer", "med"} {
		hop := netip.AddrFrom4([4]byte{10, 10, 0, byte(10 + i)})
		bgp.Neighbors[n] = Neighbor{Address: hop, ASN: 64513}
		paths = append(paths, Path{Prefix: p("10.50.0.0/16"), Neighbor: n, NextHop: hop, ASPath: []uint32{64513}, ASLength: 1, LocalPref: 100, External: true})
	}
	paths[0].NextHop, paths[4].ASLength, paths[5].MED = a("10.20.0.1"), 2, 7
	chosen := bgp.Select(paths, around)
	routes, verdicts := chosen.Routes, chosen.Verdicts
	want := []Way{{a("10.10.0.11"), "blue"}, {a("10.10.0.12"), "blue"}}
	if got := routes[Destination{Main, p("10.50.0.0/16")}]; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for i, why := range []string{"no way to the next hop", "", "", "raise multipath", "the way of a is better", "the way of a is better"} {
		if v := verdicts[i]; (v.Why == "") != (why == "") || !strings.Contains(v.Why, why) {
			t.Errorf("%s: got %q, want %q", v.Neighbor, v.Why, why)
		}
	}
}

func TestWaiting(t *testing.T) {
	b := BGP{Sessions: map[string]Session{"a": {State: Established}, "b": {State: "active", Reason: "connection refused"}, "c": {State: "idle"}, "d": {State: "idle"}},
		Neighbors: map[string]Neighbor{"d": {Passive: true}}}
	want := map[string]string{"neighbor/b": "no session: connection refused", "neighbor/c": "no session yet",
		"neighbor/d": "no session yet: it connects to this host, and says why it cannot"}
	if got := b.Waiting(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}
