// Package guest boots a VM from a LUN, with a tap of the switch as its NIC, as
// docs/vms.md tells: QEMU has no rights over the network.
//
//	netns web, db ─┐                            ┌─ tap vm1 ─┐
//	               ├─ ripstop: switch, target ──┤           ├─ QEMU, as nobody
//	netns red1 ────┘                            └─ iSCSI ───┘
//
// # Caveats
//
// The machine is emulated (TCG), so that nothing about speed is learned here. Its
// kernel is Debian's, which `test/vm/run --kernel` gets.
package guest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

// limit is for a boot, and for what a daemon does, on a machine under load.
const limit = 60 * time.Second

var program, kernel string

func TestMain(m *testing.M) {
	// Before the namespaces, from which no archive is reached.
	cmd := exec.Command("../vm/run", "--kernel")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest: test/vm/run --kernel:", err)
		os.Exit(1)
	}
	kernel = strings.TrimSpace(string(out))
	nettest.Main(nettest.Program{M: m, Path: &program})
}

// TestPage follows the page: a VM boots from a LUN, talks in its VLAN and nowhere
// else, and moves to another VLAN while it runs.
func TestPage(t *testing.T) {
	h := newHost(t)
	page, err := os.ReadFile("../../docs/vms.md")
	if err != nil {
		t.Fatal(err)
	}
	files, commands := blocks(string(page), "yaml"), blocks(string(page), "sh")
	if len(files) != 2 || len(commands) != 4 {
		t.Fatalf("the page has %d files and %d blocks of commands, want 2 and 4", len(files), len(commands))
	}
	h.write("host.yaml", files[0])
	h.write("disk.yaml", files[1])
	nettest.Run(t, "./disk", kernel, "init", filepath.Join(h.dir, "vm1.raw"))
	h.sh(commands[0])

	vm := h.boot(commands[1])
	if got := vm.line(); got != "root is /dev/vda2" {
		t.Fatalf("the guest says %q", got)
	}
	vm.isUnprivileged("65534")
	if out := h.run("get", "session", "-o", "json"); !strings.Contains(out, "iqn.2026-11.org.example:host") {
		t.Errorf("QEMU has no session: %s", out)
	}
	if out := vm.sh("ls -d /sys/class/net/eth0/queues/tx-*"); strings.Count(out, "tx-") != 2 {
		t.Errorf("the guest's NIC has the queues %s, want 2", out)
	}
	if out := nettest.Run(t, "ip", "-d", "link", "show", "dev", "vm1"); !strings.Contains(out, "multi_queue numqueues 2") {
		t.Errorf("the tap is %s", out)
	}
	index := nettest.Run(t, "cat", "/sys/class/net/vm1/ifindex")
	heard := counter(t, "red1", "eth0", "rx_packets")

	vm.sh("ping -c 2 -W 3 10.10.0.2")
	nettest.Run(t, "ip", "netns", "exec", "db", "ping", "-c", "2", "-W", "3", "10.10.0.9")
	vm.transfers("web", "10.10.0.2")
	vm.silent("10.10.0.4")
	if now := counter(t, "red1", "eth0", "rx_packets"); now != heard {
		t.Errorf("a port of the other VLAN heard %d frames", now-heard)
	}

	flow := newFlow(t, "web", "db", "10.10.0.3")
	h.sh(commands[2])
	vm.sh("ping -c 1 -W 3 10.10.0.4")
	flow.end()
	vm.silent("10.10.0.2")
	vm.transfers("red1", "10.10.0.4")
	if now := nettest.Run(t, "cat", "/sys/class/net/vm1/ifindex"); now != index {
		t.Errorf("the tap is another: %s, was %s", now, index)
	}

	vm.sh("echo written by the guest >/witness; sync")
	vm.end("mount -o remount,ro /; reboot -f")
	h.sh(commands[3])
	out := nettest.Run(t, "debugfs", "-R", "cat /witness", filepath.Join(h.dir, "after.raw")+"?offset="+strconv.Itoa(32<<20))
	if !strings.Contains(out, "written by the guest") {
		t.Errorf("the LUN holds %q", out)
	}
}

// blocks is the fenced blocks of a language.
func blocks(page, language string) []string {
	var out []string
	for _, m := range regexp.MustCompile("(?ms)^```"+language+"\n(.*?)^```$").FindAllStringSubmatch(page, -1) {
		out = append(out, m[1])
	}
	return out
}
