package target

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// decay makes a device change a bit of every block once in a hundred reads.
func decay(m *memory) {
	reads := 0
	m.fault = func() { // with the device locked
		if reads++; reads%100 == 0 {
			for off := 2048; off < len(m.bytes); off += 4096 {
				m.bytes[off] ^= 1
			}
		}
	}
}

// buildLoad builds the benchmark's load generator.
func buildLoad(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "iscsi-load")
	out, err := exec.Command("cc", "-O1", "-Wall", "-Wextra", "-Werror", "-o", bin, "../../test/bench/iscsi-load.c", "-liscsi", "-lpthread").CombinedOutput()
	if err != nil {
		t.Fatalf("build the load generator: %v\n%s", err, out)
	}
	return bin
}

// TestLoad verifies data through four sessions at once, in each kind of load,
// and demands that the load generator tells a wrong byte from a right one.
func TestLoad(t *testing.T) {
	load := buildLoad(t)
	w := newWorld(t, Options{})
	decay(w.devices["logs"].(*memory))
	w.become(twoTargets())
	url := "iscsi://127.0.0.1/" + openIQN
	for _, c := range []struct {
		name, lun, args string
		exit            int
		line            string
	}{
		{"verify", "/0", "-m vf -b 4096 -q 8 -s 4 -n 600", 0, " wrong=0 "},
		{"verify large", "/0", "-m vf -b 262144 -q 4 -s 2 -n 40", 0, " wrong=0 "},
		{"random read", "/0", "-m rr -b 4096 -q 32 -s 4 -n 600", 0, " ios=2400 "},
		{"random write", "/0", "-m rw -b 512 -q 32 -n 600", 0, " ios=600 "},
		{"sequential read", "/0", "-m sr -b 65536 -q 8 -n 64", 0, " ios=64 "},
		{"sequential write", "/0", "-m sw -b 65536 -q 8 -s 2 -n 64", 0, " ios=128 "},
		{"wrong bytes", "/3", "-m vf -b 4096 -q 8 -n 2000", 4, " errs=0 wrong="},
		{"no such LUN", "/9", "-m rr -n 1", 1, ""},
		{"no mode", "/0", "-m rx", 2, ""},
	} {
		out, err := exec.Command(load, append(strings.Fields(c.args), "-t", "60", url+c.lun)...).CombinedOutput()
		exit := 0
		if e := (*exec.ExitError)(nil); errors.As(err, &e) {
			exit = e.ExitCode()
		}
		if exit != c.exit || !strings.Contains(string(out), c.line) {
			t.Errorf("%s: exit %d, want %d with %q: %v\n%s", c.name, exit, c.exit, c.line, err, out)
		}
	}
}
