//go:build vm

package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/internal/nettest"
)

// threeConfig has a LUN for a file system, for fio and for a load. fio verifies
// what it has not flushed when the daemon is killed, too.
const threeConfig = `version: 1
pools:
  main: {path: pools/main, size: 2GiB}
luns:
  files: {pool: main, size: 320MiB}
  fine: {pool: main, size: 64MiB, block: 512}
  plain: {pool: main, size: 64MiB}
targets:
  "iqn.2026-11.org.example:store":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: files, 1: fine, 2: plain}
    initiators:
      "iqn.1993-08.org.debian:01:vm": {}
`

// soak is for how long fio goes on, as its arguments: once through its file, or
// for a share of the time that RIPSTOP_SOAK gives to the test.
func soak(t testing.TB, parts int) []string {
	t.Helper()
	s := os.Getenv("RIPSTOP_SOAK")
	if s == "" {
		return nil
	}
	long, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return []string{"--time_based", fmt.Sprintf("--runtime=%d", int(long.Seconds())/parts)}
}

// TestFaults breaks connections in the middle of messages and kills the daemon
// while file systems and disks are written and read: the kernel's session
// recovers, nobody sees an error, and not one byte is wrong.
func TestFaults(t *testing.T) {
	for _, c := range []struct{ files, check, digest string }{
		{"ext4", "fsck.ext4 -f -n", "None"},
		{"xfs", "xfs_repair -n", "CRC32C"},
	} {
		t.Run(c.files+",Digest="+c.digest, func(t *testing.T) {
			watchKernel(t)
			run(t, "modprobe", c.files)
			d, i := startSAN(t, threeConfig)
			b := newBreaker(t)
			i.enter(storeName, b.Address,
				[2]string{"node.session.timeo.replacement_timeout", "120"},
				[2]string{"node.conn[0].iscsi.HeaderDigest", c.digest},
				[2]string{"node.conn[0].iscsi.DataDigest", c.digest})
			files := i.disk(storeName, 0)
			run(t, "mkfs."+c.files, "-q", files)
			dir := mount(t, files)
			sessions := glob(t, "/sys/class/iscsi_session/session*")

			endure(t, d, b, dir, i.disk(storeName, 1), i.disk(storeName, 2))
			if got := glob(t, "/sys/class/iscsi_session/session*"); fmt.Sprint(got) != fmt.Sprint(sessions) {
				t.Errorf("the sessions are %v, want that they are still %v", got, sessions)
			}
			if got := get[v1.Target](d, "target", storeName).Sessions; got != 1 {
				t.Errorf("the daemon has %d sessions, want 1", got)
			}
			umount(t, dir)
			check := strings.Fields(c.check)
			run(t, check[0], append(check[1:], files)...)
			i.logout(storeName, b.Address)
		})
	}
}

// newBreaker is a breaker before the portal that spares connections at first.
func newBreaker(t testing.TB) *nettest.Breaker {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("the breaker's seed is %d", seed)
	b := nettest.NewBreaker(t, storePortal, 4*mib, seed)
	b.Spare(true)
	return b
}

// endure writes and reads a directory and two disks under faults.
func endure(t testing.TB, d *daemon, b *nettest.Breaker, dir, raw, plain string) {
	t.Helper()
	l := startLoad(t, plain)
	file := startFio(t, "file", filepath.Join(dir, "fio"), "--bsrange=4k-256k")
	disk := startFio(t, "raw", raw, "--bsrange=512-128k")
	b.Spare(false)
	kills := 0
	for wait := time.Second; !file.ended() || !disk.ended(); wait = 20 * time.Second {
		select {
		case <-file.done:
			<-disk.done
		case <-time.After(wait):
			l.awaitRounds(5) // the session has recovered
			d.end(syscall.SIGKILL)
			d.serve()
			kills++
		}
	}
	b.Spare(true)
	fioIsWell(t, file)
	fioIsWell(t, disk)
	l.awaitRounds(20)
	l.end()
	l.verify(plain)
	t.Logf("%d connections broke, the daemon was killed %d times, the load did %d rounds", b.Breaks(), kills, l.rounds.Load())
	if b.Breaks() < 2 || kills < 1 {
		t.Error("too few faults: nothing was tried")
	}
}

// startFio writes a file or disk in blocks of random sizes at random places,
// with many writes under way and a flush now and then, and reads back what it
// wrote with checksums.
func startFio(t testing.TB, name, file string, args ...string) *process {
	t.Helper()
	args = append(args, "--name="+name, "--filename="+file, "--size=8m", "--ioengine=libaio", "--direct=1", "--iodepth=8",
		"--rw=randwrite", "--fsync=48", "--verify=crc32c", "--verify_backlog=96", "--verify_fatal=1", "--verify_state_save=0")
	return start(t, "", "fio", append(args, soak(t, 2)...)...)
}

// fioIsWell fails the test when fio saw an error or did nothing.
func fioIsWell(t testing.TB, p *process) {
	t.Helper()
	out := p.out.String()
	if p.err != nil || !strings.Contains(out, "err= 0") || strings.Contains(out, "verify:") {
		t.Errorf("fio: %v", p.err)
	}
	for line := range strings.Lines(out) {
		if f := strings.TrimSpace(line); strings.HasPrefix(f, "write:") || strings.HasPrefix(f, "read:") {
			t.Log(f)
		}
	}
	if !strings.Contains(out, "read: IOPS=") {
		t.Error("fio read nothing back")
	}
}
