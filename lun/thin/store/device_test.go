package store

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// loop is a loop device over a new file of zeros, gone at the test's end.
func loop(t *testing.T, size int64) string {
	t.Helper()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		t.Skip("no loop devices: ", err)
	}
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

func TestDevice(t *testing.T) {
	path, state := loop(t, 128<<20), t.TempDir()
	o := Options{Direct: true, StateDir: state}
	f, p := start(t, path, o)
	if !f.IsDevice() || !f.Fresh() || p.Usage().Size < 100<<20 {
		t.Errorf("a device: %v, fresh: %v, %+v", f.IsDevice(), f.Fresh(), p.Usage())
	}
	if _, err := Open(path, o); err == nil || !strings.Contains(err.Error(), "the device is in use") {
		t.Errorf("taken twice: %v", err)
	}
	v, err := p.Create(t.Context(), "v", 8<<20, 4096)
	must(t, err)
	must(t, v.WriteAt(t.Context(), make([]byte, 1<<20), 0, true))
	must(t, v.Unmap(t.Context(), 0, 1<<20))
	stop(t, f, p)

	records, err := os.ReadDir(filepath.Join(state, "thin"))
	must(t, err)
	if len(records) != 1 || len(records[0].Name()) != 2*16+len(".json") {
		t.Fatalf("records %v", records)
	}
	var id [16]byte
	_, err = hex.Decode(id[:], []byte(records[0].Name()[:32]))
	must(t, err)
	f, p = start(t, path, o)
	if n, err := f.Recorded(id); n < 4 || err != nil {
		t.Errorf("generation %d, %v", n, err)
	}
	stop(t, f, p)
	f, p = start(t, path, Options{}) // and without records
	stop(t, f, p)
}

// TestForeignDevices: what a device holds is named and kept.
func TestForeignDevices(t *testing.T) {
	const size = 64 << 20
	path := loop(t, size)
	dev, err := os.OpenFile(path, os.O_RDWR|unix.O_SYNC, 0)
	must(t, err)
	defer dev.Close()
	for _, s := range append(signatures[:len(signatures):len(signatures)], struct {
		name  string
		at    int
		bytes string
	}{"data (byte 67108863 is not zero)", size - 1, "x"}) {
		_, err := dev.WriteAt([]byte(s.bytes), int64(s.at))
		must(t, err)
		_, err = Open(path, Options{})
		if err == nil || !strings.Contains(err.Error(), "it holds "+s.name+", and nothing is overwritten") {
			t.Errorf("%s: %v", s.name, err)
		}
		got := make([]byte, len(s.bytes))
		_, err = dev.ReadAt(got, int64(s.at))
		must(t, err)
		if string(got) != s.bytes {
			t.Errorf("%s: overwritten", s.name)
		}
		_, err = dev.WriteAt(make([]byte, len(s.bytes)), int64(s.at))
		must(t, err)
	}
	f, err := Open(path, Options{})
	must(t, err)
	must(t, f.Close())
}

func TestSmallDevice(t *testing.T) {
	if _, err := Open(loop(t, 1<<20), Options{}); err == nil || !strings.Contains(err.Error(), "choose a larger one") {
		t.Errorf("got %v", err)
	}
}
