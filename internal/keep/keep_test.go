package keep

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSaveAndLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "records")
	d := New(path)
	if b, err := d.Load("a"); b != nil || err != nil {
		t.Errorf("before anything: %q, %v", b, err)
	}
	if err := d.Save("a", nil); err != nil {
		t.Errorf("none again: %v", err)
	}
	for _, record := range []string{"one", "two\nlines\n", strings.Repeat("x", 100_000)} {
		if err := d.Save("a", []byte(record)); err != nil {
			t.Fatal(err)
		}
		b, err := New(path).Load("a")
		if err != nil || string(b) != record {
			t.Errorf("got %d bytes, %v; want %d", len(b), err, len(record))
		}
	}
	if err := d.Save("a", nil); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(path)
	if err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

// TestDamage flips, cuts and adds at each place of a file.
func TestDamage(t *testing.T) {
	d := New(t.TempDir())
	if err := d.Save("a", []byte("record")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.path, "a")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := [][]byte{append(bytes.Clone(good), 'x')}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 1
		damaged = append(damaged, flipped, good[:i])
	}
	for _, b := range damaged {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := d.Load("a"); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: got %q, %v", b, got, err)
		}
	}
}

// TestDraft: what a crash left half written is not the record.
func TestDraft(t *testing.T) {
	d := New(t.TempDir())
	if err := d.Save("a", []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.path, ".a.tmp"), []byte("half of the n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := d.Load("a"); string(b) != "old" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if err := d.Save("a", []byte("new")); err != nil {
		t.Fatal(err)
	}
	if b, err := d.Load("a"); string(b) != "new" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
}

func TestFaults(t *testing.T) {
	d := New(filepath.Join(t.TempDir(), "missing", "records"))
	if err := d.Save("a", []byte("x")); err == nil {
		t.Error("saved without a parent directory")
	}
	for _, name := range []string{"", ".", "..", "a/b", "../a", ".a"} {
		t.Run(fmt.Sprintf("%q", name), func(t *testing.T) {
			if err := New(t.TempDir()).Save(name, []byte("x")); err == nil {
				t.Error("saved")
			}
			if _, err := New(t.TempDir()).Load(name); err == nil {
				t.Error("loaded")
			}
		})
	}
}
