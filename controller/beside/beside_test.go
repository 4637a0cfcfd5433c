package beside

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ripstop/controller/config"
	"ripstop/internal/keep"
	"ripstop/vpn"
	"ripstop/vswitch"
)

var prefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestSavedObjectsComeBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "verbs")
	if o, err := Open(dir).Load(); err != nil || len(o.LUNs) != 0 {
		t.Fatalf("nothing was saved: %v, %v", o, err)
	}
	want := Objects{}.WithLUN("scratch", config.LUN{Pool: "main", Size: 1 << 40, Block: 512, Encryption: &config.Encryption{}}).
		WithLUN("own", config.LUN{Pool: "main", Size: 4096, Block: 4096, Encryption: &config.Encryption{Key: "a.key", Former: "b.key"}}).WithLUN("b", config.LUN{Pool: "main", Size: 4096, Block: 4096}).
		WithMove("data", Move{From: "main", To: "fast", Phase: Undoing}).WithMove("b", Move{From: "main", To: "fast", Phase: Copying}).WithMove("gone", Move{}).WithoutMove("gone").
		Moved("b", &config.Config{LUNs: map[string]config.LUN{"b": {Pool: "main"}}}, [16]byte{7, 8}).
		WithPeer("laptop", Peer{"site", "vpn.example:51820", config.Peer{PublicKey: vpn.Key{7}, PresharedKey: "peers/laptop.psk", Next: vpn.Key{8}, NextPSK: "peers/next.psk", AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.99.0.3/32")}, Keepalive: 25 * time.Second, Limited: true, Reach: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/24")}}}).
		WithPeer("gone", Peer{}).WithoutPeer("gone").
		WithHost("c", config.Joined{PublicKey: vpn.Key{9}, Endpoint: "c.example:51820"}).WithHost("gone", config.Joined{}).WithoutHost("gone").
		Begun("b", "main").Begun("scratch@x", "main").Begun("gone", "main").Finished("gone").
		WithPort("vm7", Port{"lab", config.Port{Kind: vswitch.Tap, VLAN: "blue", TapUser: "qemu", MultiQueue: true}}).
		WithPort("c1", Port{"lab", config.Port{Kind: vswitch.Veth, VLAN: "red", Netns: "c1", IfName: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.2/24")}}})
	if err := Open(dir).Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := Open(dir).Load()
	if d := cmp.Diff(want, got, prefixes); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	if got = got.WithoutLUN("b"); len(got.LUNs) != 2 || len(want.LUNs) != 3 {
		t.Errorf("without b: %v, of %v", got, want)
	}
}

// TestOlderRecordsAreNotEncrypted: LUNs of records that say nothing of it stay plain,
// whatever their pool says.
func TestOlderRecordsAreNotEncrypted(t *testing.T) {
	dir := t.TempDir()
	if err := keep.New(dir).Save(name, []byte(`{"format":1,"luns":{"a":{"pool":"main","size":4096,"block":4096}},"ports":{}}`)); err != nil {
		t.Fatal(err)
	}
	o, err := Open(dir).Load()
	if e := o.LUNs["a"].Encryption; err != nil || e == nil || *e != (config.Encryption{}) {
		t.Errorf("%v, %v", e, err)
	}
}

func TestARecordThatCannotBeReadIsNotNothing(t *testing.T) {
	for _, tt := range []struct{ name, record, want string }{
		{"newer", `{"format":2}`, "run a newer ripstop"},
		{"newer with new fields", `{"format":2,"taps":{}}`, "run a newer ripstop"},
		{"not JSON", `{"luns"`, "put back a copy"},
		{"a move of another phase", `{"format":1,"moves":{"a":{"from":"x","to":"y","phase":"flying"}}}`, "put back a copy"},
		{"a move of no LUN", `{"format":1,"moves":{"a":{"from":"x","to":"y","phase":"done","id":"77"}}}`, "put back a copy"},
		{"unknown", `{"format":1,"luns":{},"x":1}`, "put back a copy"},
		{"more", `{"format":1} {}`, "put back a copy"},
	} {
		dir := t.TempDir()
		if err := keep.New(dir).Save(name, []byte(tt.record)); err != nil {
			t.Fatal(err)
		}
		if o, err := Open(dir).Load(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v, want %q", tt.name, o, err, tt.want)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir).Load(); err == nil {
		t.Error("a file without its checksum was read")
	}
}

func TestTheFileComesFirst(t *testing.T) {
	file := &config.Config{LUNs: map[string]config.LUN{"data": {Pool: "main", Size: 2}}}
	o := Objects{}.WithLUN("data", config.LUN{Pool: "main", Size: 1}).WithLUN("scratch", config.LUN{Pool: "main", Size: 3})
	want := map[string]config.LUN{"data": {Pool: "main", Size: 2}, "scratch": {Pool: "main", Size: 3}}
	all, missing := o.Merge(file)
	if d := cmp.Diff(want, all.LUNs); d != "" || missing != nil {
		t.Error(d, missing)
	}
	if len(file.LUNs) != 1 {
		t.Error("Merge changed the file's configuration")
	}
	rest, changed := o.Adopt(file)
	if _, ok := rest.LUNs["scratch"]; !ok || !changed || len(rest.LUNs) != 1 {
		t.Errorf("after adoption: %v, %v", rest, changed)
	}
	if _, changed = rest.Adopt(file); changed {
		t.Error("adopted twice")
	}
	if m, _ := (Objects{}).Merge(&config.Config{}); m.LUNs == nil || m.Switches == nil {
		t.Error("maps are never nil")
	}
}

// TestPortsFollowTheirSwitch: what the file still has room for is attached, and
// what has lost its place says why.
func TestPortsFollowTheirSwitch(t *testing.T) {
	file := &config.Config{
		VLANs:    map[string]config.VLAN{"blue": {ID: 10}},
		Switches: map[string]config.Switch{"lab": {Ports: map[string]config.Port{"web": {Kind: vswitch.Tap, VLAN: "blue"}}}},
	}
	tap := config.Port{Kind: vswitch.Tap, VLAN: "blue"}
	o := Objects{}.WithPort("vm7", Port{"lab", tap}).WithPort("web", Port{"lab", tap}).
		WithPort("gone", Port{"lba", tap}).WithPort("red", Port{"lab", config.Port{Kind: vswitch.Tap, VLAN: "red"}})
	all, missing := o.Merge(file)
	if len(all.Switches["lab"].Ports) != 2 || len(file.Switches["lab"].Ports) != 1 {
		t.Errorf("ports %v, of the file %v", all.Switches["lab"].Ports, file.Switches["lab"].Ports)
	}
	if len(missing) != 2 || missing[0].Object != "port/lba/gone" || missing[1].Object != "port/lab/red" {
		t.Fatalf("missing %v", missing)
	}
	want := "a verb attached it, and there is no switch \"lba\": did you mean \"lab\"?: put that right, or run `ripstop port detach gone`"
	if got := missing[0].Err.Error(); got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
	rest, changed := o.Adopt(file)
	if _, ok := rest.Ports["web"]; ok || !changed || len(rest.WithoutPort("vm7").Ports) != 2 {
		t.Errorf("after adoption %v", rest)
	}
}

// TestMovedLUNs: a LUN is where a verb moved it for as long as the file says what it
// said, and until it says the new pool.
func TestMovedLUNs(t *testing.T) {
	file := func(pool string) *config.Config {
		return &config.Config{LUNs: map[string]config.LUN{"data": {Pool: pool, Size: 4096}}}
	}
	o := Objects{}.WithMove("data", Move{From: "main", To: "fast", Phase: Copying})
	pool := func(c *config.Config) string {
		all, missing := o.Merge(c)
		if len(missing) > 0 {
			t.Errorf("missing: %v", missing)
		}
		return all.LUNs["data"].Pool
	}
	if p := pool(file("main")); p != "main" {
		t.Errorf("it is in %s before it is moved", p)
	}
	o = o.Moved("data", file("main"), [16]byte{1})
	for said, is := range map[string]string{"main": "fast", "fast": "fast", "third": "third"} {
		if p := pool(file(said)); p != is {
			t.Errorf("the file says %s and it is in %s", said, p)
		}
	}
	if s := o.Stale(file("main")); s["data"].Is != "fast" || len(o.Stale(file("fast"))) != 0 {
		t.Errorf("the file does not know of %v", s)
	}
	if rest, changed := o.Adopt(file("main")); changed || rest.Moves["data"].Phase != Done {
		t.Errorf("%+v is given up for the same file", o)
	}
	rest, changed := o.Adopt(file("fast"))
	if !changed || len(rest.Places) != 0 || len(rest.Moves) != 1 {
		t.Errorf("of %+v there is %+v", o, rest)
	}
	// On, with the file as it was, and back.
	o = o.WithMove("data", Move{From: "fast", To: "slow"}).Moved("data", file("main"), [16]byte{1})
	if p := pool(file("main")); p != "slow" {
		t.Errorf("it is in %s", p)
	}
	o = o.WithMove("data", Move{From: "slow", To: "main"}).Moved("data", file("main"), [16]byte{1})
	if p := pool(file("main")); p != "main" || len(o.Places) != 0 {
		t.Errorf("it is in %s, %v", p, o.Places)
	}
	o = o.WithMove("data", Move{From: "main", To: "fast"}).Moved("data", file("main"), [16]byte{1}).Forget("data")
	if p := pool(file("main")); p != "main" {
		t.Errorf("a new one is in %s", p)
	}
	// One that a verb made is where it is.
	o = Objects{}.WithLUN("data", config.LUN{Pool: "main"}).WithMove("data", Move{To: "fast"}).Moved("data", &config.Config{}, [16]byte{1})
	if p := pool(&config.Config{}); p != "fast" || len(o.Places) != 0 {
		t.Errorf("it is in %s, %v", p, o.Places)
	}
}

// TestPeersBesideTheFile: a peer joins its tunnel, gives way to the file's of its
// name, and says what is missing where it fits no more.
func TestPeersBesideTheFile(t *testing.T) {
	file := &config.Config{Tunnels: map[string]config.Tunnel{"site": {Peers: map[string]config.Peer{"branch": {PublicKey: vpn.Key{1}}}}}}
	o := Objects{}.WithPeer("laptop", Peer{"site", "", config.Peer{PublicKey: vpn.Key{2}}}).WithPeer("branch", Peer{"site", "", config.Peer{PublicKey: vpn.Key{3}}})
	all, missing := o.Merge(file)
	if peers := all.Tunnels["site"].Peers; len(missing) != 0 || len(peers) != 2 || peers["laptop"].PublicKey != (vpn.Key{2}) || peers["branch"].PublicKey != (vpn.Key{1}) {
		t.Errorf("%v, missing %v", peers, missing)
	}
	if len(file.Tunnels["site"].Peers) != 1 {
		t.Error("the file was changed")
	}
	rest, changed := o.Adopt(file)
	if _, kept := rest.Peers["laptop"]; !changed || !kept || len(rest.Peers) != 1 {
		t.Errorf("adopted: %v, changed %v", rest.Peers, changed)
	}
	_, missing = rest.WithPeer("thief", Peer{"site", "", config.Peer{PublicKey: vpn.Key{2}}}).Merge(file)
	if len(missing) != 1 || missing[0].Object != "peer/site/thief" || !strings.Contains(missing[0].Err.Error(), "ripstop peer remove thief") {
		t.Errorf("missing %v", missing)
	}
	_, missing = rest.Merge(&config.Config{})
	if len(missing) != 1 || !strings.Contains(missing[0].Err.Error(), `there is no tunnel "site"`) {
		t.Errorf("missing %v", missing)
	}
}

// TestHostsBesideTheFile: a host that joined is a peer as if the file had its key, until
// the file has one, or has no such host any more.
func TestHostsBesideTheFile(t *testing.T) {
	file := func(c string) *config.Config {
		key := vpn.Key{1}.String()
		text := "version: 1\nhosts:\n  a: {endpoint: 'a.example:1', public-key: " + key + ", address: 10.99.0.1/24}\n" + c +
			"tunnels:\n  mesh: {listen: 1, private-key: k, mesh: full}\n"
		cfg, _, err := config.ParseFor([]config.File{{Name: "f.yaml", Data: []byte(text)}}, "a")
		if err != nil {
			t.Fatal(err)
		}
		return cfg
	}
	open := file("  c: {address: 10.99.0.2/24, subnets: 10.50.0.0/16}\n")
	o := Objects{}.WithHost("c", config.Joined{PublicKey: vpn.Key{2}, Endpoint: "c.example:1"}).
		WithPeer("laptop", Peer{"mesh", "", config.Peer{PublicKey: vpn.Key{3}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.50.0.1/32")}}})
	all, missing := o.Merge(open)
	if p := all.Tunnels["mesh"].Peers["c"]; p.PublicKey != (vpn.Key{2}) || p.Endpoint != "c.example:1" || len(p.AllowedIPs) != 2 {
		t.Errorf("peer %+v", p)
	}
	if len(missing) != 1 || missing[0].Object != "peer/mesh/laptop" {
		t.Errorf("missing %v", missing)
	}
	if len(open.Tunnels["mesh"].Peers) != 0 || open.Hosts["c"].PublicKey != (vpn.Key{}) {
		t.Error("the file was changed")
	}
	if _, changed := o.Adopt(open); changed {
		t.Error("the same file adopts it")
	}
	for what, c := range map[string]*config.Config{"its key": file("  c: {address: 10.99.0.2/24, public-key: " + vpn.Key{4}.String() + "}\n"), "no c": file(""), "no hosts": {}} {
		all, _ := o.Merge(c)
		if p := all.Tunnels["mesh"].Peers["c"]; p.PublicKey == (vpn.Key{2}) {
			t.Errorf("%s: the key from the token holds", what)
		}
		if rest, changed := o.Adopt(c); !changed || len(rest.Hosts) != 0 {
			t.Errorf("%s: kept %v", what, rest.Hosts)
		}
	}
	_, missing = o.WithHost("c", config.Joined{PublicKey: vpn.Key{1}}).Merge(open)
	if len(missing) == 0 || missing[0].Object != "host/c" || !strings.Contains(missing[0].Err.Error(), "ripstop host revoke c") {
		t.Errorf("missing %v", missing)
	}
}
