package vpn

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

var l3 = &L3VNI{VNI: 9, VTEP: vtep(1), Port: 4789, MTU: 1450}

// routed is a path of type 5 by a neighbor of the VTEP's name.
func routed(p string, by byte, more ...func(*Path)) Path {
	out := Path{
		Prefix: netip.MustParsePrefix(p), Neighbor: "n1", NextHop: vtep(by), LocalPref: 100,
		Overlay: Overlay{VNI: 9, RouterMAC: MAC{2, 0, 0, 0, 9, by}},
	}
	for _, f := range more {
		f(&out)
	}
	return out
}

// l3Host is a host that reaches VTEPs on its link, and others by what it learns.
func l3Host() (BGP, *Around) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	around := NewAround([]KernelRoute{
		{Prefix: p("192.0.2.1/32"), Table: 255, Local: true},
		{Prefix: p("192.0.2.0/24"), Table: Main, Connected: true, Ways: []Way{{Device: "wire"}}},
		{Prefix: p("10.10.0.0/24"), Table: Main, Connected: true, Ways: []Way{{Device: "blue"}}},
		{Prefix: p("10.80.0.0/16"), Table: Main, Ways: []Way{{Device: "site"}}}, // a tunnel's allowed IP
		{Prefix: p("10.81.0.0/16"), Table: Main, Ways: []Way{{Gateway: a("192.0.2.99"), Device: "wire"}}},
		{Prefix: p("198.51.100.0/24"), Table: Main, Ways: []Way{{Gateway: a("192.0.2.99"), Device: "wire"}}},
		{Prefix: p("203.0.113.0/24"), Table: Main}, // unreachable
	})
	around.Under([]netip.Addr{a("198.51.100.200")})
	any4, any6 := Filter{Prefix: p("0.0.0.0/0"), Longest: 32, Table: Main, Default: true}, Filter{Prefix: p("::/0"), Longest: 128, Table: Main}
	return BGP{
		Speaker: &Speaker{ASN: 64512, Multipath: 2, EVPN: true}, L3: l3,
		Neighbors: map[string]Neighbor{"n1": {Address: vtep(2), ASN: 64512}, "n2": {Address: vtep(3), ASN: 64512}, "far": {Address: a("10.70.0.9"), ASN: 64512}},
		Prefixes:  map[netip.Prefix]string{p("10.10.0.0/24"): "vlan blue", p("10.11.0.0/24"): "the file"},
		Announced: map[netip.Prefix]string{p("10.12.0.0/24"): "the file"},
		Import:    []Filter{any4},
		L3Import:  []Filter{{Reject: true, Prefix: p("10.66.0.0/16"), Longest: 32}, any4, any6},
	}, around
}

// TestGateway is by which address the kernel sends to a VTEP: two that differ never share one.
func TestGateway(t *testing.T) {
	for _, tt := range []struct{ prefix, vtep, want string }{
		{"10.20.0.0/24", "192.0.2.2", "192.0.2.2"},
		{"fd00:20::/64", "192.0.2.2", "fe80::c000:202"},
		{"10.20.0.0/24", "2001:db8::2", "fe80::ff:fe00:902"},
		{"fd00:20::/64", "2001:db8::2", "fe80::ff:fe00:902"},
	} {
		got := l3.Gateway(netip.MustParsePrefix(tt.prefix), netip.MustParseAddr(tt.vtep), MAC{2, 0, 0, 0, 9, 2})
		if got != netip.MustParseAddr(tt.want) {
			t.Errorf("%s by the VTEP %s goes to %s, want %s", tt.prefix, tt.vtep, got, tt.want)
		}
	}
}

// TestSelectPrefixes is what is refused of one path, and why.
func TestSelectPrefixes(t *testing.T) {
	a := netip.MustParseAddr
	bgp, around := l3Host()
	for _, tt := range []struct {
		name, prefix string
		by           byte
		change       func(*Path)
		why          string // "" is used
	}{
		{name: "plain", prefix: "10.20.0.0/24", by: 2},
		{name: "of the other IP version", prefix: "fd00:20::/64", by: 2},
		{name: "one address", prefix: "10.20.0.7/32", by: 2},
		{name: "the default route", prefix: "0.0.0.0/0", by: 2},
		{name: "the default route of IPv6", prefix: "::/0", by: 2, why: "no import filter of l3vni accepts the default route"},
		{name: "rejected", prefix: "10.66.1.0/24", by: 2, why: "l3vni.import[0] rejects it"},
		{name: "another VNI", prefix: "10.20.0.0/24", by: 2, change: func(p *Path) { p.VNI = 10 }, why: "is in VNI 10, and this host's l3vni is 9"},
		{name: "no router MAC", prefix: "10.20.0.0/24", by: 2, change: func(p *Path) { p.RouterMAC = MAC{} }, why: "names no router MAC"},
		{name: "a multicast router MAC", prefix: "10.20.0.0/24", by: 2, change: func(p *Path) { p.RouterMAC[0] = 1 }, why: "is that of many"},
		{name: "unfit", prefix: "10.20.0.0/24", by: 2, change: func(p *Path) { p.Unfit = "names a gateway" }, why: "names a gateway"},
		{name: "no VTEP", prefix: "10.20.0.0/24", by: 2, change: func(p *Path) { p.NextHop = netip.Addr{} }, why: "is no host"},
		{name: "the VTEP is everybody", prefix: "10.20.0.0/24", by: 2, change: func(p *Path) { p.NextHop = a("239.0.0.1") }, why: "is no host"},
		{name: "the VTEP is of IPv6", prefix: "10.20.0.0/24", by: 2, change: func(p *Path) { p.NextHop = a("fd00::1") }, why: "other IP version"},
		{name: "the VTEP is this host", prefix: "10.20.0.0/24", by: 1, why: "is this host"},
		{name: "no way to the VTEP", prefix: "10.20.0.0/24", by: 2, change: func(p *Path) { p.NextHop = a("203.0.113.1") }, why: "no way to the VTEP"},
		{name: "its own VTEP", prefix: "10.81.0.0/17", by: 2, change: func(p *Path) { p.NextHop = a("10.81.0.1") }, why: "would replace the way to the VTEP 10.81.0.1 itself"},
		{name: "wider than the way to its VTEP", prefix: "10.0.0.0/8", by: 2, change: func(p *Path) { p.NextHop, p.Neighbor = a("10.81.0.1"), "n1" }},
		{name: "what is under a tunnel", prefix: "198.51.100.128/25", by: 2, why: "would replace the way to 198.51.100.200, over which VXLAN goes"},
		{name: "a neighbor", prefix: "10.70.0.0/16", by: 2, why: "way to the neighbor far itself"},
		{name: "a link's", prefix: "192.0.2.128/25", by: 2, why: "the host's own on wire"},
		{name: "a VLAN's", prefix: "10.10.0.128/25", by: 2, why: "the host's own on blue"},
		{name: "a tunnel's", prefix: "10.80.3.0/24", by: 2, why: "the host's own on site"},
		{name: "its own that comes back", prefix: "10.11.0.0/24", by: 2, why: "this host announces it itself (the file)"},
		{name: "what it announces elsewhere", prefix: "10.12.0.0/24", by: 2, why: "this host announces it itself (the file)"},
		{name: "somebody else's route", prefix: "10.81.0.0/16", by: 2, why: "another route to it"},
		{name: "multicast", prefix: "239.0.0.0/8", by: 2, why: "no unicast"},
		{name: "mapped", prefix: "::ffff:10.20.0.0/120", by: 2, why: "no unicast"},
	} {
		p := routed(tt.prefix, tt.by)
		if tt.change != nil {
			tt.change(&p)
		}
		delete(bgp.Neighbors, "far")
		if tt.name == "a neighbor" {
			bgp.Neighbors["far"] = Neighbor{Address: a("10.70.0.9"), ASN: 64512}
		}
		s := bgp.Select([]Path{p}, around)
		v := s.Verdicts[0]
		if v.Used != (tt.why == "") || v.Used != v.Accepted || !strings.Contains(v.Why, tt.why) {
			t.Errorf("%s: %+v, want %q", tt.name, v, tt.why)
		}
		if want := map[netip.Addr]MAC{p.NextHop: p.RouterMAC}; v.Used && !reflect.DeepEqual(s.Routers, want) || !v.Used && len(s.Routers)+len(s.Routes) > 0 {
			t.Errorf("%s: routers %v", tt.name, s.Routers)
		}
	}
}

// TestSelectAmongPrefixes is what paths are to each other.
func TestSelectAmongPrefixes(t *testing.T) {
	bgp, around := l3Host()
	delete(bgp.Neighbors, "far")
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	way := func(g string) Way { return Way{a(g), "vx9"} }
	longer := func(p *Path) { p.ASLength = 3 }
	neighbor := func(p *Path) { p.Neighbor = "n2" }
	learned := Path{Prefix: p("10.20.0.0/24"), Neighbor: "n1", NextHop: vtep(2), LocalPref: 100}
	distant := func(p *Path) { p.NextHop = netip.MustParseAddr("172.16.0.1") }
	for _, tt := range []struct {
		name   string
		paths  []Path
		routes map[string][]Way
		why    []string // "" is used
	}{
		{"two share", []Path{routed("10.20.0.0/24", 3), routed("10.20.0.0/24", 2)}, map[string][]Way{"10.20.0.0/24": {way("192.0.2.2"), way("192.0.2.3")}}, []string{"", ""}},
		{"a third is too many", []Path{routed("10.20.0.0/24", 4), routed("10.20.0.0/24", 3), routed("10.20.0.0/24", 2)},
			map[string][]Way{"10.20.0.0/24": {way("192.0.2.2"), way("192.0.2.3")}}, []string{"raise multipath", "", ""}},
		{"the shorter wins", []Path{routed("10.20.0.0/24", 2, longer), routed("10.20.0.0/24", 3)}, map[string][]Way{"10.20.0.0/24": {way("192.0.2.3")}}, []string{"the way of VTEP 192.0.2.3 is better", ""}},
		{"two say the same", []Path{routed("10.20.0.0/24", 2), routed("10.20.0.0/24", 2, neighbor), routed("10.20.0.0/24", 3)},
			map[string][]Way{"10.20.0.0/24": {way("192.0.2.2"), way("192.0.2.3")}}, []string{"", "", ""}},
		{"a session's own wins", []Path{routed("10.20.0.0/24", 2), learned}, map[string][]Way{"10.20.0.0/24": {{vtep(2), "wire"}}}, []string{"the way of n1 is better", ""}},
		{"IPv6 of two", []Path{routed("fd00:20::/64", 2), routed("fd00:20::/64", 3)}, map[string][]Way{"fd00:20::/64": {way("fe80::c000:202"), way("fe80::c000:203")}}, []string{"", ""}},
		{"two routers with one MAC", []Path{routed("10.20.0.0/24", 3, func(p *Path) { p.RouterMAC[5] = 2 }), routed("10.21.0.0/24", 2)},
			map[string][]Way{"10.21.0.0/24": {way("192.0.2.2")}}, []string{"its router MAC 02:00:00:00:09:02 is that of the VTEP 192.0.2.2, too", ""}},
		{"a router with two MACs", []Path{routed("10.20.0.0/24", 2, func(p *Path) { p.RouterMAC[5] = 3 }), routed("10.21.0.0/24", 2)},
			map[string][]Way{"10.21.0.0/24": {way("192.0.2.2")}}, []string{"has the router MAC 02:00:00:00:09:02 in another route", ""}},
		{"a VTEP beyond what is learned", []Path{routed("10.21.0.0/24", 2, distant), {Prefix: p("172.16.0.0/16"), Neighbor: "n1", NextHop: vtep(2)}},
			map[string][]Way{"10.21.0.0/24": {way("172.16.0.1")}, "172.16.0.0/16": {{vtep(2), "wire"}}}, []string{"", ""}},
		{"a VTEP beyond what comes by EVPN alone", []Path{routed("10.21.0.0/24", 3, distant), routed("172.16.0.0/16", 2)},
			map[string][]Way{"172.16.0.0/16": {way("192.0.2.2")}}, []string{"no way to the VTEP", ""}},
		{"another's VTEP", []Path{routed("10.21.0.0/24", 3, distant), routed("172.16.0.0/24", 2), {Prefix: p("172.16.0.0/16"), Neighbor: "n1", NextHop: vtep(2)}},
			map[string][]Way{"10.21.0.0/24": {way("172.16.0.1")}, "172.16.0.0/16": {{vtep(2), "wire"}}}, []string{"", "way to the VTEP 172.16.0.1", ""}},
	} {
		s := bgp.Select(tt.paths, around)
		got := map[string][]Way{}
		for d, ways := range s.Routes {
			got[d.Prefix.String()] = ways
		}
		if !reflect.DeepEqual(got, tt.routes) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.routes)
		}
		for i, why := range tt.why {
			if v := s.Verdicts[i]; v.Used != (why == "") || !strings.Contains(v.Why, why) {
				t.Errorf("%s: path %d: %+v, want %q", tt.name, i, v, why)
			}
		}
	}
}

// TestSelectPrefixesLaws: whatever comes, in whatever order, the same is chosen, each way
// has a router, and no prefix is a better way to a VTEP than that by which it is reached.
func TestSelectPrefixesLaws(t *testing.T) {
	bgp, around := l3Host()
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 5))
		var paths []Path
		for range 1 + r.IntN(8) {
			p := routed(fmt.Sprintf("10.%d.0.0/%d", 80+r.IntN(3), 8+r.IntN(17)), byte(1+r.IntN(4)), func(p *Path) {
				p.ASLength, p.VNI = r.IntN(2), uint32(9+r.IntN(8)/7)
				p.RouterMAC[5] ^= byte(r.IntN(12) / 11)
				if r.IntN(4) == 0 {
					p.NextHop = netip.AddrFrom4([4]byte{10, 81, byte(r.IntN(2)), byte(r.IntN(3))})
				}
			})
			p.Prefix = p.Prefix.Masked()
			paths = append(paths, p)
		}
		s := bgp.Select(paths, around)
		for d, ways := range s.Routes {
			if len(ways) == 0 || len(ways) > 2 {
				t.Fatalf("seed %d: %v has the ways %v", seed, d, ways)
			}
			for _, w := range ways {
				if _, ok := s.Routers[w.Gateway]; !ok {
					t.Fatalf("seed %d: %v goes to %v, which has no router", seed, d, w)
				}
			}
			for vtep := range s.Routers {
				if way, ok := around.to(vtep); d.Prefix.Contains(vtep) && (!ok || way.Prefix.Bits() < d.Prefix.Bits()) {
					t.Fatalf("seed %d: %v is the way to the VTEP %v", seed, d, vtep)
				}
			}
		}
		shuffled := make([]Path, len(paths))
		for i, at := range r.Perm(len(paths)) {
			shuffled[at] = paths[i]
		}
		if again := bgp.Select(shuffled, around); !reflect.DeepEqual(again.Routes, s.Routes) || !reflect.DeepEqual(again.Routers, s.Routers) {
			t.Fatalf("seed %d: %v\nand in another order %v", seed, s.Routes, again.Routes)
		}
	}
}

func TestL3StepsAsCommands(t *testing.T) {
	p := netip.MustParsePrefix("10.20.0.0/24")
	other, small, down := *l3, *l3, *l3
	other.VTEP, small.MTU, down.Down = vtep(2), 1370, true
	for _, tt := range []struct {
		step           BGPStep
		object, want   string
		disturbs, gone bool
	}{
		{AddL3VNI{*l3}, "l3vni/9", "ip link add name vx9 mtu 1450 type vxlan id 9 local 192.0.2.1 dstport 4789 nolearning\nip link set dev vx9 up", false, false},
		{SetL3VNI{*l3, small}, "l3vni/9", "ip link set dev vx9 mtu 1370", false, false},
		{SetL3VNI{down, *l3}, "l3vni/9", "ip link set dev vx9 up", false, false},
		{SetL3VNI{*l3, other}, "l3vni/9", "ip link del dev vx9\nip link add name vx9 mtu 1450 type vxlan id 9 local 192.0.2.2 dstport 4789 nolearning\nip link set dev vx9 up", true, false},
		{DelL3VNI{*l3}, "l3vni/9", "ip link del dev vx9", true, true},
		{AnnouncePrefix{p, "vlan blue"}, "prefix/10.20.0.0/24", "gobgp global rib add -a evpn prefix 10.20.0.0/24 etag 0 label L3VNI rd ROUTER-ID:4095 rt ASN:L3VNI encap vxlan router-mac MAC", false, false},
		{WithdrawPrefix{p, "vlan blue"}, "prefix/10.20.0.0/24", "gobgp global rib del -a evpn prefix 10.20.0.0/24 etag 0 label L3VNI rd ROUTER-ID:4095 rt ASN:L3VNI encap vxlan router-mac MAC", true, true},
		{SetL3Import{To: []Filter{{Prefix: netip.MustParsePrefix("10.0.0.0/8"), Longest: 32, Table: Main}}}, "l3vni/import", "# import by EVPN: accept 10.0.0.0/8 up to /32", false, false},
		{SetL3Import{}, "l3vni/import", "# import by EVPN nothing", false, false},
	} {
		if got := tt.step.String(); got != tt.want || tt.step.Object() != tt.object || (tt.step.Disturbs() != "") != tt.disturbs || tt.step.Removes() != tt.gone {
			t.Errorf("%T: %s: got  %s (disturbs %q, removes %t)\nwant %s", tt.step, tt.step.Object(), got, tt.step.Disturbs(), tt.step.Removes(), tt.want)
		}
	}
}
