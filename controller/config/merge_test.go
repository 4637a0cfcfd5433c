package config

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"ripstop/vswitch"
)

// TestMerge parses several files as one, in either order.
func TestMerge(t *testing.T) {
	const (
		nets  = "version: 1\nvlans: {blue: {id: 10}}\n"
		ports = "switches: {lab: {ports: {web: {vlan: blue, netns: web}}}}\n"
	)
	tests := []struct {
		name  string
		files []File
		want  string // the error, "" for none
	}{
		{"none", nil, ""},
		{"two", []File{{"a", []byte(nets)}, {"b", []byte(ports)}}, ""},
		{"two, turned", []File{{"b", []byte(ports)}, {"a", []byte(nets)}}, ""},
		{"comments only", []File{{"a", []byte(nets)}, {"b", []byte("# nothing\n")}}, ""},
		{"empty", []File{{"a", []byte(nets)}, {"b", nil}}, ""},
		{"no version", []File{{"b", []byte("vlans: {}")}}, "b:1:1: version is missing: write version: 1"},
		{"version twice", []File{{"a", []byte(nets)}, {"b", []byte("version: 1")}}, ""},
		{"other version", []File{{"a", []byte(nets)}, {"b", []byte("version: 3")}},
			`b:1:10: version: "3" is not a version that this ripstop reads: write 1`},
		{"same name", []File{{"a", []byte(nets)}, {"b", []byte("\nvlans: {blue: {id: 11}}")}},
			"b:2:9: vlans.blue: is given twice: the first is at a:2:9"},
		{"bgp twice", []File{{"a", []byte(nets + "bgp: {asn: 1}\n")}, {"b", []byte("bgp: {asn: 1}")}},
			"a:3:1: bgp: router-id is missing, and no gateway and no tunnel has an IPv4 address that could be it: write one\n" +
				"b:1:1: bgp: is given twice, in two files"},
		{"unreadable file hides names", []File{{"a", []byte("vlans: {blue: {id: 10}")}, {"b", []byte(ports)}},
			"a:1:23: did not find expected ',' or '}' (while parsing a flow mapping that begins at line 1)"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, _, err := Parse(tt.files)
			got := ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want || (c == nil) != (err != nil) {
				t.Errorf("got config %v and %q\nwant %q", c, got, tt.want)
			}
		})
	}
}

// TestConfig reads one object of each kind and compares all of it.
func TestConfig(t *testing.T) {
	data, err := os.ReadFile("../../configs/reference.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, _, faults := parseString(t, string(data))
	if faults != nil {
		t.Fatal(faults)
	}
	p := netip.MustParsePrefix
	peer := c.Tunnels["site"].Peers["branch"]
	tests := []struct {
		name      string
		got, want any
	}{
		{"vlan", c.VLANs["blue"], VLAN{ID: 10, Gateways: []netip.Prefix{p("10.10.0.1/24"), p("fd00:10::1/64")}, Switch: "lab"}},
		{"vlan without gateway", c.VLANs["red"], VLAN{ID: 20}},
		{"served by the only one", c.VLANs["san"].Switch, "lab"},
		{"dataplane", c.Switches["lab"].Dataplane, vswitch.Auto},
		{"veth", c.Switches["lab"].Ports["web"], Port{
			Kind: vswitch.Veth, Netns: "web", IfName: "eth0", VLAN: "blue", MTU: 1500, Isolated: true,
			Addresses: []netip.Prefix{p("10.10.0.2/24"), p("fd00:10::2/64")}, MAC: vswitch.MAC{2, 0, 0x5e, 0, 0x53, 1},
			Security: vswitch.Security{
				AllowedMACs: []vswitch.MAC{{2, 0, 0x5e, 0, 0x53, 1}}, AllowedIPs: []netip.Prefix{p("10.10.0.2/32"), p("fd00:10::2/128")},
				MACLimit: 16, Storm: vswitch.Storm{Broadcast: 200, Multicast: 500, UnknownUnicast: 200}, BPDUGuard: true, LoopDetection: true},
			Limit: vswitch.Limit{Send: 1e8, Receive: 1e9, Burst: vswitch.DefaultBurst}, Groups: []string{"web"}}},
		{"tap", c.Switches["lab"].Ports["vm1"], Port{Kind: vswitch.Tap, TapUser: "root", MultiQueue: true, VLAN: "blue"}},
		{"groups of a port", c.Switches["lab"].Ports["web"].Groups, []string{"web"}},
		{"group", c.Groups["web"], Group{Log: true, Rules: []Rule{
			{Direction: vswitch.In, Protocol: 6, Services: []Range{{80, 80}, {443, 443}, {8000, 8100}}},
			{Direction: vswitch.In, Protocol: 1, Services: []Range{{8 << 8, 8<<8 | 255}, {3<<8 | 4, 3<<8 | 4}}},
			{Direction: vswitch.Out, Protocol: 6, Services: []Range{{5432, 5432}}, Groups: []string{"web"}, VLANs: []string{"blue"}},
			{Deny: true, Direction: vswitch.In, Protocol: vswitch.AnyProtocol, CIDRs: []netip.Prefix{p("10.10.0.66/32"), p("fd00:10::66/128")}},
		}}},
		{"device", c.Switches["lab"].Ports["up"], Port{Kind: vswitch.Device, Device: "eth1", Trunk: []string{"blue", "san"}, Native: "red", Security: vswitch.Security{Trusted: true}}},
		{"tunnel port", c.Tunnels["site"].Listen, uint16(51820)},
		{"tunnel mtu", c.Tunnels["site"].MTU, 1420},
		{"private key", c.Tunnels["site"].PrivateKey, "site.key"},
		{"allowed ips", peer.AllowedIPs, []netip.Prefix{p("10.50.0.0/16"), p("10.99.0.2/32"), p("fd00:99::2/128")}},
		{"keepalive", peer.Keepalive, 25 * time.Second},
		{"preshared key", peer.PresharedKey, "branch.psk"},
		{"endpoint", peer.Endpoint, "192.0.2.7:51820"},
		{"pool", c.Pools["main"], Pool{Kind: "thin", Path: "pools/main", Size: 10 << 30, Overcommit: 4}},
		{"lun", c.LUNs["data"], LUN{Pool: "main", Size: 2 << 30, Block: 4096, Thick: true, Encryption: &Encryption{"data.key", "old.key"}, Snapshots: Schedule{time.Hour, 24}, QoS: QoS{
			Limit: Rate{5000, 200 << 20}, Burst: 10 * time.Second, Reservation: Rate{IOPS: 500}, Shares: 200}}},
		{"small blocks", c.LUNs["logs"], LUN{Pool: "main", Size: 1 << 30, Block: 512}},
		{"target", c.Targets["iqn.2026-11.org.example:data"], Target{
			Portals: []Portal{{VLAN: "san", Port: 3260}, {Tunnel: "site", Port: 3261}, {Address: netip.MustParseAddrPort("127.0.0.1:3260")}},
			LUNs:    map[uint16]string{0: "data", 1: "logs"},
			Initiators: map[string]Initiator{"iqn.1993-08.org.debian:01:web": {
				CHAP: &CHAP{"web", "web.secret"}, Mutual: &CHAP{"target", "target.secret"}, LUNs: []uint16{0}}},
			Any: &Initiator{CHAP: &CHAP{"guest", "guest.secret"}, LUNs: []uint16{1}},
		}},
	}
	for _, tt := range tests {
		if !reflect.DeepEqual(tt.got, tt.want) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", tt.name, tt.got, tt.want)
		}
	}
}

func TestErrorsAs(t *testing.T) {
	_, _, err := Parse([]File{{"t.yaml", []byte("version: 1\nvlan: {}\n")}})
	var one Error
	if !errors.As(err, &one) || one.Line != 2 || one.Column != 1 || one.File != "t.yaml" {
		t.Errorf("got %#v of %v", one, err)
	}
}

func TestManyFaultsEnd(t *testing.T) {
	_, _, faults := parseString(t, "version: 1\n"+strings.Repeat("x: 1\n", maxFaults+7))
	last := faults[len(faults)-1]
	if len(faults) != maxFaults+1 || last.Message != "7 more faults are not shown" {
		t.Errorf("got %d faults, the last %v", len(faults), last)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for _, n := range []string{"b.yaml", "a.yaml", ".hidden.yaml", "note.txt", "sub.yaml/x.yaml"} {
		name := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("# "+n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	files, err := Load([]string{dir, filepath.Join(dir, "note.txt")})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, filepath.Base(f.Name)+" "+string(f.Data))
	}
	want := []string{"a.yaml # a.yaml", "b.yaml # b.yaml", "note.txt # note.txt"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, bad := range [][]string{nil, {filepath.Join(dir, "none.yaml")}, {t.TempDir()}} {
		if _, err := Load(bad); err == nil {
			t.Errorf("%v is loaded", bad)
		}
	}
}

func TestLoadStopsAtLimit(t *testing.T) {
	name := filepath.Join(t.TempDir(), "big.yaml")
	if err := os.WriteFile(name, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, 1<<40); err != nil {
		t.Fatal(err)
	}
	files, err := Load([]string{name})
	if err != nil || len(files[0].Data) != maxFile+1 {
		t.Errorf("got %d bytes, %v, want %d", len(files[0].Data), err, maxFile+1)
	}
}

func TestLoadOfAPipeWithoutWriterEnds(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	files, err := Load([]string{pipe})
	if err != nil || len(files[0].Data) != 0 {
		t.Errorf("Load(%s) = %v, %v; want one empty file", pipe, files, err)
	}
}
