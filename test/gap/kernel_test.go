//go:build vm

package gap

import (
	"testing"

	"ripstop/internal/nettest"
)

// TestKernel is of both dataplanes, on a kernel whose bridge knows VLANs.
func TestKernel(t *testing.T) {
	nettest.Run(t, "modprobe", "tun") // where there is an init system, it makes /dev/net/tun
	for _, dataplane := range []string{"bridge", "ebpf"} {
		t.Run(dataplane, func(t *testing.T) { noGap(t, dataplane) })
	}
}
