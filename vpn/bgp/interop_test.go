package bgp

import (
	"net/netip"
	"strings"
	"testing"
	"time"

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
  network 0.0.0.0/0
  no neighbor fd00:10::1 activate
 exit-address-family
 address-family ipv6 unicast
  network fd00:50::1/128
  neighbor fd00:10::1 activate
 exit-address-family
`

// TestFRR: both IP versions, announcements both ways, filters, tables, and what
// would do harm.
func TestFRR(t *testing.T) {
	hostLink(t, "blue", "tor1", "10.10.0.1/24 fd00:10::1/64", "10.10.0.254/24 fd00:10::fe/64", "10.50.0.1/32", "fd00:50::1/128")
	l := speak(t, host(map[string]vpn.Neighbor{
		"tor1": {Address: addr("10.10.0.254"), ASN: 64513},
		"six":  {Address: addr("fd00:10::fe"), ASN: 64513},
	}, vpn.Filter{Reject: true, Prefix: prefix("10.66.0.0/16"), Longest: 32},
		vpn.Filter{Prefix: prefix("10.51.0.0/16"), Longest: 16, Table: 100},
		accept("10.0.0.0/8", 32), accept("fd00::/8", 128)))
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
