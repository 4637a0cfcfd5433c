package vpn

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

// host is a Roster that is told everything each time.
type host struct{ Roster[int] }

func (h *host) settle(networks map[uint32]Network, local []Station, paths []StationPath, now time.Time) (map[Claim]bool, Told) {
	h.Serve(networks)
	h.House(local)
	h.Keep(func(id int) bool { return id < len(paths) })
	for i, p := range paths {
		h.Say(i, p)
	}
	h.Settle(now)
	return h.claimed(), h.Told()
}

func (h *host) claimed() map[Claim]bool {
	out := map[Claim]bool{}
	for key := range h.local {
		for _, c := range h.Claims(key) {
			out[c] = true
		}
	}
	return out
}

// model decides as a Roster does, from everything each time. Local and paths are of
// networks' VNIs alone.
type model struct {
	Roster[int] // for what it remembers of moves
	seq         map[StationKey]uint32
	disputed    map[Conflict]bool
}

// conflictsOf is what is claimed twice: addresses by two stations, and stations that are
// said to be nowhere else.
func (r *model) conflictsOf(local []Station, paths []StationPath, claims map[Claim]bool, told Told, networks map[uint32]Network) {
	bearers, fixed := map[AddressKey]map[MAC]bool{}, map[StationKey]map[netip.Addr]bool{}
	bear := func(vni uint32, ip netip.Addr, mac MAC) {
		if a := (AddressKey{vni, ip}); ip.IsValid() {
			if bearers[a] == nil {
				bearers[a] = map[MAC]bool{}
			}
			bearers[a][mac] = true
		}
	}
	stay := func(key StationKey, at netip.Addr) {
		if fixed[key] == nil {
			fixed[key] = map[netip.Addr]bool{}
		}
		fixed[key][at] = true
	}
	for c := range claims {
		bear(c.VNI, c.IP, c.MAC)
	}
	for _, p := range paths {
		if told.Stations[p.StationKey] == p.VTEP {
			bear(p.VNI, p.IP, p.MAC)
		}
		if p.Fixed {
			stay(p.StationKey, p.VTEP)
		}
	}
	for _, s := range local {
		if s.Fixed {
			stay(s.StationKey, networks[s.VNI].VTEP)
		}
	}
	r.disputed = map[Conflict]bool{}
	for a, macs := range bearers {
		if len(macs) > 1 {
			r.disputed[Conflict{StationKey: StationKey{VNI: a.VNI}, IP: a.IP}] = true
		}
	}
	for key, at := range fixed {
		if len(at) > 1 {
			r.disputed[Conflict{StationKey: key}] = true
		}
	}
}

func (r *model) settle(networks map[uint32]Network, local []Station, paths []StationPath, now time.Time) (claims map[Claim]bool, told Told) {
	best := bestOf(paths)
	was := r.seq
	r.seq, claims, told = map[StationKey]uint32{}, map[Claim]bool{}, NewTold()
	for _, s := range local {
		other, contested := best[s.StationKey]
		seq, claimed := was[s.StationKey]
		switch {
		case s.Fixed:
		case contested && other.Fixed:
			continue
		case contested && claimed && beats(other, seq, networks[s.VNI].VTEP):
			continue // it has gone there
		case contested && !claimed:
			if r.restless(s.StationKey, now) {
				continue
			}
			seq = other.Seq + 1
		}
		r.seq[s.StationKey] = seq
		claims[Claim{StationKey: s.StationKey, Seq: seq, Fixed: s.Fixed}] = true
		for _, ip := range s.IPs {
			claims[Claim{StationKey: s.StationKey, IP: ip, Seq: seq, Fixed: s.Fixed}] = true
		}
	}
	for key, p := range best {
		if _, own := r.seq[key]; !own {
			told.Stations[key] = p.VTEP
		}
	}
	addressesOf(told, claims, paths)
	r.conflictsOf(local, paths, claims, told, networks)
	maps.DeleteFunc(r.moves, func(_ StationKey, m movement) bool { return now.Sub(m.since) > moveWindow })
	for key, m := range r.moves {
		if _, served := networks[key.VNI]; served && m.count > moveLimit {
			r.disputed[Conflict{StationKey: key, Restless: true}] = true
		}
	}
	return claims, told
}

func addressesOf(t Told, claims map[Claim]bool, paths []StationPath) {
	contested := map[AddressKey]bool{}
	for c := range claims {
		contested[AddressKey{c.VNI, c.IP}] = true
	}
	for _, p := range paths {
		key := AddressKey{p.VNI, p.IP}
		if vtep, ok := t.Stations[p.StationKey]; !ok || vtep != p.VTEP || !p.IP.IsValid() {
			continue
		}
		if mac, ok := t.Addresses[key]; ok && mac != p.MAC {
			contested[key] = true
		}
		t.Addresses[key] = p.MAC
	}
	for key := range contested {
		delete(t.Addresses, key)
	}
}

// bestOf is the path of each station that counts.
func bestOf(paths []StationPath) map[StationKey]StationPath {
	best := map[StationKey]StationPath{}
	for _, p := range paths {
		have, ok := best[p.StationKey]
		if !ok || p.Fixed && !have.Fixed || p.Fixed == have.Fixed && beats(p, have.Seq, have.VTEP) {
			best[p.StationKey] = p
		}
	}
	return best
}

// TestRosterAgrees changes stations, paths and networks at random, and compares what a
// Roster that is told of the changes decides with what the model does that sees all.
func TestRosterAgrees(t *testing.T) {
	for seed := range uint64(300) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		var h host
		m := model{}
		m.init()
		networks := map[uint32]Network{7: {10, vtep(2)}}
		local, paths, floods := map[StationKey]Station{}, map[int]StationPath{}, map[int]Flood{}
		told := NewTold() // what changes alone made
		claims := map[Claim]bool{}
		now := time.Unix(1e9, 0)
		for step := range 60 {
			for range 1 + rnd.IntN(4) {
				key := StationKey{uint32(7 + rnd.IntN(2)), MAC{2, byte(rnd.IntN(4))}}
				id := rnd.IntN(12)
				var ip netip.Addr
				if rnd.IntN(2) == 0 {
					ip = netip.AddrFrom4([4]byte{10, 0, 0, byte(rnd.IntN(4))})
				}
				switch rnd.IntN(8) {
				case 0, 1:
					s := Station{StationKey: key, Fixed: rnd.IntN(8) == 0}
					if ip.IsValid() {
						s.IPs = []netip.Addr{ip}
					}
					local[key] = s
				case 2:
					delete(local, key)
				case 3, 4, 5:
					delete(floods, id)
					paths[id] = StationPath{StationKey: key, IP: ip, VTEP: vtep(byte(1 + rnd.IntN(3))), Seq: uint32(rnd.IntN(4)), Fixed: rnd.IntN(12) == 0}
					h.Say(id, paths[id])
				case 6:
					delete(paths, id)
					delete(floods, id)
					h.Retract(id)
				case 7:
					switch rnd.IntN(3) {
					case 0:
						networks = map[uint32]Network{7: {10, vtep(2)}}
					case 1:
						networks = map[uint32]Network{7: {10, vtep(2)}, 8: {11, vtep(2)}}
					case 2:
						delete(paths, id)
						floods[id] = Flood{key.VNI, vtep(byte(1 + rnd.IntN(3)))}
						h.SayFlood(id, floods[id])
					}
				}
			}
			if step%20 == 19 { // what was said is listed, some of it not as it was heard
				for id := range paths {
					if rnd.IntN(3) == 0 {
						delete(paths, id)
					}
				}
				h.Keep(func(id int) bool { _, p := paths[id]; _, f := floods[id]; return p || f })
			}
			now = now.Add(time.Duration(rnd.IntN(20)) * time.Second)
			h.Serve(networks)
			h.House(slices.Collect(maps.Values(local)))
			stations, addresses := h.Settle(now)
			var seen []Station
			for key, s := range local {
				if _, ok := networks[key.VNI]; ok {
					seen = append(seen, s)
				}
			}
			var heard []StationPath
			for _, p := range paths {
				if n, ok := networks[p.VNI]; ok && p.VTEP != n.VTEP {
					heard = append(heard, p)
				}
			}
			wantClaims, want := m.settle(networks, seen, heard, now)
			for _, f := range floods {
				if n, ok := networks[f.VNI]; ok && f.VTEP != n.VTEP {
					want.Floods[f] = true
				}
			}
			for key := range stations {
				maps.DeleteFunc(claims, func(c Claim, _ bool) bool { return c.StationKey == key })
				for _, c := range h.Claims(key) {
					claims[c] = true
				}
				if delete(told.Stations, key); h.Told().Stations[key].IsValid() {
					told.Stations[key] = h.Told().Stations[key]
				}
			}
			for a := range addresses {
				delete(told.Addresses, a)
				if mac, ok := h.Told().Addresses[a]; ok {
					told.Addresses[a] = mac
				}
			}
			told.Floods = h.Told().Floods
			if !maps.Equal(claims, wantClaims) || !reflect.DeepEqual(told, want) || !maps.Equal(h.conflicts, m.disputed) {
				t.Fatalf("seed %d, step %d: claims %v, want %v; told %v, want %v; conflicts %v, want %v", seed, step, claims, wantClaims, told, want, h.conflicts, m.disputed)
			}
		}
	}
}

// TestRosterDecidesLittle changes single stations among 10,000 here and 10,000 elsewhere:
// all others are not looked at.
func TestRosterDecidesLittle(t *testing.T) {
	const n = 10_000
	var h host
	h.Serve(map[uint32]Network{7: {10, vtep(2)}})
	at := func(host byte, i int) Station {
		return Station{StationKey: StationKey{7, MAC{2, host, byte(i >> 8), byte(i)}}, IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, host, byte(i >> 8), byte(i)})}}
	}
	var local []Station
	for i := range n {
		local = append(local, at(1, i))
		s := at(2, i)
		h.Say(i, StationPath{StationKey: s.StationKey, IP: s.IPs[0], VTEP: vtep(3)})
	}
	h.House(local)
	if stations, addresses := h.Settle(time.Unix(1e9, 0)); len(stations) != 2*n || len(addresses) != 2*n {
		t.Fatalf("decided about %d stations and %d addresses, want all", len(stations), len(addresses))
	}
	if told := h.Told(); len(told.Stations) != n || len(told.Addresses) != n || len(h.claimed()) != 2*n {
		t.Fatalf("%d stations and %d addresses are told, %d claims, want %d and twice as many claims", len(told.Stations), len(told.Addresses), len(h.claimed()), n)
	}
	for name, change := range map[string]func(){
		"nothing":   func() { h.House(local); h.Serve(map[uint32]Network{7: {10, vtep(2)}}) },
		"a new one": func() { h.House(append(local, at(3, 1))) },
		"another":   func() { h.House(local) },
		"elsewhere": func() { h.Say(n, StationPath{StationKey: at(2, 5).StationKey, VTEP: vtep(3), Seq: 4}) },
		"gone":      func() { h.Retract(7) },
		"listed":    func() { h.Keep(func(id int) bool { return id != 9 }) },
	} {
		change()
		if stations, addresses := h.Settle(time.Unix(1e9, 0)); len(stations) > 1 || len(addresses) > 1 {
			t.Errorf("%s: decided about %d stations and %d addresses", name, len(stations), len(addresses))
		}
	}
}
