package wg

import (
	"context"
	"net/netip"
	"os/exec"
	"sync"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

// TestReachIsHeld: what a peer sends elsewhere is dropped and counted, at once when that
// changes; what somebody does to the filters is seen, and they outlive the driver.
func TestReachIsHeld(t *testing.T) { reachIsHeld(t, vpn.Process) }

func reachIsHeld(t *testing.T, engine vpn.Engine) {
	l := newLab(t, engine, vpn.Process)
	l.both()
	far := func(to string) bool {
		return exec.Command("ip", "netns", "exec", "far", "ping", "-c1", "-W1", to).Run() == nil
	}
	if !pings("10.99.0.2") || !far("10.99.0.1") || !far("fd99::1") {
		t.Fatal("the tunnel does not carry")
	}
	limited := func(to ...string) vpn.State {
		s := want(l.site)
		for k, p := range s.Tunnels["site"].Peers {
			p.Limited = true
			for _, text := range to {
				p.Reach = append(p.Reach, netip.MustParsePrefix(text))
			}
			s.Tunnels["site"].Peers[k] = p
		}
		return s
	}
	set := func(s vpn.State) {
		t.Helper()
		if _, err := apply(t.Context(), l.driver, s); err != nil {
			t.Fatal(err)
		}
		if again, err := apply(t.Context(), l.driver, s); err != nil || len(again) != 0 {
			t.Fatalf("second pass: %v, %q", err, again)
		}
	}
	set(limited("10.99.0.1/32"))
	if !far("10.99.0.1") || far("fd99::1") || l.peer().Drops == 0 {
		t.Errorf("limited to one address: %d drops", l.peer().Drops)
	}
	set(limited("10.20.0.0/24", "fd99::/64", "10.96.0.0/13"))
	if !far("10.99.0.1") || !far("fd99::1") {
		t.Error("prefixes that hold it")
	}
	set(limited())
	if far("10.99.0.1") || far("fd99::1") || l.peer().Drops < 2 {
		t.Errorf("nothing: %d drops", l.peer().Drops)
	}
	nettest.Run(t, "nft", "flush", "chain", "inet", "ripstop-site", "reach")
	if steps, err := apply(t.Context(), l.driver, limited()); err != nil || len(steps) == 0 || far("10.99.0.1") {
		t.Errorf("flushed: %q, %v", steps, err)
	}
	nettest.Run(t, "nft", "delete", "chain", "inet", "ripstop-site", "input")
	if steps, err := apply(t.Context(), l.driver, limited()); err != nil || len(steps) == 0 || far("10.99.0.1") {
		t.Errorf("without a hook: %q, %v", steps, err)
	}
	nettest.Run(t, "nft", "add", "table", "inet", "ripstop-site", "{ flags dormant; }")
	if !far("10.99.0.1") {
		t.Error("a dormant table filters")
	}
	if steps, err := apply(t.Context(), l.driver, limited()); err != nil || len(steps) == 0 || far("10.99.0.1") {
		t.Errorf("dormant: %q, %v", steps, err)
	}
	set(want(l.site))
	if all, _, err := reaches(); err != nil || len(all) != 0 || !far("10.99.0.1") {
		t.Errorf("not limited: %v, %v", all, err)
	}
}

// TestManyReaches: filters of a hub with many peers are set, changed and read.
func TestManyReaches(t *testing.T) {
	const prefixes = 2000
	var to []vpn.Reach
	for i := range prefixes {
		from := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, byte(i >> 8), byte(i)}), 32)
		to = append(to, vpn.Reach{Tunnel: "hub", From: from, To: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}})
	}
	for _, want := range [][]vpn.Reach{to, to[:prefixes-1], nil} {
		if err := setReach("hub", want); err != nil {
			t.Fatalf("%d filters: %v", len(want), err)
		}
		have, _, err := reaches()
		if err != nil || len(have) != len(want) {
			t.Fatalf("%d filters are there, want %d: %v", len(have), len(want), err)
		}
	}
}

// TestFiltersAreWatched: who flushes all tables is heard.
func TestFiltersAreWatched(t *testing.T) {
	d := newDriver(t, Options{Engine: vpn.Process})
	heard := make(chan struct{}, 64)
	ctx, cancel := context.WithCancel(t.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := d.ServeFilters(ctx, func() {}, func() { heard <- struct{}{} }); err != nil {
			t.Error(err)
		}
	})
	defer func() { cancel(); wait.Wait() }()
	nettest.Eventually(t, patience, "a table that comes is heard", func() bool {
		nettest.Run(t, "nft", "add", "table", "inet", "others")
		nettest.Run(t, "nft", "delete", "table", "inet", "others")
		return len(heard) > 0
	})
	for len(heard) > 0 {
		<-heard
	}
	nettest.Run(t, "nft", "add", "table", "inet", "others")
	nettest.Run(t, "nft", "flush", "ruleset")
	<-heard
}
