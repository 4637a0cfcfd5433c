package config

import (
	"net/netip"
	"strings"
	"testing"

	"ripstop/vpn"
)

// site is a tunnel with a branch that has a network, and one peer that takes all.
func site() *Config {
	p := netip.MustParsePrefix
	return &Config{Tunnels: map[string]Tunnel{"site": {
		Addresses: []netip.Prefix{p("10.99.0.1/24"), p("fd99::1/64")},
		Peers: map[string]Peer{
			"branch": {PublicKey: vpn.Key{1}, AllowedIPs: []netip.Prefix{p("10.50.0.0/16"), p("10.99.0.2/32"), p("fd99::2/128")}},
			"all":    {PublicKey: vpn.Key{2}, AllowedIPs: []netip.Prefix{p("0.0.0.0/0"), p("10.99.0.0/24")}},
		},
	}}}
}

func TestCheckPeer(t *testing.T) {
	for _, tt := range []struct {
		name, tunnel, peer string
		key                byte
		ip                 string
		want               string // "" fits
	}{
		{"fits", "site", "laptop", 3, "10.99.0.3/32", ""},
		{"a network of its own", "site", "laptop", 3, "10.60.0.0/16", ""},
		{"a network around the branch's", "site", "laptop", 3, "10.48.0.0/12", ""},
		{"name", "site", "-x", 3, "10.99.0.3/32", "names begin with a letter"},
		{"tunnel", "sita", "laptop", 3, "10.99.0.3/32", `there is no tunnel "sita": did you mean "site"?`},
		{"taken name", "site", "branch", 3, "10.99.0.3/32", "has a peer of this name"},
		{"key of another", "site", "laptop", 1, "10.99.0.3/32", `peer "branch" of tunnel "site" has the same public key`},
		{"address of another", "site", "laptop", 3, "10.99.0.2/32", `10.99.0.2/32 is taken: peer "branch" has it`},
		{"address of the tunnel", "site", "laptop", 3, "10.99.0.1/32", "10.99.0.1 is taken: the tunnel itself has it"},
		{"within another's", "site", "laptop", 3, "10.50.3.0/24", `10.50.3.0/24 lies in 10.50.0.0/16, which peer "branch" has`},
	} {
		err := CheckPeer(site(), tt.tunnel, tt.peer, Peer{PublicKey: vpn.Key{tt.key}, AllowedIPs: []netip.Prefix{netip.MustParsePrefix(tt.ip)}})
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestFreeAddresses(t *testing.T) {
	tunnel := site().Tunnels["site"]
	for _, want := range []string{"10.99.0.3/32 fd99::3/128", "10.99.0.4/32 fd99::4/128"} {
		free, err := FreeAddresses(tunnel)
		if err != nil || len(free) != 2 || free[0].String()+" "+free[1].String() != want {
			t.Fatalf("%v, %v, want %s", free, err, want)
		}
		tunnel.Peers[want] = Peer{PublicKey: vpn.Key{9}, AllowedIPs: free}
	}
	p := netip.MustParsePrefix
	for _, tt := range []struct {
		name  string
		own   string
		taken []string
		want  string // "" is none
	}{
		{"a block is passed over", "10.0.0.250/24", []string{"10.0.0.0/26", "10.0.0.64/30"}, "10.0.0.68/32"},
		{"the second of two in one network", "10.0.0.2/24", nil, "10.0.0.1/32"},
		{"the last one that is free", "10.0.0.1/29", []string{"10.0.0.2/31", "10.0.0.4/31"}, "10.0.0.6/32"},
		{"no broadcast address", "10.0.0.1/29", []string{"10.0.0.2/31", "10.0.0.4/31", "10.0.0.6/32"}, ""},
		{"one address is no network", "10.0.0.1/32", nil, ""},
		{"IPv6 has none", "fd00::1/127", nil, ""},
		{"the end of all addresses", "255.255.255.253/30", []string{"255.255.255.254/32"}, ""},
		{"link-local", "fe80::1/64", nil, ""},
	} {
		tunnel := Tunnel{Addresses: []netip.Prefix{p(tt.own)}, Peers: map[string]Peer{}}
		for _, ip := range tt.taken {
			tunnel.Peers[ip] = Peer{AllowedIPs: []netip.Prefix{p(ip)}}
		}
		free, err := FreeAddresses(tunnel)
		switch {
		case tt.want == "" && err == nil, tt.want != "" && (err != nil || len(free) != 1 || free[0].String() != tt.want):
			t.Errorf("%s: %v, %v, want %q", tt.name, free, err, tt.want)
		}
	}
}

// TestNextPublicKey: a next key is a peer's or a host's, and nobody else's.
func TestNextPublicKey(t *testing.T) {
	const a, b, c = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "AwAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	peers := func(next string) string {
		return "version: 1\ntunnels:\n  site:\n    private-key: k\n    peers:\n      x: {public-key: " + a + "}\n      y: {public-key: " + b + ", next-public-key: " + next + "}\n"
	}
	hosts := func(next string) string {
		return "version: 1\nhosts:\n  x: {public-key: " + a + ", endpoint: vpn.example:5, address: 10.99.0.1/24}\n  y: {public-key: " + b + ", next-public-key: " + next +
			", address: 10.99.0.2/24}\ntunnels:\n  mesh: {listen: 5, private-key: k, mesh: full}\n"
	}
	for _, text := range []string{peers(a), peers(b), hosts(a), hosts(b)} {
		if _, _, err := ParseFor([]File{{Name: "f.yaml", Data: []byte(text)}}, "x"); err == nil || !strings.Contains(err.Error(), "next-public-key: a public key is given twice: the other is ") {
			t.Errorf("%v of\n%s", err, text)
		}
	}
	for _, text := range []string{peers(c), hosts(c)} {
		got, _, err := ParseFor([]File{{Name: "f.yaml", Data: []byte(text)}}, "x")
		if err != nil {
			t.Fatal(err)
		}
		for _, tunnel := range got.Tunnels {
			if next := tunnel.Peers["y"].Next; next != (vpn.Key{3}) {
				t.Errorf("next key %s of\n%s", next, text)
			}
		}
	}
	self, _, err := ParseFor([]File{{Name: "f.yaml", Data: []byte(hosts(c))}}, "y")
	if err != nil || self.Tunnels["mesh"].Next != (vpn.Key{3}) {
		t.Errorf("%v, %+v", err, self)
	}
}
