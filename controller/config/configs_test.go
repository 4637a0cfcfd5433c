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
			parts := []*Config{c}
			if c.Hosts != nil {
				parts = nil
			}
			for host := range c.Hosts {
				part, err := c.ForHost(host)
				if err != nil {
					t.Fatal(err)
				}
				parts = append(parts, part)
			}
			for _, c := range parts {
				if len(c.Tunnels)+len(c.VLANs) == 0 {
					t.Errorf("the file asks host %q for nothing", c.Host)
				}
			}
		})
	}
}
