package config

import (
	"io/fs"
	"testing"

	"ripstop/configs"
)

// TestConfigs parses every file that is shipped; none has a fault or a warning.
func TestConfigs(t *testing.T) {
	names, err := fs.Glob(configs.FS, "*.yaml")
	if err != nil || len(names) < 6 {
		t.Fatalf("glob: %v, %v", names, err)
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			data, err := configs.FS.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			c, warnings, err := Parse([]File{{name, data}})
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range warnings {
				t.Error(w)
			}
			if len(c.Tunnels)+len(c.VLANs) == 0 {
				t.Error("the file asks for nothing")
			}
		})
	}
}
