package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHostID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "host-id")
	first, err := hostID(path)
	if err != nil || len(first) != 32 {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := hostID(path); err != nil || again != first {
		t.Errorf("%q and then %q, %v", first, again, err)
	}
	if i, err := os.Stat(path); err != nil || i.Mode() != 0o600 {
		t.Errorf("the file has %v, %v", i.Mode(), err)
	}
	if other, err := hostID(filepath.Join(t.TempDir(), "host-id")); err != nil || other == first {
		t.Errorf("two hosts have %q, %v", other, err)
	}
	if err := os.WriteFile(path, []byte(first[:30]+"xy\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if id, err := hostID(path); err == nil || !strings.Contains(err.Error(), "remove it") {
		t.Errorf("a damaged one is %q, %v", id, err)
	}
}
