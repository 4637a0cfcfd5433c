package wg

import (
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

// TestNarrowPath: a way that silently loses large packets is told of, with what passes, until
// it carries them again or the tunnel's MTU is less; one that answers nothing is not.
func TestNarrowPath(t *testing.T) { narrowPath(t, vpn.Process) }

func narrowPath(t *testing.T, engine vpn.Engine) {
	l := newLab(t, engine, vpn.Process)
	l.site.MTU, l.site2.MTU = 1420, 1420
	l.both()
	l.reaches("10.99.0.2")
	changed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var serve sync.WaitGroup
	serve.Go(func() {
		if err := l.driver.ServePaths(ctx, func() {}, func() { changed <- struct{}{} }); err != nil {
			t.Error(err)
		}
	})
	defer serve.Wait()
	defer cancel()
	told := func() {
		t.Helper()
		select {
		case <-changed:
		case <-time.After(3 * time.Minute):
			t.Fatalf("nothing was told: passes %d", l.peer().Passes)
		}
	}
	waiting := func() string {
		t.Helper()
		s, err := l.driver.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Waiting()["peer/site/branch"]
	}
	nettest.Eventually(t, time.Minute, "the way is seen to carry the MTU", func() bool { return l.peer().Passes == 1420 })
	if got := waiting(); got != "" {
		t.Errorf("a sound way: %q", got)
	}

	// Outer packets of more than 1400 bytes are lost: 60 fewer pass inside, less what WireGuard pads to 16.
	nettest.Run(t, "ip", "netns", "exec", "far", "nft", "add table inet narrow; add chain inet narrow in { type filter hook prerouting priority 0; }; "+
		"add rule inet narrow in iifname wire meta length > 1400 drop")
	l.driver.mu.Lock()
	clear(l.driver.paths) // as after ten minutes with traffic
	l.driver.mu.Unlock()
	told()
	got := waiting()
	if !strings.HasPrefix(got, "packets of 1420 bytes to 10.99.0.2 are lost on the way and those of ") || !strings.Contains(got, "write `mtu: ") {
		t.Errorf("a narrow way: %q", got)
	}
	passes := l.peer().Passes
	if passes < 1320 || passes > 1340 {
		t.Errorf("%d pass", passes)
	}
	if steps := l.apply(l.site); len(steps) != 0 {
		t.Errorf("a narrow way is no drift: %q", steps)
	}

	l.site.MTU = passes // as is said
	l.apply(l.site)
	told()
	nettest.Eventually(t, time.Minute, "what passes is seen to", func() bool { return l.peer().Passes == passes })
	if got := waiting(); got != "" {
		t.Errorf("with less: %q", got)
	}
	l.site.MTU = 1420
	l.apply(l.site)
	told()
	if got := waiting(); got == "" {
		t.Error("the way is narrow still")
	}
	nettest.Run(t, "ip", "netns", "exec", "far", "nft", "delete", "table", "inet", "narrow")
	told()
	if got := waiting(); got != "" || l.peer().Passes != 1420 {
		t.Errorf("mended: %q, %d pass", got, l.peer().Passes)
	}
}

// TestMeasure: of who answers nothing nothing is known, and IPv6 is asked as IPv4 is.
func TestMeasure(t *testing.T) {
	l := newLab(t, vpn.Process, vpn.Process)
	l.site.MTU, l.site2.MTU = 1420, 1420
	l.both()
	l.reaches("fd99::2")
	for _, tt := range []struct {
		to    string
		drop  string
		fewer int // may pass at least
		more  int // and at most
	}{
		{"10.99.0.2", "", 1420, 1420},
		{"fd99::2", "", 1420, 1420},
		{"fd99::2", "meta length > 1340", 1330, 1340},
		{"10.99.0.2", "icmp type echo-request", 0, 0},
	} {
		if tt.drop != "" {
			nettest.Run(t, "ip", "netns", "exec", "far", "nft", "add table inet narrow; add chain inet narrow in { type filter hook input priority 0; }; "+
				"add rule inet narrow in iifname site2 "+tt.drop+" drop")
		}
		got, err := measure(t.Context(), "site", path{to: netip.MustParseAddr(tt.to), mtu: 1420})
		if err != nil || got < tt.fewer || got > tt.more {
			t.Errorf("%s without %q: %d pass, %v", tt.to, tt.drop, got, err)
		}
		if tt.drop != "" {
			nettest.Run(t, "ip", "netns", "exec", "far", "nft", "delete", "table", "inet", "narrow")
		}
	}
}
