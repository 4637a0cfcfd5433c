//go:build vm

package vm

import (
	"strings"
	"testing"

	"ripstop/internal/nettest"
)

const spareName = "iqn.2026-11.org.example:spare"

// spareConfig is sanConfig with another target behind the same portal.
const spareConfig = `version: 1
pools:
  main: {path: pools/main, size: 1GiB}
luns:
  data: {pool: main, size: 64MiB}
  fine: {pool: main, size: 64MiB, block: 512}
  logs: {pool: main, size: 64MiB}
targets:
  "iqn.2026-11.org.example:store":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data, 1: fine}
    initiators:
      "iqn.1993-08.org.debian:01:vm": {}
`

const spareTarget = `  "iqn.2026-11.org.example:spare":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: logs}
    initiators:
      "iqn.1993-08.org.debian:01:vm": {}
`

// TestRemoval takes a target away that is mounted, and adds and takes away LUNs
// of another whose disk is written and read all the time: the initiator is asked
// to log out and does, and the others notice nothing.
func TestRemoval(t *testing.T) {
	watchKernel(t)
	d, i := startSAN(t, spareConfig+spareTarget)
	i.enter(storeName, storePortal)
	i.enter(spareName, storePortal)
	spare := i.disk(spareName, 0)
	mkfs(t, spare)
	dir := t.TempDir()
	run(t, "mount", "-o", "ro,noload", spare, dir)
	l := startLoad(t, i.disk(storeName, 0))

	d.apply(spareConfig)
	nettest.Eventually(t, patience, "iscsid is asked to log out", func() bool { return strings.Contains(i.daemon.out.String(), "requests logout") })
	d.awaitLog(`msg="session logged out"`)
	if !strings.Contains(d.out.String(), `initiator=`+storeHost+` target=`+spareName) {
		t.Errorf("nobody logged out of %s:\n%s", spareName, d.out.end())
	}
	umount(t, dir)
	if _, err := try(t, "iscsiadm", i.node(spareName, storePortal, "--logout")...); err != nil {
		t.Logf("the session is over already: %v", err)
	}
	i.awaitGone(spare)
	l.awaitRounds(20)

	d.apply(edit(t, spareConfig, "{0: data, 1: fine}", "{0: data, 1: fine, 2: logs}"))
	l.awaitRounds(5)
	if !strings.Contains(kernelLog(t), "LUN assignments on this target have changed") {
		t.Errorf("the kernel was not told of a new LUN:\n%s", kernelLog(t))
	}
	i.rescan()
	added := i.disk(storeName, 2)
	kept := writeDisk(t, added, mib, mib)
	holds(t, added, mib, kept)
	l.awaitRounds(20)

	fine := i.disk(storeName, 1)
	d.apply(edit(t, spareConfig, "{0: data, 1: fine}", "{0: data, 2: logs}"))
	try(t, "sg_turs", fine) // may be told that LUNs changed
	if out, err := try(t, "sg_turs", fine); err == nil || !strings.Contains(out, "Illegal request") {
		t.Errorf("a LUN that was removed says %v, want an illegal request", err)
	}
	writeFile(t, "/sys/block/"+strings.TrimPrefix(fine, "/dev/")+"/device/delete", "1")
	i.awaitGone(fine)
	holds(t, added, mib, kept)
	l.awaitRounds(20)
	l.end()
	l.verify(i.disk(storeName, 0))
	if n := strings.Count(d.out.String(), `msg="session logged in"`); n != 2 {
		t.Errorf("%d logins, want one to each target:\n%s", n, d.out.end())
	}
	i.logout(storeName, storePortal)
}
