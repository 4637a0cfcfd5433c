package revision

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"ripstop/controller/config"
)

func file(name, data string) config.File { return config.File{Name: name, Data: []byte(data)} }

func save(t *testing.T, s *Store, files ...config.File) int {
	t.Helper()
	n, err := s.Save(files)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestSaveAndCurrent(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if n, files, err := s.Current(); n != 0 || files != nil || err != nil {
		t.Fatalf("empty store: %d, %v, %v", n, files, err)
	}
	if n := save(t, s, file("/etc/a.yaml", "one"), file("/etc/b.yaml", "two")); n != 1 {
		t.Errorf("first revision is %d, want 1", n)
	}
	if n := save(t, s, file("a.yaml", "one"), file("b.yaml", "two")); n != 1 {
		t.Errorf("the same files again make revision %d, want 1 still", n)
	}
	if n := save(t, s, file("a.yaml", "three")); n != 2 {
		t.Errorf("changed files make revision %d, want 2", n)
	}
	n, files, err := s.Current()
	if err != nil || n != 2 || len(files) != 1 || string(files[0].Data) != "three" {
		t.Errorf("Current = %d, %v, %v", n, files, err)
	}
}

func TestAnUnfinishedRevisionIsNeverCurrent(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	save(t, s, file("a.yaml", "one"))
	// A crash after making the directory and before renaming the link.
	if err := os.Mkdir(filepath.Join(dir, "revisions", "2"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("2", filepath.Join(dir, "revisions", "next")); err != nil {
		t.Fatal(err)
	}
	if n, _, err := s.Current(); n != 1 || err != nil {
		t.Errorf("Current = %d, %v, want 1", n, err)
	}
	if n := save(t, s, file("a.yaml", "two")); n != 3 {
		t.Errorf("the next revision is %d, want 3", n)
	}
}

func TestOldRevisionsGo(t *testing.T) {
	s, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for i := range keep + 5 {
		save(t, s, file("a.yaml", fmt.Sprint(i)))
	}
	all, err := s.numbers()
	if err != nil || len(all) != keep || all[0] != 6 {
		t.Errorf("kept %v, %v", all, err)
	}
}
