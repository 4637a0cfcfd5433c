package wg

import (
	"errors"
	"net"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

// suite is what a tunnel owes its user, whatever carries it.
func suite(t *testing.T, near, far vpn.Engine) {
	for _, test := range tests() {
		t.Run(test.name, func(t *testing.T) { test.run(newLab(t, near, far)) })
	}
}

type labTest struct {
	name string
	run  func(*lab)
}

func tests() []labTest {
	return []labTest{
		{"packets pass", testPacketsPass},
		{"the kernel shows what was asked", testKernelShows},
		{"peers come and go beside a flow", testLivePeers},
		{"a peer roams", testRoaming},
		{"keys are rotated", testRotation},
		{"a peer moves to another address", testMove},
		{"keys are rotated without a lost packet", testNextKey},
		{"pre-shared keys are rotated without a lost packet", testNextPresharedKey},
		{"replayed packets", testReplay},
		{"stolen addresses", testStolenAddress},
		{"a removed peer", testRevoked},
		{"pre-shared keys", testPresharedKey},
		{"keepalive", testKeepalive},
		{"IPv6 outside", testIPv6Outside},
		{"drift is repaired", testDrift},
		{"tunnels change", testChange},
		{"port is taken", testPortTaken},
		{"devices of others", testForeign},
		{"MTU", testMTU},
		{"MTU of a way that changes", testFollow},
		{"nothing is left", testNothingLeft},
	}
}

func testPacketsPass(l *lab) {
	l.both()
	for _, to := range []string{"10.99.0.2", "10.50.0.1", "fd99::2"} {
		l.reaches(to)
	}
	l.copies("10.50.0.1:7001", 1<<20)
	l.copies("[fd99::2]:7002", 256<<10)
	s, p := l.stats("site"), l.peer()
	if s.Engine != l.nearEngine || s.Listen != 51820 || s.PublicKey.String() != l.site2.Peers[0].Key || s.MTU != 1440 {
		l.Errorf("tunnel is %+v", s)
	}
	if p.Name != "branch" || p.Endpoint != addr("192.0.2.2:51821") || p.RxBytes < 5<<18 || p.TxBytes < 5<<18 ||
		time.Since(p.LastHandshake) > time.Minute || len(p.AllowedIPs) != 3 {
		l.Errorf("peer is %+v", p)
	}
}

func testKernelShows(l *lab) {
	l.both()
	l.reaches("10.99.0.2")
	shown := nettest.Run(l, "wg", "show", "site")
	for _, part := range []string{
		"public key: " + l.site2.Peers[0].Key, "listening port: 51820", "peer: " + l.site.Peers[0].Key,
		"endpoint: 192.0.2.2:51821", "allowed ips: 10.50.0.0/16, 10.99.0.2/32, fd99::2/128", "latest handshake: ",
	} {
		if part = strings.TrimPrefix(part, "allowed ips: "); !containsAll(shown, part) {
			l.Errorf("wg show has no %q:\n%s", part, shown)
		}
	}
	if got := nettest.Run(l, "ip", "-br", "address", "show", "site"); !strings.Contains(got, "10.99.0.1/24 fd99::1/64 \n") {
		l.Errorf("addresses are %q", got)
	}
	if got := nettest.Run(l, "ip", "route", "show", "proto", "114"); !strings.HasPrefix(got, "10.50.0.0/16 dev site scope link") {
		l.Errorf("routes are %q", got)
	}
	if got := nettest.Run(l, "ip", "link", "show", "site"); !strings.Contains(got, "alias ripstop tunnel=site") {
		l.Errorf("the device is %q", got)
	}
}

// containsAll looks for the words of a list in any order.
func containsAll(text, words string) bool {
	for w := range strings.SplitSeq(words, ", ") {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return true
}

// testLivePeers changes everything around a session and its own allowed IPs.
func testLivePeers(l *lab) {
	l.both()
	l.reaches("10.50.0.1")
	stop := l.flow("10.50.0.1:7001", 2*time.Second)
	before := l.peer()
	other := peerSpec{Name: "other", Key: newKeys(l).public, Endpoint: "192.0.2.9:1", Allowed: []string{"10.60.0.0/16"}}
	with := l.site
	with.Peers = append(slices.Clone(l.site.Peers), other)
	l.apply(with)
	with.Peers[1].Allowed = []string{"10.61.0.0/16", "10.99.0.9/32"}
	l.apply(with)
	with.Peers[0].Allowed = append(slices.Clone(l.site.Peers[0].Allowed), "10.60.0.0/16")
	l.apply(with)
	l.apply(l.site)
	stop()
	after := l.peer()
	if !after.LastHandshake.Equal(before.LastHandshake) || after.RxBytes <= before.RxBytes {
		l.Errorf("the session began anew: %v, %v", before, after)
	}
	if got := nettest.Run(l, "ip", "route", "show", "dev", "site", "proto", "114"); strings.Count(got, "\n") != 1 {
		l.Errorf("routes are %q", got)
	}
}

func testRoaming(l *lab) {
	l.site2.Peers[0].Endpoint, l.site2.Peers[0].Keepalive = "192.0.2.1:51820", time.Second
	l.both()
	l.reaches("10.50.0.1")
	stop := l.flow("10.50.0.1:7001", patience)
	l.site2.Listen = 51999
	l.far.ask(request{Verb: "apply", Specs: []spec{l.site2}})
	nettest.Eventually(l, patience, "the peer is heard from elsewhere", func() bool {
		return l.peer().Endpoint == addr("192.0.2.2:51999")
	})
	if steps := l.apply(l.site); len(steps) != 0 {
		l.Errorf("roaming is taken for drift: %q", steps)
	}
	stop()
	if got := l.peer().Endpoint; got != addr("192.0.2.2:51999") {
		l.Errorf("the peer was sent to %v", got)
	}
}

func testRotation(l *lab) {
	l.both()
	l.reaches("10.50.0.1")
	stop := l.flow("10.50.0.1:7001", patience)
	k := newKeys(l)
	l.site.Key, l.site2.Peers[0].Key = k.private, k.public
	l.far.ask(request{Verb: "apply", Specs: []spec{l.site2}})
	l.apply(l.site)
	stop()
	if got := l.stats("site").PublicKey.String(); got != k.public {
		l.Errorf("public key is %s, want %s", got, k.public)
	}
}

func testPresharedKey(l *lab) {
	psk := newKeys(l).private
	l.site.Peers[0].PSK = psk
	l.both()
	for range 3 {
		if pings("10.99.0.2") {
			l.Fatal("an answer without the pre-shared key")
		}
	}
	if !l.peer().LastHandshake.IsZero() {
		l.Error("a handshake without the pre-shared key")
	}
	l.site2.Peers[0].PSK = psk
	l.far.ask(request{Verb: "apply", Specs: []spec{l.site2}})
	l.reaches("10.99.0.2")
	l.site.Peers[0].PSK, l.site2.Peers[0].PSK = "", ""
	l.both()
	if steps := l.apply(l.site); len(steps) != 0 {
		l.Errorf("the pre-shared key stays: %q", steps)
	}
}

// testKeepalive sends nothing through the tunnel: the session comes of itself.
func testKeepalive(l *lab) {
	l.site.Peers[0].Keepalive = time.Second
	l.both()
	nettest.Eventually(l, patience, "a handshake without traffic", func() bool { return !l.peer().LastHandshake.IsZero() })
	sent := l.peer().TxBytes
	nettest.Eventually(l, patience, "keepalives", func() bool { return l.peer().TxBytes >= sent+3*32 })
	l.site.Peers[0].Keepalive = 0
	l.apply(l.site)
	if got := l.peer().Keepalive; got != 0 {
		l.Errorf("keepalive is still %v", got)
	}
}

func testIPv6Outside(l *lab) {
	l.site.Peers[0].Endpoint = "[fd00:2::2]:51821"
	l.both()
	l.reaches("10.99.0.2")
	l.reaches("fd99::2")
	if s := l.stats("site"); s.MTU != 1420 || l.peer().Endpoint != addr("[fd00:2::2]:51821") {
		l.Errorf("MTU %d, endpoint %v", s.MTU, l.peer().Endpoint)
	}
}

func testDrift(l *lab) {
	l.both()
	l.reaches("10.50.0.1")
	peer := l.site.Peers[0].Key
	for _, drift := range []string{
		"ip address del 10.99.0.1/24 dev site",
		"ip address add 10.99.9.9/24 dev site",
		"ip -6 address del fd99::1/64 dev site",
		"ip link set site mtu 1300",
		"ip link set site down",
		"ip route del 10.50.0.0/16",
		"wg set site listen-port 4444",
		"wg set site peer " + peer + " remove",
		"wg set site peer " + peer + " allowed-ips 10.1.1.1/32",
		"wg set site peer " + peer + " persistent-keepalive 7",
		"wg set site peer " + newKeys(l).public + " allowed-ips 10.2.0.0/16",
		"ip link del site",
	} {
		words := strings.Fields(drift)
		nettest.Run(l, words[0], words[1:]...)
		nettest.Eventually(l, patience, "drift is repaired: "+drift, func() bool {
			_, err := apply(l.Context(), l.driver, want(l.site))
			again, err2 := apply(l.Context(), l.driver, want(l.site))
			return err == nil && err2 == nil && len(again) == 0
		})
		l.reaches("10.50.0.1")
	}
}

// testChange changes what a tunnel has beside its peers, under a flow.
func testChange(l *lab) {
	l.both()
	l.reaches("10.50.0.1")
	l.site.Addresses = append(l.site.Addresses, "10.99.0.5/24")
	l.apply(l.site)
	stop := l.flow("10.50.0.1:7001", 5*time.Second)
	before := l.peer().LastHandshake
	l.site.Addresses = []string{"10.99.0.1/24", "10.99.0.6/24", "fd99::1/64"}
	l.site.Listen, l.site.MTU = 51830, 1400
	l.apply(l.site)
	stop()
	if s := l.stats("site"); s.Listen != 51830 || s.MTU != 1400 || !l.peer().LastHandshake.Equal(before) {
		l.Errorf("tunnel is %+v, handshake %v before", s, before)
	}
	got := nettest.Run(l, "ip", "-4", "-br", "address", "show", "site")
	if !strings.HasSuffix(got, " 10.99.0.1/24 10.99.0.6/24 \n") {
		l.Errorf("addresses are %q", got)
	}
	second := l.site
	second.Name, second.Listen, second.Key, second.Peers = "second", 51840, newKeys(l).private, nil
	second.Addresses = []string{"10.98.0.1/24"}
	l.apply(l.site, second)
	l.site.Listen, second.Listen = 51840, 51830
	l.apply(l.site, second)
	l.apply(l.site)
	if out, err := exec.Command("ip", "link", "show", "second").CombinedOutput(); err == nil {
		l.Errorf("the second tunnel is still there: %s", out)
	}
}

func testPortTaken(l *lab) {
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: 51820})
	if err != nil {
		l.Fatal(err)
	}
	defer c.Close() // a second time, when all goes well
	free := l.site
	free.Name, free.Listen, free.Addresses, free.Peers = "free", 51850, []string{"10.98.0.1/24"}, nil
	_, err = apply(l.Context(), l.driver, want(l.site, free))
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "UDP port 51820 is taken: stop who has it") {
		l.Errorf("error %v", err)
	}
	if l.stats("free").Listen != 51850 {
		l.Error("the other tunnel has no port")
	}
	moved := free
	moved.Listen = 51820
	if _, err = apply(l.Context(), l.driver, want(moved)); !errors.Is(err, syscall.EADDRINUSE) {
		l.Errorf("moving to a port that is taken: %v", err)
	}
	if got := l.stats("free").Listen; got != 51850 {
		l.Errorf("after a refused move the port is %d", got)
	}
	if err := c.Close(); err != nil {
		l.Fatal(err)
	}
	l.both()
	l.reaches("10.99.0.2")
}

func testForeign(l *lab) {
	nettest.Run(l, "ip", "tuntap", "add", "site", "mode", "tun")
	l.Cleanup(func() { nettest.Run(l, "ip", "link", "del", "site") })
	free := l.site
	free.Name, free.Listen, free.Peers = "free", 51850, nil
	nettest.Run(l, "ip", "route", "add", "10.70.0.0/16", "dev", "wire")
	free.Peers = []peerSpec{{Name: "x", Key: newKeys(l).public, Allowed: []string{"10.70.0.0/16"}}, {Name: "y", Key: newKeys(l).public, Allowed: []string{"10.71.0.0/16"}}}
	_, err := apply(l.Context(), l.driver, want(l.site, free))
	for _, part := range []string{
		"tunnel site: a device of this name is there that ripstop did not make",
		"route 10.70.0.0/16 to tunnel free: another route to it is there",
	} {
		if err == nil || !strings.Contains(err.Error(), part) {
			l.Errorf("error %v, want %q", err, part)
		}
	}
	if _, err := apply(l.Context(), l.driver, want()); err != nil {
		l.Error(err)
	}
	if got := nettest.Run(l, "ip", "-br", "link", "show", "site"); !strings.HasPrefix(got, "site") {
		l.Errorf("the device of somebody else is %q", got)
	}
	if got := nettest.Run(l, "ip", "route", "show", "10.70.0.0/16"); !strings.Contains(got, "dev wire") {
		l.Errorf("the route of somebody else is %q", got)
	}
}

// testMTU follows the way to the endpoint.
func testMTU(l *lab) {
	l.both()
	for _, c := range []struct {
		change string
		mtu    int
	}{
		{"ip link set wire mtu 1400", 1340},
		{"ip route add 192.0.2.2 dev wire mtu 1350", 1290},
		{"ip route change 192.0.2.2 dev wire mtu 1300", 1280}, // not less: it has IPv6 addresses
	} {
		words := strings.Fields(c.change)
		nettest.Run(l, words[0], words[1:]...)
		if steps := l.apply(l.site); len(steps) != 1 || !strings.Contains(steps[0], "mtu auto") {
			l.Errorf("after %q the steps are %q", c.change, steps)
		}
		if got := l.stats("site").MTU; got != c.mtu {
			l.Errorf("after %q the MTU is %d, want %d", c.change, got, c.mtu)
		}
	}
}

// testFollow has the MTU come after a way that changes, which is told from a change by
// somebody else, and IPv6 come to a tunnel that was too narrow for it.
func testFollow(l *lab) {
	l.site.Addresses, l.site.Peers[0].Allowed = []string{"10.99.0.1/24"}, []string{"10.99.0.2/32"}
	l.both()
	seen := func(change string) vpn.Tunnel {
		words := strings.Fields(change)
		nettest.Run(l, words[0], words[1:]...)
		have, err := l.driver.Observe(l.Context())
		if err != nil {
			l.Fatal(err)
		}
		return have.Tunnels["site"]
	}
	for _, c := range []struct {
		change, follows string
		mtu             int
	}{
		{"ip link set wire mtu 1300", "1240 = 1300 (wire, to 192.0.2.2) - 60 (WireGuard over IPv4)", 1440},
		{"ip link set site mtu 1200", "", 1200},
		{"ip link set wire mtu 1400", "1340 = 1400 (wire, to 192.0.2.2) - 60 (WireGuard over IPv4)", 1240},
		{"ip link set wire mtu 1310", "1250 = 1310 (wire, to 192.0.2.2) - 60 (WireGuard over IPv4)", 1340},
	} {
		if got := seen(c.change); got.Follows != c.follows || got.MTU != c.mtu {
			l.Errorf("after %q it has MTU %d and follows %q, want %d and %q", c.change, got.MTU, got.Follows, c.mtu, c.follows)
		}
		l.apply(l.site)
	}
	if got := nettest.Run(l, "ip", "-6", "address", "show", "dev", "site"); got != "" {
		l.Errorf("addresses that are not ours: %s", got)
	}
	l.site.Addresses = append(l.site.Addresses, "fd99::1/64")
	l.apply(l.site)
	if got := nettest.Run(l, "ip", "-6", "-br", "address", "show", "dev", "site"); l.stats("site").MTU != 1280 || !strings.Contains(got, " fd99::1/64") || strings.Contains(got, "fe80:") {
		l.Errorf("with IPv6 its MTU is %d and its addresses are %q", l.stats("site").MTU, got)
	}
}

func testNothingLeft(l *lab) {
	l.both()
	l.reaches("10.99.0.2")
	if err := l.driver.Close(); err != nil {
		l.Fatal(err)
	}
	if out, err := exec.Command("ip", "link", "show", "site").CombinedOutput(); err == nil {
		l.Errorf("the device is still there: %s", out)
	}
	if got := nettest.Run(l, "ip", "route", "show", "proto", "114"); got != "" {
		l.Errorf("routes are %q", got)
	}
	if _, err := l.driver.Observe(l.Context()); !errors.Is(err, errClosed) {
		l.Errorf("observe after close: %v", err)
	}
	noGoroutines(l.T)
}
