//go:build vm

// Package vm holds the tests of the whole product against a Debian kernel: its
// iSCSI initiator, its file systems and its WireGuard. They run as root in the
// VM that the script "run" makes; "suite" builds and starts them.
//
//	suite ─ go test -c ─► *.test ─┐
//	                              ├─► run ─► VM: iscsid, mount, ip, ripstop
//	kernel, busybox, virtiofs ────┘
//
// # Caveats
//
// The kernel's iSCSI initiator speaks to iscsid in the first network namespace
// alone, so these tests have the VM's network for themselves and do not run in
// parallel. Their files vanish with the VM, their processes and devices do not:
// each helper undoes at the end of its test what it did.
package vm

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if os.Getenv("RIPSTOP_VM") == "" {
		fmt.Fprintln(os.Stderr, "vm: these tests change the machine: run them in a VM with test/vm/suite")
		os.Exit(1)
	}
	os.Exit(m.Run())
}
