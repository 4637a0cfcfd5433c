package nettest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Program runs M with ripstop built as make does; its path is in Path then. In the VM
// laboratory it is the one that was built outside.
type Program struct {
	M    interface{ Run() int }
	Path *string
}

// Run is 1 where ripstop does not build.
func (p Program) Run() int {
	if os.Getenv("RIPSTOP_VM") != "" {
		built, err := exec.LookPath("ripstop")
		if err != nil {
			fmt.Fprintln(os.Stderr, "nettest:", err)
			return 1
		}
		*p.Path = built
		return p.M.Run()
	}
	dir, err := os.MkdirTemp("", "ripstop-program-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "nettest:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	*p.Path = filepath.Join(dir, "ripstop")
	build := exec.Command("go", "build", "-trimpath", "-o", *p.Path, "ripstop/cmd/ripstop")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "nettest: go build:", err)
		return 1
	}
	return p.M.Run()
}
