package disk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/uring"
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

// TestOutlast: a file is not opened while a process that is gone has writes under way in
// it, and is when they have ended. Who closes it in order keeps nobody waiting.
func TestOutlast(t *testing.T) {
	ring, err := uring.New(8)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ring.Close() })
	path := filepath.Join(t.TempDir(), "f")
	open := func() *File {
		t.Helper()
		f, err := Open(path, os.O_RDWR|os.O_CREATE, ring)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := open()
	f.ring = ring
	if err := f.SetDirect(true); err != nil {
		t.Fatalf("%v: set TMPDIR to another file system", err)
	}
	other, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	next := &File{File: other}
	if next.conn, err = other.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	if err := next.outlast(20 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "has not ended") {
		t.Fatalf("while the ring has it: %v", err)
	}
	waited := make(chan error, 1)
	go func() { waited <- next.outlast(time.Minute) }()
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-waited; err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := open().Close(); err != nil || time.Since(began) > predecessor/2 {
		t.Errorf("after a close: %v in %v", err, time.Since(began))
	}
}
