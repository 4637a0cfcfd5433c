package config

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the goldens and the schema anew")

// TestGolden parses each testdata/*.yaml; the .err beside it is what Parse
// says: faults, then warnings.
func TestGolden(t *testing.T) {
	names, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatalf("glob: %d files, %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".yaml"), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			_, warnings, err := Parse([]File{{filepath.Base(name), data}})
			var got strings.Builder
			if err != nil {
				got.WriteString(err.Error() + "\n")
			}
			for _, w := range warnings {
				got.WriteString("warning: " + w.String() + "\n")
			}
			golden(t, strings.TrimSuffix(name, ".yaml")+".err", got.String())
		})
	}
}

// golden compares with a file, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\ngot:\n%s\nwant:\n%s", name, got, want)
	}
}

func parseString(t *testing.T, s string) (*Config, []Warning, Errors) {
	t.Helper()
	c, w, err := Parse([]File{{"t.yaml", []byte(s)}})
	var faults Errors
	if err != nil && !errors.As(err, &faults) {
		t.Fatalf("error is %T, want Errors", err)
	}
	return c, w, faults
}
