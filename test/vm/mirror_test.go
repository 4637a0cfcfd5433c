//go:build vm

package vm

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/internal/nettest"
)

// pairConfig has a LUN in two pools, of which the first one's disk will fail.
const pairConfig = `version: 1
pools:
  sick: {path: /dev/mapper/leg, size: 96MiB, cache: direct}
  well: {path: pools/well, size: 256MiB}
luns:
  pair: {pools: [sick, well], size: 64MiB}
targets:
  "iqn.2026-11.org.example:store":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: pair}
    initiators: {any: {}}
`

// longestPause is how long an access of an initiator may take when a leg hangs: as long
// as a mirror has patience, and what this machine needs besides. Initiators give up
// after 30 s.
const longestPause = 25 * time.Second

// TestMirrorOnADiskThatFails: under the kernel's initiator, which writes and compares all
// the time, the disk of the leg that is read fails writes, then everything, and then
// hangs, and comes back each time. No access fails, none waits for long, no byte is
// wrong, and what the leg missed is copied, not the whole.
func TestMirrorOnADiskThatFails(t *testing.T) {
	watchKernel(t)
	disk := newMapped(t, "leg", 160<<20)
	d, i := startSAN(t, pairConfig)
	i.enter(storeName, storePortal)
	dev := i.disk(storeName, 0)
	leg := func() v1.Leg {
		t.Helper()
		for _, l := range get[v1.LUN](d, "lun", "pair").Legs {
			if l.Pool == "sick" {
				return l
			}
		}
		t.Fatal("the LUN has no leg in pool sick")
		return v1.Leg{}
	}
	is := func(state string) {
		t.Helper()
		nettest.Eventually(t, patience, "the leg is "+state, func() bool { return leg().State == state })
	}
	is("in-sync")
	writeDisk(t, dev, 16<<20, 16<<20)
	if err := direct(t, dev).Sync(); err != nil {
		t.Fatal(err)
	}

	work := startLoad(t, dev)
	over := startPauses(work)
	comes := func() {
		t.Helper()
		disk.isWell()
		nettest.Eventually(t, patience, "the leg is in sync", func() bool {
			if get[v1.Pool](d, "pool", "sick").Fault != "" {
				d.cli("pool", "reopen", "sick")
			}
			return leg().State == "in-sync"
		})
		work.awaitRounds(2 * loadSize / loadBlock)
	}
	for _, c := range []struct {
		what  string
		fails func()
		back  func()
	}{
		{"fails writes", disk.failsWrites, comes},
		{"fails everything", disk.failsAll, comes},
		{"hangs", disk.hangs, func() { disk.goesOn(); comes() }},
	} {
		t.Logf("the disk %s", c.what)
		f := startFio(t, "pair", dev, "--offset=40m", "--bsrange=4k-64k", "--time_based", "--runtime=15")
		work.awaitRounds(4)
		c.fails()
		is("away")
		work.awaitRounds(loadSize / loadBlock)
		if left := leg().Left; left == 0 || left > 40<<20 {
			t.Errorf("when the disk %s, %d bytes are to be copied: it is what was written meanwhile", c.what, left)
		}
		c.back()
		<-f.done
		fioIsWell(t, f)
		if t.Failed() {
			return
		}
	}
	longest := over()
	t.Logf("the longest pause was %v", longest)
	if longest > longestPause {
		t.Errorf("an access took %v", longest)
	}
	work.end()
	work.verify(dev)
	if out := d.cli("lun", "check", "pair"); strings.Contains(out, "differ") {
		t.Errorf("the legs differ: %s", out)
	}
	// The leg that failed has all of it alone, too.
	d.apply(edit(t, pairConfig, "pools: [sick, well]", "pool: sick"))
	work.verify(dev)
	i.logoutAll()
	d.end(15)
}

// startPauses measures the longest time in which a load does no round, until over is
// called, which tells it.
func startPauses(l *load) (over func() time.Duration) {
	var longest atomic.Int64
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		rounds, since := l.rounds.Load(), time.Now()
		for {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			longest.Store(max(longest.Load(), int64(time.Since(since))))
			if is := l.rounds.Load(); is != rounds {
				rounds, since = is, time.Now()
			}
		}
	}()
	return func() time.Duration {
		close(end)
		<-ended
		return time.Duration(longest.Load())
	}
}
