package main

import (
	"context"
	"net/netip"

	"ripstop/vpn"
	"ripstop/vswitch"
)

// fabric is the switches in the words of EVPN.
type fabric struct{ switches *vswitch.Mux }

func (f fabric) News(ctx context.Context) (uint64, error) { return f.switches.News(ctx) }

func (f fabric) Stations(ctx context.Context) ([]vpn.Station, error) {
	all, err := f.switches.Stations(ctx)
	out := make([]vpn.Station, len(all))
	for i, s := range all {
		out[i] = vpn.Station{StationKey: vpn.StationKey{VNI: s.VNI, MAC: vpn.MAC(s.MAC)}, IPs: s.IPs, Fixed: s.Fixed}
	}
	return out, err
}

func (f fabric) Told(ctx context.Context) (vpn.Told, error) {
	t, err := f.switches.Told(ctx)
	out := vpn.NewTold()
	for k, vtep := range t.Stations {
		out.Stations[vpn.StationKey{VNI: k.VNI, MAC: vpn.MAC(k.MAC)}] = vtep
	}
	for k, mac := range t.Addresses {
		out.Addresses[vpn.AddressKey(k)] = vpn.MAC(mac)
	}
	for k := range t.Floods {
		out.Floods[vpn.Flood(k)] = true
	}
	return out, err
}

func (f fabric) Tell(ctx context.Context, add, gone vpn.Told) error {
	return f.switches.Tell(ctx, toldOf(add), toldOf(gone))
}

func toldOf(t vpn.Told) vswitch.Told {
	out := vswitch.Told{
		Stations: make(map[vswitch.StationKey]netip.Addr, len(t.Stations)), Addresses: make(map[vswitch.AddressKey]vswitch.MAC, len(t.Addresses)),
		Floods: make(map[vswitch.FloodKey]bool, len(t.Floods)),
	}
	for k, vtep := range t.Stations {
		out.Stations[vswitch.StationKey{VNI: k.VNI, MAC: vswitch.MAC(k.MAC)}] = vtep
	}
	for k, mac := range t.Addresses {
		out.Addresses[vswitch.AddressKey(k)] = vswitch.MAC(mac)
	}
	for k := range t.Floods {
		out.Floods[vswitch.FloodKey(k)] = true
	}
	return out
}
