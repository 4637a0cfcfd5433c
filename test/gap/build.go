// Package gap demands that a switch loses no packet and resets no flow, whatever
// becomes of the daemon: numbered datagrams at 1 ms and a TCP connection beside
// them cross it while daemons are stopped, killed, started, replaced by other
// builds, and given other files.
//
//	netns a ─ 1 datagram a ms, 1 connection ─► switch ─► netns b: all of them, once
//	                                             ▲
//	         ripstop ─ kill -9 ─ other build ─ apply ─ …
//
// # Caveats
//
// The other builds are made of this very source, with other eBPF objects: clang
// compiles changed copies of bpf/switch.c and port.h, and go build gets what comes of it in the place
// of the committed object.
package gap

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Variant is a build of ripstop.
type Variant string

// The variants.
const (
	Same    Variant = "ripstop"         // as it is
	Program Variant = "ripstop-program" // with another program over maps of the same layout
	Layout  Variant = "ripstop-layout"  // with maps of another layout
)

// edit is what makes one source of another: the first match becomes what replaces it.
type edit struct{ match, replace string }

var edits = map[Variant][]edit{
	Program: {{`#define SHUT \(300 \*`, `#define SHUT (301 *`}},
	Layout: {
		{`\tLAYOUT = \d+,`, "\tLAYOUT = 1000,"},
		{`\nstruct port \{`, "\nstruct port {\n\t__u32 younger;"},
		{`\nstruct trunk \{`, "\nstruct trunk {\n\t__u64 younger;"},
		{`\nstruct traffic \{`, "\nstruct traffic {\n\t__u64 younger;"},
		{`\tPORT_TRUNK = \d+,`, "\tPORT_TRUNK = 1 << 28,"},
		{`\tMAX_FDB = \d+,`, "\tMAX_FDB = 32768,"},
	},
}

// Build makes a variant in dir, in a file of its name.
func Build(dir string, v Variant) error {
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", "ripstop/vswitch/ebpf").Output()
	if err != nil {
		return fmt.Errorf("find vswitch/ebpf: %w", err)
	}
	args := []string{"build", "-trimpath", "-ldflags=-s -w"}
	if list := edits[v]; len(list) > 0 {
		overlay, err := replaceObject(dir, strings.TrimSpace(string(out)), list)
		if err != nil {
			return fmt.Errorf("make the object of %s: %w", v, err)
		}
		args = append(args, "-overlay", overlay)
	}
	return run(exec.Command("go", append(args, "-o", filepath.Join(dir, string(v)), "ripstop/cmd/ripstop")...), "CGO_ENABLED=0")
}

// replaceObject generates the object of a changed source and writes what
// go build -overlay wants to know of it.
func replaceObject(dir, home string, list []edit) (string, error) {
	work, err := os.MkdirTemp(dir, "object-")
	if err != nil {
		return "", err
	}
	missing := slices.Clone(list)
	for _, name := range []string{"switch.c", "port.h"} {
		source, err := os.ReadFile(filepath.Join(home, "bpf", name))
		if err != nil {
			return "", err
		}
		changed := string(source)
		missing = slices.DeleteFunc(missing, func(e edit) bool {
			at := regexp.MustCompile(e.match).FindStringIndex(changed)
			if at != nil {
				changed = changed[:at[0]] + e.replace + changed[at[1]:]
			}
			return at != nil
		})
		if err := os.WriteFile(filepath.Join(work, name), []byte(changed), 0o600); err != nil {
			return "", err
		}
	}
	if len(missing) > 0 {
		return "", fmt.Errorf("bpf/switch.c and port.h have no %s: adapt the edits", missing[0].match)
	}
	file := filepath.Join(work, "switch.c")
	words, err := generator(home)
	if err != nil {
		return "", err
	}
	for i, w := range words {
		if w == "bpf/switch.c" {
			words[i] = file
		}
	}
	for i, w := range words {
		if w == "-target" {
			words = append(words[:i:i], append([]string{"-output-dir", work}, words[i:]...)...)
			break
		}
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = home
	if err := run(cmd, "GOPACKAGE=ebpf"); err != nil {
		return "", err
	}
	replace := map[string]string{}
	for _, n := range []string{"plane_bpfel.go", "plane_bpfel.o"} {
		replace[filepath.Join(home, n)] = filepath.Join(work, n)
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	overlay := filepath.Join(work, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// generator is the command of go generate.
func generator(home string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(home, "generate.go"))
	if err != nil {
		return nil, err
	}
	_, line, ok := strings.Cut(string(b), "//go:generate ")
	if !ok {
		return nil, fmt.Errorf("%s/generate.go has no go:generate line", home)
	}
	line, _, _ = strings.Cut(line, "\n")
	return strings.Fields(line), nil
}

func run(cmd *exec.Cmd, env string) error {
	cmd.Env = append(os.Environ(), env)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, out)
	}
	return nil
}
