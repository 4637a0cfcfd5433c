package nettest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// FRR is FRR's zebra and bgpd in a namespace, of Debian's package frr.
type FRR struct {
	t     testing.TB
	dir   string
	netns string
	bgpd  *Process
}

// StartFRR starts both with a configuration of bgpd's, until the test ends.
func StartFRR(t testing.TB, netns, config string) *FRR {
	t.Helper()
	return StartFRRWith(t, netns, "", config)
}

// StartFRRWith is StartFRR with a configuration of zebra's, too.
func StartFRRWith(t testing.TB, netns, zebra, config string) *FRR {
	t.Helper()
	dir, err := os.MkdirTemp("", "frr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	Run(t, "chown", "frr:frr", dir) // its daemons become that user
	f := &FRR{t: t, dir: dir, netns: netns}
	f.Daemon("zebra", "hostname "+netns+"\n"+zebra)
	f.there("zserv")
	f.Restart(config)
	return f
}

// Path is a file of the daemons': NAME.pid, NAME.vty, zserv.
func (f *FRR) Path(name string) string { return filepath.Join(f.dir, name) }

func (f *FRR) there(socket string) {
	f.t.Helper()
	Eventually(f.t, patience, socket+" is there", func() bool { _, err := os.Stat(f.Path(socket)); return err == nil })
}

// Restart starts bgpd, anew where it runs, with another configuration.
func (f *FRR) Restart(config string) {
	f.t.Helper()
	f.Kill()
	os.Remove(f.Path("bgpd.vty"))
	f.bgpd = f.Daemon("bgpd", "hostname "+f.netns+"\n"+config)
	f.there("bgpd.vty")
}

// Kill kills bgpd.
func (f *FRR) Kill() {
	if !f.bgpd.Gone() {
		f.bgpd.End(syscall.SIGKILL)
	}
}

// Daemon starts one more, until the test ends.
func (f *FRR) Daemon(name, config string, more ...string) *Process {
	f.t.Helper()
	if err := os.WriteFile(f.Path(name+".conf"), []byte(config), 0o644); err != nil {
		f.t.Fatal(err)
	}
	p := Start(f.t, append([]string{"nsenter", "--net=/run/netns/" + f.netns, "/usr/lib/frr/" + name, "-P", "0", "-f", f.Path(name + ".conf"),
		"-i", f.Path(name + ".pid"), "--vty_socket", f.dir, "--log", "file:" + f.Path(name+".log"), "-z", f.Path("zserv")}, more...)...)
	f.t.Cleanup(func() {
		if !p.Gone() {
			p.End(syscall.SIGKILL)
		}
	})
	return p
}

// Show is what vtysh prints of commands to a daemon.
func (f *FRR) Show(daemon string, commands ...string) string {
	args := []string{"--vty_socket", f.dir, "-d", daemon}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := exec.Command("vtysh", args...).CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, out)
	}
	return string(out)
}
