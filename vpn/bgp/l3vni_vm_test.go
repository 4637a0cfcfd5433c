//go:build vm

package bgp

import (
	"testing"

	"ripstop/internal/nettest"
)

// TestPrefixesWithVRF needs a kernel that has VRFs.
func TestPrefixesWithVRF(t *testing.T) {
	for _, m := range []string{"vrf", "vxlan", "bridge", "veth"} {
		nettest.Run(t, "modprobe", m)
	}
	prefixesWithFRR(t, true)
}
