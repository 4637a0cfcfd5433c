package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestPeers(t *testing.T) { testscript.Run(t, withWireGuard(scriptParams("peers"))) }

func TestLaptopPage(t *testing.T) { testscript.Run(t, withWireGuard(pageParams(t, "laptop"))) }

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
