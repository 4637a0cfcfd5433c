//go:build vm

package vm

import (
	"bytes"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"ripstop/internal/nettest"
)

// TestGrowthIsNoticed grows the LUN of a mounted file system that is written.
// Nobody looks for it: the kernel hears of it at the next command and tells
// udev, whose rule (here the test) reads the capacity.
func TestGrowthIsNoticed(t *testing.T) {
	watchKernel(t)
	run(t, "modprobe", "xfs")
	small := edit(t, sanConfig, "data: {pool: main, size: 64MiB}", "data: {pool: main, size: 320MiB}")
	d, i := startSAN(t, small)
	i.enter(storeName, storePortal)
	dev := i.disk(storeName, 0)
	run(t, "mkfs.xfs", "-q", "-K", dev)
	dir := mount(t, dev)
	l := startLoad(t, filepath.Join(dir, "load"))
	before := sizeOf(t, dir)
	events := kernelEvents(t)
	d.apply(edit(t, small, "320MiB", "640MiB"))

	device := events.await("SDEV_UA=CAPACITY_DATA_HAS_CHANGED")
	writeFile(t, filepath.Join("/sys", device, "rescan"), "1")
	if got, want := attribute(t, dev, "size"), strconv.Itoa(640*mib/512); got != want {
		t.Errorf("%s has %s sectors, want %s", dev, got, want)
	}
	run(t, "xfs_growfs", dir)
	if after := sizeOf(t, dir); after < before*3/2 {
		t.Errorf("the file system has %d bytes after it grew, before %d", after, before)
	}
	l.awaitRounds(20)
	l.end()
	l.verify(filepath.Join(dir, "load"))
	umount(t, dir)
	run(t, "xfs_repair", "-n", dev)
	i.logout(storeName, storePortal)
}

// uevents is what the kernel tells udev.
type uevents struct {
	t      testing.TB
	socket int
}

func kernelEvents(t testing.TB) uevents {
	t.Helper()
	s, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_DGRAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, syscall.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(s) })
	if err := syscall.Bind(s, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK, Groups: 1}); err != nil {
		t.Fatal(err)
	}
	return uevents{t, s}
}

// await waits for an event with a setting and gives its device's path below /sys.
func (u uevents) await(setting string) string {
	u.t.Helper()
	var device string
	buf := make([]byte, 8192)
	nettest.Eventually(u.t, patience, "the kernel says "+setting, func() bool {
		n, _, err := syscall.Recvfrom(u.socket, buf, 0)
		if err != nil {
			return false // none yet
		}
		path, settings, _ := bytes.Cut(buf[:n], []byte{0}) // change@/devices/… NUL ACTION=change NUL …
		if !bytes.Contains(settings, []byte(setting)) {
			return false
		}
		_, device, _ = strings.Cut(string(path), "@")
		return true
	})
	return device
}
