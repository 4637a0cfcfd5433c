package bgp

import (
	"net/netip"
	"testing"

	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"ripstop/vpn"
)

// typeFive is a route of type 5 as it is on the wire, after its type and length.
func typeFive(t testing.TB, p string, change func(*bgp.EVPNIPPrefixRoute)) []byte {
	t.Helper()
	rd, err := bgp.NewRouteDistinguisherIPAddressAS(addr("192.0.2.2"), 3)
	if err != nil {
		t.Fatal(err)
	}
	r := &bgp.EVPNIPPrefixRoute{
		RD: rd, ESI: bgp.EthernetSegmentIdentifier{Type: bgp.ESI_ARBITRARY, Value: make([]byte, 9)},
		IPPrefixLength: uint8(prefix(p).Bits()), IPPrefix: prefix(p).Addr(), Label: 9,
	}
	if change != nil {
		change(r)
	}
	raw, err := r.Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// received is what the driver makes of a route and its extended communities.
func received(raw, communities []byte) (vpn.Path, bool) {
	var r bgp.EVPNIPPrefixRoute
	if r.DecodeFromBytes(raw) != nil {
		return vpn.Path{}, false
	}
	p := &apiutil.Path{PeerASN: 64513}
	reach, err := bgp.NewPathAttributeMpReachNLRI(bgp.RF_EVPN, []bgp.PathNLRI{{NLRI: bgp.NewEVPNNLRI(bgp.EVPN_IP_PREFIX, &r)}}, addr("192.0.2.2"))
	if err != nil {
		return vpn.Path{}, false
	}
	p.Attrs = append(p.Attrs, reach)
	var all []bgp.ExtendedCommunityInterface
	for ; len(communities) >= 8; communities = communities[8:] {
		if c, err := bgp.ParseExtended(communities[:8]); err == nil {
			all = append(all, c)
		}
	}
	p.Attrs = append(p.Attrs, bgp.NewPathAttributeExtendedCommunities(all))
	return prefixOfRoute(&r, "n", p, 64512)
}

var (
	routerMAC = []byte{byte(bgp.EC_TYPE_EVPN), byte(bgp.EC_SUBTYPE_ROUTER_MAC), 2, 0, 0, 0, 9, 2}
	inVXLAN   = []byte{3, 0x0c, 0, 0, 0, 0, 0, 8} // RFC 9012, 4.1
	inMPLS    = []byte{3, 0x0c, 0, 0, 0, 0, 0, 10}
)

// TestTypeFive is what is read of routes of type 5, and what of them is unfit.
func TestTypeFive(t *testing.T) {
	for _, tt := range []struct {
		name, prefix string
		change       func(*bgp.EVPNIPPrefixRoute)
		with         []byte
		want         vpn.Overlay
	}{
		{"plain", "10.20.0.0/24", nil, append(append([]byte(nil), inVXLAN...), routerMAC...), vpn.Overlay{VNI: 9, RouterMAC: vpn.MAC{2, 0, 0, 0, 9, 2}}},
		{"IPv6", "fd00:20::/64", nil, routerMAC, vpn.Overlay{VNI: 9, RouterMAC: vpn.MAC{2, 0, 0, 0, 9, 2}}},
		{"bits behind the prefix", "10.20.0.7/24", nil, routerMAC, vpn.Overlay{VNI: 9, RouterMAC: vpn.MAC{2, 0, 0, 0, 9, 2}}},
		{"no router", "10.20.0.0/24", nil, nil, vpn.Overlay{VNI: 9}},
		{"MPLS", "10.20.0.0/24", nil, inMPLS, vpn.Overlay{VNI: 9, Unfit: "is for tunnels of type 10: only VXLAN is spoken"}},
		{"no VNI", "10.20.0.0/24", func(r *bgp.EVPNIPPrefixRoute) { r.Label = 0 }, nil, vpn.Overlay{VNI: noVNI, Unfit: "is in no VNI"}},
		{"a gateway", "10.20.0.0/24", func(r *bgp.EVPNIPPrefixRoute) { r.GWIPAddress = addr("10.1.1.1") }, nil,
			vpn.Overlay{VNI: 9, Unfit: "names the gateway 10.1.1.1: only prefixes that are at their VTEP are taken (RFC 9136, 4.4.1)"}},
		{"an Ethernet segment", "10.20.0.0/24", func(r *bgp.EVPNIPPrefixRoute) { r.ESI.Value[8] = 1 }, nil,
			vpn.Overlay{VNI: 9, Unfit: "names an Ethernet segment: only prefixes that are at their VTEP are taken (RFC 9136, 4.4.1)"}},
	} {
		got, ok := received(typeFive(t, tt.prefix, tt.change), tt.with)
		if !ok || got.Overlay != tt.want || got.Prefix != prefix(tt.prefix).Masked() || got.NextHop != addr("192.0.2.2") || !got.External {
			t.Errorf("%s: got %+v, %t", tt.name, got, ok)
		}
	}
}

// FuzzTypeFive: whatever a neighbor sends as a route of type 5, nothing breaks, and what the
// kernel would get is a unicast prefix through the VNI, at a VTEP that has a router.
func FuzzTypeFive(f *testing.F) {
	f.Add(typeFive(f, "10.20.0.0/24", nil), append(append([]byte(nil), inVXLAN...), routerMAC...))
	f.Add(typeFive(f, "fd00:20::/64", nil), routerMAC)
	f.Add(typeFive(f, "::ffff:10.20.0.0/120", nil), routerMAC)
	f.Add(typeFive(f, "0.0.0.0/0", nil), inMPLS)
	f.Add(typeFive(f, "10.20.0.0/24", func(r *bgp.EVPNIPPrefixRoute) { r.GWIPAddress = addr("10.1.1.1") }), routerMAC)
	f.Add([]byte{}, []byte{})
	around := vpn.NewAround([]vpn.KernelRoute{{Prefix: prefix("192.0.2.0/24"), Table: vpn.Main, Connected: true, Ways: []vpn.Way{{Device: "wire"}}}})
	host := vpn.BGP{
		Speaker: &vpn.Speaker{ASN: 64512, Multipath: 8, EVPN: true}, L3: &vpn.L3VNI{VNI: 9, VTEP: addr("192.0.2.1"), Port: 4789, MTU: 1450},
		L3Import: []vpn.Filter{{Prefix: prefix("0.0.0.0/0"), Longest: 32, Table: vpn.Main, Default: true}, {Prefix: prefix("::/0"), Longest: 128, Table: vpn.Main}},
	}
	f.Fuzz(func(t *testing.T, raw, communities []byte) {
		p, ok := received(raw, communities)
		if !ok {
			return
		}
		if p.VNI == 0 {
			t.Fatalf("%+v is taken for a path of a session", p)
		}
		s := host.Select([]vpn.Path{p}, around)
		for d, ways := range s.Routes {
			a := d.Prefix.Addr()
			if d.Prefix != d.Prefix.Masked() || a.IsMulticast() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.Is4In6() || d.Prefix.Contains(addr("192.0.2.2")) && d.Prefix.Bits() > 24 {
				t.Errorf("the kernel would get %v", d)
			}
			want := vpn.Way{Gateway: host.L3.Gateway(d.Prefix, addr("192.0.2.2"), s.Routers[addr("192.0.2.2")]), Device: "vx9"}
			if len(ways) != 1 || ways[0] != want || s.Routers[addr("192.0.2.2")] == (vpn.MAC{}) || s.Routers[addr("192.0.2.2")][0]&1 != 0 {
				t.Errorf("%v goes to %v with %v", d, ways, s.Routers)
			}
			if got := host.L3.Gateway(d.Prefix, addr("192.0.2.2"), s.Routers[addr("192.0.2.2")]); got.Is4() != a.Is4() {
				t.Errorf("%v goes by %v", d, got)
			}
		}
	})
}

// TestWhole: a neighbor has sent all when it has of each family that both can speak of, and
// of those alone.
func TestWhole(t *testing.T) {
	n, six := vpn.Neighbor{Address: addr("192.0.2.2")}, vpn.Neighbor{Address: netip.MustParseAddr("fd00::2")}
	both := []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_EVPN}
	for _, tt := range []struct {
		name     string
		of       vpn.Neighbor
		evpn     bool
		speaks   []bgp.Family
		eor      []bgp.Family
		up, want bool
	}{
		{"nothing yet", n, true, both, nil, true, false},
		{"IPv4 alone of two", n, true, both, []bgp.Family{bgp.RF_IPv4_UC}, true, false},
		{"EVPN alone of two", n, true, both, []bgp.Family{bgp.RF_EVPN}, true, false},
		{"both", n, true, both, []bgp.Family{bgp.RF_EVPN, bgp.RF_IPv4_UC}, true, true},
		{"both, and the session has gone", n, true, both, []bgp.Family{bgp.RF_EVPN, bgp.RF_IPv4_UC}, false, false},
		{"the host speaks no EVPN", n, false, both, []bgp.Family{bgp.RF_IPv4_UC}, true, true},
		{"the neighbor speaks no EVPN", n, true, []bgp.Family{bgp.RF_IPv4_UC}, []bgp.Family{bgp.RF_IPv4_UC}, true, true},
		{"EVPN alone", n, true, []bgp.Family{bgp.RF_EVPN}, []bgp.Family{bgp.RF_EVPN}, true, true},
		{"over IPv6 it is asked for no IPv4", six, true, append(both, bgp.RF_IPv6_UC), []bgp.Family{bgp.RF_IPv6_UC, bgp.RF_EVPN}, true, true},
	} {
		s := &session{speaks: tt.speaks, eor: tt.eor}
		if tt.up {
			s.state = bgp.BGP_FSM_ESTABLISHED
		}
		if got := s.whole(tt.of, tt.evpn); got != tt.want {
			t.Errorf("%s: %t", tt.name, got)
		}
	}
}
