// Package disktest has block devices for tests.
package disktest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Loop is a loop device over a new file of zeros, gone at the test's end.
func Loop(t testing.TB, size int64) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	must(t, err)
	defer control.Close()
	file, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	must(t, err)
	defer file.Close()
	must(t, file.Truncate(size))
	for range 16 { // others take devices, too
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		must(t, err)
		path := fmt.Sprintf("/dev/loop%d", n)
		dev, err := os.OpenFile(path, os.O_RDWR, 0)
		must(t, err)
		err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_FD, int(file.Fd()))
		if errors.Is(err, unix.EBUSY) {
			must(t, dev.Close())
			continue
		}
		must(t, err)
		t.Cleanup(func() {
			must(t, unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0))
			must(t, dev.Close())
		})
		return path
	}
	t.Fatal("no free loop device")
	return ""
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
