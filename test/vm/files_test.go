//go:build vm

package vm

import (
	"os"
	"strings"
	"testing"
)

// mkfs makes an ext4 file system on a disk.
func mkfs(t testing.TB, dev string) {
	t.Helper()
	run(t, "mkfs.ext4", "-q", "-F", dev)
}

// mount mounts a disk on a directory of its own and gives the directory. It is
// unmounted at the latest when the test ends.
func mount(t testing.TB, dev string) string {
	t.Helper()
	dir := t.TempDir()
	run(t, "mount", dev, dir)
	t.Cleanup(func() {
		if mounted(t, dir) {
			umount(t, dir)
		}
	})
	return dir
}

// umount unmounts a directory, by which the kernel writes what it still holds.
func umount(t testing.TB, dir string) {
	t.Helper()
	run(t, "umount", dir)
}

func mounted(t testing.TB, dir string) bool {
	t.Helper()
	return strings.Contains(readFile(t, "/proc/self/mounts"), " "+dir+" ")
}

// fsck checks a file system that is not mounted, changes nothing, and fails the
// test when there is anything to repair.
func fsck(t testing.TB, dev string) {
	t.Helper()
	run(t, "fsck.ext4", "-f", "-n", dev)
}

// dropCaches makes the next read come from the disk.
func dropCaches(t testing.TB) {
	t.Helper()
	run(t, "sync")
	writeFile(t, "/proc/sys/vm/drop_caches", "3\n")
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
