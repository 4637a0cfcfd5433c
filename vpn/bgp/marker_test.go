package bgp

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"ripstop/internal/nettest"
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

// TestStoppedBeforeItsSpeaker: a daemon that is stopped in its first pass, before
// it came to the speaker, leaves the routes of the one before.
func TestStoppedBeforeItsSpeaker(t *testing.T) {
	o := Options{Marker: filepath.Join(t.TempDir(), "bgp")}
	if err := o.mark(); err != nil {
		t.Fatal(err)
	}
	hostLink(t, "blue", "tor1", "10.10.0.1/24", "10.10.0.254/24")
	nettest.Run(t, "ip", "route", "add", "10.77.0.0/24", "via", "10.10.0.254", "proto", "115", "metric", "20")
	l := &lab{T: t}
	l.begin(o)
	stopped, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.driver.Commit(stopped); err != nil {
		t.Fatal(err)
	}
	if kernelRoute(t, "10.77.0.0/24", "254") == "" {
		t.Error("the route has gone")
	}
	if err := l.driver.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if out := kernelRoute(t, "10.77.0.0/24", "254"); out != "" {
		t.Errorf("no speaker is wanted, and there is %s", out)
	}
}
