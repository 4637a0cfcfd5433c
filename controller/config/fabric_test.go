package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ripstop/vpn"
)

// keys are public keys of hosts.
var keys = []string{
	"hp1eur0gTfYrGKUbDZjZEt1ROFXF+/QCPe0J2QnZpxg=",
	"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
	"TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
	"u4GCfE54F0jo4Rn+8Yo1rIQdM3tD/GH+a8DVFbjquUQ=",
}

// fourHosts is a to d, of which c and d have no endpoint, joined by a mesh.
func fourHosts(mesh string) string {
	return fmt.Sprintf(`version: 1
hosts:
  a: {endpoint: "192.0.2.1:51820", public-key: %q, address: [10.99.0.1/24, "fd00:99::1/64"], subnets: [10.1.0.0/16, 10.0.1.0/24]}
  b: {endpoint: "b.example.org:51820", public-key: %q, address: 10.99.0.2/24, nat: true, vtep: 192.0.2.2}
  c: {public-key: %q, address: 10.99.0.3/24, subnets: [10.3.0.0/16]}
  d: {public-key: %q, address: 10.99.0.4/24}
tunnels:
  mesh: {listen: 51820, private-key: mesh.key, mesh: %s}
`, keys[0], keys[1], keys[2], keys[3], mesh)
}

func part(t *testing.T, text, host string) *Config {
	t.Helper()
	c, _, err := ParseFor([]File{{"t.yaml", []byte(text)}}, host)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestMesh holds the peers of every host of a mesh.
func TestMesh(t *testing.T) {
	full := strings.ReplaceAll(fourHosts("full"), "\n  d: {", "\n  d: {endpoint: 192.0.2.4:1, ")
	const (
		a = "10.0.1.0/24 10.1.0.0/16 10.99.0.1/32 fd00:99::1/128"
		c = "10.3.0.0/16 10.99.0.3/32"
	)
	tests := []struct {
		name, text, host string
		want             map[string]string // peer to its endpoint, keepalive and allowed IPs
	}{
		{"full", full, "a", map[string]string{
			"b": "b.example.org:51820 0s 10.99.0.2/32", "c": " 0s " + c, "d": "192.0.2.4:1 0s 10.99.0.4/32"}},
		{"full, behind a NAT", full, "b", map[string]string{
			"a": "192.0.2.1:51820 25s " + a, "c": " 25s " + c, "d": "192.0.2.4:1 25s 10.99.0.4/32"}},
		{"full, without endpoint", full, "c", map[string]string{
			"a": "192.0.2.1:51820 25s " + a, "b": "b.example.org:51820 25s 10.99.0.2/32", "d": "192.0.2.4:1 25s 10.99.0.4/32"}},
		{"hub", fourHosts("{hub: a}"), "a", map[string]string{
			"b": "b.example.org:51820 0s 10.99.0.2/32", "c": " 0s " + c, "d": " 0s 10.99.0.4/32"}},
		{"spoke", fourHosts("{hub: a}"), "d", map[string]string{
			"a": "192.0.2.1:51820 25s 10.0.1.0/24 10.1.0.0/16 10.3.0.0/16 10.99.0.1/32 10.99.0.2/32 10.99.0.3/32 fd00:99::1/128"}},
		{"two hubs", fourHosts("{hub: [a, b]}"), "b", map[string]string{
			"a": "192.0.2.1:51820 25s " + a, "c": " 25s " + c, "d": " 25s 10.99.0.4/32"}},
		{"spoke of two hubs", fourHosts("{hub: [b, a]}"), "c", map[string]string{
			"a": "192.0.2.1:51820 25s " + a, "b": "b.example.org:51820 25s 10.99.0.2/32 10.99.0.4/32"}},
		{"two sites", strings.Replace(fourHosts("full"), "mesh: full", "mesh: full, on: [a, c]", 1), "a", map[string]string{"c": " 0s " + c}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := map[string]string{}
			p := part(t, tt.text, tt.host)
			for n, p := range p.Tunnels["mesh"].Peers {
				got[n] = fmt.Sprintf("%s %s %s", p.Endpoint, p.Keepalive, strings.Trim(fmt.Sprint(p.AllowedIPs), "[]"))
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("peers of %s:\ngot  %v\nwant %v", tt.host, got, tt.want)
			}
		})
	}
}

// TestMeshAgrees holds every mesh against what WireGuard needs: both ends of a
// pair know each other, no prefix has two peers, and what a host may be sent by
// another is what that one may send to it, by way of a hub where there is one.
func TestMeshAgrees(t *testing.T) {
	for _, mesh := range []string{"{hub: a}", "{hub: b}", "{hub: [a, b]}", "{hub: [b, a]}", "full, on: [a, b, c]"} {
		text := fourHosts(mesh)
		parts := map[string]Tunnel{}
		all, _, err := Parse([]File{{"t.yaml", []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}
		for h := range all.Hosts {
			if m, ok := part(t, text, h).Tunnels["mesh"]; ok {
				parts[h] = m
			}
		}
		// next is the peer to which a host of the mesh sends what goes to another.
		next := func(from, to string) string {
			for n, p := range parts[from].Peers {
				if slices.Contains(p.AllowedIPs, all.Hosts[to].prefixes()[0]) {
					return n
				}
			}
			return ""
		}
		for h, m := range parts {
			seen := map[netip.Prefix]string{}
			for n, p := range m.Peers {
				back, ok := parts[n].Peers[h]
				if !ok || back.PublicKey != m.PublicKey || p.PublicKey != parts[n].PublicKey {
					t.Errorf("mesh %s: %s has peer %s, which has %v", mesh, h, n, back)
				}
				for _, ip := range p.AllowedIPs {
					if other, twice := seen[ip]; twice {
						t.Errorf("mesh %s: %s gives %s to %s and %s", mesh, h, ip, n, other)
					}
					seen[ip] = n
				}
			}
			for to := range parts {
				if to == h {
					continue
				}
				if via := next(h, to); via == "" || via != to && next(via, to) != to {
					t.Errorf("mesh %s: %s reaches %s by way of %q", mesh, h, to, via)
				} else if via != to && next(to, h) != via {
					t.Errorf("mesh %s: %s sends to %s by way of %s, which would answer by way of %s", mesh, h, to, via, next(to, h))
				}
			}
		}
	}
}

// TestForHost takes each host's part of what says who has it.
func TestForHost(t *testing.T) {
	text := fourHosts("{hub: a}") + `
vlans:
  blue: {id: 10, gateway: [{address: 10.10.0.1/24, on: a}, {address: 10.10.0.2/24, on: [b, c]}, "fd00:10::1/64"], anycast: true, on: [a, b, c]}
  red: {id: 20, on: [b]}
groups:
  web: {rules: [{allow: in}]}
switches:
  lab:
    on: [a, b, c]
    ports:
      web: {vlan: blue, netns: web, address: 10.10.0.7/24, on: a, groups: web}
      up: {vlan: blue, device: eth1}
bgp: {asn: 1, on: [a, b], neighbors: {one: {address: 10.10.0.9, asn: 2, on: a}}}
pools: {main: {path: p, size: 1GiB, on: b}}
luns: {data: {pool: main, size: 1GiB, on: b}}
targets:
  "iqn.2026-11.org.example:data": {on: b, portals: [{tunnel: mesh}], luns: {0: data}, initiators: {any: {}}}
`
	a, b, d := part(t, text, "a"), part(t, text, "b"), part(t, text, "d")
	gateways := func(c *Config) string { return fmt.Sprint(c.VLANs["blue"].Gateways) }
	key, err := vpn.ParseKey(keys[0])
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name      string
		got, want any
	}{
		{"host", a.Host, "a"},
		{"hosts", len(b.Hosts), 4},
		{"host's own", a.Hosts["a"], Host{Endpoint: "192.0.2.1:51820", PublicKey: key, Addresses: a.Tunnels["mesh"].Addresses,
			Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24"), netip.MustParsePrefix("10.1.0.0/16")}, VTEP: netip.MustParseAddr("10.99.0.1")}},
		{"vtep and nat", fmt.Sprint(a.Hosts["b"].VTEP, a.Hosts["b"].NAT, a.Hosts["c"].NAT), "192.0.2.2 true true"},
		{"gateway of a", gateways(a), "[10.10.0.1/24 fd00:10::1/64]"},
		{"gateway of b", gateways(b), "[10.10.0.2/24 fd00:10::1/64]"},
		{"anycast", a.VLANs["blue"].Anycast, true},
		{"vlans of a", len(a.VLANs), 1},
		{"vlans of b", len(b.VLANs), 2},
		{"vlans of d", len(d.VLANs), 0},
		{"ports of a", len(a.Switches["lab"].Ports), 2},
		{"ports of b", len(b.Switches["lab"].Ports), 1},
		{"switches of d", len(d.Switches), 0},
		{"groups of d", len(d.Groups), 1},
		{"neighbors of a", len(a.BGP.Neighbors), 1},
		{"neighbors of b", len(b.BGP.Neighbors), 0},
		{"bgp of d", d.BGP == nil, true},
		{"router-id of a", a.BGP.RouterID, netip.MustParseAddr("10.99.0.1")},
		{"targets of a", len(a.Targets) + len(a.LUNs) + len(a.Pools), 0},
		{"targets of b", len(b.Targets) + len(b.LUNs) + len(b.Pools), 3},
		{"own key", a.Tunnels["mesh"].PublicKey, key},
		{"keepalive", d.Tunnels["mesh"].Peers["a"].Keepalive, 25 * time.Second},
	}
	for _, tt := range tests {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", tt.name, tt.got, tt.want)
		}
	}
	if again := part(t, text, "a"); !reflect.DeepEqual(a, again) {
		t.Errorf("ForHost gives\n%+v\nand then\n%+v", a, again)
	}
}

// TestForHostOfNone names the hosts that there are, with a place.
func TestForHostOfNone(t *testing.T) {
	files := []File{{"t.yaml", []byte(fourHosts("{hub: a}"))}}
	for host, want := range map[string]string{
		"":     "t.yaml:2:1: hosts: the files are for several hosts: say with --host which of them this one is: a, b, c, d",
		"else": `t.yaml:2:1: hosts: there is no host "else": the hosts are a, b, c, d`,
	} {
		c, _, err := ParseFor(files, host)
		var faults Errors
		if !errors.As(err, &faults) || err.Error() != want || c != nil {
			t.Errorf("host %q:\ngot  %v, %v\nwant %s", host, c, err, want)
		}
	}
	long := strings.ReplaceAll(fourHosts("{hub: a}"), "\n  d:", "\n  delta:")
	if _, _, err := ParseFor([]File{{"t.yaml", []byte(long)}}, "dleta"); err == nil || !strings.HasSuffix(err.Error(), `there is no host "dleta": did you mean "delta"?`) {
		t.Error(err)
	}
}

// TestWithoutHosts means the same with a name of a host and without one.
func TestWithoutHosts(t *testing.T) {
	data, err := os.ReadFile("../../configs/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files := []File{{"t.yaml", data}}
	c, _, err := Parse(files)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"", "a"} {
		p, _, err := ParseFor(files, host)
		if err != nil || !reflect.DeepEqual(p, c) || p.Hosts != nil || p.Host != "" {
			t.Errorf("host %q: %v, %+v", host, err, p)
		}
	}
}

// TestFabricBounds refuses more than a daemon could check in time.
func TestFabricBounds(t *testing.T) {
	var b strings.Builder
	b.WriteString("version: 1\nhosts:\n")
	for i := range maxHosts + 1 {
		fmt.Fprintf(&b, "  h%d: {}\n", i)
	}
	_, _, faults := parseString(t, b.String())
	if len(faults) != 1 || !strings.Contains(faults[0].Message, "1001 hosts and 0 objects are too many") {
		t.Errorf("got %v", faults)
	}
	b.Reset()
	b.WriteString("version: 1\nhosts:\n")
	for i := range 500 {
		fmt.Fprintf(&b, "  h%d: {}\n", i)
	}
	b.WriteString("luns:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "  l%d: {pool: p, size: 1}\n", i)
	}
	if _, _, faults = parseString(t, b.String()); len(faults) != 1 || !strings.Contains(faults[0].Message, "too many") {
		t.Errorf("got %d faults, first %v", len(faults), faults[0])
	}
}

// TestMeshKeys: no peer beside the hosts has a key of theirs, nor one that a host goes
// over to.
func TestMeshKeys(t *testing.T) {
	next, other := vpn.Key{9}.String(), vpn.Key{10}.String()
	text := strings.Replace(fourHosts("{hub: a}"), "d: {", "d: {next-public-key: "+next+", ", 1)
	part(t, text, "a")
	text = strings.Replace(text, "mesh: {hub: a}}", fmt.Sprintf("mesh: {hub: a}, peers: {x: {public-key: %s, on: a}, y: {public-key: %s, next-public-key: %s, on: a}}}", next, other, keys[1]), 1)
	_, _, err := Parse([]File{{"t.yaml", []byte(text)}})
	for _, part := range []string{
		`tunnels.mesh.peers.x.public-key: is the key of host "d"`,
		`tunnels.mesh.peers.y.next-public-key: is the key of host "b"`,
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v, want %q", err, part)
		}
	}
}

// TestJoined: a mesh is without a host that has no key, keeps what will be behind it, and
// has it as if the key stood in the file as soon as it is told.
func TestJoined(t *testing.T) {
	whole := part(t, fourHosts("{hub: a}"), "a")
	text := strings.Replace(fourHosts("{hub: a}"), fmt.Sprintf("public-key: %q, ", keys[2]), "", 1)
	a := part(t, text, "a")
	mesh := a.Tunnels["mesh"]
	if _, there := mesh.Peers["c"]; there || len(mesh.Peers) != 2 || len(mesh.Awaited["c"]) == 0 {
		t.Errorf("peers %v, awaited %v", mesh.Peers, mesh.Awaited)
	}
	key := whole.Hosts["c"].PublicKey
	got, err := a.WithJoined("c", Joined{PublicKey: key})
	if err != nil || !reflect.DeepEqual(got.Tunnels, whole.Tunnels) || !reflect.DeepEqual(got.Hosts, whole.Hosts) {
		t.Errorf("%v: %+v, want %+v", err, got.Tunnels, whole.Tunnels)
	}
	if got, err = a.WithJoined("c", Joined{key, "c.example:7"}); err != nil || got.Tunnels["mesh"].Peers["c"].Endpoint != "c.example:7" {
		t.Errorf("%v: endpoint %q", err, got.Tunnels["mesh"].Peers["c"].Endpoint)
	}
	for _, x := range []struct {
		at, host string
		j        Joined
		says     string
	}{
		{"a", "x", Joined{PublicKey: key}, `no host "x"`},
		{"a", "a", Joined{PublicKey: key}, `this is host "a" itself`},
		{"a", "b", Joined{PublicKey: key}, `the file has a public-key of host "b"`},
		{"a", "c", Joined{}, "the zero key"},
		{"a", "c", Joined{a.Hosts["b"].PublicKey, ""}, `the public key of host "b"`},
		{"a", "c", Joined{key, "c.example"}, `the endpoint of host "c"`},
		{"b", "c", Joined{PublicKey: key}, "no peer of this one"},
	} {
		if _, err := part(t, text, x.at).WithJoined(x.host, x.j); err == nil || !strings.Contains(err.Error(), x.says) {
			t.Errorf("%s at %s: %v, want %s", x.host, x.at, err, x.says)
		}
	}
	if err := (&Config{}).Awaits("c"); err == nil || !strings.Contains(err.Error(), "has no hosts") {
		t.Error(err)
	}
	next := strings.Replace(text, "c: {", "c: {next-public-key: "+keys[2]+", ", 1)
	if _, _, err := Parse([]File{{"t.yaml", []byte(next)}}); err == nil || !strings.Contains(err.Error(), "goes after public-key, which is missing") {
		t.Error(err)
	}
}

// TestReachOfPeers: prefixes, and VLANs by the networks of their gateways here.
func TestReachOfPeers(t *testing.T) {
	text := func(reach, more string) []File {
		return []File{{"t.yaml", []byte("version: 1\nvlans:\n  lan: {id: 1, gateway: [10.1.0.1/24, 'fd00:1::1/64', 'fe80::1/64']}\n  bare: {id: 2}\n" +
			"switches: {lab: {}}\ntunnels: {site: {private-key: k, address: 10.99.0.1/24, peers: {p: {public-key: " + keys[0] + ", allowed-ips: 10.99.0.2/32" + reach + "}}}}\n" + more)}}
	}
	for _, x := range []struct {
		reach   string
		limited bool
		want    string
	}{
		{"", false, "[]"},
		{", reach: lan", true, "[10.1.0.0/24 fd00:1::/64]"},
		{", reach: [10.20.0.0/16, lan, 10.1.0.0/24]", true, "[10.1.0.0/24 10.20.0.0/16 fd00:1::/64]"},
	} {
		c, _, err := Parse(text(x.reach, ""))
		if err != nil {
			t.Errorf("%s: %v", x.reach, err)
			continue
		}
		if p := c.Tunnels["site"].Peers["p"]; p.Limited != x.limited || fmt.Sprint(p.Reach) != x.want {
			t.Errorf("%s: limited is %v, to %v", x.reach, p.Limited, p.Reach)
		}
	}
	user := "pools: {m: {path: m, size: 1GiB}}\nluns: {d: {pool: m, size: 1MiB}}\n" +
		"targets: {'iqn.2026-11.org.example:d': {portals: [{tunnel: site, stack: user}], luns: {0: d}, initiators: {any: {}}}}\n"
	for _, x := range [][3]string{
		{", reach: bare", "", `VLAN "bare" has no gateway here`},
		{", reach: nan", "", `there is no VLAN "nan" here`},
		{", reach: 10.1.0.0/8", "", "write 10.0.0.0/8"},
		{", reach: '10.1.0.0/99'", "", "neither a prefix"},
		{", reach: lan", user, "has no interface on the host"},
	} {
		if _, _, err := Parse(text(x[0], x[1])); err == nil || !strings.Contains(err.Error(), x[2]) {
			t.Errorf("%s: %v, want %s", x[0], err, x[2])
		}
	}
}

// TestHostNeighbors: what hosts of one mesh are to each other in BGP.
func TestHostNeighbors(t *testing.T) {
	const text = `version: 1
hosts:
  a: {endpoint: "192.0.2.1:51820", public-key: hp1eur0gTfYrGKUbDZjZEt1ROFXF+/QCPe0J2QnZpxg=, address: ["fd00:99::1/64", 10.99.0.1/24]}
  b: {endpoint: "192.0.2.2:51820", public-key: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=, address: ["fd00:99::2/64", 10.99.0.2/24]}
  c: {endpoint: "192.0.2.3:51820", public-key: TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=, address: "fd00:99::3/64"}
  d: {address: 10.99.0.4/24}
vlans: {blue: {id: 10, vni: 10010, gateway: 10.10.0.1/24, anycast: true, on: [a, b]}}
switches: {lab: {vxlan: {tunnel: mesh}, on: [a, b]}}
tunnels: {mesh: {listen: 51820, private-key: mesh.key, mesh: full}}
bgp:
  asn: 64512
  evpn: true
  %s
  neighbors: {%s: {on: a, address: 192.0.2.9, asn: 64513}}
`
	file := fmt.Sprintf(text, "hosts: {tunnel: mesh, hold-time: 9s, bfd: 300ms}\n  on: [a, b, c]", "tor1")
	file = strings.Replace(file, `"fd00:99::3/64"`, `["fd00:99::3/64", 10.98.0.3/24]`, 1)
	a, b := part(t, file, "a"), part(t, file, "b")
	want := map[string]Neighbor{
		"b":    {Address: netip.MustParseAddr("10.99.0.2"), Source: netip.MustParseAddr("10.99.0.1"), ASN: 64512, Hold: 9 * time.Second, PrefixLimit: 10_000, BFD: 300 * time.Millisecond},
		"c":    {Address: netip.MustParseAddr("10.98.0.3"), Source: netip.MustParseAddr("10.99.0.1"), ASN: 64512, Hold: 9 * time.Second, PrefixLimit: 10_000, BFD: 300 * time.Millisecond},
		"tor1": {Address: netip.MustParseAddr("192.0.2.9"), ASN: 64513, Hold: 90 * time.Second, PrefixLimit: 10_000},
	}
	if !reflect.DeepEqual(a.BGP.Neighbors, want) {
		t.Errorf("the neighbors of a are\n%+v\nwant\n%+v", a.BGP.Neighbors, want)
	}
	if n := b.BGP.Neighbors; !n["a"].Passive || n["c"].Passive { // c comes later
		t.Errorf("the neighbors of b are %+v", n)
	}
	for _, tt := range []struct {
		a, b string // what the hosts say of themselves
		want string // who connects
	}{
		{"endpoint: 192.0.2.1:1", "endpoint: 192.0.2.2:1", "a"},
		{"endpoint: 192.0.2.1:1", "nat: true, endpoint: 192.0.2.2:1", "b"},
		{"nat: true, endpoint: 192.0.2.1:1", "endpoint: 192.0.2.2:1", "a"},
		{"nat: true", "endpoint: 192.0.2.2:1", "a"},
		{"endpoint: 192.0.2.1:1", "nat: true", "b"},
		{"nat: true, endpoint: 192.0.2.1:1", "nat: true", "b"},
	} {
		file := strings.NewReplacer("d: {", `d: {endpoint: "192.0.2.4:1", `, `endpoint: "192.0.2.1:51820"`, tt.a, `endpoint: "192.0.2.2:51820"`, tt.b).Replace(file)
		if a, b := part(t, file, "a"), part(t, file, "b"); a.BGP.Neighbors["b"].Passive != (tt.want == "b") || b.BGP.Neighbors["a"].Passive != (tt.want == "a") {
			t.Errorf("a has %q, b has %q: want %s to connect", tt.a, tt.b, tt.want)
		}
	}
	if len(b.BGP.Neighbors) != 2 || b.BGP.Neighbors["a"].Address != netip.MustParseAddr("10.99.0.1") {
		t.Errorf("the neighbors of b are %+v", b.BGP.Neighbors)
	}
	if a.BGP.RouterID == b.BGP.RouterID || a.BGP.RouterID != netip.MustParseAddr("10.99.0.1") {
		t.Errorf("the router-ids are %s and %s", a.BGP.RouterID, b.BGP.RouterID)
	}
	for _, tt := range []struct{ hosts, neighbor, want string }{
		{"hosts: {tunnel: mesh}\n  on: [a, b, c]", "tor1", "hosts a and c have no address of one IP version in the mesh"},
		{"hosts: {tunnel: mesh}\n  on: [a, b]", "b", "is a host's name"},
		{"hosts: {tunnel: mush}\n  on: [a, b]", "tor1", `there is no tunnel "mush"`},
		{"hosts: {hold-time: 9s}\n  on: [a, b]", "tor1", "tunnel is missing"},
	} {
		text := strings.Replace(fmt.Sprintf(text, tt.hosts, tt.neighbor), `["fd00:99::1/64", 10.99.0.1/24]`, "10.99.0.1/24", 1)
		_, _, err := ParseFor([]File{{"t.yaml", []byte(text)}}, "a")
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\ngot  %v\nwant %s", tt.hosts, err, tt.want)
		}
	}
}
