package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"ripstop/configs"
)

// hostileFiles are small programs against the parser. Each is a fault.
func hostileFiles() map[string]string {
	many := func(n int, format string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, format, i)
		}
		return b.String()
	}
	const big = 50_000
	return map[string]string{
		"too large":         strings.Repeat("#", maxFile+1),
		"binary":            "\x7fELF\x00\x01",
		"not utf-8":         "version: \xff",
		"nul":               "version: \x00",
		"flow depth":        strings.Repeat("[", big),
		"flow map depth":    strings.Repeat("{a: ", big),
		"block depth":       strings.Repeat("- ", big),
		"complex key depth": strings.Repeat("? ", big),
		"own depth":         strings.Repeat("[", 100) + strings.Repeat("]", 100),
		"billion laughs":    "a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n",
		"alias to itself":   "a: &a [*a]\n",
		"merge bomb":        "a: &a {x: 1}\nb: {<<: [*a, *a]}\n",
		"tag":               "!!binary aGk=\n",
		"two documents":     "version: 1\n---\nversion: 1\n",
		"second broken":     "version: 1\n---\n[\n",
		"directive":         "%YAML 1.2\n---\nversion: 1\n",
		"old Mac":           "version: 1\rvlans: 3\r",
		"unicode breaks":    "version: 1\n# \u2028vlans: 3\n",
		"escape codes":      "switches: {s: {ports: {\"\\e[2J\": {vlan: \"\\e[2J\", tap: {}}}}}\nvlans: {\"\\e[1m\": {id: 1, gateway: 10.0.0.1/24}}\n",
		"tabs":              "vlans:\n\ta: {id: 1}\n",
		"unclosed quote":    "version: \"1",
		"huge number":       "version: " + strings.Repeat("9", big),
		"huge float":        "pools: {p: {path: p, size: 1e" + strings.Repeat("9", big) + "}}",
		"long key":          strings.Repeat("k", big) + ": 1\n",
		"long value":        "version: 1\nvlans: {a: {id: " + strings.Repeat("v", big) + "}}\n",
		"list":              "- version: 1\n",
		"word":              "version",
		"flat unknown keys": many(big, "k%d: 1\n"),
		"flat one key":      strings.Repeat("k: 1\n", big),
		"broken references": "vlans:\n" + many(10_000, "  v%d: {id: 1}\n") + "switches: {s: {ports: {" + many(10_000, "p%d: {vlan: w}, ") + "}}}\n",
		"one namespace":     "switches: {s: {ports: {" + many(10_000, "p%d: {netns: n, vlan: v, address: 10.0.0.1/24}, ") + "}}}\n",
		"pools and luns":    "pools:\n" + many(10_000, "  p%d: {path: a, size: 1}\n") + "luns:\n" + many(10_000, "  l%d: {pool: p1, size: 9TiB}\n"),
		"one gateway":       "vlans: {a: {id: 1, gateway: [" + strings.Repeat("fd00::1/64, ", big) + "]}}\n",
		"gateways":          "vlans: {a: {id: 1, gateway: [" + many(big, "fd00::%x:1/64, ") + "]}}\n",
	}
}

func TestHostile(t *testing.T) {
	for name, data := range hostileFiles() {
		t.Run(name, func(t *testing.T) {
			f := File{"t.yaml", []byte(data)}
			c, _, err := Parse([]File{f})
			var faults Errors
			if !errors.As(err, &faults) || c != nil {
				t.Fatalf("config %v, error %v: want Errors", c, err)
			}
			checkFaults(t, f, faults)
		})
	}
}

// checkFaults demands that every fault has a message and a place in the file.
func checkFaults(t *testing.T, f File, faults Errors) {
	t.Helper()
	lines := bytes.Split(f.Data, []byte("\n"))
	length := map[int]int{}
	if len(faults) > maxFaults+1 {
		t.Errorf("%d faults, want at most %d", len(faults), maxFaults+1)
	}
	for _, e := range faults {
		if _, ok := length[e.Line]; !ok && e.Line >= 1 && e.Line <= len(lines) {
			length[e.Line] = utf8.RuneCount(lines[e.Line-1])
		}
		if e.File != f.Name || e.Message == "" || e.Line < 1 || e.Line > len(lines) ||
			e.Column < 1 || e.Column > length[e.Line]+1 {
			t.Fatalf("fault %#v lies outside of a file of %d lines", e, len(lines))
		}
		if strings.ContainsFunc(e.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) || len(e.Error()) > 10_000 {
			t.Fatalf("fault cannot be shown: %q", e.Error())
		}
	}
}

// FuzzParse holds Parse to its promises: no panic, either a Config or faults
// with places, and the same answer twice.
func FuzzParse(f *testing.F) {
	names, err := fs.Glob(configs.FS, "*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range names {
		data, err := configs.FS.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	faulty, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, n := range faulty {
		data, err := os.ReadFile(n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	for _, data := range hostileFiles() {
		if len(data) < 1000 {
			f.Add([]byte(data))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file := File{"t.yaml", data}
		c, _, err := Parse([]File{file})
		if err == nil {
			if c == nil {
				t.Fatal("neither a Config nor an error")
			}
			return
		}
		var faults Errors
		if !errors.As(err, &faults) || len(faults) == 0 || c != nil {
			t.Fatalf("config %v, error %T", c, err)
		}
		checkFaults(t, file, faults)
		if _, _, again := Parse([]File{file}); again.Error() != err.Error() {
			t.Fatalf("two answers:\n%v\n%v", err, again)
		}
	})
}

// TestManyPorts is more of everything than a switch can have, told where it stands.
func TestManyPorts(t *testing.T) {
	text := func(dataplane string, ports int) []byte {
		var b strings.Builder
		b.WriteString("version: 1\nvlans: {lan: {id: 10}}\nswitches:\n  lab:\n    dataplane: " + dataplane + "\n    ports:\n")
		for i := range ports {
			fmt.Fprintf(&b, "      p%d: {vlan: lan, tap: {}}\n", i)
		}
		return []byte(b.String())
	}
	for _, c := range []struct {
		dataplane string
		ports     int
		want      string
	}{
		{"bridge", 1023, ""},
		{"bridge", 1024, "t.yaml:4:3: switches.lab: 1024 ports and 0 gateways are more than the 1023 of dataplane bridge"},
		{"ebpf", 4095, ""},
		{"ebpf", 4096, "t.yaml:4:3: switches.lab: 4096 ports and 0 gateways are more than the 4095 of dataplane ebpf"},
		{"auto", 4096, "t.yaml:4:3: switches.lab: 4096 ports"},
	} {
		_, _, err := Parse([]File{{"t.yaml", text(c.dataplane, c.ports)}})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)) {
			t.Errorf("%s, %d ports: %v, want %q", c.dataplane, c.ports, err, c.want)
		}
	}
}

// TestAllVLANs is every VLAN that there is on one port, and one too many.
func TestAllVLANs(t *testing.T) {
	text := func(n int) []byte {
		var vlans, names []string
		for i := 1; i <= n; i++ {
			vlans, names = append(vlans, fmt.Sprintf("  v%d: {id: %d}\n", i, i)), append(names, fmt.Sprintf("v%d", i))
		}
		return []byte("version: 1\nvlans:\n" + strings.Join(vlans, "") + "switches: {lab: {ports: {up: {trunk: [" +
			strings.Join(names, ", ") + "], netns: up}}}}\n")
	}
	c, _, err := Parse([]File{{"t.yaml", text(4094)}})
	if err != nil || len(c.Switches["lab"].Ports["up"].Trunk) != 4094 {
		t.Errorf("all VLANs on one port: %v", err)
	}
	_, _, err = Parse([]File{{"t.yaml", text(4095)}})
	if err == nil || !strings.HasPrefix(err.Error(), `t.yaml:4097:15: vlans.v4095.id: "4095" is not in 1–4094`) {
		t.Errorf("a VLAN more than there are: %v", err)
	}
}
