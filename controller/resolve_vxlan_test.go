package controller

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"ripstop/controller/config"
	"ripstop/vpn"
	"ripstop/vswitch"
)

// TestVXLAN follows a VNI to the switch that has somebody in its VLAN, and the MTU of
// the way to what stands in it.
func TestVXLAN(t *testing.T) {
	c := parse(t, `
version: 1
vlans:
  blue: {id: 10, vni: 10010, gateway: 10.10.0.1/24, switch: lab, anycast: true}
  red: {id: 20, vni: 10020}
  local: {id: 30}
  nobody: {id: 40, vni: 10040}
switches:
  lab:
    vxlan: {tunnel: mesh}
    ports:
      vm: {vlan: red, tap: {}}
      own: {vlan: red, tap: {}, mtu: 1280}
      up: {trunk: [red, local], device: nic0}
      here: {vlan: local, tap: {}}
  dmz:
    vxlan: {address: "fd00::1", mtu: 8000, port: 8472}
    ports:
      other: {vlan: red, tap: {}}
  alone:
    ports:
      third: {vlan: red, tap: {}}
tunnels:
  mesh: {private-key: mesh.key, address: 10.99.0.1/24}
bgp: {asn: 64512, evpn: true}
`)
	d, ps := Resolve(c, fakeHost(map[string]string{}))
	want := []string{`switch/lab: vxlan: VLAN "red" spans hosts on switch "dmz" already: have ports in it on one switch with vxlan alone`}
	if got := problems(ps); !slices.Equal(got, want) {
		t.Errorf("problems %q, want %q", got, want)
	}
	lab, dmz := d.VSwitch.Switches["lab"], d.VSwitch.Switches["dmz"]
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"blue's way", lab.Ports["vx10010"], vswitch.Port{
			Kind: vswitch.VXLAN, PVID: 10, MTU: 1370, Security: vswitch.Security{Trusted: true, MACLimit: 65535},
			Overlay: vswitch.Overlay{VNI: 10010, Local: netip.MustParseAddr("10.99.0.1"), Told: true},
		}},
		{"red's way", dmz.Ports["vx10020"].Overlay, vswitch.Overlay{VNI: 10020, Local: netip.MustParseAddr("fd00::1"), Port: 8472, Told: true}},
		{"red's way over lab", lab.Ports["vx10020"], vswitch.Port{}},
		{"nobody's way", lab.Ports["vx10040"], vswitch.Port{}},
		{"the gateway's address", lab.Gateways["blue"].MAC, vswitch.AnycastMAC(10010)},
		{"the gateway's MTU", lab.Gateways["blue"].MTU, 1370},
		{"a port's MTU", dmz.Ports["other"].MTU, 8000},
		{"a chosen MTU", lab.Ports["own"].MTU, 1280},
		{"a lent device's MTU", lab.Ports["up"].MTU, 0},
		{"another VLAN's MTU", lab.Ports["here"].MTU, 0},
		{"another switch's MTU", d.VSwitch.Switches["alone"].Ports["third"].MTU, 0},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s: got %+v, want %+v", c.name, c.got, c.want)
		}
	}
}

// TestInnerMTU: VLANs that span hosts have what the way leaves, unless the file says more or
// less; never more than other VLANs by themselves, and what IPv6 needs where it is.
func TestInnerMTU(t *testing.T) {
	const plain, six = "gateway: 10.10.0.1/24", `gateway: "fd00:10::1/64"`
	for _, tt := range []struct {
		name, vxlan, gateway string
		tunnel, way          int // what these carry
		mtu                  int
		why                  string
	}{
		{"a tunnel", "tunnel: mesh", plain, 1340, 9000, 1290, "1290 = 1340 (tunnel mesh: a riddle) - 50 (VXLAN over IPv4)"},
		{"a way", "address: 192.0.2.1", plain, 0, 1400, 1350, "1350 = 1400 (a wire) - 50 (VXLAN over IPv4)"},
		{"a way of IPv6", `address: "2001:db8::1"`, plain, 0, 1400, 1330, "1330 = 1400 (a wire) - 70 (VXLAN over IPv6)"},
		{"a wide way", "address: 192.0.2.1", plain, 0, 9000, 1500, "1500, as any port; 8950 would fit: 8950 = 9000 (a wire) - 50 (VXLAN over IPv4)"},
		{"a chosen one", "tunnel: mesh, mtu: 8000", plain, 1340, 0, 8000, "chosen for the VLANs; 1290 would fit: 1290 = 1340 (tunnel mesh: a riddle) - 50 (VXLAN over IPv4)"},
		{"one that is what fits", "tunnel: mesh, mtu: 1290", plain, 1340, 0, 1290, "1290 = 1340 (tunnel mesh: a riddle) - 50 (VXLAN over IPv4)"},
		{"a narrow way", "tunnel: mesh", plain, 1240, 0, 1190, "1190 = 1240 (tunnel mesh: a riddle) - 50 (VXLAN over IPv4)"},
		{"a narrow way and IPv6", "tunnel: mesh", six, 1240, 0, 1280, "IPv6 needs 1280, though 1190 = 1240 (tunnel mesh: a riddle) - 50 (VXLAN over IPv4)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := parse(t, `
version: 1
vlans: {blue: {id: 10, vni: 10010, `+tt.gateway+`}, here: {id: 20, gateway: 10.20.0.1/24}}
switches: {lab: {vxlan: {`+tt.vxlan+`}, ports: {vm: {vlan: blue, tap: {}}, b: {vlan: here, tap: {}}}}}
tunnels: {mesh: {private-key: mesh.key, address: 10.99.0.1/24, peers: {b: {public-key: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=, endpoint: "192.0.2.9:51820"}}}}
`)
			h := fakeHost(map[string]string{})
			h.TunnelMTU = func(name string, tun vpn.Tunnel) (int, string) {
				for _, p := range tun.Peers {
					if name != "mesh" || p.Endpoint != "192.0.2.9:51820" || len(tun.Addresses) != 1 {
						t.Errorf("asked for the MTU of tunnel %s with peer %+v", name, p)
					}
				}
				return tt.tunnel, "a riddle"
			}
			h.Carries = func(netip.Addr, []netip.Addr) (int, string) { return tt.way, fmt.Sprintf("%d (a wire)", tt.way) }
			d, ps := Resolve(c, h)
			if len(ps) != 0 {
				t.Fatal(ps)
			}
			lab := d.VSwitch.Switches["lab"]
			if got := []int{lab.Ports["vx10010"].MTU, lab.Ports["vm"].MTU, lab.Gateways["blue"].MTU, lab.Ports["b"].MTU, lab.Gateways["here"].MTU}; !slices.Equal(got, []int{tt.mtu, tt.mtu, tt.mtu, 0, 0}) {
				t.Errorf("got %v, want %d in the VLAN that spans hosts alone", got, tt.mtu)
			}
			if mtu, why, ok := InnerMTU(c, h, "lab"); !ok || mtu != tt.mtu || why != tt.why {
				t.Errorf("explained as %d, %q, %t", mtu, why, ok)
			}
			of := "the way to other hosts"
			if strings.HasPrefix(tt.vxlan, "tunnel") {
				of = "tunnel mesh"
			}
			follows := map[string]string{}
			if !strings.Contains(tt.vxlan, "mtu") {
				for _, object := range []string{"port/lab/vx10010", "port/lab/vm", "gateway/lab/blue"} {
					follows[object] = "the MTU of " + of + ": " + tt.why
				}
			}
			if !maps.Equal(d.Follows, follows) {
				t.Errorf("follows %q, want %q", d.Follows, follows)
			}
			if got := d.VPN.Clamps(); !slices.Equal(got, []string{"blue", "mesh"}) {
				t.Errorf("clamped %q", got)
			}
		})
	}
}

// TestVXLANOfHosts has the fabric say where VTEPs are, unless EVPN does.
func TestVXLANOfHosts(t *testing.T) {
	const text = `
version: 1
hosts:
  a: {endpoint: "192.0.2.1:51820", public-key: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=, address: 10.99.0.1/24}
  b: {endpoint: "192.0.2.2:51820", public-key: TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=, address: 10.99.0.2/24, vtep: 198.51.100.2}
  c: {endpoint: "192.0.2.3:51820", public-key: gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=, address: 10.99.0.3/24}
vlans: {blue: {id: 10, vni: 10010}}
switches:
  lab:
    vxlan: {tunnel: mesh}
    ports:
      vm: {vlan: blue, tap: {}}
tunnels:
  mesh: {private-key: mesh.key, listen: 51820, mesh: full}
`
	for _, c := range []struct {
		host, text, local string
		mtu               int
		peers             []netip.Addr
	}{
		{"a", text, "10.99.0.1", 1370, []netip.Addr{netip.MustParseAddr("10.99.0.3"), netip.MustParseAddr("198.51.100.2")}},
		{"b", text, "198.51.100.2", 1450, []netip.Addr{netip.MustParseAddr("10.99.0.1"), netip.MustParseAddr("10.99.0.3")}},
		{"a", text + "bgp: {asn: 64512, evpn: true}\n", "10.99.0.1", 1370, nil},
	} {
		cfg, _, err := config.ParseFor([]config.File{{Name: "t.yaml", Data: []byte(c.text)}}, c.host)
		if err != nil {
			t.Fatal(err)
		}
		d, _ := Resolve(cfg, fakeHost(map[string]string{}))
		p := d.VSwitch.Switches["lab"].Ports["vx10010"]
		if p.Overlay.Local.String() != c.local || !slices.Equal(p.Overlay.Peers, c.peers) || p.MTU != c.mtu {
			t.Errorf("on %s: %s mtu %d, want %s to %v mtu %d", c.host, p.Overlay, p.MTU, c.local, c.peers, c.mtu)
		}
	}
}

// TestL3VNI: where the VNI ends of what the host routes, what goes into it, and who is
// clamped for it.
func TestL3VNI(t *testing.T) {
	const file = `
version: 1
vlans:
  blue: {id: 10, gateway: [10.10.0.1/24, "fd00:10::1/64"]}
switches:
  lab: {vxlan: {address: 192.0.2.1, port: 8472, mtu: 1300}, ports: {vm: {vlan: blue, tap: {}}}}
tunnels:
  mesh: {private-key: mesh.key, address: 10.99.0.1/24}
bgp:
  asn: 64512
  evpn: true
  announce: 10.1.0.0/16
  import: [{accept: 10.0.0.0/8}]
  l3vni: {vni: 10999, END announce: [vlans, 10.2.0.0/16], import: [{reject: 10.0.0.0/8}]}
`
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for _, tt := range []struct {
		end  string
		want vpn.L3VNI
	}{
		{"", vpn.L3VNI{VNI: 10999, VTEP: a("192.0.2.1"), Port: 8472, MTU: 1300}},
		{"tunnel: mesh,", vpn.L3VNI{VNI: 10999, VTEP: a("10.99.0.1"), Port: 4789, MTU: 1370}},
		{"address: 192.0.2.9, port: 4790,", vpn.L3VNI{VNI: 10999, VTEP: a("192.0.2.9"), Port: 4790, MTU: 1450}},
		{`address: "fd00::9",`, vpn.L3VNI{VNI: 10999, VTEP: a("fd00::9"), Port: 4789, MTU: 1430}},
		{"mtu: 1280,", vpn.L3VNI{VNI: 10999, VTEP: a("192.0.2.1"), Port: 8472, MTU: 1280}},
	} {
		d, ps := Resolve(parse(t, strings.Replace(file, "END", tt.end, 1)), fakeHost(map[string]string{}))
		if len(ps) > 0 || d.BGP.L3 == nil || *d.BGP.L3 != tt.want {
			t.Errorf("%q: got %+v, %v, want %+v", tt.end, d.BGP.L3, ps, tt.want)
		}
		want := map[netip.Prefix]string{p("10.10.0.0/24"): "vlan blue", p("fd00:10::/64"): "vlan blue", p("10.2.0.0/16"): "the file"}
		if !reflect.DeepEqual(d.BGP.Prefixes, want) || !reflect.DeepEqual(d.BGP.Announced, map[netip.Prefix]string{p("10.1.0.0/16"): "the file"}) {
			t.Errorf("%q: announced %v and %v", tt.end, d.BGP.Prefixes, d.BGP.Announced)
		}
		if len(d.BGP.L3Import) != 1 || !d.BGP.L3Import[0].Reject || len(d.BGP.Import) != 1 || d.BGP.Import[0].Reject {
			t.Errorf("%q: import %v and %v", tt.end, d.BGP.L3Import, d.BGP.Import)
		}
		if got := d.VPN.Clamps(); !slices.Equal(got, []string{"mesh", "vx10999"}) {
			t.Errorf("%q: clamped are %v", tt.end, got)
		}
	}
	h := fakeHost(map[string]string{})
	h.VNIFree = func(l vpn.L3VNI) error { return fmt.Errorf("VNI %d is that of another", l.VNI) }
	d, ps := Resolve(parse(t, strings.Replace(file, "END", "", 1)), h)
	if len(ps) != 1 || ps[0].Object != "l3vni/10999" || d.BGP.L3 != nil || len(d.BGP.Prefixes)+len(d.BGP.L3Import) > 0 {
		t.Errorf("with the VNI taken: %+v, %v", d.BGP, ps)
	}
}
