package bgp

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

// TestReflection has two FRRs and a BIRD of the host's own autonomous system learn each
// other's routes through the host, with what keeps reflected routes from going round.
func TestReflection(t *testing.T) {
	hostLink(t, "blue", "tor1", "10.10.0.1/24", "10.10.0.254/24", "10.50.0.1/32")
	hostLink(t, "san", "tor2", "10.30.0.1/24", "10.30.0.254/24")
	hostLink(t, "green", "tor3", "10.40.0.1/24", "10.40.0.254/24", "10.70.0.1/32")
	l := speak(t, host(map[string]vpn.Neighbor{
		"tor1": {Address: addr("10.10.0.254"), ASN: 64512, Client: true},
		"tor2": {Address: addr("10.30.0.254"), ASN: 64512, Client: true},
		"tor3": {Address: addr("10.40.0.254"), ASN: 64512, Client: true},
	}))
	const config = `
router bgp 64512
 bgp router-id LINK.254
 neighbor LINK.1 remote-as 64512
 neighbor LINK.1 timers connect 1
 address-family ipv4 unicast
  network OWN
 exit-address-family
`
	f := startFRR(t, "tor1", strings.NewReplacer("LINK", "10.10.0", "OWN", "10.50.0.1/32").Replace(config))
	third := startFRR(t, "tor3", strings.NewReplacer("LINK", "10.40.0", "OWN", "10.70.0.1/32").Replace(config))
	show := startBIRD(t, "tor2", `
router id 10.30.0.254;
protocol device {}
protocol direct { ipv4; }
protocol static four { ipv4; route 10.60.0.0/16 blackhole; }
protocol bgp host {
	local as 64512;
	neighbor 10.30.0.1 as 64512;
	connect delay time 1; connect retry time 1; error wait time 1, 2;
	ipv4 { import all; export where source = RTS_STATIC; };
}
`)
	l.established("tor1", "tor2", "tor3")
	has := func(what string, get func() string, words ...string) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s has %v", what, words), func() (bool, string) {
			out := get()
			return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(out, w) }), out
		})
	}
	atFRR := func() string { return f.show("show bgp ipv4 unicast 10.60.0.0/16") }
	atBIRD := func() string { return show("show", "route", "10.50.0.1/32", "all") }
	has("FRR", atFRR, "10.30.0.254", "Originator: 10.30.0.254", "Cluster list: 10.99.0.1")
	has("BIRD", atBIRD, "BGP.next_hop: 10.10.0.254", "BGP.originator_id: 10.10.0.254", "BGP.cluster_list: 10.99.0.1")

	for _, p := range []string{"10.50.0.1/32", "10.60.0.0/16"} {
		has("the third", func() string { return third.show("show bgp ipv4 unicast " + p) }, "Originator: ", "Cluster list: 10.99.0.1")
	}
	has("FRR", func() string { return f.show("show bgp ipv4 unicast 10.70.0.1/32") }, "10.40.0.254", "Originator: 10.40.0.254")
	has("BIRD", func() string { return show("show", "route", "10.70.0.1/32", "all") }, "BGP.next_hop: 10.40.0.254", "BGP.originator_id: 10.40.0.254")

	// What one withdraws goes at the others, too.
	show("disable", "four")
	has("FRR", atFRR, "Network not in table")
	has("the third", func() string { return third.show("show bgp ipv4 unicast 10.60.0.0/16") }, "Network not in table")
	f.show("configure terminal", "router bgp 64512", "address-family ipv4 unicast", "no network 10.50.0.1/32")
	has("BIRD", atBIRD, "Network not found")
}

// TestBFDWithFRR has BFD between the host and an FRR, which then falls silent: the
// session of BGP ends long before its hold time, its route leaves the kernel, and both come
// again.
func TestBFDWithFRR(t *testing.T) {
	hostLink(t, "blue", "tor1", "10.10.0.1/24", "10.10.0.254/24", "10.50.0.1/32")
	l := speak(t, host(map[string]vpn.Neighbor{"tor1": {Address: addr("10.10.0.254"), ASN: 64513, BFD: 300 * time.Millisecond}}, accept("10.0.0.0/8", 32)))
	f := startFRR(t, "tor1", `
router bgp 64513
 bgp router-id 10.10.0.254
 no bgp ebgp-requires-policy
 neighbor 10.10.0.1 remote-as 64512
 neighbor 10.10.0.1 timers connect 1
 neighbor 10.10.0.1 bfd 3 300 300
 address-family ipv4 unicast
  network 10.50.0.1/32
 exit-address-family
`)
	bfdd := f.Daemon("bfdd", "hostname tor1\n", "--bfdctl", f.Path("bfdd.sock"))
	l.established("tor1")
	up := func() {
		t.Helper()
		eventually(t, "BFD is up", func() (bool, string) {
			n := l.neighbor("tor1")
			return n.BFD == "up" && n.Session.State == vpn.Established, fmt.Sprintf("%+v", n)
		})
		l.kernelHas("10.50.0.1/32", "main", "via 10.10.0.254")
	}
	up()
	cut := time.Now()
	bfdd.Signal(syscall.SIGSTOP) // bgpd goes on, and knows nothing of it
	l.kernelHas("10.50.0.1/32", "main")
	took := time.Since(cut)
	l.waits("tor1", "BFD heard nothing")
	t.Logf("the route went after %v: %+v", took, l.neighbor("tor1").Session)
	if took > 10*time.Second { // of which nine are a busy machine's
		t.Errorf("the route went after %v, with a detection time of 900ms and a hold time of 90s", took)
	}
	bfdd.Signal(syscall.SIGCONT)
	up()
}

// TestNeighborRestarts has an FRR with graceful restart killed: its routes stay in the kernel
// while it is away, and afterwards go which it does not announce any more. When it does not
// come back in its time, all go.
func TestNeighborRestarts(t *testing.T) {
	hostLink(t, "blue", "tor1", "10.10.0.1/24", "10.10.0.254/24", "10.50.0.1/32")
	config := func(restart string, networks ...string) string {
		return `
router bgp 64513
 bgp router-id 10.10.0.254
 no bgp ebgp-requires-policy
 no bgp network import-check
 bgp graceful-restart
 bgp graceful-restart preserve-fw-state
 bgp graceful-restart restart-time ` + restart + `
 neighbor 10.10.0.1 remote-as 64512
 neighbor 10.10.0.1 timers connect 10
 address-family ipv4 unicast
  network ` + strings.Join(networks, "\n  network ") + `
 exit-address-family
`
	}
	l := speak(t, host(map[string]vpn.Neighbor{"tor1": {Address: addr("10.10.0.254"), ASN: 64513}}, accept("10.0.0.0/8", 32)))
	f := startFRR(t, "tor1", config("100", "10.50.0.1/32", "10.51.0.0/16"))
	l.established("tor1")
	l.kernelHas("10.50.0.1/32", "main", "via 10.10.0.254")
	l.kernelHas("10.51.0.0/16", "main", "via 10.10.0.254")
	stale := func(p string, want bool) {
		t.Helper()
		eventually(t, fmt.Sprintf("%s is stale: %v", p, want), func() (bool, string) {
			i := slices.IndexFunc(l.driver.Routes(), func(v vpn.Verdict) bool { return v.Prefix == prefix(p) })
			return i >= 0 && l.driver.Routes()[i].Stale == want, fmt.Sprintf("%+v", l.driver.Routes())
		})
	}
	stale("10.50.0.1/32", false)
	heard := nettest.Start(t, "ip", "monitor", "route")
	nettest.Eventually(t, limit, "changes of routes are heard", func() bool {
		run(t, "ip", "route", "replace", "10.77.0.0/16", "via", "10.10.0.254")
		run(t, "ip", "route", "del", "10.77.0.0/16")
		return strings.Contains(heard.Log(), "Deleted 10.77.0.0/16")
	})
	f.Kill()
	stale("10.50.0.1/32", true)
	f.Restart(config("1", "10.50.0.1/32"))
	l.established("tor1")
	stale("10.50.0.1/32", false)
	l.kernelHas("10.51.0.0/16", "main")
	nettest.Eventually(t, limit, "it is heard", func() bool { return strings.Contains(heard.Log(), "Deleted 10.51.0.0/16") })
	if out := heard.Log(); strings.Contains(out, "Deleted 10.50.0.1") {
		t.Errorf("while the neighbor restarted, the kernel's routes changed so:\n%s", out)
	}

	f.Kill() // and does not come back
	l.kernelHas("10.50.0.1/32", "main")
	l.waits("tor1", "")
}
