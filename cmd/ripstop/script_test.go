package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
)

// inNamespaces runs the tests in namespaces of their own.
type inNamespaces struct{ m *testing.M }

func (n inNamespaces) Run() int { return nettest.Tests(n.m) }

func TestMain(m *testing.M) {
	testscript.Main(inNamespaces{m}, map[string]func(){"ripstop": main})
}

// The scripts drive the binary end to end: files in, real kernel, tables out.
// Each is a test of its own, because scripts of one run are run at once and a
// network namespace holds one daemon.

func TestValidate(t *testing.T)   { script(t, "validate") }
func TestLimit(t *testing.T)      { script(t, "limit") }
func TestUp(t *testing.T)         { script(t, "up") }
func TestServe(t *testing.T)      { script(t, "serve") }
func TestFaults(t *testing.T)     { script(t, "faults") }
func TestMoves(t *testing.T)      { script(t, "moves") }
func TestMigrate(t *testing.T)    { script(t, "migrate") }
func TestMirror(t *testing.T)     { script(t, "mirror") }
func TestLive(t *testing.T)       { script(t, "live") }
func TestCrash(t *testing.T)      { script(t, "crash") }
func TestHostile(t *testing.T)    { script(t, "hostile") }
func TestIPv6(t *testing.T)       { script(t, "ipv6") }
func TestConfigs(t *testing.T)    { script(t, "configs") }
func TestVerbs(t *testing.T)      { script(t, "verbs") }
func TestThin(t *testing.T)       { script(t, "thin") }
func TestAttach(t *testing.T)     { script(t, "attach") }
func TestSnapshots(t *testing.T)  { script(t, "snapshots") }
func TestSchedules(t *testing.T)  { script(t, "schedules") }
func TestBackup(t *testing.T)     { script(t, "backup") }
func TestCheck(t *testing.T)      { script(t, "check") }
func TestPromises(t *testing.T)   { script(t, "promises") }
func TestSecurity(t *testing.T)   { script(t, "security") }
func TestAdopt(t *testing.T)      { script(t, "adopt") }
func TestTrace(t *testing.T)      { script(t, "trace") }
func TestReachTrace(t *testing.T) { script(t, "reachtrace") }
func TestBound(t *testing.T)      { script(t, "bound") }
func TestUserStack(t *testing.T)  { script(t, "userstack") }
func TestCapture(t *testing.T)    { script(t, "capture") }
func TestCutOffs(t *testing.T)    { script(t, "cutoff") }
func TestConfirm(t *testing.T)    { script(t, "confirm") }
func TestLoop(t *testing.T)       { script(t, "loop") }
func TestVXLAN(t *testing.T)      { script(t, "vxlan") }
func TestEVPN(t *testing.T)       { script(t, "evpn") }
func TestPrefixes(t *testing.T)   { script(t, "prefixes") }
func TestPrefixes6(t *testing.T)  { script(t, "prefixes6") }
func TestEncryption(t *testing.T) { script(t, "encryption") }
func TestCopies(t *testing.T)     { script(t, "copies") }
func TestJoin(t *testing.T)       { script(t, "join") }
func TestMTU(t *testing.T)        { script(t, "mtu") }
func TestVXLANMTU(t *testing.T)   { script(t, "vxlanmtu") }

func script(t *testing.T, name string) { runScripts(t, scriptParams(name)) }

// runScripts runs scripts, and what one that fails has started ends with it.
func runScripts(t *testing.T, p testscript.Params) {
	mark := fmt.Sprintf("%s-%d", t.Name(), os.Getpid())
	nettest.Sweep(t, "SCRIPT="+mark)
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		e.Setenv("SCRIPT", mark)
		return setup(e)
	}
	testscript.Run(t, p)
}

func scriptParams(name string) testscript.Params {
	return testscript.Params{
		Files:               []string{"testdata/" + name + ".txtar"},
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"until":  until,
			"link":   linkExists,
			"signal": send,
		},
		Setup: func(e *testscript.Env) error {
			e.Setenv("STATE", e.WorkDir+"/state")
			e.Setenv("SOCK", e.WorkDir+"/sock")
			e.Setenv("GORACE", os.Getenv("GORACE"))
			configs, err := filepath.Abs("../../configs")
			e.Setenv("CONFIGS", configs)
			return err
		},
	}
}

// until runs a command until it succeeds: until ripstop status. With ! it waits
// for it to fail.
func until(ts *testscript.TestScript, neg bool, args []string) {
	deadline := time.Now().Add(20 * time.Second)
	for {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "PATH="+ts.Getenv("PATH"))
		cmd.Dir = ts.Getenv("WORK")
		out, err := cmd.CombinedOutput()
		if (err == nil) != neg {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("not within 20 s: %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		time.Sleep(20 * time.Millisecond) // the poll interval of a condition
	}
}

// linkExists demands that an interface exists in this namespace, or with ! that it
// does not.
func linkExists(ts *testscript.TestScript, neg bool, args []string) {
	err := exec.Command("ip", "link", "show", "dev", args[0]).Run()
	if (err == nil) == neg {
		ts.Fatalf("link %s: exists is %v", args[0], err == nil)
	}
}

// send signals the newest background command: signal HUP.
func send(ts *testscript.TestScript, _ bool, args []string) {
	all := ts.BackgroundCmds()
	if err := all[len(all)-1].Process.Signal(unix.SignalNum("SIG" + args[0])); err != nil {
		ts.Fatalf("signal %s: %v", args[0], err)
	}
}
