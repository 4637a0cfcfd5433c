package wg

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

func TestProcessEngine(t *testing.T) { suite(t, vpn.Process, vpn.Process) }

// noGoroutines waits until none of WireGuard's goroutines and none of a socket's
// is left.
func noGoroutines(t *testing.T) {
	t.Helper()
	stacks := func() string {
		buf := make([]byte, 1<<20)
		return string(buf[:runtime.Stack(buf, true)])
	}
	gone := func() bool {
		s := stacks()
		return !strings.Contains(s, "golang.zx2c4.com/wireguard") && !strings.Contains(s, "(*socket)")
	}
	for range 400 {
		if gone() {
			return
		}
		time.Sleep(5 * time.Millisecond) // the poll interval of a condition
	}
	t.Errorf("goroutines are left:\n%s", stacks())
}

func TestWrongKeyShakesNoHands(t *testing.T) {
	l := newLab(t, vpn.Process, vpn.Process)
	l.site2.Peers[0].Key = newKeys(t).public
	l.both()
	for range 3 {
		if pings("10.99.0.2") {
			t.Fatal("an answer in spite of the wrong key")
		}
	}
	if p := l.peer(); !p.LastHandshake.IsZero() || p.TxBytes == 0 {
		t.Errorf("peer is %+v", p)
	}
	own := l.site
	own.Peers = []peerSpec{{Name: "self", Key: l.site2.Peers[0].Key}}
	own.Peers[0].Key = l.stats("site").PublicKey.String()
	if _, err := apply(t.Context(), l.driver, want(own)); err == nil || !strings.Contains(err.Error(), "the tunnel's own key") {
		t.Errorf("a peer with our own key: %v", err)
	}
}

// A key that was not drawn as wg genkey does is clamped by WireGuard.
func TestUnclampedKey(t *testing.T) {
	l := newLab(t, vpn.Process, vpn.Process)
	l.site.Key = vpn.Key{255, 31: 255}.String()
	l.apply(l.site) // and again, without steps
}

func TestUnresolvedEndpoint(t *testing.T) {
	l := newLab(t, vpn.Process, vpn.Process)
	l.site.Peers[0].Endpoint = "nowhere.invalid:51821"
	_, err := apply(t.Context(), l.driver, want(l.site))
	if err == nil || !strings.Contains(err.Error(), `peer stays without an endpoint: resolve endpoint "nowhere.invalid:51821"`) {
		t.Errorf("error %v", err)
	}
	if p := l.peer(); p.Endpoint.IsValid() || len(p.AllowedIPs) != 3 {
		t.Errorf("the rest of the peer is %+v", p)
	}
	for range 2 {
		if _, err := apply(t.Context(), l.driver, want(l.site)); err == nil {
			t.Error("the next pass finds the name")
		}
	}
	if got := nettest.Run(t, "ip", "route", "show", "proto", "114"); !strings.Contains(got, "10.50.0.0/16") {
		t.Errorf("the route waits for the name: %q", got)
	}
}

func TestSocketOfTheDeadIsReplaced(t *testing.T) {
	path := filepath.Join(socketDir, "site.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, vpn.Process, vpn.Process)
	l.apply(l.site)
	if got := nettest.Run(t, "wg", "show", "site", "listen-port"); got != "51820\n" {
		t.Errorf("wg show says %q", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v, %v", info.Mode(), err)
	}
	if err := l.driver.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(socketDir); err != nil || len(left) != 0 {
		t.Errorf("sockets left: %v, %v", left, err)
	}
}

// Two namespaces may have a tunnel of one name; there is one socket for both.
func TestSocketOfTheLivingIsLeft(t *testing.T) {
	l := newLab(t, vpn.Process, vpn.Process)
	l.site2.Name = "site"
	l.far.ask(request{Verb: "apply", Specs: []spec{l.site2}})
	l.apply(l.site)
	l.reaches("10.99.0.2")
	if got := nettest.Run(t, "wg", "show", "site", "listen-port"); got != "51821\n" {
		t.Errorf("wg show says %q", got)
	}
	if err := l.driver.Close(); err != nil {
		t.Error(err)
	}
	if got := nettest.Run(t, "wg", "show", "site", "listen-port"); got != "51821\n" {
		t.Errorf("after the second has closed wg show says %q", got)
	}
}

// Close ends a connection to the socket that somebody keeps open.
func TestSocketClosesUnderItsUser(t *testing.T) {
	l := newLab(t, vpn.Process, vpn.Process)
	l.apply(l.site)
	c, err := net.Dial("unix", filepath.Join(socketDir, "site.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("get=1\n\n")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1)
	if _, err := c.Read(buf); err != nil {
		t.Fatal(err)
	}
	if err := l.driver.Close(); err != nil {
		t.Error(err)
	}
	noGoroutines(t)
}

func TestEngineThatIsNone(t *testing.T) {
	if _, err := New(quiet(t), Options{Engine: "steam"}); err == nil || !strings.Contains(err.Error(), `engine "steam"`) {
		t.Errorf("error %v", err)
	}
}

// A tunnel without a device has its MTU computed as others have, and its peers noted.
func TestUserTunnel(t *testing.T) {
	d := newDriver(t, Options{Engine: vpn.Process})
	s := want(spec{Name: "inner", Key: newKeys(t).private, Addresses: []string{"10.98.0.1/24"}})
	inner := s.Tunnels["inner"]
	inner.User = true
	s.Tunnels["inner"] = inner
	if steps, err := apply(t.Context(), d, s); err != nil || len(steps) != 1 {
		t.Fatalf("error %v, steps %q", err, steps)
	}
	d.memory.saw("inner", []wgtypes.Peer{{Endpoint: net.UDPAddrFromAddrPort(addr("192.0.2.2:5")), LastHandshakeTime: time.Now()}})
	if steps, err := apply(t.Context(), d, s); err != nil || len(steps) != 0 {
		t.Errorf("second pass: error %v, steps %q", err, steps)
	}
	if steps, err := apply(t.Context(), d, want()); err != nil || len(steps) != 1 {
		t.Errorf("the end: error %v, steps %q", err, steps)
	}
	if len(d.memory.Seen) != 0 {
		t.Errorf("of a tunnel that is gone, %v is kept", d.memory.Seen)
	}
}
