package ebpf

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGenerated makes the programs anew and compares. It needs clang 14, which
// Debian 12 calls clang.
func TestGenerated(t *testing.T) {
	source, err := os.ReadFile("generate.go")
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	programs := strings.Split(string(source), "//go:generate ")[1:]
	if len(programs) != 2 {
		t.Fatalf("generate.go has %d lines for go generate, want 2", len(programs))
	}
	for _, line := range programs {
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
	}
	for _, name := range []string{"plane_bpfel.go", "plane_bpfel.o", "filter_bpfel.go", "filter_bpfel.o"} {
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join(out, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what bpf gives: run go generate", name)
		}
	}
}
