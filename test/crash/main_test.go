// Package crash ends the real daemon in the worst moments and fills and damages
// what is below it, while a verifying initiator works: what was answered and
// flushed must be there, and every fault must be told and harm nobody else.
//
//	initiator ── iSCSI ──► ripstop serve ──► pool in a directory
//	    │                     ▲    kill -9, again and again
//	    └─ oracle: what each block may be
//
// # Caveats
//
// kill -9 leaves the page cache, so it tries the program and not the disk;
// power cuts are tried in lun/thin. The tests run in namespaces of their own.
package crash

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"ripstop/internal/nettest"
)

// program is the program under test. TestMain builds it.
var program string

type inside struct{ m *testing.M }

func (i inside) Run() int {
	dir, err := os.MkdirTemp("", "ripstop-crash-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "crash:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "ripstop")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "ripstop/cmd/ripstop")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as make does
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "crash: go build:", err)
		return 1
	}
	return i.m.Run()
}

func TestMain(m *testing.M) { nettest.Main(inside{m}) }
