package guest

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ripstop/internal/nettest"
)

// transferred is how many bytes go each way.
const transferred = 4 << 20

// machine is a running VM and the shell at its second serial port.
type machine struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // closed when QEMU is gone
}

// boot starts the page's QEMU with a console of the kernel's and one of the test's.
func (h *host) boot(command string) *machine {
	h.t.Helper()
	console := filepath.Join(h.dir, "console")
	h.write("console", "")
	if err := os.Chown(console, 65534, 65534); err != nil {
		h.t.Fatal(err)
	}
	command = strings.Replace(strings.TrimSpace(command), "setpriv ", "setpriv --pdeathsig KILL ", 1)
	vm := &machine{t: h.t, lines: make(chan string, 100)}
	vm.cmd = exec.Command("sh", "-c", command+" -accel tcg,thread=multi,tb-size=256 -cpu qemu64,+rdrand -serial file:console -serial stdio")
	vm.cmd.Dir = h.dir
	var said strings.Builder
	vm.cmd.Stderr = &said
	in, err := vm.cmd.StdinPipe()
	out, err2 := vm.cmd.StdoutPipe()
	if err := errors.Join(err, err2, vm.cmd.Start()); err != nil {
		h.t.Fatal(err)
	}
	vm.in = in
	go func() {
		defer close(vm.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			vm.lines <- strings.TrimRight(s.Text(), "\r")
		}
	}()
	h.t.Cleanup(func() {
		vm.cmd.Process.Kill()
		vm.cmd.Wait() // an error is its end by the test
		if h.t.Failed() {
			text, _ := os.ReadFile(console)
			h.t.Logf("QEMU said: %s\nthe guest's console:\n%s", said.String(), text)
		}
	})
	return vm
}

// line is the next line from the guest.
func (vm *machine) line() string {
	vm.t.Helper()
	select {
	case l, ok := <-vm.lines:
		if !ok {
			vm.t.Fatal("QEMU is gone")
		}
		return l
	case <-time.After(limit):
		vm.t.Fatalf("the guest says nothing for %v", limit)
	}
	return ""
}

// try runs commands in the guest and gives their output and exit status.
func (vm *machine) try(command string) (string, string) {
	vm.t.Helper()
	if _, err := fmt.Fprintf(vm.in, "( %s ) </dev/null 2>&1; printf '\\nEND %%s\\n' $?\n", command); err != nil {
		vm.t.Fatal(err)
	}
	var out []string
	for {
		l := vm.line()
		if status, ok := strings.CutPrefix(l, "END "); ok {
			return strings.TrimSpace(strings.Join(out, "\n")), status
		}
		out = append(out, l)
	}
}

// sh runs commands in the guest that succeed.
func (vm *machine) sh(command string) string {
	vm.t.Helper()
	out, status := vm.try(command)
	if status != "0" {
		vm.t.Fatalf("guest: %s: status %s\n%s", command, status, out)
	}
	return out
}

// end runs a last command, which ends the VM.
func (vm *machine) end(command string) {
	vm.t.Helper()
	fmt.Fprintln(vm.in, command)
	for range vm.lines {
	}
	if err := vm.cmd.Wait(); err != nil {
		vm.t.Errorf("QEMU ended: %v", err)
	}
}

// isUnprivileged demands that QEMU is a user's, without capabilities, who cannot
// make a tap.
func (vm *machine) isUnprivileged(uid string) {
	vm.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", vm.cmd.Process.Pid))
	if err != nil {
		vm.t.Fatal(err)
	}
	want := "Uid:\t" + strings.Repeat(uid+"\t", 3) + uid + "\n"
	if text := string(status); !strings.Contains(text, want) || !strings.Contains(text, "CapEff:\t0000000000000000\n") || !strings.Contains(text, "Name:\tqemu") {
		vm.t.Errorf("QEMU runs as %s", text)
	}
	if out, err := exec.Command("setpriv", "--reuid", uid, "--regid", uid, "--clear-groups", "ip", "tuntap", "add", "x", "mode", "tap").CombinedOutput(); err == nil {
		vm.t.Errorf("its user makes taps: %s", out)
	}
}

// silent demands that the guest reaches nobody at an address.
func (vm *machine) silent(address string) {
	vm.t.Helper()
	if out, status := vm.try("ping -c 1 -W 1 " + address); status == "0" {
		vm.t.Errorf("the guest reaches %s: %s", address, out)
	}
}

// transfers sends bytes each way between the guest and a namespace, and demands
// that they go in large segments.
func (vm *machine) transfers(netns, address string) {
	vm.t.Helper()
	vm.large("rx", func() { vm.send(netns, address) })
	vm.large("tx", func() { vm.receive(netns) })
}

// large demands that the frames of a transfer are larger than the wire's.
func (vm *machine) large(way string, transfer func()) {
	vm.t.Helper()
	count := func(what string) int { return counter(vm.t, "", "vm1", way+"_"+what) }
	bytes, packets := count("bytes"), count("packets")
	transfer()
	bytes, packets = count("bytes")-bytes, count("packets")-packets
	if bytes < transferred || bytes/packets < 3000 {
		vm.t.Errorf("%s of the tap: %d bytes in %d frames: they are not segmented late", way, bytes, packets)
	}
	vm.t.Logf("%s of the tap: %d bytes in %d frames", way, bytes, packets)
}

// send has the guest send a file to a namespace. It writes a MiB at a time: a
// sender of little is faster than its segments fill, and they are small then.
func (vm *machine) send(netns, address string) {
	vm.t.Helper()
	var l net.Listener
	in(vm.t, netns, func() (err error) { l, err = net.Listen("tcp4", address+":7000"); return err })
	defer l.Close()
	got := make(chan string, 1)
	go func() {
		h := sha256.New()
		c, err := l.Accept()
		if err == nil {
			_, err = io.Copy(h, c)
			c.Close()
		}
		got <- fmt.Sprint(hex.EncodeToString(h.Sum(nil)), err)
	}()
	sum := vm.sh(fmt.Sprintf("dd if=/dev/urandom of=/tmp/out bs=64k count=%d 2>/dev/null; nc %s 7000 -e dd if=/tmp/out bs=1M 2>/dev/null && sha256sum </tmp/out", transferred>>16, address))
	if g := <-got; g != strings.Fields(sum)[0]+"<nil>" {
		vm.t.Errorf("the guest sent %s, %s got %s", sum, netns, g)
	}
}

// receive has the guest receive a file from a namespace.
func (vm *machine) receive(netns string) {
	vm.t.Helper()
	vm.sh("nc -l -p 7001 >/tmp/in </dev/null & echo $! >/tmp/nc")
	var c net.Conn
	nettest.Eventually(vm.t, limit, "the guest listens", func() bool {
		var err error
		in(vm.t, netns, func() error { c, err = net.DialTimeout("tcp4", "10.10.0.9:7001", time.Second); return nil })
		return err == nil
	})
	h := sha256.New()
	_, err := io.Copy(io.MultiWriter(c, h), io.LimitReader(rand.NewChaCha8([32]byte{1}), transferred))
	if err := errors.Join(err, c.Close()); err != nil {
		vm.t.Fatal(err)
	}
	sum := vm.sh("while kill -0 $(cat /tmp/nc) 2>/dev/null; do sleep 0.05; done; sha256sum </tmp/in")
	if want := hex.EncodeToString(h.Sum(nil)); strings.Fields(sum)[0] != want {
		vm.t.Errorf("%s sent %s, the guest got %s", netns, want, sum)
	}
}
