package wg

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
	"ripstop/vpn"
)

// behind puts a machine with Ethernet's MTU behind each host, as in a VLAN:
//
//	near 10.70.0.2 ──── 10.70.0.1 (this process) site ════ site2 (far) 10.50.1.1 ──── 10.50.1.2 distant
//
// Neither hears that a packet was too big.
func (l *lab) behind() {
	l.Helper()
	for _, m := range []struct{ name, at, net string }{{"near", "", "10.70.0."}, {"distant", "-n far ", "10.50.1."}} {
		nettest.Namespace(l, m.name)
		for _, c := range []string{
			"link add vlan type veth peer name eth0 netns " + m.name, "address add " + m.net + "1/24 dev vlan", "link set vlan up",
		} {
			nettest.Run(l, "ip", strings.Fields(m.at+c)...)
		}
		l.Cleanup(func() { nettest.Run(l, "ip", strings.Fields(m.at+"link del vlan")...) })
		for _, c := range []string{"address add " + m.net + "2/24 dev eth0", "link set eth0 up", "route add default via " + m.net + "1"} {
			nettest.Run(l, "ip", strings.Fields("-n "+m.name+" "+c)...)
		}
		nettest.Run(l, "ip", "netns", "exec", m.name, "nft", "add table inet deaf; add chain inet deaf in { type filter hook input priority 0; }; "+
			"add rule inet deaf in icmp type destination-unreachable drop")
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		l.Fatal(err)
	}
	nettest.Run(l, "ip", "netns", "exec", "far", "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
	l.site2.Peers[0].Allowed = append(l.site2.Peers[0].Allowed, "10.70.0.0/24")
	echo := startFar(l.T, "distant", vpn.Process)
	echo.ask(request{Verb: "echo", Address: "10.50.1.2:7001"})
}

// forwards sends 256 KiB from the one machine to the other, which sends them back.
func (l *lab) forwards(limit time.Duration) error {
	l.Helper()
	type dialed struct {
		net.Conn
		error
	}
	done := make(chan dialed)
	go func() {
		runtime.LockOSThread() // and ends with its thread, which is in another namespace
		ns, err := os.Open("/run/netns/near")
		if err == nil {
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
			_ = ns.Close()
		}
		if err != nil {
			done <- dialed{nil, err}
			return
		}
		c, err := net.DialTimeout("tcp", "10.50.1.2:7001", limit)
		done <- dialed{c, err}
	}()
	c := <-done
	if c.error != nil {
		return c.error
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(limit)); err != nil {
		return err
	}
	const size = 256 << 10
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(make([]byte, size))
		wrote <- err
	}()
	_, err := io.ReadFull(c, make([]byte, size))
	if err != nil {
		_ = c.Close()
	}
	return errors.Join(err, <-wrote)
}

// TestClampIsHeld: TCP that is forwarded fits the tunnel though nobody hears of packets too
// big; what somebody does to the rules is mended, they stay when the driver ends and go
// with the tunnel.
func TestClampIsHeld(t *testing.T) { clampIsHeld(t, vpn.Process) }

func clampIsHeld(t *testing.T, engine vpn.Engine) {
	l := newLab(t, engine, vpn.Process)
	l.behind()
	l.site.MTU, l.site2.MTU = 1400, 1400 // the far host's is its own to clamp, were it less
	alone := func() {                    // the far host clamps nothing
		l.both()
		nettest.Run(t, "ip", "netns", "exec", "far", "nft", "delete", "table", "inet", "ripstop")
	}
	alone()
	l.reaches("10.50.1.2")
	if err := l.forwards(time.Minute); err != nil {
		t.Fatalf("clamped: %v", err)
	}
	l.site.MTU, l.site2.MTU = 1300, 1300 // which is looked up anew for each connection
	alone()
	if err := l.forwards(time.Minute); err != nil {
		t.Fatalf("with another MTU: %v", err)
	}

	rules := func() string { return nettest.Run(t, "nft", "list", "table", "inet", "ripstop") }
	whole := rules()
	for _, spoil := range []string{
		"delete element inet ripstop tunnels { site }", "flush chain inet ripstop mss", "delete table inet ripstop",
		"flush chain inet ripstop mss; add rule inet ripstop mss accept; add rule inet ripstop mss accept",
	} {
		nettest.Run(t, "nft", strings.Fields(spoil)...)
		if spoil == "delete table inet ripstop" {
			if err := l.forwards(3 * time.Second); err == nil {
				t.Error("it passes without the clamp, so that this test shows nothing")
			}
		}
		if steps := l.apply(l.site); len(steps) != 1 || !strings.HasPrefix(steps[0], "nft add element inet ripstop tunnels { site }") {
			t.Errorf("after nft %s: %q", spoil, steps)
		}
		if got := rules(); got != whole {
			t.Errorf("after nft %s:\n%s\nwant\n%s", spoil, got, whole)
		}
	}
	if err := l.forwards(time.Minute); err != nil {
		t.Errorf("mended: %v", err)
	}

	other := spec{Name: "other", Listen: 51899, Key: newKeys(t).private, Addresses: []string{"10.98.0.1/24"}}
	l.apply(l.site, other)
	if got := rules(); !strings.Contains(got, `"other"`) || !strings.Contains(got, `"site"`) {
		t.Errorf("two tunnels: %s", got)
	}
	l.apply(other)
	if got := rules(); strings.Contains(got, `"site"`) {
		t.Errorf("one is gone: %s", got)
	}
	l.apply()
	if out, err := exec.Command("nft", "list", "table", "inet", "ripstop").CombinedOutput(); err == nil {
		t.Errorf("no tunnel is left: %s", out)
	}
	l.apply(other)
	if err := l.driver.Release(); err != nil {
		t.Fatal(err)
	}
	if got := rules(); !strings.Contains(got, `"other"`) {
		t.Errorf("the driver has ended: %s", got)
	}
	last := newDriver(t, Options{Engine: engine})
	if err := last.Close(); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("nft", "list", "table", "inet", "ripstop").CombinedOutput(); err == nil {
		t.Errorf("taken down: %s", out)
	}
}

// TestUnclamped: a kernel that cannot clamp fails no step, and is not asked again.
func TestUnclamped(t *testing.T) {
	for _, err := range []error{unix.EOPNOTSUPP, unix.EPROTONOSUPPORT, &net.OpError{Err: os.NewSyscallError("netlink receive", unix.EPERM)}} {
		if !unfit(fmt.Errorf("list filters: %w", err)) {
			t.Errorf("%v is a failure", err)
		}
	}
	if unfit(errors.New("x")) || unfit(unix.ENOBUFS) || unfit(nil) {
		t.Error("any error means no filters")
	}
}
