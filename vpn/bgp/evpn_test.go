package bgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	"ripstop/vpn"
)

// switches is a Fabric in memory.
type switches struct {
	mu    sync.Mutex
	news  uint64
	local []vpn.Station
	told  vpn.Told
}

func (s *switches) News(context.Context) (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.news, nil
}

func (s *switches) Stations(context.Context) ([]vpn.Station, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.local), nil
}

func (s *switches) Told(context.Context) (vpn.Told, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return vpn.Told{Stations: maps.Clone(s.told.Stations), Addresses: maps.Clone(s.told.Addresses), Floods: maps.Clone(s.told.Floods)}, nil
}

// Tell has a station that is told to be elsewhere be here no more, as a switch does.
func (s *switches) Tell(_ context.Context, add, gone vpn.Told) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	keep(s.told.Stations, add.Stations, gone.Stations)
	keep(s.told.Addresses, add.Addresses, gone.Addresses)
	keep(s.told.Floods, add.Floods, gone.Floods)
	s.local = slices.DeleteFunc(s.local, func(l vpn.Station) bool { _, away := add.Stations[l.StationKey]; return away && !l.Fixed })
	return nil
}

// has makes the host's stations be these.
func (s *switches) has(local ...vpn.Station) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.local, s.news = local, s.news+1
}

func (s *switches) knows() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for k, v := range s.told.Stations {
		out = append(out, fmt.Sprint(k.VNI, " ", k.MAC, " at ", v))
	}
	for k, v := range s.told.Addresses {
		out = append(out, fmt.Sprint(k.VNI, " ", k.IP, " is ", v))
	}
	for k := range s.told.Floods {
		out = append(out, fmt.Sprint(k.VNI, " to ", k.VTEP))
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

// eventuallyKnows waits until the switches are told exactly this.
func (l *lab) eventuallyKnows(s *switches, want ...string) {
	l.Helper()
	slices.Sort(want)
	eventually(l.T, fmt.Sprintf("the switches know %v", want), func() (bool, string) {
		got := s.knows()
		return got == strings.Join(want, ", "), got
	})
}

func stationOn(n byte, ips ...string) vpn.Station {
	s := vpn.Station{StationKey: vpn.StationKey{VNI: 7, MAC: vpn.MAC{2, 0, 0, 0, 0, n}}}
	for _, ip := range ips {
		s.IPs = append(s.IPs, netip.MustParseAddr(ip))
	}
	return s
}

// evpnFRR is an FRR of an autonomous system with VNI 7 on a bridge, with a port p0 that
// has stations.
func evpnFRR(t *testing.T, asn uint32) *frr {
	t.Helper()
	hostLink(t, "wire", "tor1", "192.0.2.1/24", "192.0.2.254/24")
	for _, c := range []string{
		"link add br0 type bridge", "link add vx7 type vxlan id 7 local 192.0.2.254 dstport 4789 nolearning",
		"link set vx7 master br0", "link add p0 type veth peer name p1", "link set p0 master br0",
		"link set p1 addrgenmode none", "link set br0 addrgenmode none", // they say nothing of themselves
		"link set p1 up", "link set p0 up", "link set vx7 up", "link set br0 up",
	} {
		run(t, "ip", append([]string{"-n", "tor1"}, strings.Fields(c)...)...)
	}
	run(t, "bridge", "-n", "tor1", "link", "set", "dev", "vx7", "learning", "off", "neigh_suppress", "on")
	return startFRR(t, "tor1", fmt.Sprintf(`
router bgp %d
 bgp router-id 192.0.2.254
 no bgp ebgp-requires-policy
 neighbor 192.0.2.1 remote-as 64512
 address-family l2vpn evpn
  neighbor 192.0.2.1 activate
  advertise-all-vni
  vni 7
   route-target import 64512:7
  exit-vni
 exit-address-family
`, asn))
}

// speakEVPN starts a driver with both its loops.
func speakEVPN(t *testing.T, s *switches) *lab {
	t.Helper()
	l := &lab{T: t}
	l.begin(Options{Fabric: s})
	served := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { served <- l.driver.ServeEVPN(ctx, func() {}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l
}

// withFRR is a host with the neighbor that evpnFRR starts.
func withFRR(asn uint32) vpn.BGP {
	return vpn.BGP{
		Speaker:   &vpn.Speaker{ASN: 64512, RouterID: addr("192.0.2.1"), Multipath: 1, EVPN: true},
		Neighbors: map[string]vpn.Neighbor{"tor1": {Address: addr("192.0.2.254"), ASN: asn, PrefixLimit: 1000}},
		Networks:  map[uint32]vpn.Network{7: {VLAN: 10, VTEP: addr("192.0.2.1")}},
	}
}

// TestEVPNWithFRR is a host and an FRR with one VNI, and stations that come, go and move
// from the one to the other.
func TestEVPNWithFRR(t *testing.T) {
	f := evpnFRR(t, 64513)
	s := &switches{told: vpn.NewTold()}
	s.has(stationOn(1, "10.0.0.1"))
	l := speakEVPN(t, s)
	want := withFRR(64513)
	l.apply(want)
	l.established("tor1")
	l.eventuallyKnows(s, "7 to 192.0.2.254")
	fdb := func(words ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("FRR's FDB has %v", words), func() (bool, string) {
			out := run(t, "bridge", "-n", "tor1", "fdb", "show", "dev", "vx7")
			for _, line := range strings.Split(out, "\n") {
				if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
					return true, out
				}
			}
			return false, out
		})
	}
	fdb("02:00:00:00:00:01", "dst 192.0.2.1")
	fdb("00:00:00:00:00:00", "dst 192.0.2.1")
	routes := func(words ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("FRR's routes have %v", words), func() (bool, string) {
			out := f.show("show bgp l2vpn evpn route detail")
			return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(out, w) }), out
		})
	}
	routes("[2]:[0]:[48]:[02:00:00:00:00:01]:[32]:[10.0.0.1]", "RT:64512:7 ET:8")

	// A station of FRR's, which moves here and back, each with a higher number.
	local := func(verb string) {
		t.Helper()
		run(t, "bridge", "-n", "tor1", "fdb", verb, "02:00:00:00:00:09", "dev", "p0", "master", "dynamic")
	}
	local("add")
	l.eventuallyKnows(s, "7 to 192.0.2.254", "7 02:00:00:00:00:09 at 192.0.2.254")
	s.has(stationOn(1, "10.0.0.1"), stationOn(9, "fd00::9"))
	fdb("02:00:00:00:00:09", "dst 192.0.2.1")
	routes("[02:00:00:00:00:09]:[128]:[fd00::9]", "MM:1")
	l.eventuallyKnows(s, "7 to 192.0.2.254")
	// A station goes on to send, and that has FRR, too, notice one that it overlooked.
	moves := func(number string) {
		t.Helper()
		eventually(t, "FRR's station moves with "+number, func() (bool, string) {
			local("replace")
			out := f.show("show bgp l2vpn evpn route detail")
			return strings.Contains(out, number), out
		})
	}
	moves("MM:2")
	l.eventuallyKnows(s, "7 to 192.0.2.254", "7 02:00:00:00:00:09 at 192.0.2.254")

	// One that says it is on both is left alone, and an address of two stations is told of.
	conflict := func(words ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("conflicts %v", words), func() (bool, string) {
			have, err := l.driver.Observe(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			got := have.Waiting()["network/7"]
			return (len(words) == 0) == (got == "") && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(got, w) }), got
		})
	}
	conflict()
	for seq := 3; ; seq += 2 { // the first move here is behind it
		s.has(stationOn(1, "10.0.0.1"), stationOn(9))
		if seq == 11 {
			break
		}
		routes(fmt.Sprintf("MM:%d", seq))
		fdb("02:00:00:00:00:09", "dst 192.0.2.1") // or zebra still comes to write it over what follows
		moves(fmt.Sprintf("MM:%d", seq+1))
		l.eventuallyKnows(s, "7 to 192.0.2.254", "7 02:00:00:00:00:09 at 192.0.2.254")
	}
	conflict("station 02:00:00:00:00:09 moved here more than 5 times", "left at 192.0.2.254")
	s.has(stationOn(1, "10.0.0.1"))
	run(t, "ip", "-n", "tor1", "neigh", "replace", "10.0.0.1", "lladdr", "02:00:00:00:00:09", "dev", "br0", "nud", "reachable")
	conflict("station 02:00:00:00:00:09", "address 10.0.0.1 is announced as that of 02:00:00:00:00:01 here and of 02:00:00:00:00:09 at 192.0.2.254")
	run(t, "ip", "-n", "tor1", "neigh", "del", "10.0.0.1", "dev", "br0")

	// One that is gone is withdrawn, and so is all with the network.
	s.has()
	eventually(t, "FRR forgets the station", func() (bool, string) {
		out := run(t, "bridge", "-n", "tor1", "fdb", "show", "dev", "vx7")
		return !strings.Contains(out, "02:00:00:00:00:01"), out
	})
	s.has(stationOn(1))
	fdb("02:00:00:00:00:01", "dst 192.0.2.1")
	without := want.Clone()
	without.Networks = nil
	l.apply(without)
	l.eventuallyKnows(s)
	eventually(t, "FRR forgets the host", func() (bool, string) {
		out := run(t, "bridge", "-n", "tor1", "fdb", "show", "dev", "vx7")
		return !strings.Contains(out, "00:00:00:00:00:00 dst 192.0.2.1") && !strings.Contains(out, "02:00:00:00:00:01"), out
	})
	l.apply(want)
	fdb("02:00:00:00:00:01", "dst 192.0.2.1")
	l.eventuallyKnows(s, "7 to 192.0.2.254", "7 02:00:00:00:00:09 at 192.0.2.254")

	// One that announces more than it may is not listened to until it may.
	few := want.Clone()
	n := few.Neighbors["tor1"]
	n.PrefixLimit = 1
	few.Neighbors["tor1"] = n
	l.apply(few)
	for i := range stationsLimit {
		run(t, "bridge", "-n", "tor1", "fdb", "add", fmt.Sprintf("02:00:00:00:01:%02x", i), "dev", "p0", "master", "dynamic")
	}
	eventually(t, "the session ends", func() (bool, string) {
		why := l.neighbor("tor1").Session.Reason
		return strings.Contains(why, "more than 10 EVPN routes"), why
	})
	l.eventuallyKnows(s)
	l.apply(want)
	l.established("tor1")
	eventually(t, "all stations are known", func() (bool, string) {
		got := s.knows()
		return strings.Count(got, " at ") == stationsLimit+1, got
	})

	// A neighbor that dies takes all with it.
	f.Kill()
	l.eventuallyKnows(s)
}

// TestEVPNInside has a station go to and fro between a host and an FRR of its own
// autonomous system, whose routes have the same route target: nothing that is withdrawn
// stays, and nothing waits for it.
func TestEVPNInside(t *testing.T) {
	f := evpnFRR(t, 64512)
	s := &switches{told: vpn.NewTold()}
	l := speakEVPN(t, s)
	want := withFRR(64512)
	l.apply(want)
	l.established("tor1")
	routes := func(own bool, words string) {
		t.Helper()
		eventually(t, fmt.Sprintf("FRR has %q: %v", words, own), func() (bool, string) {
			out := f.show("show bgp l2vpn evpn route rd 192.0.2.1:10")
			return strings.Contains(out, words) == own, out
		})
	}
	local := func(verb string) {
		t.Helper()
		run(t, "bridge", "-n", "tor1", "fdb", verb, "02:00:00:00:00:09", "dev", "p0", "master", "dynamic")
	}
	local("add")
	l.eventuallyKnows(s, "7 to 192.0.2.254", "7 02:00:00:00:00:09 at 192.0.2.254")
	s.has(stationOn(9, "10.0.0.9"))
	routes(true, "[02:00:00:00:00:09]:[32]:[10.0.0.9]")
	eventually(t, "the station is at FRR again", func() (bool, string) {
		local("replace") // it goes on to send
		got := s.knows()
		return strings.Contains(got, "02:00:00:00:00:09 at 192.0.2.254"), got
	})
	routes(false, "02:00:00:00:00:09")
	s.has(stationOn(1))
	routes(true, "02:00:00:00:00:01")
	s.has()
	routes(false, "02:00:00:00:00:01")

	// A network that goes takes a station with it that FRR has outnumbered.
	s.has(stationOn(9))
	routes(true, "02:00:00:00:00:09")
	fixed := stationOn(9)
	fixed.Fixed = true
	s.has(fixed)
	local("replace")
	without := want.Clone()
	without.Networks = nil
	l.apply(without)
	routes(false, "02:00:00:00:00:09")
}
