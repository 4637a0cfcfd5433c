package store

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ripstop/internal/disktest"
)

// TestShadow keeps memory from one opening to the next of a boot, and not longer.
func TestShadow(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	device := disktest.Loop(t, 64<<20)
	for _, tt := range []struct{ name, path, file string }{
		{"directory", dir, filepath.Join(dir, shadowName)},
		{"device", device, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			shadow := func(size int) (*File, []byte) {
				f, err := Open(tt.path, Options{StateDir: state})
				must(t, err)
				mem, err := f.Shadow(size)
				must(t, err)
				return f, mem
			}
			f, mem := shadow(64 << 10)
			if len(mem) != 64<<10 || !bytes.Equal(mem, make([]byte, len(mem))) {
				t.Fatalf("a new shadow has %d bytes, or they are not zeros", len(mem))
			}
			copy(mem, "kept")
			must(t, f.Close())
			f, mem = shadow(128 << 10)
			if len(mem) != 64<<10 || string(mem[:4]) != "kept" {
				t.Fatalf("the next process finds %d bytes, %q", len(mem), mem[:4])
			}
			file := tt.file
			if file == "" {
				file = f.shadowPath
			}
			must(t, f.Close())
			raw, err := os.OpenFile(file, os.O_WRONLY, 0)
			must(t, err)
			_, err = raw.WriteAt([]byte("00000000-0000-0000-0000-000000000000"), 0)
			must(t, err)
			must(t, raw.Close())
			f, mem = shadow(128 << 10)
			if len(mem) != 128<<10 || !bytes.Equal(mem, make([]byte, len(mem))) {
				t.Errorf("the next boot finds %d bytes, %q", len(mem), mem[:4])
			}
			must(t, f.Close())
		})
	}
	f, err := Open(device, Options{})
	must(t, err)
	if _, err := f.Shadow(1 << 20); err == nil || !strings.Contains(err.Error(), "no state directory") {
		t.Errorf("without a state directory: %v", err)
	}
	must(t, f.Close())
}

// TestShadowWithoutRoom has a full file system: there is none, and no signal either.
func TestShadowWithoutRoom(t *testing.T) {
	onTmpfs(t, 0, "size=256k", func(dir string) {
		f, err := Open(dir, Options{})
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := f.Shadow(1 << 20); err == nil || !strings.Contains(err.Error(), "free space") {
			t.Errorf("got %v", err)
		}
		if _, err := os.Stat(filepath.Join(dir, shadowName)); !os.IsNotExist(err) {
			t.Errorf("it left something: %v", err)
		}
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
}
