package bgp

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"ripstop/vpn"
)

// host is a BGP of AS 64512 with these neighbors.
func host(neighbors map[string]vpn.Neighbor, imports ...vpn.Filter) vpn.BGP {
	for name, n := range neighbors {
		if n.Hold == 0 {
			n.Hold = 90 * time.Second
		}
		if n.PrefixLimit == 0 {
			n.PrefixLimit = 1000
		}
		neighbors[name] = n
	}
	return vpn.BGP{
		Speaker:   &vpn.Speaker{ASN: 64512, RouterID: addr("10.99.0.1"), Restart: 120 * time.Second, Multipath: 8},
		Neighbors: neighbors,
		Announced: map[netip.Prefix]string{prefix("10.10.0.0/24"): "vlan blue", prefix("10.30.0.1/32"): "portal", prefix("fd00:10::/64"): "vlan blue"},
		Import:    imports,
	}
}

func accept(p string, longest int) vpn.Filter {
	return vpn.Filter{Prefix: prefix(p), Longest: longest, Table: vpn.Main}
}

const tor1 = `
router bgp 64513
 bgp router-id 10.10.0.254
 no bgp ebgp-requires-policy
 no bgp network import-check
 neighbor 10.10.0.1 remote-as 64512
 neighbor 10.10.0.1 timers connect 1
 neighbor fd00:10::1 remote-as 64512
 neighbor fd00:10::1 timers connect 1
 address-family ipv4 unicast
  network 10.50.0.1/32
  network 10.51.0.0/16
  network 10.66.0.0/16
  network 10.10.0.128/25
  network 10.10.0.254/32
  network 10.10.0.1/32
  network 10.98.0.7/32
  network 10.78.0.0/24
  network 0.0.0.0/0
  no neighbor fd00:10::1 activate
 exit-address-family
 address-family ipv6 unicast
  network fd00:50::1/128
  network fd00:78::/64
  network fd00:98::7/128
  neighbor fd00:10::1 activate
 exit-address-family
`

// TestFRR: both IP versions, announcements both ways, filters, tables, and what
// would do harm.
func TestFRR(t *testing.T) {
	hostLink(t, "blue", "tor1", "10.10.0.1/24 fd00:10::1/64", "10.10.0.254/24 fd00:10::fe/64", "10.50.0.1/32", "fd00:50::1/128")
	for _, p := range []string{"10.98.0.7/32", "fd00:98::7/128"} {
		run(t, "ip", "address", "add", p, "dev", "lo")
		t.Cleanup(func() { run(t, "ip", "address", "del", p, "dev", "lo") })
	}
	run(t, "ip", "route", "add", "10.78.0.0/16", "via", "10.10.0.254")
	run(t, "ip", "route", "add", "fd00:78::/32", "via", "fd00:10::fe")
	l := speak(t, host(map[string]vpn.Neighbor{
		"tor1": {Address: addr("10.10.0.254"), ASN: 64513},
		"six":  {Address: addr("fd00:10::fe"), ASN: 64513},
		"far":  {Address: addr("10.78.0.9"), ASN: 64519, Multihop: 4},
		"far6": {Address: addr("fd00:78::9"), ASN: 64519, Multihop: 4},
	}, vpn.Filter{Reject: true, Prefix: prefix("10.66.0.0/16"), Longest: 32},
		vpn.Filter{Prefix: prefix("10.51.0.0/16"), Longest: 16, Table: 100},
		accept("10.0.0.0/8", 32), accept("fd00::/8", 128)))
	l.waits("tor1", "connection refused")
	f := startFRR(t, "tor1", tor1)
	l.established("tor1", "six")
	f.learns("ipv4", "10.10.0.0/24", "10.30.0.1/32")
	f.learns("ipv6", "fd00:10::/64")
	l.route("10.50.0.1/32", "tor1", "used")
	l.kernelHas("10.50.0.1/32", "main", "via 10.10.0.254", "dev blue", "metric 20")
	l.kernelHas("fd00:50::1/128", "main", "dev blue")
	l.kernelHas("10.51.0.0/16", "100", "via 10.10.0.254")
	l.kernelHas("10.51.0.0/16", "main")
	l.route("10.66.0.0/16", "tor1", "import[0] rejects it")
	l.route("10.10.0.128/25", "tor1", "lies in 10.10.0.0/24, which is the host's own on blue")
	l.route("10.10.0.254/32", "tor1", "the host's own")
	l.route("0.0.0.0/0", "tor1", "default: true")
	for _, own := range []struct{ prefix, neighbor string }{{"10.10.0.1/32", "tor1"}, {"10.98.0.7/32", "tor1"}, {"fd00:98::7/128", "six"}} {
		l.route(own.prefix, own.neighbor, "is an address of this host")
		l.kernelHas(own.prefix, "main")
	}
	l.route("10.78.0.0/24", "tor1", "would replace the way to the neighbor far itself")
	l.kernelHas("10.78.0.0/24", "main")
	l.route("fd00:78::/64", "six", "would replace the way to the neighbor far6 itself")
	l.kernelHas("fd00:78::/64", "main")
	n := l.neighbor("tor1")
	if n.Sent != 2 || n.Received < 6 || !n.Graceful || n.Accepted != 2 || n.Used != 2 || n.Hold != 90*time.Second || n.RouterID != "10.10.0.254" {
		t.Errorf("got %+v", n)
	}

	// One change of a filter, of an announcement and of another neighbor each leave the session alone.
	since := n.Session.Since
	want := l.want.Clone()
	want.Import = append([]vpn.Filter{{Prefix: prefix("0.0.0.0/0"), Longest: 0, Default: true, Table: 100}}, want.Import[1:]...)
	delete(want.Announced, prefix("10.30.0.1/32"))
	want.Announced[prefix("10.10.0.7/32")] = "the file"
	delete(want.Neighbors, "six")
	l.apply(want)
	l.kernelHas("default", "100", "via 10.10.0.254")
	l.kernelHas("10.66.0.0/16", "main", "via 10.10.0.254")
	l.kernelHas("fd00:50::1/128", "main")
	f.learns("ipv4", "10.10.0.0/24", "10.10.0.7/32")
	if n := l.neighbor("tor1"); !n.Session.Since.Equal(since) || n.Session.State != vpn.Established {
		t.Errorf("the session was reset: %+v, since %v before", n, since)
	}

	// What the router withdraws goes; what others take away comes back.
	f.show("configure terminal", "router bgp 64513", "address-family ipv4 unicast", "no network 10.66.0.0/16")
	l.kernelHas("10.66.0.0/16", "main")
	run(t, "ip", "route", "del", "10.50.0.1/32")
	l.kernelHas("10.50.0.1/32", "main", "via 10.10.0.254")

	// No BGP: everything of it goes, and nothing else.
	run(t, "ip", "route", "add", "10.77.0.0/16", "via", "10.10.0.254")
	l.apply(vpn.BGP{})
	l.kernelHas("10.50.0.1/32", "main")
	l.kernelHas("default", "100")
	if out := run(t, "ip", "route", "show", "10.77.0.0/16"); !strings.Contains(out, "via 10.10.0.254") {
		t.Errorf("a route that is not ours has gone: %q", out)
	}
	run(t, "ip", "route", "del", "10.77.0.0/16")
	eventually(t, "FRR has lost the host", func() (bool, string) { return len(f.learned("ipv4")) == 0, f.show("show bgp summary") })
}

// TestBIRD: the same router for two sessions of two BIRDs, whose equal ways share
// the traffic; the better one wins, and the other takes over.
func TestBIRD(t *testing.T) {
	hostLink(t, "blue", "tor1", "10.10.0.1/24 fd00:10::1/64", "10.10.0.254/24 fd00:10::fe/64")
	hostLink(t, "san", "tor2", "10.30.0.1/24 fd00:30::1/64", "10.30.0.254/24 fd00:30::fe/64")
	const config = `
router id ROUTER;
protocol device {}
protocol static four { ipv4; route 10.50.0.0/16 blackhole; route 10.5ONLY.0.0/16 blackhole; }
protocol static six { ipv6; route fd00:50::/64 blackhole; }
protocol bgp host {
	local as 64513;
	neighbor HOST as 64512;
	connect delay time 1; connect retry time 1; error wait time 1, 2;
	ipv4 { import all; export filter { PREPEND accept; }; };
}
`
	fill := func(router, only, host, prepend string) string {
		return strings.NewReplacer("ROUTER", router, "ONLY", only, "HOST", host, "PREPEND", prepend).Replace(config)
	}
	six := func(host string) string {
		out := strings.Replace(fill("", "", host, ""), "ipv4 { import", "ipv6 { import", 1)
		return strings.Replace(out[strings.Index(out, "protocol bgp"):], "bgp host", "bgp host6", 1)
	}
	l := speak(t, host(map[string]vpn.Neighbor{
		"tor1": {Address: addr("10.10.0.254"), ASN: 64513},
		"six":  {Address: addr("fd00:10::fe"), ASN: 64513},
		"tor2": {Address: addr("10.30.0.254"), ASN: 64513},
		"six2": {Address: addr("fd00:30::fe"), ASN: 64513},
	}, accept("10.0.0.0/8", 24), accept("fd00::/8", 64)))
	show1 := startBIRD(t, "tor1", fill("10.10.0.254", "1", "10.10.0.1", "")+six("fd00:10::1"))
	show2 := startBIRD(t, "tor2", fill("10.30.0.254", "2", "10.30.0.1", "")+six("fd00:30::1"))
	l.established("tor1", "tor2", "six", "six2")
	l.kernelHas("10.50.0.0/16", "main", "nexthop via 10.10.0.254", "nexthop via 10.30.0.254")
	l.kernelHas("10.51.0.0/16", "main", "via 10.10.0.254")
	l.kernelHas("10.52.0.0/16", "main", "via 10.30.0.254")
	l.kernelHas("fd00:50::/64", "main", "nexthop via fd00:10::fe", "nexthop via fd00:30::fe")
	for _, show := range []func(...string) string{show1, show2} {
		eventually(t, "BIRD learns the host's prefixes and no others", func() (bool, string) {
			out := show("show", "route", "protocol", "host")
			return strings.Contains(out, "10.10.0.0/24") && strings.Contains(out, "10.30.0.1/32") && !strings.Contains(out, "10.5"), out
		})
	}
	eventually(t, "BIRD learns IPv6", func() (bool, string) {
		out := show1("show", "route", "protocol", "host6")
		return strings.Contains(out, "fd00:10::/64"), out
	})

	// A session that ends leaves the other way.
	show2("disable", "host")
	l.waits("tor2", "the neighbor ended the session")
	l.kernelHas("10.52.0.0/16", "main")
	if out := kernelRoute(t, "10.50.0.0/16", "main"); !strings.Contains(out, "via 10.10.0.254") || strings.Contains(out, "10.30.0.254") {
		t.Errorf("one way is left: %q", out)
	}
	show2("enable", "host")
	l.kernelHas("10.50.0.0/16", "main", "nexthop via 10.10.0.254", "nexthop via 10.30.0.254")
	if s := l.neighbor("tor1").Session; s.State != vpn.Established {
		t.Errorf("the other session: %+v", s)
	}
	show1("disable", "host6")
	eventually(t, "one way of IPv6 is left", func() (bool, string) {
		out := kernelRoute(t, "fd00:50::/64", "main")
		return strings.Contains(out, "via fd00:30::fe") && !strings.Contains(out, "fd00:10::fe"), out
	})
	show1("enable", "host6")
	l.kernelHas("fd00:50::/64", "main", "nexthop via fd00:10::fe", "nexthop via fd00:30::fe")
}

// TestProofs: what TCP MD5, TTL security, the autonomous system and a neighbor
// that is away do to a session with FRR (tor1) and with BIRD (tor2), each with a
// reason, and healed without a restart.
func TestProofs(t *testing.T) {
	hostLink(t, "blue", "tor1", "10.10.0.1/24", "10.10.0.254/24", "10.50.0.1/32")
	hostLink(t, "san", "tor2", "10.30.0.1/24", "10.30.0.254/24")
	const config = `
router bgp 64513
 bgp router-id 10.10.0.254
 no bgp ebgp-requires-policy
 neighbor 10.10.0.1 remote-as 64512
 neighbor 10.10.0.1 timers connect 1
 neighbor 10.10.0.1 password sesame
 address-family ipv4 unicast
  network 10.50.0.1/32
 exit-address-family
`
	bird := func(asn, security string) string {
		return strings.NewReplacer("ASN", asn, "SECURITY", security).Replace(`
router id 10.30.0.254;
protocol device {}
protocol static four { ipv4; route 10.60.0.0/16 blackhole; }
protocol bgp host {
	local as 64513;
	neighbor 10.30.0.1 as ASN;
	password "sesame";
	ttl security SECURITY;
	connect delay time 1; connect retry time 1; error wait time 1, 2;
	ipv4 { import all; export all; };
}
`)
	}
	good := map[string]vpn.Neighbor{
		"tor1": {Address: addr("10.10.0.254"), ASN: 64513, Password: "sesame", Hops: 1, Hold: 90 * time.Second, PrefixLimit: 1000},
		"tor2": {Address: addr("10.30.0.254"), ASN: 64513, Password: "sesame", Hops: 1, Hold: 90 * time.Second, PrefixLimit: 1000},
	}
	l := &lab{T: t}
	l.begin(Options{patience: patience{bgp.BGP_FSM_OPENSENT: 5 * time.Second, bgp.BGP_FSM_OPENCONFIRM: 10 * time.Second}})
	l.apply(host(map[string]vpn.Neighbor{
		"tor1": good["tor1"], "tor2": good["tor2"],
		"away": {Address: addr("10.10.0.99"), ASN: 64513},
	}, accept("10.0.0.0/8", 32)))
	both := func(reason string) {
		t.Helper()
		l.waits("tor1", reason)
		l.waits("tor2", reason)
	}
	f := startFRR(t, "tor1", config)
	show := startBIRD(t, "tor2", bird("64512", "off"))
	reconfigure := func(asn, security string) {
		t.Helper()
		path := filepath.Join(t.TempDir(), "bird.conf")
		if err := os.WriteFile(path, []byte(bird(asn, security)), 0o644); err != nil {
			t.Fatal(err)
		}
		if out := show("configure", `"`+path+`"`); !strings.Contains(out, "Reconfig") {
			t.Fatalf("BIRD takes no other configuration: %s", out)
		}
	}
	// The neighbors' packets have another TTL than 255, and the kernel drops them.
	eventually(t, "packets are dropped for their TTL", func() (bool, string) {
		out := run(t, "nstat", "-asz", "TcpExtTCPMinTTLDrop")
		return !regexp.MustCompile(`TCPMinTTLDrop +0 `).MatchString(out), out
	})
	both("look at password and ttl-security")
	f.show("configure terminal", "router bgp 64513", "neighbor 10.10.0.1 ttl-security hops 1")
	reconfigure("64512", "on")
	l.established("tor1", "tor2")
	l.route("10.50.0.1/32", "tor1", "used")
	l.route("10.60.0.0/16", "tor2", "used")
	l.waits("away", "connect to 10.10.0.99 port 179: ")

	with := func(change func(*vpn.Neighbor)) {
		t.Helper()
		want := l.want.Clone()
		for name, n := range good {
			change(&n)
			want.Neighbors[name] = n
		}
		l.apply(want)
	}
	with(func(n *vpn.Neighbor) { n.Password = "wrong" })
	l.kernelHas("10.50.0.1/32", "main")
	l.kernelHas("10.60.0.0/16", "main")
	both("look at password")
	with(func(n *vpn.Neighbor) { n.ASN = 64514 })
	both("of another autonomous system than asn says, 64514")
	with(func(*vpn.Neighbor) {})
	l.established("tor1", "tor2")
	l.kernelHas("10.50.0.1/32", "main", "via 10.10.0.254")
	l.kernelHas("10.60.0.0/16", "main", "via 10.30.0.254")

	f.show("configure terminal", "router bgp 64513", "neighbor 10.10.0.1 remote-as 64599")
	reconfigure("64599", "on")
	both("autonomous system 64512")
	f.show("configure terminal", "router bgp 64513", "neighbor 10.10.0.1 remote-as 64512")
	reconfigure("64512", "on")
	l.established("tor1", "tor2")
	have, err := l.driver.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w := have.Waiting(); len(w) != 1 || !strings.Contains(w["neighbor/away"], "no session: connect to 10.10.0.99") {
		t.Errorf("who waits: %v", w)
	}
}

// TestReflectorComesAndGoes: the policies for clients of a route reflector are
// taken, changed and dropped by a running speaker.
func TestReflectorComesAndGoes(t *testing.T) {
	client := vpn.Neighbor{Address: addr("192.0.2.1"), ASN: 64512, Client: true}
	l := speak(t, host(map[string]vpn.Neighbor{"a": client}))
	other := client
	other.Address, other.Client = addr("192.0.2.2"), false
	l.apply(host(map[string]vpn.Neighbor{"a": client, "b": other}))
	l.apply(host(map[string]vpn.Neighbor{"b": other}))
	if n := l.neighbor("b"); n.Session.State == vpn.Established {
		t.Errorf("got %+v", n)
	}
}
