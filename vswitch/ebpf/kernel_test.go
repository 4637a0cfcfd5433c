//go:build vm

//suite:also ^(TestUnicast|TestLearn|TestExpire|TestClassify|TestUnknownPort|TestWhatAPortLeaves|TestInherit|TestBefore|TestProbe|TestGroupsChangeAtOnce)$

package ebpf

import (
	"testing"

	"ripstop/internal/nettest"
	"ripstop/vswitch"
	"ripstop/vswitch/vswitchtest"
)

// TestKernel is the suite on the kernel of the VM, which is older than that of
// most machines on which the package's other tests run.
func TestKernel(t *testing.T) {
	if err := Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	nettest.Run(t, "modprobe", "tun") // where there is an init system, it makes /dev/net/tun
	vswitchtest.Suite(t, vswitch.EBPF, opened)
}
