//go:build vm

package vm

import (
	"path/filepath"
	"strings"
	"testing"
)

// TestCopy has the disks copy by themselves: from one LUN to another, and within
// one.
func TestCopy(t *testing.T) {
	watchKernel(t)
	run(t, "modprobe", "sg")
	config := edit(t, sanConfig, "targets:", "  more: {pool: main, size: 64MiB}\ntargets:")
	_, i := startSAN(t, edit(t, config, "{0: data, 1: fine}", "{0: data, 1: more}"))
	i.enter(storeName, storePortal)
	from, to := i.disk(storeName, 0), i.disk(storeName, 1)
	src, dst := generic(t, from), generic(t, to)
	const block = 4096
	kept := writeDisk(t, from, 16*block, 3*mib)
	prints(t, run(t, "sg_inq", from), "3PC=1")
	prints(t, run(t, "sg_vpd", "--page=tpc", from), "Third party copy")
	run(t, "sg_xcopy", "if="+src, "of="+dst, "bs=4096", "skip=16", "seek=100", "count=768")
	holds(t, to, 100*block, kept)
	run(t, "sg_xcopy", "if="+src, "of="+src, "bs=4096", "skip=16", "seek=1024", "count=64")
	holds(t, from, 1024*block, kept[:64*block])
	holds(t, from, 16*block, kept)
	prints(t, run(t, "sg_copy_results", "--params", from), "target descriptor count", "segment descriptor count")
	if _, err := try(t, "sg_xcopy", "if="+src, "of="+dst, "bs=4096", "skip=16300", "seek=0", "count=128"); err == nil {
		t.Error("sg_xcopy copied more than the disk has")
	}
	i.logout(storeName, storePortal)
}

// generic is the other device of a disk's, by which sg_xcopy wants it: it finds
// it by itself in older kernels alone.
func generic(t testing.TB, dev string) string {
	t.Helper()
	found := glob(t, "/sys/block/"+filepath.Base(dev)+"/device/scsi_generic/sg*")
	if len(found) != 1 {
		t.Fatalf("%s has the generic devices %v, want one", dev, found)
	}
	return "/dev/" + filepath.Base(found[0])
}

// prints fails the test when an output has not all of want.
func prints(t testing.TB, out string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(out, w) {
			t.Errorf("%q is not in:\n%s", w, out)
		}
	}
}
