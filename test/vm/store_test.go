//go:build vm

package vm

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/internal/nettest"
)

const (
	storeName   = "iqn.2026-11.org.example:store"
	storePortal = "127.0.0.1:3260"
	storeHost   = "iqn.1993-08.org.debian:01:vm"
)

const storeConfig = `version: 1
pools:
  main: {path: pools/main, size: 512MiB}
luns:
  data: {pool: main, size: 64MiB}
targets:
  "iqn.2026-11.org.example:store":
    portals: [{address: "127.0.0.1:3260"}]
    luns: {0: data}
    initiators:
      "iqn.1993-08.org.debian:01:vm":
        chap: {user: web, secret: web.secret, mutual: {user: store, secret: store.secret}}
`

var storeChap = chap{user: "web", secret: "ripstop-secret-1", targetUser: "store", targetSecret: "ripstop-secret-2"}

// startStore serves storeConfig or what was made of it.
func startStore(t testing.TB, config string) *daemon {
	t.Helper()
	d := newDaemon(t, "", config)
	d.secret("web.secret", storeChap.secret)
	d.secret("store.secret", storeChap.targetSecret)
	d.serve()
	return d
}

// enterStore starts an initiator and logs in to the store.
func enterStore(t testing.TB) *initiator {
	t.Helper()
	i := newInitiator(t, storeHost)
	discoverStore(t, i)
	i.login(storeName, storePortal)
	return i
}

// discoverStore makes the store a node of the initiator's, with its secrets.
func discoverStore(t testing.TB, i *initiator) {
	t.Helper()
	if got := i.discover(storePortal); !slices.Equal(got, []string{storeName}) {
		t.Fatalf("discover gave %q, want %q alone", got, storeName)
	}
	i.authenticate(storeName, storePortal, storeChap)
	i.set(storeName, storePortal, "node.session.timeo.replacement_timeout", "120") // open-iscsi's own default
}

// TestInitiator is a LUN's life at the kernel's initiator.
func TestInitiator(t *testing.T) {
	watchKernel(t)
	d := startStore(t, storeConfig)
	i := newInitiator(t, storeHost)
	discoverStore(t, i)
	checkRefusals(t, d, i)
	i.login(storeName, storePortal)
	dev := i.disk(storeName, 0)
	checkFileSystem(t, dev)
	checkTrim(t, d, dev)

	grown := edit(t, storeConfig, "size: 64MiB", "size: 128MiB")
	checkGrowth(t, d, i, dev, grown)

	more := edit(t, grown, "targets:", "  logs: {pool: main, size: 32MiB, block: 512}\ntargets:")
	more = edit(t, more, "{0: data}", "{0: data, 1: logs}")
	d.apply(more)
	i.rescan()
	logs := i.disk(storeName, 1)
	if got := attribute(t, logs, "queue/logical_block_size"); got != "512" {
		t.Errorf("the block size of logs is %s, want 512", got)
	}
	checkFileSystem(t, logs)
	i.logout(storeName, storePortal)

	for _, digest := range []string{"HeaderDigest", "DataDigest"} {
		i.set(storeName, storePortal, "node.conn[0].iscsi."+digest, "CRC32C")
	}
	i.login(storeName, storePortal)
	for _, digest := range []string{"header_digest", "data_digest"} {
		for _, file := range glob(t, "/sys/class/iscsi_connection/*/"+digest) {
			if got := strings.TrimSpace(readFile(t, file)); got != "1" {
				t.Errorf("%s is %s, want 1", file, got)
			}
		}
	}
	dev = i.disk(storeName, 0)
	dropCaches(t)
	fsck(t, dev)
	umount(t, mount(t, dev))
	i.logout(storeName, storePortal)
}

// checkRefusals logs in with wrong secrets, and leaves the right ones set.
func checkRefusals(t testing.TB, d *daemon, i *initiator) {
	t.Helper()
	wrong, impostor := storeChap, storeChap
	wrong.secret = "ripstop-secret-9"
	impostor.targetSecret = "ripstop-secret-9"
	i.authenticate(storeName, storePortal, wrong)
	if err := i.tryLogin(storeName, storePortal); err == nil {
		t.Fatal("a login with a wrong secret succeeded")
	}
	d.awaitLog(`target=` + storeName + ` reason="`)
	i.authenticate(storeName, storePortal, impostor)
	if err := i.tryLogin(storeName, storePortal); err == nil {
		t.Fatal("the initiator took a target whose proof was wrong")
	}
	if log := d.out.String(); strings.Contains(log, "ripstop-secret") {
		t.Errorf("a secret is in the log:\n%s", log)
	}
	i.authenticate(storeName, storePortal, storeChap)
}

// checkTrim shows that the pool gets back what a file system frees.
func checkTrim(t testing.TB, d *daemon, dev string) {
	t.Helper()
	const size = 8 << 20
	used := func() int64 { return get[v1.Pool](d, "pool", "main").Used }
	dir := mount(t, dev)
	run(t, "fstrim", dir) // what was freed before
	before := used()
	file := filepath.Join(dir, "big")
	writeFile(t, file, random(t, size))
	run(t, "sync", "-f", dir)
	full := used()
	if full < before+size {
		t.Errorf("the pool uses %d bytes after %d were written, before %d", full, size, before)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	run(t, "sync", "-f", dir)
	run(t, "fstrim", "-v", dir)
	nettest.Eventually(t, 10*time.Second, "the pool gets back what fstrim freed", func() bool { return used() <= full-size*8/10 })
	umount(t, dir)
}

// checkGrowth makes the LUN larger while its file system is mounted.
func checkGrowth(t testing.TB, d *daemon, i *initiator, dev, config string) {
	t.Helper()
	dir := mount(t, dev)
	keep := random(t, 1<<20)
	writeFile(t, filepath.Join(dir, "keep"), keep)
	before := sizeOf(t, dir)
	d.apply(config)
	dropCaches(t)
	readFile(t, filepath.Join(dir, "keep")) // any command gets the Unit Attention
	if !strings.Contains(kernelLog(t), "Capacity data has changed") {
		t.Errorf("the kernel was not told of the new size:\n%s", kernelLog(t))
	}
	i.rescan()
	const sectors = 128 << 20 / 512
	nettest.Eventually(t, patience, dev+" has its new size", func() bool { return attribute(t, dev, "size") == strconv.Itoa(sectors) })
	run(t, "resize2fs", dev)
	if after := sizeOf(t, dir); after < before*3/2 {
		t.Errorf("the file system has %d bytes after resize2fs, before %d", after, before)
	}
	umount(t, dir)
	fsck(t, dev)
	dir = mount(t, dev)
	if readFile(t, filepath.Join(dir, "keep")) != keep {
		t.Error("a file changed while its LUN grew")
	}
	umount(t, dir)
}

// TestFullPool shows that a LUN that finds no more room harms itself alone.
func TestFullPool(t *testing.T) {
	watchKernel(t)
	config := edit(t, storeConfig, "size: 512MiB", "size: 48MiB, overcommit: 4")
	config = edit(t, config, "targets:", "  other: {pool: main, size: 64MiB}\ntargets:")
	d := startStore(t, edit(t, config, "{0: data}", "{0: data, 1: other}"))
	i := enterStore(t)
	data, other := i.disk(storeName, 0), i.disk(storeName, 1)
	run(t, "dd", "if=/dev/urandom", "of="+other, "bs=1M", "count="+strconv.Itoa(loadSize>>20), "oflag=direct")
	l := startLoad(t, other)

	_, err := try(t, "dd", "if=/dev/urandom", "of="+data, "bs=1M", "oflag=direct")
	if err == nil || !strings.Contains(err.Error(), "No space left on device") {
		t.Errorf("writing more than the pool has gave %v, want no space left", err)
	}
	if p := get[v1.Pool](d, "pool", "main"); p.Used > p.Size {
		t.Errorf("the pool uses %d bytes of %d", p.Used, p.Size)
	}
	l.awaitRounds(20)
	run(t, "blkdiscard", data)
	run(t, "dd", "if=/dev/urandom", "of="+data, "bs=1M", "count=16", "oflag=direct")
	l.end()
	l.verify(other)
	i.logout(storeName, storePortal)
}

func random(t testing.TB, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// attribute reads an attribute of a disk in sysfs.
func attribute(t testing.TB, dev, name string) string {
	t.Helper()
	return strings.TrimSpace(readFile(t, filepath.Join("/sys/block", filepath.Base(dev), name)))
}

// sizeOf is how many bytes a mounted file system has.
func sizeOf(t testing.TB, dir string) int64 {
	t.Helper()
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Blocks) * s.Bsize
}
