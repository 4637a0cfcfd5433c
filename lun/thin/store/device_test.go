package store

import (
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/internal/disktest"
)

func TestDevice(t *testing.T) {
	path, state := disktest.Loop(t, 128<<20), t.TempDir()
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
	path := disktest.Loop(t, size)
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
	if _, err := Open(disktest.Loop(t, 1<<20), Options{}); err == nil || !strings.Contains(err.Error(), "choose a larger one") {
		t.Errorf("got %v", err)
	}
}
