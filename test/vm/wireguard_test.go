//go:build vm

package vm

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	v1 "ripstop/api/v1"
	"ripstop/internal/nettest"
)

// site is one end of tunnels: a namespace with a key.
type site struct {
	name            string
	private, public string
}

// newSite makes a namespace and a key.
func newSite(t testing.TB, name string) site {
	t.Helper()
	nettest.Namespace(t, name)
	return newKeys(t, name)
}

// newKeys makes a key for a namespace that is there.
func newKeys(t testing.TB, name string) site {
	t.Helper()
	private := strings.TrimSpace(run(t, "wg", "genkey"))
	cmd := exec.Command("wg", "pubkey")
	cmd.Stdin = strings.NewReader(private)
	public, err := cmd.Output()
	if err != nil {
		t.Fatalf("wg pubkey: %v", err)
	}
	return site{name, private, strings.TrimSpace(string(public))}
}

// cable connects two namespaces: the first gets address .1 of the /24.
func cable(t testing.TB, a, b site, network string) {
	t.Helper()
	run(t, "ip", "link", "add", "to-"+b.name, "netns", a.name, "type", "veth", "peer", "name", "to-"+a.name, "netns", b.name)
	for _, end := range []struct{ netns, dev, host string }{{a.name, "to-" + b.name, ".1/24"}, {b.name, "to-" + a.name, ".2/24"}} {
		run(t, "ip", "-n", end.netns, "address", "add", network+end.host, "dev", end.dev)
		run(t, "ip", "-n", end.netns, "link", "set", end.dev, "up")
	}
}

// tunnelConfig is a tunnel's file; each peer is a name and its settings.
func tunnelConfig(address string, peers ...string) string {
	config := fmt.Sprintf(`version: 1
tunnels:
  wan:
    listen: 51820
    address: %s
    private-key: wan.key
    peers:
`, address)
	for _, p := range peers {
		config += "      " + p + "\n"
	}
	return config
}

func peer(s site, endpoint, allowed string) string {
	return fmt.Sprintf("%s: {public-key: %q, endpoint: %q, allowed-ips: [%s]}", s.name, s.public, endpoint, allowed)
}

// startSite serves a tunnel in a site.
func startSite(t testing.TB, s site, config string) *daemon {
	t.Helper()
	d := newDaemon(t, s.name, config)
	d.secret("wan.key", s.private)
	d.serve()
	return d
}

// handshake is when a site last shook hands with a peer, as wg tells it.
func handshake(t testing.TB, at, with site) string {
	t.Helper()
	for line := range strings.Lines(inside(t, at.name, "wg", "show", "wan", "latest-handshakes")) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == with.public {
			return f[1]
		}
	}
	t.Fatalf("wg shows no peer %s in %s", with.name, at.name)
	return ""
}

// TestWireGuardKernel connects two daemons and another implementation by the
// kernel's WireGuard, and changes the tunnel while it is used.
func TestWireGuardKernel(t *testing.T) {
	watchKernel(t)
	hq, branch, plain := newSite(t, "hq"), newSite(t, "branch"), newSite(t, "plain")
	cable(t, hq, branch, "192.0.2")
	cable(t, hq, plain, "198.51.100")
	toBranch := peer(branch, "192.0.2.2:51820", "10.99.0.2/32")
	d := startSite(t, hq, tunnelConfig("10.99.0.1/24", toBranch))
	startSite(t, branch, tunnelConfig("10.99.0.2/24", peer(hq, "192.0.2.1:51820", "10.99.0.1/32")))

	reaches(t, "hq", "10.99.0.2")
	first := handshake(t, hq, branch)
	checkSeen(t, d, hq, branch, first)

	addPlainEnd(t, plain, hq)
	d.apply(tunnelConfig("10.99.0.1/24", toBranch, peer(plain, "198.51.100.2:51820", "10.99.0.3/32")))
	reaches(t, "hq", "10.99.0.3")
	reaches(t, "plain", "10.99.0.1")
	if now := handshake(t, hq, branch); now != first {
		t.Errorf("the handshake with branch is of %s after another peer was added, want %s still", now, first)
	}

	const index = "/sys/class/net/wan/ifindex"
	device := inside(t, "hq", "cat", index)
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		d.end(s)
		reaches(t, "branch", "10.99.0.1") // nobody but the kernel is there
		d.serve()
		d.startedWithoutSteps()
		if now := inside(t, "hq", "cat", index); now != device {
			t.Errorf("the tunnel's device has index %s after a restart, want %s", now, device)
		}
		if now := handshake(t, hq, branch); now != first {
			t.Errorf("the handshake with branch is of %s after a restart, want %s still", now, first)
		}
	}
	reaches(t, "hq", "10.99.0.2")
	reaches(t, "hq", "10.99.0.3")
	d.apply(nothing)
	if out, err := try(t, "ip", "-n", "hq", "link", "show", "wan"); err == nil {
		t.Errorf("the tunnel's device is left: %s", out)
	}
}

// checkSeen compares what ripstop tells of the tunnel with what wg tells.
func checkSeen(t testing.TB, d *daemon, at, with site, shaken string) {
	t.Helper()
	tunnel, p := get[v1.Tunnel](d, "tunnel", "wan"), get[v1.Peer](d, "peer", with.name)
	if tunnel.Engine != "kernel" || tunnel.PublicKey != at.public || tunnel.Listen != 51820 {
		t.Errorf("get tunnel gave %+v, want engine kernel, the key of %s and port 51820", tunnel, at.name)
	}
	if p.Handshake == nil || fmt.Sprint(p.Handshake.Unix()) != shaken || p.PublicKey != with.public {
		t.Errorf("get peer gave %+v, want the key of %s and the handshake of %s", p, with.name, shaken)
	}
	if got, want := inside(t, at.name, "wg", "show", "wan", "endpoints"), p.PublicKey+"\t"+p.Endpoint+"\n"; got != want {
		t.Errorf("wg shows the endpoints %q, ripstop %q", got, want)
	}
}

// addPlainEnd makes the other end of a tunnel with iproute2 and wg alone.
func addPlainEnd(t testing.TB, at, with site) {
	t.Helper()
	key := filepath.Join(t.TempDir(), "key")
	writeFile(t, key, at.private)
	run(t, "ip", "-n", at.name, "link", "add", "wan", "type", "wireguard")
	inside(t, at.name, "wg", "set", "wan", "listen-port", "51820", "private-key", key,
		"peer", with.public, "endpoint", "198.51.100.1:51820", "allowed-ips", "10.99.0.1/32")
	run(t, "ip", "-n", at.name, "address", "add", "10.99.0.3/24", "dev", "wan")
	run(t, "ip", "-n", at.name, "link", "set", "wan", "up")
}
