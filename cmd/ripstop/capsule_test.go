package main

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "ripstop/api/v1"
	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/vpn"
)

// TestPortsOfVerbsElsewhere: a NIC that a verb gave to a switch has another name, too, though no
// file knows it, and one that is not there is told before anything is made.
func TestPortsOfVerbsElsewhere(t *testing.T) {
	h := capsuleHost{Name: "one", Ports: []v1.NewPort{{Name: "a", Switch: "lab", Device: "eth1"}, {Name: "b", Switch: "lab", Device: "eth2"}, {Name: "c", Switch: "lab", Tap: true}}}
	was := h
	asked := map[string]string{"eth0": "eth1", "eth1": "eth2", "eth2": "no-nic-here"}
	e := h.here(config.Elsewhere{Devices: asked})
	if e.Host != "one" || !maps.Equal(e.Devices, map[string]string{"eth0": "eth1"}) || len(asked) != 3 {
		t.Errorf("in the files: %+v, of %v", e, asked)
	}
	if h.Ports[0].Device != "eth2" || h.Ports[1].Device != "no-nic-here" || h.Ports[2].Device != "" || was.Ports[0].Device != "eth1" {
		t.Errorf("ports %+v, of %+v", h.Ports, was.Ports)
	}
	o := opener{config: &config.Config{}, host: capsuleHost{Ports: h.Ports[1:]}}
	if err := o.devices(); err == nil || !strings.Contains(err.Error(), "port b of switch lab is interface no-nic-here, which this host has not") {
		t.Errorf("a NIC that is not there: %v", err)
	}
}

// TestSnapshotsOfBackups: what backups and exports make stays behind, and what anybody else
// called alike does not.
func TestSnapshotsOfBackups(t *testing.T) {
	drawn := strings.ToLower(rand.Text())
	for name, want := range map[string]bool{
		"backup-0123abcd-" + drawn[:8]: true, "export-" + drawn: true,
		"export-monday": false, "export-2": false, "backup-0123abcd-monday": false, "backup-monday": false, "monday": false,
	} {
		if ofBackups.MatchString(name) != want {
			t.Errorf("%s is left behind: %t", name, !want)
		}
	}
}

// TestMirrorsTakeNoSnapshots: a backup asks for none of a LUN in two pools, which would fail
// that of all others.
func TestMirrorsTakeNoSnapshots(t *testing.T) {
	m := maker{
		pools: []v1.Pool{{Name: "main", Kind: "thin"}, {Name: "second", Kind: "thin"}, {Name: "old", Kind: "raw"}},
		luns:  []v1.LUN{{Name: "a", Pool: "main"}, {Name: "b", Pool: "main", Legs: []v1.Leg{{Pool: "main"}, {Pool: "second"}}}, {Name: "c", Pool: "old"}},
	}
	for name, want := range map[string]string{"a": "main", "b": "", "c": "", "gone": ""} {
		if got := m.thinPool(name); got != want {
			t.Errorf("snapshots of LUN %s are asked of pool %q, want %q", name, got, want)
		}
	}
}

// TestSecretsOfACapsule: a secret is written as a whole into a file that only its owner
// reads, never in the place of another, and none that the host does not name.
func TestSecretsOfACapsule(t *testing.T) {
	state := t.TempDir()
	s := capsuleSecrets{"a.key": []byte("one"), "peers/b.psk": []byte("two")}
	wrote, err := putSecrets(state, s)
	if err != nil || !slices.Equal(wrote, []string{state + "/a.key", state + "/peers/b.psk"}) {
		t.Errorf("wrote %v, %v", wrote, err)
	}
	if wrote, err := putSecrets(state, s); err != nil || wrote != nil {
		t.Errorf("again: %v, %v", wrote, err)
	}
	if err := putSecret(state+"/a.key", []byte("other")); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over another: %v", err)
	}
	if wrote, err := putSecrets(state, capsuleSecrets{"a.key": []byte("other")}); err == nil || wrote != nil {
		t.Errorf("over another: %v, %v", wrote, err)
	}
	all, err := filepath.Glob(state + "/*")
	if hidden, _ := filepath.Glob(state + "/.*"); err != nil || len(all) != 2 || len(hidden) != 0 {
		t.Errorf("there are %v and %v, %v", all, hidden, err)
	}
	i, err := os.Stat(state + "/peers/b.psk")
	if p, _ := os.ReadFile(state + "/a.key"); err != nil || i.Mode() != 0o600 || string(p) != "one" {
		t.Errorf("%v, %q, %v", i.Mode(), p, err)
	}

	c, _, err := config.Parse([]config.File{{Name: "a.yaml", Data: []byte("version: 1\npools: {main: {path: x, size: 1GiB, encryption: {key: a.key}}}\n")}})
	if err != nil {
		t.Fatal(err)
	}
	h := capsuleHost{Peers: []capsulePeer{{Secret: "peers/b.psk"}}, LUNs: []capsuleLUN{{Encryption: &v1.LUNEncryption{Key: "c.key"}}}}
	if name, ok := (capsuleSecrets{"a.key": nil, "peers/b.psk": nil, "c.key": nil}).unasked(c, h); ok {
		t.Errorf("%s is one of them", name)
	}
	for _, name := range []string{"/etc/cron.d/x", "../x", ""} {
		if got, ok := (capsuleSecrets{"a.key": nil, name: nil}).unasked(c, h); !ok || got != name {
			t.Errorf("%q would be written: %q, %t", name, got, ok)
		}
	}
}

// TestPeersOfACapsule: a peer comes back with the pre-shared keys that it had, and with what
// it was going over to, or not at all.
func TestPeersOfACapsule(t *testing.T) {
	p := peerAsked("laptop", beside.Peer{Tunnel: "site", At: "vpn.example:51820", Peer: config.Peer{
		PublicKey: vpn.Key{1}, PresharedKey: "peers/laptop-01000000.psk", Next: vpn.Key{2}, NextPSK: "peers/laptop-02000000.psk",
		AllowedIPs: []netip.Prefix{netip.MustParsePrefix("10.99.0.3/32"), netip.MustParsePrefix("10.60.0.0/16")},
		Limited:    true, Reach: []netip.Prefix{netip.MustParsePrefix("10.10.0.0/24")},
	}})
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	var back capsulePeer
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	add, rotate, err := back.ask(capsuleSecrets{"peers/laptop-01000000.psk": []byte("one\n"), "peers/laptop-02000000.psk": []byte("two\n")})
	if err != nil || add.PresharedKey != "one" || add.PublicKey != (vpn.Key{1}).String() || add.Endpoint != "vpn.example:51820" || !slices.Equal(add.AllowedIPs, []string{"10.60.0.0/16"}) || !slices.Equal(add.Reach, []string{"10.10.0.0/24"}) || !slices.Equal(add.Addresses, []string{"10.99.0.3"}) {
		t.Errorf("it is made as %+v, %v", add, err)
	}
	if rotate != (v1.RotatePeer{Name: "laptop", PublicKey: (vpn.Key{2}).String(), PresharedKey: "two"}) {
		t.Errorf("it goes over to %+v", rotate)
	}
	if _, _, err := back.ask(capsuleSecrets{"peers/laptop-01000000.psk": []byte("one\n")}); err == nil || !strings.Contains(err.Error(), "peers/laptop-02000000.psk") {
		t.Errorf("without a key: %v", err)
	}
	plain := peerAsked("phone", beside.Peer{Tunnel: "site", Peer: config.Peer{PublicKey: vpn.Key{3}}})
	if add, rotate, err := plain.ask(nil); err != nil || add.PresharedKey != "" || rotate.PublicKey != "" || add.Endpoint == "" {
		t.Errorf("without pre-shared keys: %+v, %+v, %v", add, rotate, err)
	}
}

// TestARestoreIsOfOneCapsule: what another capsule left, or a verb made, is not taken for
// LUNs that this one has brought.
func TestARestoreIsOfOneCapsule(t *testing.T) {
	c, _, err := config.Parse([]config.File{{Name: "a.yaml", Data: []byte("version: 1\npools: {main: {path: pools/main, size: 1GiB}}\n")}})
	if err != nil {
		t.Fatal(err)
	}
	kinds := []capsulePool{{"main", "thin"}}
	one, err := poolsAlone("one", c, kinds)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := poolsAlone("one", c, kinds); err != nil || !slices.Equal(one, again) {
		t.Errorf("the same capsule: %v, %v", again, err)
	}
	if two, err := poolsAlone("two", c, kinds); err != nil || slices.Equal(one, two) {
		t.Errorf("another capsule goes on with it: %v, %v", two, err)
	}

	state := t.TempDir()
	o := opener{state: state, config: c, host: capsuleHost{LUNs: []capsuleLUN{{Name: "data", Pool: "main"}}}}
	made := beside.Objects{}.WithLUN("other", config.LUN{Pool: "main", Size: 4096, Block: 4096})
	for _, tt := range []struct {
		made beside.Objects
		want string
	}{
		{beside.Objects{}, ""},
		{made, ""},
		{made.WithLUN("data", config.LUN{Pool: "main", Size: 4096, Block: 4096}), "LUN data is there"},
		{made.WithLUN("data", config.LUN{Pool: "main", Size: 4096, Block: 4096}).Begun("data", "main"), ""},
	} {
		if err := beside.Open(state + "/verbs").Save(tt.made); err != nil {
			t.Fatal(err)
		}
		if err := o.noOther(nil); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want %q", tt.made.LUNs, err, tt.want)
		}
	}

	// What runs is not taken out of service for a restore that its data are in the way of.
	if err := beside.Open(state + "/verbs").Save(beside.Objects{}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ lun, path, want string }{
		{"data", "pools/main", "LUN data is there"},
		{"data", "pools/elsewhere", ""},
		{"mine", "pools/main", ""},
	} {
		runs := &config.Config{Pools: map[string]config.Pool{"p": {Path: tt.path}}, LUNs: map[string]config.LUN{tt.lun: {Pool: "p"}}}
		if err := o.noOther(runs); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s in %s: %v, want %q", tt.lun, tt.path, err, tt.want)
		}
	}
}

// TestPoolsOfOthers: a restore takes a pool that is empty or has what it brought itself, and
// no other, also when it goes on.
func TestPoolsOfOthers(t *testing.T) {
	made := beside.Objects{}.WithLUN("data", config.LUN{Pool: "main"}).Begun("db", "main")
	host := capsuleHost{LUNs: []capsuleLUN{{Name: "data", Pool: "main"}, {Name: "db", Pool: "main"}, {Name: "late", Pool: "main"}}}
	data, db := v1.LUN{Name: "data", Pool: "main", Used: 4096, Origin: v1.FromVerb}, v1.LUN{Name: "db", Pool: "main", Used: 4096, Origin: v1.Retained}
	other, late := v1.LUN{Name: "mine", Pool: "main", Used: 4096, Origin: v1.Retained}, v1.LUN{Name: "late", Pool: "main", Used: 4096, Origin: v1.Retained}
	elsewhere := v1.LUN{Name: "data", Pool: "second", Used: 4096, Origin: v1.FromVerb}
	for _, tt := range []struct {
		resumed bool
		used    int64
		luns    []v1.LUN
		mine    bool
		others  bool
	}{
		{false, 0, nil, false, false},
		{false, 4096, nil, false, true},
		{false, 4096, []v1.LUN{other}, false, true},
		{true, 0, nil, false, false},
		{true, 4096, nil, false, false}, // space that is given back yet
		{true, 8192, []v1.LUN{data, db}, true, false},
		{true, 8192, []v1.LUN{data, other}, true, true},
		{true, 4096, []v1.LUN{other}, false, true},
		{true, 4096, []v1.LUN{late}, false, true}, // of its name, and nobody's note says that it was brought
		{true, 0, []v1.LUN{elsewhere}, false, false},
	} {
		o := opener{resumed: tt.resumed, host: host}
		mine, others := o.dataIn(v1.Pool{Name: "main", Used: tt.used}, tt.luns, made)
		if mine != tt.mine || others != tt.others {
			t.Errorf("%+v: %t, %t", tt, mine, others)
		}
	}
}

// TestCapsuleOfAnOldFile: what a later version refuses and runs on here can be saved.
func TestCapsuleOfAnOldFile(t *testing.T) {
	old := []v1.File{{Name: "old.yaml", Data: "version: 1\nvlans: {a: {id: 1, gateway: 10.0.0.1/8}, b: {id: 2, gateway: 10.1.0.1/16}}\n" +
		"switches: {lab: {ports: {p: {vlan: a, tap: {}}, q: {vlan: b, tap: {}}}}}\n"}}
	about, err := json.Marshal(capsuleHost{Revision: 1, Files: old})
	if err != nil {
		t.Fatal(err)
	}
	if _, c, err := parseCapsuleHost(about); err != nil || len(c.VLANs) != 2 {
		t.Errorf("%v, %v", c, err)
	}
}
