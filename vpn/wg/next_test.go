package wg

import (
	"context"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

// serve runs what lets next keys in until the test ends.
func (l *lab) serve() {
	ctx, cancel := context.WithCancel(l.Context())
	var wait sync.WaitGroup
	wait.Go(func() {
		if err := l.driver.Serve(ctx, func() {}); err != nil {
			l.Errorf("serve: %v", err)
		}
	})
	l.Cleanup(func() { cancel(); wait.Wait() })
}

var counted = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// steady pings through the tunnel both ways each millisecond, and gives what tells
// how many answers are missing, when all were sent.
func (l *lab) steady(packets string) (lost func() string) {
	l.Helper()
	pings := []*exec.Cmd{
		exec.Command("ping", "-q", "-i", "0.001", "-W", "10", "-c", packets, "10.99.0.2"),
		exec.Command("ip", "netns", "exec", "far", "ping", "-q", "-i", "0.001", "-W", "10", "-c", packets, "10.99.0.1"),
	}
	var outs [2]strings.Builder
	rx := l.peer().RxBytes
	for i, p := range pings {
		p.Stdout, p.Stderr = &outs[i], &outs[i]
		if err := p.Start(); err != nil {
			l.Fatal(err)
		}
	}
	nettest.Eventually(l, patience, "pings pass", func() bool { return l.peer().RxBytes > rx+20000 })
	return func() string {
		l.Helper()
		var all []string
		for i, p := range pings {
			// That answers are missing is an error of ping's, and counted here.
			_ = p.Wait()
			m := counted.FindStringSubmatch(outs[i].String())
			if m == nil {
				l.Fatalf("ping says %q", outs[i].String())
			}
			l.Logf("%s of %s", m[2], m[1])
			if m[1] != m[2] {
				all = append(all, m[2]+" of "+m[1])
			}
		}
		return strings.Join(all, ", ")
	}
}

// testNextKey: the near end knows the key that the far one will have, and nobody
// tells it when.
func testNextKey(l *lab) {
	l.serve()
	l.both()
	l.reaches("10.50.0.1")
	first, k := l.site.Peers[0].Key, newKeys(l)
	l.site.Peers[0].Next = k.public
	if steps := l.apply(l.site); len(steps) != 1 || !strings.HasSuffix(steps[0], "# its next key is "+k.public) {
		l.Errorf("steps are %q", steps)
	}
	if s := l.stats("site"); len(s.Peers) != 1 {
		l.Errorf("there are %d peers", len(s.Peers))
	}
	lost := l.steady("1500")
	l.site2.Key = k.private
	l.far.ask(request{Verb: "apply", Specs: []spec{l.site2}})
	if lost := lost(); lost != "" {
		l.Errorf("lost while the key changed: %s", lost)
	}
	shown := nettest.Run(l, "wg", "show", "site", "allowed-ips")
	if strings.Contains(shown, first) || !strings.Contains(shown, k.public) || !containsAll(shown, "10.50.0.0/16, 10.99.0.2/32, fd99::2/128") {
		l.Errorf("wg show says %q", shown)
	}
	if steps := l.apply(l.site); len(steps) != 0 {
		l.Errorf("the next key is taken for drift: %q", steps)
	}
	l.site.Peers[0].Key, l.site.Peers[0].Next = k.public, ""
	lost = l.steady("500")
	l.apply(l.site)
	if lost := lost(); lost != "" {
		l.Errorf("lost while the file forgot the former key: %s", lost)
	}

	// One that never comes is forgotten, and so is one whose peer goes.
	never := newKeys(l)
	l.site.Peers[0].Next = never.public
	l.apply(l.site)
	l.site.Peers[0].Next = ""
	l.apply(l.site)
	if shown := nettest.Run(l, "wg", "show", "site", "peers"); shown != k.public+"\n" {
		l.Errorf("peers are %q", shown)
	}
	l.site.Peers[0].Next = never.public
	l.apply(l.site)
	l.site.Peers = nil
	l.apply(l.site)
	if shown := nettest.Run(l, "wg", "show", "site", "peers"); shown != "" {
		l.Errorf("peers are %q", shown)
	}
}

// testNextPresharedKey: a session outlives that both ends disagree, as long as no
// handshake is due.
func testNextPresharedKey(l *lab) {
	l.site.Peers[0].PSK = newKeys(l).private
	l.site2.Peers[0].PSK, l.site2.Peers[0].Endpoint = l.site.Peers[0].PSK, "192.0.2.1:51820"
	l.both()
	l.reaches("10.50.0.1")
	before := l.peer().LastHandshake
	lost := l.steady("1000")
	l.site2.Peers[0].PSK = newKeys(l).private
	l.far.ask(request{Verb: "apply", Specs: []spec{l.site2}})
	l.site.Peers[0].PSK = l.site2.Peers[0].PSK
	l.apply(l.site)
	if lost := lost(); lost != "" {
		l.Errorf("lost while the pre-shared key changed: %s", lost)
	}
	if after := l.peer().LastHandshake; !after.Equal(before) {
		l.Errorf("the session began anew at %v", after)
	}
	// The next handshake is one of the new key: a far end that begins anew gets in.
	l.far.ask(request{Verb: "apply"})
	l.far.ask(request{Verb: "apply", Specs: []spec{l.site2}})
	nettest.Run(l, "ip", "netns", "exec", "far", "ping", "-c", "1", "-W", "9", "10.99.0.1")
}

// TestFormerKeyIsRefusedAfterARestart: the file, which still names both keys, does not
// bring the former one back.
func TestFormerKeyIsRefusedAfterARestart(t *testing.T) {
	l := newLab(t, vpn.Process, vpn.Process)
	o := Options{Engine: vpn.Process, Memory: filepath.Join(t.TempDir(), "tunnels.json")}
	l.driver = newDriver(t, o)
	l.serve()
	l.both()
	l.reaches("10.50.0.1")
	first, k := l.site.Peers[0].Key, newKeys(t)
	l.site.Peers[0].Next = k.public
	l.apply(l.site)
	l.site2.Key = k.private
	l.far.ask(request{Verb: "apply", Specs: []spec{l.site2}})
	peers := func() string { return nettest.Run(t, "wg", "show", "site", "peers") }
	nettest.Eventually(t, patience, "the peer has its next key", func() bool {
		_ = exec.Command("ip", "netns", "exec", "far", "ping", "-c1", "-W1", "10.99.0.1").Run()
		return peers() == k.public+"\n"
	})
	if err := l.driver.Release(); err != nil {
		t.Fatal(err)
	}
	l.driver = newDriver(t, o)
	l.apply(l.site)
	if got := peers(); got != k.public+"\n" {
		t.Errorf("after a restart the peers are %q, want %q alone", got, k.public)
	}
	l.reaches("10.50.0.1")

	// A file that names the former key alone means it, and it may go over again.
	l.site.Peers[0].Next = ""
	l.apply(l.site)
	if got := peers(); got != first+"\n" {
		t.Errorf("the peers are %q, want %q", got, first)
	}
	if d := l.driver; d.memory.over("site", key(first), key(k.public)) {
		t.Error("the key that the file names is refused still")
	}
}
