package revision

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ripstop/controller/config"
)

func file(name, data string) config.File { return config.File{Name: name, Data: []byte(data)} }

func open(t *testing.T, state string) *Store {
	t.Helper()
	s, err := Open(state)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func add(t *testing.T, s *Store, base []config.File, files ...config.File) int {
	t.Helper()
	n, err := s.Add(files, base, Note{Time: time.Unix(0, 0).UTC(), By: "me", Comment: "why"})
	if err != nil {
		t.Fatal(err)
	}
	return n.Number
}

func kept(t *testing.T, s *Store) int {
	t.Helper()
	n, err := s.Kept()
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOnlyWhatIsKeptIsCurrent(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if n := kept(t, s); n != 0 {
		t.Fatalf("an empty store keeps revision %d", n)
	}
	one := []config.File{file("/etc/a.yaml", "one\n"), file("/etc/10-b.yaml", "x\ny\n")}
	if n := add(t, s, nil, one...); n != 1 || kept(t, s) != 0 {
		t.Fatalf("revision %d, current %d, want 1 and none", n, kept(t, s))
	}
	if err := s.Keep(1); err != nil {
		t.Fatal(err)
	}
	if n := add(t, s, one, file("a.yaml", "two\n"), file("10-b.yaml", "x\nz\ny\n")); n != 2 || kept(t, s) != 1 {
		t.Fatalf("revision %d, current %d, want 2 and 1", n, kept(t, s))
	}
	s = open(t, dir) // as after a restart
	files, note, err := s.Read(1)
	if err != nil || len(files) != 2 || string(files[1].Data) != "x\ny\n" || filepath.Base(files[1].Name) != "01-10-b.yaml" {
		t.Fatalf("Read: %v, %v", files, err)
	}
	want := Note{Number: 1, Time: time.Unix(0, 0).UTC(), By: "me", Comment: "why", Added: 3, Files: []string{"a.yaml", "10-b.yaml"}, Confirmed: true}
	if d := cmp.Diff(want, note); d != "" {
		t.Error(d)
	}
	all, err := s.History()
	want.Number, want.Added, want.Removed, want.Confirmed = 2, 2, 1, false
	if err != nil || len(all) != 2 || !cmp.Equal(all[0], note) || !cmp.Equal(all[1], want) {
		t.Errorf("History: %+v, %v", all, err)
	}
	// Added again, the files have their own names and not those in the store.
	if n := add(t, s, files, files...); n != 3 {
		t.Errorf("revision %d, want 3", n)
	}
	if _, note, err = s.Read(3); err != nil || !cmp.Equal(note.Files, []string{"a.yaml", "10-b.yaml"}) || note.Added+note.Removed != 0 {
		t.Errorf("%+v, %v", note, err)
	}
	if err := s.Keep(3); err != nil || kept(t, s) != 3 {
		t.Errorf("current is %d, %v", kept(t, s), err)
	}
	if all, err = s.History(); err != nil || !all[0].Confirmed || all[1].Confirmed || !all[2].Confirmed {
		t.Errorf("revision 2 alone was not confirmed: %+v, %v", all, err)
	}
	if err := errors.Join(s.Revert(2), s.Revert(2), s.Revert(77)); err != nil {
		t.Error(err)
	}
	if _, note, err := s.Read(2); err != nil || !note.Reverted || note.Confirmed {
		t.Errorf("%+v, %v", note, err)
	}
	if err := s.Keep(0); err != nil || kept(t, s) != 0 {
		t.Errorf("current is %d, %v", kept(t, s), err)
	}
	if _, _, err := s.Read(4); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a revision that never was: %v", err)
	}
}

func TestNobodyElseReadsARevision(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	if err := s.Keep(add(t, s, nil, file("a.yaml", "one"))); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(filepath.Join(dir, "revisions"), func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		i, err := e.Info()
		if err == nil && i.Mode()&fs.ModeSymlink == 0 && i.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s: %v", name, i.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOldRevisionsGo(t *testing.T) {
	s := open(t, t.TempDir())
	if s.most != 50 {
		t.Errorf("%d revisions stay, want 50 as in Junos", s.most)
	}
	s.most = few
	for i := range few + 5 {
		n := add(t, s, nil, file("a.yaml", fmt.Sprint(i)))
		if n == 3 {
			if err := s.Keep(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	all, err := s.numbers()
	if err != nil || len(all) != few || all[0] != 3 || all[1] != 7 {
		t.Errorf("of %d revisions with 3 confirmed there are %v, %v", few+5, all, err)
	}
}

// TestNamesOfFiles: whatever a client calls its files, they are kept.
func TestNamesOfFiles(t *testing.T) {
	s := open(t, t.TempDir())
	for _, name := range []string{"", "/", ".", "..", "a b\nc.yaml", strings.Repeat("ü", 300), "x\x00y", "about.json"} {
		n := add(t, s, nil, file(name, name))
		files, _, err := s.Read(n)
		if err != nil || len(files) != 1 || string(files[0].Data) != name {
			t.Errorf("%q: %v, %v", name, files, err)
		}
	}
}

func TestRevisionsWithoutNotes(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	old := filepath.Join(dir, "revisions", "7")
	if err := errors.Join(os.Mkdir(old, 0o700), os.WriteFile(old+"/00-lab.yaml", []byte("x"), 0o600), os.Symlink("7", old+"/../current")); err != nil {
		t.Fatal(err)
	}
	files, note, err := s.Read(kept(t, s))
	if err != nil || len(files) != 1 || string(files[0].Data) != "x" || !note.Confirmed || !note.Time.IsZero() {
		t.Errorf("%v, %+v, %v", files, note, err)
	}
	if n := add(t, s, files, file("lab.yaml", "y")); n != 8 {
		t.Errorf("revision %d, want 8", n)
	}
}

// TestDamage: a revision that is not what it was is no configuration, and is in
// the history with what is wrong.
func TestDamage(t *testing.T) {
	for _, x := range []struct{ name, file, data, want string }{
		{"a changed file", "00-a.yaml", "two", "not what was applied"},
		{"a cut note", "about.json", `{"format":`, "about.json"},
		{"a note of the future", "about.json", `{"format":2}`, "newer ripstop"},
		{"a note that points elsewhere", "about.json", `{"format":1,"files":[{"stored":"../../x"}]}`, "no file of it"},
		{"a lost file", "about.json", `{"format":1,"files":[{"name":"x","stored":"00-x"}]}`, "no such file"},
	} {
		t.Run(x.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			add(t, s, nil, file("a.yaml", "one"))
			if err := os.WriteFile(filepath.Join(dir, "revisions", "1", x.file), []byte(x.data), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, _, err := s.Read(1); err == nil || !strings.Contains(err.Error(), x.want) || errors.Is(err, fs.ErrNotExist) && x.want != "no such file" {
				t.Errorf("Read: %v", err)
			}
			if all, err := s.History(); err != nil || len(all) != 1 || all[0].Number != 1 {
				t.Errorf("History: %+v, %v", all, err)
			}
			if n := add(t, s, nil, file("a.yaml", "three")); n != 2 {
				t.Errorf("the next revision is %d", n)
			}
		})
	}
	dir := t.TempDir()
	s := open(t, dir)
	if err := os.Symlink("x", filepath.Join(dir, "revisions", "current")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Kept(); err == nil {
		t.Error("a link to nowhere is the current revision")
	}
	if _, err := s.Add(nil, nil, Note{}); err == nil {
		t.Error("a revision is added where it is not known which is current")
	}
}

func TestDiff(t *testing.T) {
	s := open(t, t.TempDir())
	for _, x := range []struct {
		name    string
		was, is []config.File
		want    string
	}{
		{"the same", []config.File{file("a", "x\n")}, []config.File{file("a", "x\n")}, ""},
		{"one file by another name", []config.File{file("a", "x\n")}, []config.File{file("d/b", "y\n")}, "--- 1/b\n+++ 2/b\n@@ -1,1 +1,1 @@\n-x\n+y\n"},
		{"nothing before", nil, []config.File{file("a", "x\n")}, "--- 1/a\n+++ 2/a\n@@ -0,0 +1,1 @@\n+x\n"},
		{"one gone, one as it was", []config.File{file("a", "x\n"), file("b", "y\n")}, []config.File{file("b", "y\n")}, "--- 1/a\n+++ 2/a\n@@ -1,1 +0,0 @@\n-x\n"},
	} {
		if d := cmp.Diff(x.want, s.Diff("1", "2", x.was, x.is)); d != "" {
			t.Errorf("%s: %s", x.name, d)
		}
	}
}
