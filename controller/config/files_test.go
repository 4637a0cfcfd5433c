package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"ripstop/vpn"
)

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	write := func(name, data string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(data), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	other := write("other", "x", 0o600)
	if err := os.Chown(other, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, want, fault string
	}{
		{"line", write("line", "s3cret word\n", 0o600), "s3cret word", ""},
		{"no newline", write("bare", "s3cret", 0o400), "s3cret", ""},
		{"dos", write("dos", "s3cret\r\n", 0o600), "s3cret", ""},
		{"spaces stay", write("spaces", " s \n", 0o600), " s ", ""},
		{"group reads", write("group", "x", 0o640), "", "mode 0640 lets others in: chmod 0600"},
		{"world reads", write("world", "x", 0o604), "", "chmod 0600"},
		{"executable", write("exec", "x", 0o700), "", "chmod 0600"},
		{"empty", write("empty", "\n", 0o600), "", "the file is empty"},
		{"lines", write("lines", "a\nb\n", 0o600), "", "several lines"},
		{"large", write("large", strings.Repeat("x", maxSecret+1), 0o600), "", "more than 1024 bytes"},
		{"absent", filepath.Join(dir, "absent"), "", "write the secret into it"},
		{"directory", dir, "", "not a regular file"},
		{"fifo", fifo, "", "not a regular file"},
		{"somebody else's", other, "", "belongs to uid 65534"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ReadSecret(tt.path)
			if got != tt.want || (err != nil) != (tt.fault != "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("got %q, %v, want %q, fault %q", got, err, tt.want, tt.fault)
			}
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error shows the secret: %v", err)
			}
		})
	}
	if _, err := ReadSecret(filepath.Join(dir, "absent")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent: got %v, want os.ErrNotExist", err)
	}
}

func TestPrivateKeyIsMadeOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "site.key")
	keys := make([]vpn.Secret, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = PrivateKey(path); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, k := range keys {
		if k != keys[0] || k.IsZero() {
			t.Fatalf("two makers got two keys")
		}
	}
	b := keys[0].Reveal()
	if b[0]&7 != 0 || b[31]&0xc0 != 0x40 {
		t.Errorf("key is not clamped: first byte %08b, last %08b", b[0], b[31])
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode() != 0o600 || fi.Size() != 45 {
		t.Errorf("file: %v, %v, want mode 0600 and 45 bytes", fi, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("folder has %v, %v, want the key alone", left, err)
	}
}

func TestPrivateKeyFaults(t *testing.T) {
	dir := t.TempDir()
	tests := []struct{ name, data string }{
		{"word", "hello"},
		{"short", "AAAA"},
		{"zero", vpn.Key{}.String()},
	}
	for i, tt := range tests {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, []byte(tt.data+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := PrivateKey(path); err == nil || !strings.Contains(err.Error(), "wg genkey") || strings.Contains(err.Error(), tt.data) {
			t.Errorf("%s: got %v", tt.name, err)
		}
	}
	if _, err := PrivateKey(filepath.Join(dir, "none", "k")); err == nil {
		t.Error("a key is made in a folder that does not exist")
	}
}
