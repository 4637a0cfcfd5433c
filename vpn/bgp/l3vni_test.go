package bgp

import (
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

// frrL3 is an FRR that routes in VNI 9 as VTEP 10.255.0.2, in a VRF or the main table. Behind it is the namespace "behind", with 10.60.0.2 and
// fd00:60::2.
func frrL3(t *testing.T, vrf bool) *frr {
	t.Helper()
	hostLink(t, "wire", "tor1", "192.0.2.1/24", "192.0.2.254/24", "10.255.0.2/32")
	run(t, "ip", "route", "add", "10.255.0.0/24", "via", "192.0.2.254")
	nettest.Namespace(t, "behind")
	in := func(netns string, commands ...string) {
		t.Helper()
		for _, c := range commands {
			run(t, "ip", append([]string{"-n", netns}, strings.Fields(c)...)...)
		}
	}
	in("tor1", "link add br9 address 02:00:00:00:fe:09 type bridge", "link add vx9 type vxlan id 9 local 10.255.0.2 dstport 4789 nolearning",
		"link set vx9 addrgenmode none", "link set br9 addrgenmode none", "link set vx9 master br9", "link add p0 type veth peer name eth0 netns behind")
	unicast := `
 address-family ipv4 unicast
  redistribute connected route-map inside
  network 10.10.0.128/25
  network 10.66.1.0/24
  network 10.255.0.2/32
 exit-address-family
 address-family ipv6 unicast
  redistribute connected route-map inside
 exit-address-family
`
	const evpn = `
 address-family l2vpn evpn
  advertise ipv4 unicast
  advertise ipv6 unicast
  route-target import 64512:9
 exit-address-family
`
	zebra, own := "vni 9\n", unicast+evpn
	if vrf {
		in("tor1", "link add red type vrf table 9", "link set red up", "link set br9 master red", "link set p0 master red")
		zebra, own = "vrf red\n vni 9\nexit-vrf\n", "router bgp 64513 vrf red\n bgp router-id 192.0.2.254\n no bgp network import-check\n"+unicast+evpn
	}
	in("tor1", "link set vx9 up", "link set br9 up", "link set p0 up", "address add 10.60.0.1/24 dev p0", "address add fd00:60::1/64 dev p0 nodad")
	run(t, "ip", "netns", "exec", "tor1", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	in("behind", "link set eth0 up", "address add 10.60.0.2/24 dev eth0", "address add fd00:60::2/64 dev eth0 nodad", "route add default via 10.60.0.1", "route add default via fd00:60::1")
	return &frr{nettest.StartFRRWith(t, "tor1", zebra, `
router bgp 64513
 bgp router-id 192.0.2.254
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 no bgp network import-check
 neighbor 192.0.2.1 remote-as 64512
 neighbor 192.0.2.1 timers connect 1
 address-family l2vpn evpn
  neighbor 192.0.2.1 activate
  advertise-all-vni
 exit-address-family
`+own+`route-map inside permit 10
 match interface p0
`), t}
}

// forgets waits until FRR's kernel has no router for the host's VTEP any more, as an IPv4 or an IPv6 gateway. FRR 8's zebra takes a prefix that
// is announced again while its withdrawal still waits in zebra's queue first, and then the withdrawal: the route stays, and the router to which
// it goes, and that router's place, are removed for good.
func (f *frr) forgets(gateways ...string) {
	f.t.Helper()
	eventually(f.t, fmt.Sprintf("FRR's kernel forgets %v", gateways), func() (bool, string) {
		out := run(f.t, "ip", "-n", "tor1", "neigh", "show", "dev", "br9")
		for line := range strings.Lines(out) {
			if w := strings.Fields(line); slices.Contains(gateways, w[0]) && slices.Contains(w, "extern_learn") {
				return false, out
			}
		}
		return true, out
	})
}

// four and six are the host's VTEP in the words of FRR's kernel.
const four, six = "192.0.2.1", "::ffff:192.0.2.1"

// l3 is VNI 9 of this host, as VTEP 192.0.2.1.
func l3(announced ...string) (out vpn.BGP) {
	out = vpn.BGP{
		Speaker:   &vpn.Speaker{ASN: 64512, RouterID: addr("192.0.2.1"), Multipath: 8, EVPN: true},
		Neighbors: map[string]vpn.Neighbor{"tor1": {Address: addr("192.0.2.254"), ASN: 64513, PrefixLimit: 1000}},
		L3:        &vpn.L3VNI{VNI: 9, VTEP: addr("192.0.2.1"), Port: 4789, MTU: 1450},
		Prefixes:  map[netip.Prefix]string{},
		L3Import:  []vpn.Filter{{Reject: true, Prefix: prefix("10.66.0.0/16"), Longest: 32}, accept("10.0.0.0/8", 32), accept("fd00::/8", 128)},
	}
	for _, p := range announced {
		out.Prefixes[prefix(p)] = "the file"
	}
	return out
}

// station is a namespace behind the host.
func station(t *testing.T, name string, host, own []string) {
	t.Helper()
	nettest.Namespace(t, name)
	nettest.Run(t, "ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
	t.Cleanup(func() { exec.Command("ip", "link", "del", name).Run() })
	nettest.Run(t, "ip", "link", "set", name, "up")
	nettest.Run(t, "ip", "-n", name, "link", "set", "eth0", "up")
	for i := range host {
		nettest.Run(t, "ip", "address", "add", host[i], "dev", name, "nodad")
		nettest.Run(t, "ip", "-n", name, "address", "add", own[i], "dev", "eth0", "nodad")
		nettest.Run(t, "ip", "-n", name, "route", "add", "default", "via", prefix(host[i]).Addr().String())
	}
}

// TestPrefixesWithFRR has FRR route in its main table. In a VRF it does where the kernel has
// some: l3vni_vm_test.go.
func TestPrefixesWithFRR(t *testing.T) { prefixesWithFRR(t, false) }

// prefixesWithFRR is a host and an FRR that route to each other's prefixes of both IP
// versions, with pings from behind the one to behind the other; what would do harm, what
// somebody takes away, and the end of each.
func prefixesWithFRR(t *testing.T, vrf bool) {
	t.Helper()
	run(t, "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	station(t, "web", []string{"10.20.0.1/24", "fd00:20::1/64"}, []string{"10.20.0.2/24", "fd00:20::2/64"})
	station(t, "own", []string{"10.10.0.1/24"}, []string{"10.10.0.2/24"})
	f := frrL3(t, vrf)
	l := speakEVPN(t, &switches{told: vpn.NewTold()})
	l.driver.opts.RouterMAC = vpn.MAC{2, 0, 0, 0, 9, 1}
	want := l3("10.20.0.0/24", "fd00:20::/64")
	l.apply(want)
	l.established("tor1")
	l.route("10.60.0.0/24", "tor1", "used")
	l.route("fd00:60::/64", "tor1", "used")
	l.kernelHas("10.60.0.0/24", "main", "via 10.255.0.2", "dev vx9", "onlink", "metric 20")
	l.kernelHas("fd00:60::/64", "main", "via fe80::aff:2", "dev vx9")
	ping := func(from, to string) {
		t.Helper()
		eventually(t, from+" reaches "+to, func() (bool, string) {
			out, err := exec.Command("ip", "netns", "exec", from, "ping", "-c1", "-W1", to).CombinedOutput()
			if err == nil {
				return true, ""
			}
			return false, string(out) + "the host has\n" + run(t, "ip", "neigh", "show", "dev", "vx9") + "tor1 has\n" + run(t, "ip", "-n", "tor1", "route") + run(t, "ip", "-n", "tor1", "neigh", "show", "dev", "br9")
		})
	}
	all := func() {
		t.Helper()
		ping("web", "10.60.0.2")
		ping("web", "fd00:60::2")
		ping("behind", "10.20.0.2")
		ping("behind", "fd00:20::2")
	}
	all()
	l.route("10.10.0.128/25", "tor1", "the host's own on own")
	l.route("10.66.1.0/24", "tor1", "l3vni.import[0] rejects it")
	l.route("10.255.0.2/32", "tor1", "would replace the way to the VTEP 10.255.0.2 itself")
	if n := l.neighbor("tor1"); n.Accepted != 2 || n.Used != 2 || n.PrefixesReceived != 5 || n.PrefixesSent != 2 {
		t.Errorf("got %+v", n)
	}
	told := f.show("show bgp l2vpn evpn route type prefix")
	for _, w := range []string{"192.0.2.1:4095", "[5]:[0]:[24]:[10.20.0.0]", "[5]:[0]:[64]:[fd00:20::]", "RT:64512:9", "Rmac:02:00:00:00:09:01"} {
		if !strings.Contains(told, w) {
			t.Errorf("FRR is not told %s:\n%s", w, told)
		}
	}

	// What others take away comes back, and what nobody needs goes.
	for _, c := range []string{
		"ip route del 10.60.0.0/24", "ip link set vx9 down", "ip link del vx9", "ip link set vx9 mtu 1300",
		"ip neigh del 10.255.0.2 dev vx9", "ip neigh replace 10.255.0.2 lladdr 02:00:00:00:00:77 dev vx9 nud permanent",
		"bridge fdb del 02:00:00:00:fe:09 dev vx9 self dst 10.255.0.2", "bridge fdb replace 02:00:00:00:fe:09 dev vx9 self dst 192.0.2.77",
		"bridge fdb append 02:00:00:00:00:66 dev vx9 self dst 192.0.2.66", "ip -6 neigh add fe80::66 lladdr 02:00:00:00:00:66 dev vx9 nud permanent",
	} {
		run(t, strings.Fields(c)[0], strings.Fields(c)[1:]...)
		l.apply(want)
		nudge(l.driver.wake)
		all()
		eventually(t, "nothing is left of "+c, func() (bool, string) {
			out := run(t, "bridge", "fdb", "show", "dev", "vx9") + run(t, "ip", "neigh", "show", "dev", "vx9") + run(t, "ip", "-6", "neigh", "show", "dev", "vx9") + run(t, "ip", "link", "show", "vx9")
			return !strings.Contains(out, "00:66") && !strings.Contains(out, "00:77") && strings.Contains(out, "mtu 1450"), out
		})
	}

	// Another limit, another filter, and another VNI, which FRR is not in.
	few := want.Clone()
	n := few.Neighbors["tor1"]
	n.PrefixLimit = 4
	few.Neighbors["tor1"] = n
	l.apply(few)
	l.waits("tor1", "more than 4 prefixes by EVPN")
	l.kernelHas("10.60.0.0/24", "main")
	f.forgets(four, six)
	l.apply(want)
	all()
	none := want.Clone()
	none.L3Import = want.L3Import[:1]
	l.apply(none)
	l.route("10.60.0.0/24", "tor1", "no import filter of l3vni accepts it")
	l.kernelHas("10.60.0.0/24", "main")
	eventually(t, "no router is left", func() (bool, string) {
		out := run(t, "bridge", "fdb", "show", "dev", "vx9")
		return !strings.Contains(out, "dst"), out
	})
	other := want.Clone()
	other.L3.VNI = 10
	l.apply(other)
	l.route("10.60.0.0/24", "tor1", "is in VNI 9, and this host's l3vni is 10")
	if out := run(t, "ip", "-o", "link", "show", "type", "vxlan"); !strings.Contains(out, "vx10") || strings.Contains(out, "vx9") {
		t.Errorf("devices: %s", out)
	}
	f.forgets(four, six)
	l.apply(want)
	all()

	// A prefix that is withdrawn, on either side, and one that is announced anew.
	run(t, "ip", "-n", "tor1", "address", "del", "10.60.0.1/24", "dev", "p0")
	l.kernelHas("10.60.0.0/24", "main")
	run(t, "ip", "-n", "tor1", "address", "add", "10.60.0.1/24", "dev", "p0")
	run(t, "ip", "-n", "behind", "route", "replace", "default", "via", "10.60.0.1")
	ping("web", "10.60.0.2")
	less := want.Clone()
	delete(less.Prefixes, prefix("10.20.0.0/24"))
	l.apply(less)
	eventually(t, "FRR forgets 10.20.0.0/24", func() (bool, string) {
		out := f.show("show bgp l2vpn evpn route type prefix")
		return !strings.Contains(out, "[10.20.0.0]") && strings.Contains(out, "[fd00:20::]"), out
	})
	f.forgets(four)
	l.apply(want)
	all()

	// Without an l3vni everything of it goes, and nothing else; a neighbor that dies is forgotten.
	without := want.Clone()
	without.L3, without.Prefixes, without.L3Import = nil, nil, nil
	l.apply(without)
	l.kernelHas("10.60.0.0/24", "main")
	if out := run(t, "ip", "-o", "link", "show", "type", "vxlan"); out != "" {
		t.Errorf("devices: %s", out)
	}
	eventually(t, "FRR forgets the host", func() (bool, string) {
		out := f.show("show bgp l2vpn evpn route type prefix")
		return !strings.Contains(out, "192.0.2.1:4095"), out
	})
	l.established("tor1")
	f.forgets(four, six)
	l.apply(want)
	all()
	f.Kill()
	l.kernelHas("10.60.0.0/24", "main")
	l.apply(vpn.BGP{})
	if out := run(t, "ip", "-o", "link", "show", "type", "vxlan"); out != "" {
		t.Errorf("devices: %s", out)
	}
}

// TestTakenVNI: a VNI that another device of the host has is an error that says so, and is
// had when that device has gone.
func TestTakenVNI(t *testing.T) {
	t.Cleanup(func() { exec.Command("ip", "link", "del", "mine").Run() }) // it has gone in a test that passes
	run(t, "ip", "link", "add", "mine", "type", "vxlan", "id", "9", "local", "192.0.2.1", "dstport", "4789")
	l := speakEVPN(t, &switches{told: vpn.NewTold()})
	want := l3("10.20.0.0/24")
	l.apply(vpn.BGP{Speaker: want.Speaker})
	err := l.driver.Do(t.Context(), vpn.AddL3VNI{L3VNI: *want.L3})
	if err == nil || !strings.Contains(err.Error(), "l3vni/9: VNI 9 is that of the device mine, which is not ripstop's: ") {
		t.Errorf("got %v", err)
	}
	err = l.driver.Do(t.Context(), vpn.AnnouncePrefix{Prefix: prefix("10.20.0.0/24")})
	if err == nil || !strings.Contains(err.Error(), "there is no l3vni to announce it in") {
		t.Errorf("got %v", err)
	}
	// What the kernel gives all the same is free: another port, and the other IP version.
	for _, c := range []struct {
		vtep string
		port uint16
		free bool
	}{{"192.0.2.7", 4789, false}, {"192.0.2.1", 4790, true}, {"fd00::1", 4789, true}} {
		if err := l.driver.Free(vpn.L3VNI{VNI: 9, VTEP: addr(c.vtep), Port: c.port}); (err == nil) != c.free {
			t.Errorf("VTEP %s, port %d: %v", c.vtep, c.port, err)
		}
	}
	run(t, "ip", "link", "del", "mine")
	run(t, "ip", "link", "add", "vx9", "type", "bridge")
	if err := l.driver.Free(*want.L3); err == nil || !strings.Contains(err.Error(), "the name of its device, vx9, is that of a link") {
		t.Errorf("got %v", err)
	}
	run(t, "ip", "link", "del", "vx9")
	l.apply(want)
	if err := l.driver.Free(*want.L3); err != nil {
		t.Errorf("its own: %v", err)
	}
	l.apply(vpn.BGP{})
}
