//go:build vm

package fabric

import (
	"testing"

	"ripstop/internal/nettest"
)

// TestPrefixesOverMeshOnBridges has the VLANs on the kernel's bridge, which knows them there,
// and the mesh on its WireGuard.
func TestPrefixesOverMeshOnBridges(t *testing.T) {
	loadTun(t)
	prefixesOverMesh(t, "bridge")
}

// loadTun does what udev does elsewhere: the VM has none.
func loadTun(t *testing.T) { nettest.Run(t, "modprobe", "tun") }
