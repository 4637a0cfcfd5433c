// Package nettest gives a test binary a kernel of its own to play with: Main
// runs the tests again inside new network and mount namespaces, with an empty
// /run/netns and /run/wireguard, so that nothing a test makes can be seen by
// the host or survive the test, and no test sees what the host has.
//
//	func TestMain(m *testing.M) { nettest.Main(m) }
//
// # Caveats
//
// It needs root. A test that leaves links or named namespaces behind fails the
// binary: what a test makes, it removes.
package nettest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const inside = "RIPSTOP_NETTEST_INSIDE"

// Main runs m in namespaces of its own and exits with its result.
func Main(m interface{ Run() int }) { os.Exit(Tests(m)) }

// Tests runs m in namespaces of its own and gives its result, for who has something to
// clean up before the exit.
func Tests(m interface{ Run() int }) int {
	if slices.ContainsFunc(os.Args, isFuzzWorker) {
		return m.Run() // a child of a binary that is inside already
	}
	if os.Getenv(inside) == "" {
		return again()
	}
	if err := furnish(); err != nil {
		fmt.Fprintln(os.Stderr, "nettest:", err)
		return 1
	}
	before := left()
	code := m.Run()
	l := left()
	// The kernel takes links away some time after the namespace that they went with.
	for end := time.Now().Add(patience); code == 0 && !slices.Equal(before, l) && time.Now().Before(end); l = left() {
		time.Sleep(20 * time.Millisecond) // the poll interval of a condition
	}
	if code == 0 && !slices.Equal(before, l) {
		fmt.Fprintf(os.Stderr, "nettest: left behind: before %v, after %v\n", before, l)
		code = 1
	}
	return code
}

// Outside is the environment of a command that runs tests in namespaces of their own.
func Outside() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, inside+"=") })
}

func isFuzzWorker(arg string) bool { return strings.HasPrefix(arg, "-test.fuzzworker") }

// again runs this binary inside new namespaces and passes signals on to it.
func again() int {
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "nettest: network namespaces need root: run the tests as root")
		return 1
	}
	// Not /proc/self/exe: the new process would not know its own path where
	// this one runs below a chroot.
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "nettest:", err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	// The race detector's runtime sleeps a second at each exit: scripts run many commands.
	cmd.Env = append(os.Environ(), inside+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:   unix.CLONE_NEWNET,
		Unshareflags: unix.CLONE_NEWNS, // makes the mounts private, too
		Pdeathsig:    syscall.SIGKILL,
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "nettest:", err)
		return 1
	}
	go func() {
		for s := range signals {
			// The child's exit below tells everything that there is to know.
			_ = cmd.Process.Signal(s)
		}
	}()
	if err := cmd.Wait(); err != nil && cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, "nettest:", err)
		return 1
	}
	if code := cmd.ProcessState.ExitCode(); code >= 0 {
		return code
	}
	return 1
}

// furnish mounts what a network namespace needs to be seen correctly.
func furnish() error {
	for _, dir := range []string{"/run/netns", "/run/wireguard"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
			return fmt.Errorf("mount tmpfs on %s: %w", dir, err)
		}
	}
	// /sys shows the links of the namespace in which it was mounted.
	if err := unix.Mount("sysfs", "/sys", "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	return nil
}

// left lists the links and named namespaces that exist now.
func left() []string {
	var names []string
	links, err := net.Interfaces()
	if err != nil {
		return []string{err.Error()}
	}
	for _, l := range links {
		names = append(names, "link "+l.Name)
	}
	entries, err := os.ReadDir("/run/netns")
	if err != nil {
		return []string{err.Error()}
	}
	for _, e := range entries {
		names = append(names, "netns "+e.Name())
	}
	return names
}

// Namespace makes the named network namespace with its loopback up, and
// removes it when the test ends.
func Namespace(t testing.TB, name string) {
	t.Helper()
	Run(t, "ip", "netns", "add", name)
	t.Cleanup(func() { Run(t, "ip", "netns", "del", name) })
	Run(t, "ip", "-n", name, "link", "set", "lo", "up")
}

// Run runs a command and gives its output; its failure is the test's.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// Eventually waits until cond holds and fails the test after the limit.
func Eventually(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(5 * time.Millisecond) // the poll interval of a condition
	}
}
