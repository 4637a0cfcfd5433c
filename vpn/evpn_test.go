package vpn

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
	"time"
)

func vtep(n byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, n}) }

func station(n byte, ips ...string) Station {
	s := Station{StationKey: StationKey{7, MAC{2, 0, 0, 0, 0, n}}}
	for _, ip := range ips {
		s.IPs = append(s.IPs, netip.MustParseAddr(ip))
	}
	return s
}

func said(n byte, by byte, seq uint32) StationPath {
	return StationPath{StationKey: station(n).StationKey, VTEP: vtep(by), Seq: seq}
}

// TestSettle follows a station from host to host, as host 2 sees it.
func TestSettle(t *testing.T) {
	networks := map[uint32]Network{7: {10, vtep(2)}}
	start := time.Unix(1e9, 0)
	fixed := station(1)
	fixed.Fixed = true
	sticky := said(1, 1, 0)
	sticky.Fixed = true
	for _, tt := range []struct {
		name   string
		before []func(r *host) // passes that went before
		local  []Station
		paths  []StationPath
		claim  string // "" for none
		told   byte   // 0 for none
	}{
		{name: "nobody's"},
		{name: "new here", local: []Station{station(1)}, claim: "0"},
		{name: "new there", paths: []StationPath{said(1, 3, 0)}, told: 3},
		{name: "the higher number", paths: []StationPath{said(1, 1, 4), said(1, 3, 5)}, told: 3},
		{name: "the lower VTEP", paths: []StationPath{said(1, 3, 5), said(1, 1, 5)}, told: 1},
		{name: "it came here", local: []Station{station(1)}, paths: []StationPath{said(1, 3, 5)}, claim: "6"},
		{name: "it went away", before: claimed(networks, start), local: []Station{station(1)}, paths: []StationPath{said(1, 3, 1)}, told: 3},
		{name: "both claim it, and the other is first", before: claimed(networks, start), local: []Station{station(1)}, paths: []StationPath{said(1, 1, 0)}, told: 1},
		{name: "both claim it, and this host is first", before: claimed(networks, start), local: []Station{station(1)}, paths: []StationPath{said(1, 3, 0)}, claim: "0"},
		{name: "it is this host's alone", local: []Station{fixed}, paths: []StationPath{said(1, 1, 9)}, claim: "0"},
		{name: "it is another's alone", local: []Station{station(1)}, paths: []StationPath{sticky, said(1, 3, 7)}, told: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r host
			for _, f := range tt.before {
				f(&r)
			}
			claims, told := r.settle(networks, tt.local, tt.paths, start)
			got := ""
			for c := range claims {
				got += fmt.Sprint(c.Seq)
			}
			var to netip.Addr
			if tt.told != 0 {
				to = vtep(tt.told)
			}
			if got != tt.claim || told.Stations[station(1).StationKey] != to {
				t.Errorf("claims %q and told %v, want %q and %v", got, told.Stations, tt.claim, to)
			}
		})
	}
}

func claimed(networks map[uint32]Network, now time.Time) []func(*host) {
	return []func(*host){func(r *host) { r.settle(networks, []Station{station(1)}, nil, now) }}
}

// TestSettleAddresses answers for stations elsewhere alone, and for none whose address
// another one says it has, too.
func TestSettleAddresses(t *testing.T) {
	const ip = "10.0.0.1"
	with := func(p StationPath, ip string) StationPath { p.IP = netip.MustParseAddr(ip); return p }
	for _, tt := range []struct {
		name  string
		local []Station
		paths []StationPath
		told  byte // 0 for none
	}{
		{name: "elsewhere", local: []Station{station(1, "10.0.0.2")}, paths: []StationPath{said(3, 4, 1), with(said(3, 4, 1), ip)}, told: 3},
		{name: "where it was", paths: []StationPath{with(said(3, 4, 0), ip), said(3, 5, 1)}},
		{name: "with it where it went", paths: []StationPath{with(said(3, 4, 0), ip), with(said(3, 5, 1), ip)}, told: 3},
		{name: "here", local: []Station{station(1, ip)}},
		{name: "here and elsewhere", local: []Station{station(1, ip)}, paths: []StationPath{with(said(3, 4, 1), ip)}},
		{name: "of two elsewhere", paths: []StationPath{with(said(3, 4, 1), ip), with(said(4, 4, 0), ip), with(said(3, 4, 1), ip)}},
		{name: "beside others' addresses", paths: []StationPath{with(said(3, 4, 0), ip), with(said(4, 5, 0), "10.0.0.2")}, told: 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r host
			_, told := r.settle(map[uint32]Network{7: {10, vtep(2)}}, tt.local, tt.paths, time.Now())
			mac, ok := told.Addresses[AddressKey{7, netip.MustParseAddr(ip)}]
			if ok != (tt.told != 0) || ok && mac != station(tt.told).MAC {
				t.Errorf("addresses %v, want %s to be that of station %d", told.Addresses, ip, tt.told)
			}
		})
	}
}

// TestSettleClaims tells of a station, and of each of its addresses.
func TestSettleClaims(t *testing.T) {
	var r host
	claims, _ := r.settle(map[uint32]Network{7: {10, vtep(2)}}, []Station{station(1, "10.0.0.1", "fd00::1")}, nil, time.Now())
	if len(claims) != 3 {
		t.Errorf("claims %v, want one of the Ethernet address and one of each IP address", claims)
	}
}

// TestRestless leaves a station alone that two hosts have.
func TestRestless(t *testing.T) {
	networks := map[uint32]Network{7: {10, vtep(2)}}
	var r host
	now := time.Unix(1e9, 0)
	last := uint32(0)
	for i := range uint32(20) {
		now = now.Add(time.Second)
		claims, _ := r.settle(networks, []Station{station(1)}, []StationPath{said(1, 3, 2*i)}, now)
		for c := range claims {
			last = c.Seq
		}
		r.settle(networks, nil, []StationPath{said(1, 3, 2*i+2)}, now)
	}
	const why = "station 02:00:00:00:00:01 moved here more than 5 times in 3m0s, and is left at 192.0.2.3 until that time is over: it is on two hosts, or in a loop: take one away"
	if got := r.Conflicts()[Conflict{StationKey: station(1).StationKey, Restless: true}]; got != why {
		t.Errorf("%q, want %q", got, why)
	}
	if last != 2*(moveLimit-1)+1 || len(r.Conflicts()) != 1 {
		t.Errorf("claimed up to %d and restless %v, want %d claims and one station", last, r.Conflicts(), moveLimit)
	}
	claims, _ := r.settle(networks, []Station{station(1)}, []StationPath{said(1, 3, 50)}, now.Add(moveWindow))
	if len(claims) != 1 || len(r.Conflicts()) != 0 {
		t.Errorf("after the window: claims %v, restless %v", claims, r.Conflicts())
	}
}

// TestOutbid claims what both hosts claim with one number with a higher one, and leaves to
// others what they have.
func TestOutbid(t *testing.T) {
	networks := map[uint32]Network{7: {10, vtep(2)}}
	for _, tt := range []struct {
		name  string
		there StationPath
		want  []Claim
		can   bool
	}{
		{"the same number", said(1, 3, 0), []Claim{{StationKey: station(1).StationKey, Seq: 1}}, true},
		{"not known yet", StationPath{}, []Claim{{StationKey: station(1).StationKey}}, true},
		{"it went there and is seen here still", said(1, 3, 4), []Claim{{StationKey: station(1).StationKey, Seq: 5}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r host
			r.settle(networks, []Station{station(1)}, nil, time.Now())
			var paths []StationPath
			if tt.there.VTEP.IsValid() {
				paths = append(paths, tt.there)
			}
			r.settle(networks, []Station{station(1)}, paths, time.Now())
			if can := r.Outbid(station(1).StationKey); can != tt.can {
				t.Errorf("another claim is %v, want %v", can, tt.can)
			}
			r.Settle(time.Now())
			if got := r.Claims(station(1).StationKey); !slices.Equal(got, tt.want) {
				t.Errorf("claims %v, want %v", got, tt.want)
			}
		})
	}
}

// TestConflicts says what two places claim, and nothing once one of them has let go.
func TestConflicts(t *testing.T) {
	networks := map[uint32]Network{7: {10, vtep(2)}}
	at := func(p StationPath, ip string) StationPath { p.IP = netip.MustParseAddr(ip); return p }
	stays := func(p StationPath) StationPath { p.Fixed = true; return p }
	own := station(1, "10.0.0.1")
	own.Fixed = true
	for _, tt := range []struct {
		name  string
		local []Station
		paths []StationPath
		want  string // "" for none
	}{
		{name: "an address here and there", local: []Station{own}, paths: []StationPath{said(3, 4, 0), at(said(3, 4, 0), "10.0.0.1")},
			want: "address 10.0.0.1 is announced as that of 02:00:00:00:00:01 here and of 02:00:00:00:00:03 at 192.0.2.4: give all but one another"},
		{name: "an address of two others", paths: []StationPath{at(said(3, 4, 0), "fd00::1"), at(said(4, 5, 0), "fd00::1")},
			want: "address fd00::1 is announced as that of 02:00:00:00:00:03 at 192.0.2.4 and of 02:00:00:00:00:04 at 192.0.2.5: give all but one another"},
		{name: "a station that took its address along", paths: []StationPath{at(said(3, 4, 0), "10.0.0.1"), at(said(3, 5, 1), "10.0.0.1")}},
		{name: "a station that is nowhere else, twice", local: []Station{own}, paths: []StationPath{stays(said(1, 4, 0))},
			want: "station 02:00:00:00:00:01 is announced as one that never moves by 192.0.2.2 and 192.0.2.4: give all but one another mac"},
		{name: "the same of two others", paths: []StationPath{stays(said(1, 4, 0)), stays(said(1, 5, 0)), stays(at(said(1, 5, 0), "10.0.0.1"))},
			want: "station 02:00:00:00:00:01 is announced as one that never moves by 192.0.2.4 and 192.0.2.5: give all but one another mac"},
		{name: "one that was seen elsewhere", local: []Station{own}, paths: []StationPath{said(1, 4, 3)}},
		{name: "in a VNI of others", paths: []StationPath{{StationKey: StationKey{8, MAC{2}}, VTEP: vtep(4), Fixed: true}, {StationKey: StationKey{8, MAC{2}}, VTEP: vtep(5), Fixed: true}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r host
			was := r.Disputes()
			r.settle(networks, tt.local, tt.paths, time.Now())
			got := ""
			for _, what := range r.Conflicts() {
				got += what
			}
			if got != tt.want || (r.Disputes() != was) != (tt.want != "") {
				t.Errorf("%q, and disputes went from %d to %d; want %q", got, was, r.Disputes(), tt.want)
			}
			r.settle(networks, tt.local, nil, time.Now())
			if left := r.Conflicts(); len(left) > 0 {
				t.Errorf("%v is left", left)
			}
		})
	}
}

// TestSettleAgrees has two hosts with the same station settle on one of them, whatever
// the order in which they hear of each other.
func TestSettleAgrees(t *testing.T) {
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var hosts [2]host
		var said [2][]StationPath
		has := [2]bool{true, rnd.IntN(2) == 0}
		for range 12 {
			i := rnd.IntN(2)
			var local []Station
			if has[i] {
				local = append(local, station(1))
			}
			claims, told := hosts[i].settle(map[uint32]Network{7: {10, vtep(byte(i))}}, local, said[1-i], time.Unix(0, 0))
			if len(told.Stations) > 0 {
				has[i] = false // the entry of the FDB is another's now
			}
			said[i] = nil
			for c := range claims {
				said[i] = append(said[i], StationPath{StationKey: c.StationKey, VTEP: vtep(byte(i)), Seq: c.Seq})
			}
			if rnd.IntN(6) == 0 {
				has[rnd.IntN(2)] = true // it sends a frame there
			}
		}
		for range 3 {
			for i := range hosts {
				var local []Station
				if has[i] {
					local = append(local, station(1))
				}
				claims, told := hosts[i].settle(map[uint32]Network{7: {10, vtep(byte(i))}}, local, said[1-i], time.Unix(0, 0))
				has[i] = has[i] && len(told.Stations) == 0
				said[i] = nil
				for c := range claims {
					said[i] = append(said[i], StationPath{StationKey: c.StationKey, VTEP: vtep(byte(i)), Seq: c.Seq})
				}
			}
		}
		if restless := len(hosts[0].Conflicts()) + len(hosts[1].Conflicts()); restless == 0 && len(said[0])+len(said[1]) != 1 {
			t.Fatalf("seed %d: the hosts say %v and %v", seed, said[0], said[1])
		}
	}
}

func TestDiffTold(t *testing.T) {
	for seed := range uint64(2000) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		want, have := randomTold(rnd), randomTold(rnd)
		add, gone := DiffTold(want, have)
		for k := range gone.Stations {
			delete(have.Stations, k)
		}
		for k := range gone.Addresses {
			delete(have.Addresses, k)
		}
		for k := range gone.Floods {
			delete(have.Floods, k)
		}
		maps.Copy(have.Stations, add.Stations)
		maps.Copy(have.Addresses, add.Addresses)
		maps.Copy(have.Floods, add.Floods)
		if !reflect.DeepEqual(have, want) {
			t.Fatalf("seed %d: got %v, want %v", seed, have, want)
		}
		if add, gone := DiffTold(want, want); !add.Empty() || !gone.Empty() {
			t.Fatalf("seed %d: DiffTold(x, x) = %v, %v", seed, add, gone)
		}
	}
}

func randomTold(r *rand.Rand) Told {
	t := NewTold()
	for range r.IntN(4) {
		t.Stations[station(byte(r.IntN(3))).StationKey] = vtep(byte(r.IntN(3)))
		t.Addresses[AddressKey{7, vtep(byte(r.IntN(3)))}] = MAC{2, byte(r.IntN(2))}
		t.Floods[Flood{7, vtep(byte(r.IntN(3)))}] = true
	}
	return t
}
