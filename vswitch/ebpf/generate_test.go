package ebpf

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGenerated makes the program anew and compares. It needs clang 14, which
// Debian 12 calls clang.
func TestGenerated(t *testing.T) {
	source, err := os.ReadFile("generate.go")
	if err != nil {
		t.Fatal(err)
	}
	_, line, ok := strings.Cut(string(source), "//go:generate ")
	if !ok {
		t.Fatal("generate.go has no go:generate line")
	}
	out := t.TempDir()
	args := strings.Fields(line)
	for i, a := range args {
		if a == "-target" {
			args = append(args[:i:i], append([]string{"-output-dir", out}, args[i:]...)...)
			break
		}
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "GOPACKAGE=ebpf")
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, text)
	}
	for _, name := range []string{"plane_bpfel.go", "plane_bpfel.o"} {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what bpf/switch.c gives: run go generate", name)
		}
	}
}
