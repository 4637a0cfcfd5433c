package wg

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

const patience = 20 * time.Second

// keys is a private key with its public one.
type keys struct{ private, public string }

func newKeys(t testing.TB) keys {
	t.Helper()
	s, err := vpn.NewPrivateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return keys{s.Reveal().String(), s.Public().String()}
}

// lab is two hosts on one wire:
//
//	near (this process) wire 192.0.2.1 ──────── 192.0.2.2 wire (namespace far)
//	     site 10.99.0.1                                   site2 10.99.0.2, lan 10.50.0.1
type lab struct {
	*testing.T
	driver     *Driver
	far        far
	nearEngine vpn.Engine

	site, site2 spec // tunnels that fit together
}

func newLab(t *testing.T, near, distant vpn.Engine) *lab {
	wire(t)
	l := &lab{T: t, nearEngine: near, driver: newDriver(t, Options{Engine: near}), far: startFar(t, "far", distant)}
	a, b := newKeys(t), newKeys(t)
	l.site = spec{
		Name: "site", Listen: 51820, Key: a.private, Addresses: []string{"10.99.0.1/24", "fd99::1/64"},
		Peers: []peerSpec{{Name: "branch", Key: b.public, Endpoint: "192.0.2.2:51821",
			Allowed: []string{"10.99.0.2/32", "10.50.0.0/16", "fd99::2/128"}}},
	}
	l.site2 = spec{
		Name: "site2", Listen: 51821, Key: b.private, Addresses: []string{"10.99.0.2/24", "fd99::2/64"},
		Peers: []peerSpec{{Name: "home", Key: a.public, Allowed: []string{"10.99.0.1/32", "fd99::1/128"}}},
	}
	return l
}

// wire joins this namespace and a new one called far.
func wire(t *testing.T) {
	t.Helper()
	nettest.Namespace(t, "far")
	nettest.Run(t, "ip", "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", "far")
	t.Cleanup(func() { nettest.Run(t, "ip", "link", "del", "wire") })
	for i, at := range [][]string{{"ip"}, {"ip", "-n", "far"}} {
		for _, c := range []string{
			fmt.Sprintf("address add 192.0.2.%d/24 dev wire", i+1),
			fmt.Sprintf("address add fd00:2::%d/64 dev wire nodad", i+1),
			"link set wire up",
		} {
			nettest.Run(t, at[0], append(at[1:len(at):len(at)], strings.Fields(c)...)...)
		}
	}
	nettest.Run(t, "ip", "-n", "far", "address", "add", "10.50.0.1/32", "dev", "lo")
}

func newDriver(t *testing.T, o Options) *Driver {
	t.Helper()
	d, err := New(slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return d
}

// apply makes the near end's tunnels these, and demands that a second pass has
// nothing to do.
func (l *lab) apply(specs ...spec) []string {
	l.Helper()
	steps, err := apply(l.Context(), l.driver, want(specs...))
	if err != nil {
		l.Fatal(err)
	}
	if again, err := apply(l.Context(), l.driver, want(specs...)); err != nil || len(again) != 0 {
		l.Fatalf("second pass: error %v, steps %q", err, again)
	}
	return steps
}

// both sets both ends up as they fit together.
func (l *lab) both() {
	l.Helper()
	l.apply(l.site)
	l.far.ask(request{Verb: "apply", Specs: []spec{l.site2}})
}

func (l *lab) stats(tunnel string) vpn.TunnelStats {
	l.Helper()
	all, err := l.driver.Stats(l.Context())
	if err != nil {
		l.Fatal(err)
	}
	for _, t := range all {
		if t.Name == tunnel {
			return t
		}
	}
	l.Fatalf("no statistics of tunnel %s: %+v", tunnel, all)
	return vpn.TunnelStats{}
}

// peer is what the first peer of site is doing.
func (l *lab) peer() vpn.PeerStats {
	l.Helper()
	for _, p := range l.stats("site").Peers {
		if p.PublicKey.String() == l.site.Peers[0].Key {
			return p
		}
	}
	l.Fatal("no statistics of the peer")
	return vpn.PeerStats{}
}

// pings tells whether an answer comes.
func pings(address string) bool {
	return exec.Command("ping", "-c1", "-W1", address).Run() == nil
}

func (l *lab) reaches(address string) {
	l.Helper()
	nettest.Eventually(l, patience, "an answer from "+address, func() bool { return pings(address) })
}

// copies sends random bytes to the far end's echo and compares what comes back.
func (l *lab) copies(address string, size int64) {
	l.Helper()
	l.far.ask(request{Verb: "echo", Address: address})
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		l.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		l.Fatal(err)
	}
	sent := sha256.New()
	var wrote error
	var wait sync.WaitGroup
	wait.Go(func() {
		_, wrote = io.Copy(c, io.TeeReader(io.LimitReader(rand.Reader, size), sent))
		if wrote == nil {
			wrote = c.(*net.TCPConn).CloseWrite()
		}
	})
	got := sha256.New()
	n, err := io.Copy(got, c)
	wait.Wait()
	if err != nil || wrote != nil || n != size {
		l.Fatalf("%d of %d bytes came back: read %v, write %v", n, size, err, wrote)
	}
	if a, b := fmt.Sprintf("%x", sent.Sum(nil)), fmt.Sprintf("%x", got.Sum(nil)); a != b {
		l.Errorf("sent %s, got %s", a, b)
	}
}

// flow keeps a TCP connection through the tunnel busy until stop, which fails the
// test when the connection broke or an answer took longer than limit.
func (l *lab) flow(address string, limit time.Duration) (stop func()) {
	l.Helper()
	l.far.ask(request{Verb: "echo", Address: address})
	c, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		l.Fatal(err)
	}
	var rounds atomic.Int64
	var broke error
	var longest time.Duration
	end := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		buf := make([]byte, 1000)
		for n := 0; broke == nil; n++ {
			select {
			case <-end:
				return
			default:
			}
			began := time.Now()
			broke = round(c, buf, byte(n))
			longest = max(longest, time.Since(began))
			rounds.Add(1)
		}
	})
	nettest.Eventually(l, patience, "the flow runs", func() bool { return rounds.Load() > 10 })
	return func() {
		l.Helper()
		n := rounds.Load()
		nettest.Eventually(l, patience, "the flow still runs", func() bool { return rounds.Load() > n+10 })
		close(end)
		wait.Wait()
		if err := c.Close(); err != nil {
			l.Error(err)
		}
		if broke != nil || longest > limit {
			l.Errorf("flow: %v after %d rounds, the longest of %v", broke, rounds.Load(), longest)
		}
	}
}

func round(c net.Conn, buf []byte, n byte) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for i := range buf {
		buf[i] = n
	}
	if _, err := c.Write(buf); err != nil {
		return err
	}
	if _, err := io.ReadFull(c, buf); err != nil {
		return err
	}
	for _, b := range buf {
		if b != n {
			return fmt.Errorf("byte %d came back as %d", n, b)
		}
	}
	return nil
}

// addr is an address and port of a literal.
func addr(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// quiet logs to the test what it does at level info.
func quiet(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }

// farIsThere knows the far end by every name.
func farIsThere(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("192.0.2.2")}, nil
}
