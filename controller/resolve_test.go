package controller

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ripstop/configs"
	"ripstop/controller/config"
	"ripstop/iscsi"
	"ripstop/lun"
	"ripstop/vpn"
	"ripstop/vswitch"
)

// fakeHost answers Resolve from maps.
func fakeHost(secrets map[string]string) Host {
	absent := func(path string) error { return fmt.Errorf("%s: %w", path, os.ErrNotExist) }
	return Host{
		StateDir:  "/state",
		Dataplane: func(string) vswitch.Dataplane { return vswitch.EBPF },
		Works:     func(vswitch.Dataplane) error { return nil },
		PoolKind: func(path string) (lun.Kind, error) {
			if path == "/state/pools/bad" {
				return "", errors.New("it is a riddle")
			}
			return lun.Thin, nil
		},
		ReadSecret: func(path string) (string, error) {
			if s, ok := secrets[path]; ok {
				return s, nil
			}
			return "", absent(path)
		},
		PrivateKey: func(path string) (vpn.Secret, error) {
			if strings.Contains(path, "bad") {
				return vpn.Secret{}, absent(path)
			}
			return vpn.NewSecret(vpn.Key{1}), nil
		},
		VNIFree:   func(vpn.L3VNI) error { return nil },
		TunnelMTU: func(_ string, t vpn.Tunnel) (int, string) { return cmp.Or(t.MTU, 1420), "by a riddle" },
		Carries:   func(netip.Addr, []netip.Addr) (int, string) { return 1500, "1500 (a wire)" },
		LookupUser: func(name string) (string, error) {
			uids := map[string]string{"root": "0", "qemu": "64055"}
			if uid, ok := uids[name]; ok {
				return uid, nil
			}
			return "", errors.New("unknown user")
		},
	}
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, _, err := config.Parse([]config.File{{Name: "t.yaml", Data: []byte(text)}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func problems(ps []Problem) []string {
	var all []string
	for _, p := range ps {
		all = append(all, p.Object+": "+p.Err.Error())
	}
	return all
}

// TestResolveReference resolves the file with every key.
func TestResolveReference(t *testing.T) {
	data, err := configs.FS.ReadFile("reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	psk := vpn.Key{7}
	d, ps := Resolve(parse(t, string(data)), fakeHost(map[string]string{
		"/state/web.secret": "w", "/state/target.secret": "t", "/state/guest.secret": "g", "/state/tor1.secret": "b", "/state/branch.psk": psk.String(),
	}))
	if len(ps) > 0 {
		t.Fatal(problems(ps))
	}
	lab := d.VSwitch.Switches["lab"]
	var peer vpn.Peer
	for _, p := range d.VPN.Tunnels["site"].Peers {
		peer = p
	}
	target := d.ISCSI.Targets["iqn.2026-11.org.example:data"]
	var portals []string
	for _, p := range target.Portals {
		portals = append(portals, fmt.Sprintf("%s dev %q: %s", p.Address, p.Device, p.Via))
	}
	tests := []struct {
		name      string
		got, want any
	}{
		{"auto", lab.Dataplane, vswitch.EBPF},
		{"trunk", lab.Ports["up"].Tagged, []uint16{10, 30}},
		{"native", lab.Ports["up"].PVID, uint16(20)},
		{"access", lab.Ports["web"].PVID, uint16(10)},
		{"addresses", fmt.Sprint(lab.Ports["web"].Addresses), "[10.10.0.2/24 fd00:10::2/64]"},
		{"root", lab.Ports["vm1"].User, ""},
		{"gateways", fmt.Sprint(lab.Gateways), "map[blue:{10  [10.10.0.1/24 fd00:10::1/64] 0} san:{30  [10.30.0.1/24] 0}]"},
		{"private key", d.VPN.Tunnels["site"].PrivateKey, vpn.NewSecret(vpn.Key{1})},
		{"pre-shared key", peer.PresharedKey, vpn.NewSecret(psk)},
		{"peer's name", peer.Name, "branch"},
		{"neighbor", d.BGP.Neighbors["tor1"], vpn.Neighbor{
			Address: netip.MustParseAddr("10.10.0.254"), ASN: 64513, Source: netip.MustParseAddr("10.10.0.1"), Password: "b", Hops: 1,
			Hold: 90 * time.Second, PrefixLimit: 10000, BFD: 300 * time.Millisecond}},
		{"announced", d.BGP.Announced, map[netip.Prefix]string{
			netip.MustParsePrefix("10.10.0.0/24"): "vlan blue", netip.MustParsePrefix("fd00:10::/64"): "vlan blue", netip.MustParsePrefix("10.30.0.0/24"): "vlan san",
			netip.MustParsePrefix("10.30.0.1/32"): "portal", netip.MustParsePrefix("10.99.0.1/32"): "portal", netip.MustParsePrefix("fd00:99::1/128"): "portal",
			netip.MustParsePrefix("10.10.0.7/32"): "the file"}},
		{"import", fmt.Sprint(d.BGP.Import), "[reject 10.66.0.0/16 up to /32 accept 10.0.0.0/8 up to /24 from rr1 tor1 accept 0.0.0.0/0 and the default route]"},
		{"pool", d.LUN.Pools["main"], lun.Pool{Kind: lun.Thin, Path: "/state/pools/main", Size: 10 << 30, Overcommit: 4}},
		{"lun", d.LUN.LUNs["logs"], lun.LUN{Pool: "main", Size: 1 << 30, Block: 512}},
		{"encryption without its key", strings.HasPrefix(d.LUN.LUNs["data"].Encryption.Missing, "its key: "), true},
		{"portals", portals, []string{
			`10.30.0.1:3260 dev "san": vlan san`, `10.99.0.1:3261 dev "site": tunnel site`,
			`127.0.0.1:3260 dev "": address`, `[fd00:99::1]:3261 dev "site": tunnel site`}},
		{"initiator", target.Initiators["iqn.1993-08.org.debian:01:web"], iscsi.Initiator{
			CHAP: &iscsi.CHAP{User: "web", Secret: "w"}, Mutual: &iscsi.CHAP{User: "target", Secret: "t"}, LUNs: []uint16{0}}},
		{"any", target.Any, &iscsi.Initiator{CHAP: &iscsi.CHAP{User: "guest", Secret: "g"}, LUNs: []uint16{1}}},
		{"lun map", target.LUNs, map[uint16]string{0: "data", 1: "logs"}},
	}
	for _, tt := range tests {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", tt.name, tt.got, tt.want)
		}
	}
}

// TestResolveEmpty makes maps even of nothing: a file that asks for nothing
// takes everything away.
func TestResolveEmpty(t *testing.T) {
	d, ps := Resolve(parse(t, "version: 1\n"), fakeHost(nil))
	if ps != nil || d.VSwitch.Switches == nil || d.VPN.Tunnels == nil || d.LUN.Pools == nil || d.LUN.LUNs == nil || d.ISCSI.Targets == nil {
		t.Errorf("got %+v, %v", d, ps)
	}
}

// TestProblems leaves out what cannot be, and nothing else.
func TestProblems(t *testing.T) {
	c := parse(t, `
version: 1
vlans: {blue: {id: 10}}
switches:
  lab:
    ports:
      good: {vlan: blue, tap: {user: qemu}}
      number: {vlan: blue, tap: {user: 1000, queues: 2}}
      lost: {vlan: blue, tap: {user: nobody-known}}
tunnels:
  down: {private-key: bad.key}
  up:
    private-key: /keys/up.key
    peers:
      open: {public-key: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=}
      absent: {public-key: TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=, preshared-key: absent.psk}
      mangled: {public-key: gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=, preshared-key: mangled.psk}
pools:
  main: {path: pools/main, size: 1GiB}
  twin: {path: /state/pools/main/twin, size: 1GiB}
  bad: {path: pools/bad, size: 1GiB}
  said: {path: pools/said, kind: raw, size: 1GiB}
luns:
  data: {pool: main, size: 1GiB}
  other: {pool: twin, size: 1GiB}
targets:
  "iqn.2026-11.org.example:data":
    portals: [{address: 127.0.0.1:3260}]
    luns: {0: data}
    initiators:
      "iqn.2026-11.org.example:free": {}
      "iqn.2026-11.org.example:good": {chap: {user: u, secret: good}}
      "iqn.2026-11.org.example:absent": {chap: {user: u, secret: absent}}
      "iqn.2026-11.org.example:mutual": {chap: {user: u, secret: good, mutual: {user: t, secret: absent}}}
      "iqn.2026-11.org.example:same": {chap: {user: u, secret: good, mutual: {user: t, secret: twin}}}
      "iqn.2026-11.org.example:long": {chap: {user: u, secret: long}}
      any: {chap: {user: u, secret: absent}}
`)
	h := fakeHost(map[string]string{
		"/state/good": "hunter2", "/state/twin": "hunter2", "/state/long": strings.Repeat("x", 256), "/state/mangled.psk": "hunter2",
	})
	d, ps := Resolve(c, h)
	const iqn = "target/iqn.2026-11.org.example:data: initiator "
	want := []string{
		`lun/other: pool "twin" is out of service: see its own problem`,
		"peer/up/absent: pre-shared key: /state/absent.psk: file does not exist",
		"peer/up/mangled: pre-shared key: /state/mangled.psk: not a key: write one with wg genpsk",
		"pool/bad: tell the kind of the pool: it is a riddle: write `kind:` to say it",
		`pool/twin: directory /state/pools/main/twin is, holds or lies in the one of pool "main": give each its own`,
		`port/lab/lost: look up tap user "nobody-known": unknown user`,
		iqn + "iqn.2026-11.org.example:absent: chap: /state/absent: file does not exist",
		iqn + "iqn.2026-11.org.example:long: chap: /state/long: the secret has 256 bytes: initiators take at most 255",
		iqn + "iqn.2026-11.org.example:mutual: mutual chap: /state/absent: file does not exist",
		iqn + "iqn.2026-11.org.example:same: chap: both directions have one secret: write another one into one of the files",
		iqn + "any: chap: /state/absent: file does not exist",
		"tunnel/down: private key: /state/bad.key: file does not exist",
	}
	if got := problems(ps); !slices.Equal(got, want) {
		t.Errorf("problems:\ngot  %s\nwant %s", strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
	target := d.ISCSI.Targets["iqn.2026-11.org.example:data"]
	left := []struct {
		name      string
		got, want any
	}{
		{"ports", byName(d.VSwitch.Switches["lab"].Ports), []string{"good", "number"}},
		{"named user", d.VSwitch.Switches["lab"].Ports["good"].User, "64055"},
		{"several queues", d.VSwitch.Switches["lab"].Ports["number"].MultiQueue, true},
		{"numeric user", d.VSwitch.Switches["lab"].Ports["number"].User, "1000"},
		{"tunnels", byName(d.VPN.Tunnels), []string{"up"}},
		{"peers", len(d.VPN.Tunnels["up"].Peers), 1},
		{"pools", byName(d.LUN.Pools), []string{"main", "said"}},
		{"luns", byName(d.LUN.LUNs), []string{"data"}},
		{"initiators", byName(target.Initiators), []string{"iqn.2026-11.org.example:free", "iqn.2026-11.org.example:good"}},
		{"any", target.Any, (*iscsi.Initiator)(nil)},
	}
	for _, l := range left {
		if !reflect.DeepEqual(l.got, l.want) {
			t.Errorf("%s: got %v, want %v", l.name, l.got, l.want)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %v", d, d, d, problems(ps)); strings.Contains(text, "hunter2") {
		t.Error("printing what is wanted shows a secret")
	}
}

// TestResolveTwice gives equal states of one file, and states that share
// nothing with the file.
func TestResolveTwice(t *testing.T) {
	data, err := configs.FS.ReadFile("vm-host.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, string(data))
	first, _ := Resolve(c, fakeHost(nil))
	second, _ := Resolve(c, fakeHost(nil))
	if !reflect.DeepEqual(first, second) {
		t.Error("two resolutions differ")
	}
	sw := first.VSwitch.Switches["vms"]
	sw.Gateways["tenant-a"].Addresses[0] = sw.Gateways["tenant-b"].Addresses[0]
	third, _ := Resolve(c, fakeHost(nil))
	if !reflect.DeepEqual(second, third) {
		t.Error("a change of the state changes the configuration")
	}
}

func TestADataplaneThatDoesNotWorkIsAProblem(t *testing.T) {
	c, _, err := config.Parse([]config.File{{Name: "a.yaml", Data: []byte(`
version: 1
vlans: {blue: {id: 10}}
switches:
  lab: {dataplane: bridge, ports: {web: {vlan: blue, netns: web}}}
  dmz: {ports: {db: {vlan: blue, netns: db}}}
`)}})
	if err != nil {
		t.Fatal(err)
	}
	h := fakeHost(nil)
	h.Works = func(d vswitch.Dataplane) error {
		if d == vswitch.Bridge {
			return errors.New("no VLAN filtering")
		}
		return nil
	}
	d, problems := Resolve(c, h)
	if len(problems) != 1 || problems[0].Object != "switch/lab" {
		t.Errorf("problems %v, want one of switch/lab", problems)
	}
	if _, ok := d.VSwitch.Switches["dmz"]; !ok || len(d.VSwitch.Switches) != 1 {
		t.Errorf("switches %v, want dmz alone", d.VSwitch.Switches)
	}
}

// TestTooManyPorts is a switch that its dataplane cannot carry: what auto means is
// known here only, and so are gateways.
func TestTooManyPorts(t *testing.T) {
	text := func(ports int) string {
		var b strings.Builder
		b.WriteString("version: 1\nvlans: {lan: {id: 10, gateway: 10.10.0.1/24}}\nswitches:\n  lab:\n    ports:\n")
		for i := range ports {
			fmt.Fprintf(&b, "      p%d: {vlan: lan, tap: {}}\n", i)
		}
		return b.String()
	}
	for _, c := range []struct {
		plane vswitch.Dataplane
		ports int
		want  []string
	}{
		{vswitch.Bridge, 1023, nil},
		{vswitch.Bridge, 1024, []string{"switch/lab: 1024 ports and 0 gateways are more than the 1023 of dataplane bridge: use `dataplane: ebpf`, which has 4095, or a second switch"}},
		{vswitch.EBPF, 4094, nil},
		{vswitch.EBPF, 4095, []string{"switch/lab: 4095 ports and 1 gateways are more than the 4095 of dataplane ebpf: use a second switch"}},
	} {
		h := fakeHost(nil)
		h.Dataplane = func(string) vswitch.Dataplane { return c.plane }
		if _, got := Resolve(parse(t, text(c.ports)), h); !slices.Equal(problems(got), c.want) {
			t.Errorf("%s, %d ports: %v, want %v", c.plane, c.ports, problems(got), c.want)
		}
	}
}

// TestResolveGuardsBlockedTunnels: what belongs into a tunnel leaves by no other way
// because a key cannot be read.
func TestResolveGuardsBlockedTunnels(t *testing.T) {
	d, ps := Resolve(parse(t, `version: 1
tunnels:
  down:
    private-key: bad.key
    address: 10.99.0.1/24
    peers:
      branch: {public-key: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=, allowed-ips: [10.50.0.0/16]}
  up:
    private-key: /keys/up.key
    peers:
      absent: {public-key: TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=, preshared-key: absent.psk, allowed-ips: [10.60.0.0/16]}
`), fakeHost(nil))
	if len(ps) != 2 {
		t.Errorf("problems %q", problems(ps))
	}
	if got := fmt.Sprint(d.VPN.Guarded()); got != "[10.50.0.0/16 10.60.0.0/16 10.99.0.0/24]" {
		t.Errorf("guarded is %s", got)
	}
	if got := byName(d.VPN.Tunnels); !slices.Equal(got, []string{"up"}) {
		t.Errorf("tunnels are %q", got)
	}
}

// TestResolveNextPresharedKey leaves a peer as it is whose next key has a pre-shared
// one that cannot be read: it may have gone over, and its former key is refused then.
func TestResolveNextPresharedKey(t *testing.T) {
	c := parse(t, `version: 1
tunnels:
  up: {private-key: /keys/up.key, peers: {laptop: {public-key: xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=}}}
`)
	p := c.Tunnels["up"].Peers["laptop"]
	p.Next, p.NextPSK = vpn.Key{9}, "absent.psk"
	c.Tunnels["up"].Peers["laptop"] = p
	d, ps := Resolve(c, fakeHost(nil))
	if got := problems(ps); !slices.Equal(got, []string{"peer/up/laptop: pre-shared key of its next key: /state/absent.psk: file does not exist"}) {
		t.Errorf("problems %q", got)
	}
	have := vpn.State{Tunnels: map[string]vpn.Tunnel{"up": d.VPN.Tunnels["up"]}, Clamped: d.VPN.Clamps()}
	up := have.Tunnels["up"]
	up.Peers = map[vpn.Key]vpn.Peer{p.Next: {Name: "laptop"}}
	have.Tunnels["up"] = up
	for _, s := range vpn.Diff(d.VPN, have) {
		if s.Object() != "peer/up/laptop" || !s.Removes() {
			t.Errorf("step %s of %s is not held back", s, s.Object())
		}
	}
}
