package gap

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"ripstop/internal/nettest"
)

// builds is where each variant is.
var builds = map[Variant]string{}

type inside struct{ m *testing.M }

func (i inside) Run() int {
	dir, err := os.MkdirTemp("", "ripstop-gap-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "gap:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	for _, v := range []Variant{Same, Program, Layout} {
		if os.Getenv("RIPSTOP_VM") != "" { // where they were built beforehand
			if builds[v], err = exec.LookPath(string(v)); err == nil {
				continue
			}
		} else if err = Build(dir, v); err == nil {
			builds[v] = filepath.Join(dir, string(v))
			continue
		}
		fmt.Fprintln(os.Stderr, "gap:", err)
		return 1
	}
	return i.m.Run()
}

func TestMain(m *testing.M) { nettest.Main(inside{m}) }

// TestGap is of the ebpf dataplane, which every kernel of a test has.
func TestGap(t *testing.T) { noGap(t, "ebpf") }

// base is two ports between which everything goes, and others beside them. In
// more, MORE is further ports, and the words after GUARD and TRUNK are what changes.
const base = `version: 1
vlans: {blue: {id: 10, gateway: 10.10.0.1/24}, red: {id: 20}, green: {id: 30}}
switches:
  lab:
    dataplane: DATAPLANE
    ports:
      a: {vlan: blue, netns: a, address: 10.10.0.2/24}
      b: {vlan: blue, netns: b, address: 10.10.0.3/24GUARD}
      up: {trunk: [blue, red], netns: up}
      vm: {vlan: blue, tap: {}}
`

// noGap goes through everything that may befall a daemon while datagrams pass,
// once, or until as many as RIPSTOP_PACKETS says were sent.
func noGap(t *testing.T, dataplane string) {
	packets := uint64(0)
	if s := os.Getenv("RIPSTOP_PACKETS"); s != "" {
		var err error
		if packets, err = strconv.ParseUint(s, 10, 32); err != nil {
			t.Fatal(err)
		}
	}
	first := strings.NewReplacer("DATAPLANE", dataplane, "GUARD", "").Replace(base)
	file := func(edits ...string) string { return strings.NewReplacer(edits...).Replace(first) }
	d := newDaemon(t)
	d.serve(Same)
	d.apply(first)
	f := newFlow(t, "a", "b", "10.10.0.3")
	for {
		for _, c := range []struct{ what, file string }{
			{"a port more", first + "      x: {vlan: blue, netns: x}\n"},
			{"a port less", first},
			{"a VLAN more in the trunk", file("trunk: [blue, red]", "trunk: [blue, red, green]")},
			{"limits", file("10.10.0.3/24", "10.10.0.3/24, mac-limit: 5, storm-control: {broadcast: 100}")},
			{"the former file", first},
		} {
			f.during(c.what)
			d.apply(c.file)
		}
		for _, c := range []struct {
			what string
			by   syscall.Signal
			next Variant
			log  string // what the next one has to say
		}{
			{"a restart", syscall.SIGTERM, Same, "switch taken over"},
			{"kill -9", syscall.SIGKILL, Same, "switch taken over"},
			{"an upgrade to another program", syscall.SIGTERM, Program, "program replaced"},
			{"an upgrade to another layout", syscall.SIGTERM, Layout, "from another layout"},
			{"a downgrade from another layout after kill -9", syscall.SIGKILL, Same, "from another layout"},
		} {
			f.during(c.what)
			d.end(c.by)
			f.pass(100) // without a daemon
			d.serve(c.next)
			f.pass(50)
			d.quiet(c.next, c.log)
		}
		if t.Failed() || uint64(f.sent.Load()) >= packets {
			break
		}
	}
	f.end()
}
