package main

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ripstop/controller/config"
	"ripstop/internal/link"
	"ripstop/internal/reconcile"
	"ripstop/vpn"
	"ripstop/vswitch"
)

// TestCutOff has a host that is reached by a gateway, an uplink and a tunnel lose them one
// by one.
func TestCutOff(t *testing.T) {
	nets := func(all ...string) (out []netip.Prefix) {
		for _, s := range all {
			out = append(out, netip.MustParsePrefix(s))
		}
		return out
	}
	b, c := vpn.Key{1}, vpn.Key{2}
	former := &config.Config{
		VLANs: map[string]config.VLAN{"lan": {ID: 10, Switch: "lab", Gateways: nets("10.10.0.1/24")}, "red": {ID: 20, Switch: "lab", Gateways: nets("10.20.0.1/24")}},
		Tunnels: map[string]config.Tunnel{"mesh": {Addresses: nets("10.99.0.1/24"), Peers: map[string]config.Peer{
			"b": {PublicKey: b, AllowedIPs: nets("10.99.0.2/32", "10.50.0.0/16")}, "c": {PublicKey: c, AllowedIPs: nets("10.99.0.3/32", "0.0.0.0/0")},
		}}},
	}
	now := time.Now()
	who := callers{
		at: now,
		connections: []link.Connection{
			{To: netip.MustParseAddrPort("10.10.0.1:22"), From: netip.MustParseAddrPort("10.10.0.5:40000")},
			{To: netip.MustParseAddrPort("192.0.2.1:22"), From: netip.MustParseAddrPort("10.50.0.9:40001")},
			{To: netip.MustParseAddrPort("192.0.2.1:22"), From: netip.MustParseAddrPort("10.50.0.8:40002")},
		},
		tunnels: []vpn.TunnelStats{{Name: "mesh", Peers: []vpn.PeerStats{{Name: "b", PublicKey: b, LastHandshake: now.Add(-time.Minute)}, {Name: "c", PublicKey: c, LastHandshake: now.Add(-time.Hour)}}}},
	}
	gateway := vswitch.Gateway{VLAN: 10, Addresses: nets("10.10.0.1/24")}
	moved := vswitch.Gateway{VLAN: 10, Addresses: nets("10.10.0.2/24")}
	uplink := vswitch.Port{Kind: vswitch.Device, Device: "eth1", Tagged: []uint16{10, 20}}
	narrow, down, veth := uplink, uplink, uplink
	narrow.Tagged, down.Down, veth.Kind = []uint16{20}, true, vswitch.Veth
	one, two := vpn.Tunnel{PrivateKey: vpn.NewSecret(vpn.Key{8})}, vpn.Tunnel{PrivateKey: vpn.NewSecret(vpn.Key{16})}
	const lan, far, heard = "a connection comes by it from 10.10.0.5:40000 to 10.10.0.1:22", "2 connections come by it, as from 10.50.0.9:40001 to 192.0.2.1:22", "peer b was heard from in the last 3 minutes"
	for _, tt := range []struct {
		name  string
		steps []reconcile.Step
		want  []string
	}{
		{"a gateway", []reconcile.Step{vswitch.DelGateway{Switch: "lab", Name: "lan", Gateway: gateway}}, []string{"gateway/lab/lan goes: " + lan}},
		{"one that comes again", []reconcile.Step{vswitch.DelGateway{Switch: "lab", Name: "lan", Gateway: gateway}, vswitch.AddGateway{Switch: "lab", Name: "lan", Gateway: gateway}}, nil},
		{"its address", []reconcile.Step{vswitch.SetGateway{Switch: "lab", Name: "lan", From: gateway, To: moved}}, []string{"gateway/lab/lan loses 10.10.0.1: " + lan}},
		{"one that nobody uses", []reconcile.Step{vswitch.DelGateway{Switch: "lab", Name: "red", Gateway: vswitch.Gateway{VLAN: 20, Addresses: nets("10.20.0.1/24")}}}, nil},
		{"a switch", []reconcile.Step{vswitch.DelSwitch{Name: "lab", Gateways: []string{"lan", "red"}}}, []string{"gateway/lab/lan goes: " + lan}},
		{"an uplink", []reconcile.Step{vswitch.DelPort{Switch: "lab", Name: "up", Port: uplink}}, []string{"port/lab/up goes: " + lan}},
		{"its VLAN", []reconcile.Step{vswitch.SetPort{Switch: "lab", Name: "up", From: uplink, To: narrow}}, []string{"port/lab/up leaves VLAN 10: " + lan}},
		{"its link", []reconcile.Step{vswitch.SetPort{Switch: "lab", Name: "up", From: uplink, To: down}}, []string{"port/lab/up is set down: " + lan}},
		{"a port of this host's", []reconcile.Step{vswitch.DelPort{Switch: "lab", Name: "up", Port: veth}}, nil},
		{"a tunnel", []reconcile.Step{vpn.DelTunnel{Name: "mesh"}}, []string{"tunnel/mesh goes: " + far + ", and " + heard}},
		{"its key", []reconcile.Step{vpn.SetTunnel{Name: "mesh", From: one, To: two}}, []string{"tunnel/mesh gets another key: " + far + ", and " + heard}},
		{"a peer", []reconcile.Step{vpn.DelPeer{Tunnel: "mesh", Key: b, Name: "b"}}, []string{"peer/mesh/b goes: " + far + ", and " + heard}},
		{"a silent peer", []reconcile.Step{vpn.DelPeer{Tunnel: "mesh", Key: c, Name: "c"}}, nil},
		{"an allowed IP", []reconcile.Step{vpn.SetPeer{Tunnel: "mesh", Key: b, From: vpn.Peer{Name: "b", AllowedIPs: nets("10.50.0.0/16")}, To: vpn.Peer{Name: "b"}}}, []string{"peer/mesh/b loses 10.50.0.0/16: " + far}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := who.cutOff(tt.steps, former)
			for i, s := range got {
				got[i], _, _ = strings.Cut(s, ": if you or others need that way")
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
	many := slices.Repeat([]reconcile.Step{vpn.DelTunnel{Name: "mesh"}}, mostLost+2)
	if got := who.cutOff(many, former); len(got) != mostLost+1 || !strings.HasPrefix(got[mostLost], "2 more ways ") {
		t.Errorf("of many: %q", got)
	}
}

func TestNowPlain(t *testing.T) {
	host, plain := &config.Config{Host: "a"}, &config.Config{}
	if got := nowPlain(plain, host); len(got) != 1 || !strings.HasPrefix(got[0], "this was host a of a fabric, ") {
		t.Errorf("files without hosts for a host: %q", got)
	}
	if got := slices.Concat(nowPlain(host, host), nowPlain(host, plain), nowPlain(plain, plain)); len(got) != 0 {
		t.Errorf("nothing to warn of: %q", got)
	}
}
