package beside

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ripstop/controller/config"
	"ripstop/internal/keep"
)

func TestSavedObjectsComeBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "verbs")
	if o, err := Open(dir).Load(); err != nil || len(o.LUNs) != 0 {
		t.Fatalf("nothing was saved: %v, %v", o, err)
	}
	want := Objects{}.With("scratch", config.LUN{Pool: "main", Size: 1 << 40, Block: 512}).With("b", config.LUN{Pool: "main", Size: 4096, Block: 4096})
	if err := Open(dir).Save(want); err != nil {
		t.Fatal(err)
	}
	got, err := Open(dir).Load()
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Errorf("%v %s", err, d)
	}
	if got = got.Without("b"); len(got.LUNs) != 1 || len(want.LUNs) != 2 {
		t.Errorf("without b: %v, of %v", got, want)
	}
}

func TestARecordThatCannotBeReadIsNotNothing(t *testing.T) {
	for _, tt := range []struct{ name, record, want string }{
		{"newer", `{"format":2}`, "run a newer ripstop"},
		{"newer with new fields", `{"format":2,"ports":{}}`, "run a newer ripstop"},
		{"not JSON", `{"luns"`, "put back a copy"},
		{"unknown", `{"format":1,"luns":{},"x":1}`, "put back a copy"},
		{"more", `{"format":1} {}`, "put back a copy"},
	} {
		dir := t.TempDir()
		if err := keep.New(dir).Save(name, []byte(tt.record)); err != nil {
			t.Fatal(err)
		}
		if o, err := Open(dir).Load(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, %v, want %q", tt.name, o, err, tt.want)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir).Load(); err == nil {
		t.Error("a file without its checksum was read")
	}
}

func TestTheFileComesFirst(t *testing.T) {
	file := &config.Config{LUNs: map[string]config.LUN{"data": {Pool: "main", Size: 2}}}
	o := Objects{}.With("data", config.LUN{Pool: "main", Size: 1}).With("scratch", config.LUN{Pool: "main", Size: 3})
	want := map[string]config.LUN{"data": {Pool: "main", Size: 2}, "scratch": {Pool: "main", Size: 3}}
	if d := cmp.Diff(want, o.Merge(file).LUNs); d != "" {
		t.Error(d)
	}
	if len(file.LUNs) != 1 {
		t.Error("Merge changed the file's configuration")
	}
	rest, changed := o.Adopt(file)
	if _, ok := rest.LUNs["scratch"]; !ok || !changed || len(rest.LUNs) != 1 {
		t.Errorf("after adoption: %v, %v", rest, changed)
	}
	if _, changed = rest.Adopt(file); changed {
		t.Error("adopted twice")
	}
	if m := (Objects{}).Merge(&config.Config{}); m.LUNs == nil {
		t.Error("maps are never nil")
	}
}
