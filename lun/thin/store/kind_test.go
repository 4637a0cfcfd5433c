package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKind(t *testing.T) {
	made := t.TempDir()
	f, err := Open(made, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	with := func(name, text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	tests := []struct{ name, path, want, fault string }{
		{"absent", filepath.Join(made, "absent"), "", ""},
		{"empty", t.TempDir(), "", ""},
		{"strangers' files", with("notes.txt", "x"), "", ""},
		{"thin", made, "thin", ""},
		{"thin without its record", with("pool.data", ""), "thin", ""},
		{"raw", with("pool.json", `{"format":1,"uuid":"00"}`), "raw", ""},
		{"raw without its record", with("db.lun", ""), "raw", ""},
		{"newer", with("pool.json", `{"format":9,"kind":"ceph"}`), "ceph", ""},
		{"damaged", with("pool.json", `{`), "", "pool.json: it is damaged"},
		{"no directory", "/dev/null", "thin", ""},
		{"below a file", "/dev/null/x", "", "not a directory"},
	}
	for _, tt := range tests {
		got, err := Kind(tt.path)
		if got != tt.want || (err == nil) != (tt.fault == "") || err != nil && !strings.Contains(err.Error(), tt.fault) {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
}
