package nettest

import (
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// begin starts programs on a thread that lives as long as the tests.
var begin = sync.OnceValue(func() chan<- func() {
	todo := make(chan func())
	go func() {
		runtime.LockOSThread() // and never unlocked
		for do := range todo {
			do()
		}
	}()
	return todo
})

// Begin starts a program that is killed when the tests end, however they do. The kernel kills
// with the thread that started it (PR_SET_PDEATHSIG of prctl(2)), and threads do end: those
// that tests leave in another network namespace.
func Begin(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	done := make(chan error)
	begin() <- func() { done <- cmd.Start() }
	return <-done
}
