package disk

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFaults: errors of the disk come through, from a bounced piece too.
func TestFaults(t *testing.T) {
	f, err := Open(filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.SetDirect(true); errors.Is(err, ErrRefused) {
		t.Fatalf("%v: set TMPDIR to another file system", err)
	} else if err != nil {
		t.Fatal(err)
	}
	f.Align(blockSize)
	d := f.past.Load()
	readOnly, err := os.OpenFile(d.Name(), os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		t.Fatal(err)
	}
	old := d.File
	d.File = readOnly
	if n, err := d.WriteAt(make([]byte, 512), 512); n != 0 || !errors.Is(err, unix.EBADF) {
		t.Errorf("%d bytes, %v", n, err)
	}
	d.File = old
	if err := readOnly.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := openDirect(filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
