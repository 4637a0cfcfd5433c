package bgp

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"ripstop/vpn"
)

// TestMarkerRefused: a speaker that cannot be remembered does not stay on its
// port, so that the next attempt has it.
func TestMarkerRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	l := &lab{T: t}
	l.begin(Options{Marker: filepath.Join(dir, "bgp")})
	want := host(nil)
	for range 2 {
		if err := l.driver.Do(t.Context(), vpn.AddSpeaker{Speaker: *want.Speaker}); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("without a state directory: %v", err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l.apply(want)
}

// TestMarkerStays: a disk that is full when a daemon starts again does not have it
// forget the routes of the one before.
func TestMarkerStays(t *testing.T) {
	o := Options{Marker: filepath.Join(t.TempDir(), "bgp")}
	if err := o.mark(); err != nil {
		t.Fatal(err)
	}
	was, err := os.Stat(o.Marker)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{T: t}
	l.begin(o)
	l.apply(host(nil))
	if now, err := os.Stat(o.Marker); err != nil || !now.ModTime().Equal(was.ModTime()) {
		t.Errorf("the marker was written again: %v", err)
	}
}
