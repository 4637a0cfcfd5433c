package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/vpn"
)

func TestPeers(t *testing.T) { runScripts(t, withWireGuard(scriptParams("peers"))) }

func TestReach(t *testing.T) { runScripts(t, withWireGuard(scriptParams("reach"))) }

func TestLaptopPage(t *testing.T) { runScripts(t, withWireGuard(pageParams(t, "laptop"))) }

func TestGoneOver(t *testing.T) {
	former, next := vpn.Key{1}, vpn.Key{2}
	p := beside.Peer{Tunnel: "site", Peer: config.Peer{PublicKey: former, Next: next}}
	for _, tt := range []struct {
		name        string
		tunnel      string
		has         vpn.Key
		gone, known bool
	}{
		{"not yet", "site", former, false, true},
		{"gone over", "site", next, true, true},
		{"neither", "site", vpn.Key{3}, false, false},
		{"no tunnel", "other", former, false, false},
	} {
		have := vpn.State{Tunnels: map[string]vpn.Tunnel{tt.tunnel: {Peers: map[vpn.Key]vpn.Peer{tt.has: {}}}}}
		if gone, known := goneOver(have, p); gone != tt.gone || known != tt.known {
			t.Errorf("%s: %t, %t", tt.name, gone, known)
		}
	}
}

// withWireGuard is a script that finds a wireguard-go, which wg-quick(8) uses where
// the kernel has no WireGuard: the far end is nothing of ours.
func withWireGuard(p testscript.Params) testscript.Params {
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		bin := filepath.Join(e.WorkDir, "bin")
		build := exec.Command("go", "build", "-o", filepath.Join(bin, "wireguard-go"), "golang.zx2c4.com/wireguard")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("build wireguard-go: %w\n%s", err, out)
		}
		e.Setenv("PATH", bin+string(filepath.ListSeparator)+e.Getenv("PATH"))
		return setup(e)
	}
	return p
}
