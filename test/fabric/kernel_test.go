//go:build vm

package fabric

import (
	"testing"
	"time"

	"ripstop/internal/nettest"
)

// TestPrefixesOverMeshOnBridges has the VLANs on the kernel's bridge, which knows them there,
// and the mesh on its WireGuard.
func TestPrefixesOverMeshOnBridges(t *testing.T) {
	loadTun(t)
	// The kernel ends the session of a daemon that is killed; and a machine that is emulated
	// stands still for seconds.
	prefixesOverMesh(t, "bridge", "90s")
}

// TestOneVLANOnBridges is TestOneVLAN on the kernel's bridges and its WireGuard. The second that
// a move may cost is of a processor, and not of one that is emulated: there each of the two
// commands takes longer.
func TestOneVLANOnBridges(t *testing.T) {
	loadTun(t)
	inOneVLAN(t, "bridge", 20*time.Second)
}

// loadTun does what udev does elsewhere: the VM has none.
func loadTun(t *testing.T) { nettest.Run(t, "modprobe", "tun") }
