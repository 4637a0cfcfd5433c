package vswitchtest

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

func (s suite) large(t *testing.T) {
	big := func(p vswitch.Port) vswitch.Port { p.MTU = 9000; return p }
	l := s.lab(t, ports{
		"a": big(access(10, "a")), "b": big(access(10, "b")), "t": big(trunk("t", 0, 10)), "s": access(10, "s"),
	})
	l.sends("a", l.frame("a", broadcast).pad(9000), and(untagged("b"), "t", q(10)))
	l.sends("t", l.frame("t", broadcast).with(q(10)).pad(9000), untagged("a", "b"))
	l.sends("a", l.frame("a", broadcast).pad(1500), and(untagged("b", "s"), "t", q(10)))
	l.sends("t", l.frame("t", broadcast).with(q(10)).pad(1500), untagged("a", "b", "s"))
}

// transferred is the size of a TCP transfer: enough for full segments and
// window growth, little enough for an emulated machine.
const transferred = 4 << 20

func (s suite) tcpVeth(t *testing.T) {
	l := s.lab(t, ports{"a": access(10, "a", "10.10.0.2/24"), "b": access(10, "b", "10.10.0.3/24")})
	transfer(t, "a", "b", "10.10.0.3:7000")
	transfer(t, "b", "a", "10.10.0.2:7000")
	l.apply()
}

// transfer sends random bytes between the kernels of two namespaces and
// compares what came with what went, segments and checksums left to whatever
// offload the devices have.
func transfer(t *testing.T, from, to, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	var listener net.Listener
	inside(t, to, func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", address)
		return err
	})
	defer listener.Close()
	var out net.Conn
	inside(t, from, func() (err error) {
		out, err = (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", address)
		return err
	})
	defer out.Close()
	in, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	sum := make(chan [32]byte, 1)
	go func() {
		h := sha256.New()
		_, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(rand.NewChaCha8([32]byte{1}), transferred))
		if err := errors.Join(err, out.(*net.TCPConn).CloseWrite()); err != nil {
			t.Errorf("send: %v", err)
		}
		sum <- [32]byte(h.Sum(nil))
	}()
	deadline, _ := ctx.Deadline()
	if err := errors.Join(in.SetReadDeadline(deadline), out.SetWriteDeadline(deadline)); err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	n, err := io.Copy(h, in)
	if err != nil || n != transferred || <-sum != [32]byte(h.Sum(nil)) {
		t.Errorf("%s to %s: %d bytes of %d, %v, or other bytes than were sent", from, to, n, transferred, err)
	}
}

func inside(t *testing.T, space string, f func() error) {
	t.Helper()
	ns, err := link.OpenNamespace(space)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := ns.Run(f); err != nil {
		t.Fatal(err)
	}
}

func (s suite) tcpTap(t *testing.T)     { s.tcpVM(t, false) }
func (s suite) tcpTapMany(t *testing.T) { s.tcpVM(t, true) }

// tcpVM plays the VM: a second tap in namespace g, whose frames, virtio headers
// included, are carried to and from the switch's tap, which has one queue or several.
func (s suite) tcpVM(t *testing.T, several bool) {
	kind := uint16(0)
	if several {
		kind = unix.IFF_MULTI_QUEUE
	}
	l := s.lab(t, ports{
		"a":  access(10, "a", "10.10.0.2/24"),
		"vm": {Kind: vswitch.Tap, PVID: 10, User: "1000", MultiQueue: several},
	})
	nettest.Namespace(t, "g")
	var inner *os.File
	inside(t, "g", func() error { inner = openTap(t, "eth0", 0); return nil })
	outer := openTap(t, "vm", kind)
	go carry(outer, inner)
	go carry(inner, outer)
	if several {
		go carry(openTap(t, "vm", kind), inner)
	}
	nettest.Run(t, "ip", "-n", "g", "address", "add", "10.10.0.3/24", "dev", "eth0")
	nettest.Run(t, "ip", "-n", "g", "link", "set", "eth0", "up")
	transfer(t, "a", "g", "10.10.0.3:7000")
	transfer(t, "g", "a", "10.10.0.2:7000")
	l.set("vm", func(p *vswitch.Port) { p.PVID = 20 })
	if out, err := netip.ParseAddr("10.10.0.3"); err != nil || reachable(t, "a", out) {
		t.Errorf("the VM is still reachable from VLAN 10 (%v)", err)
	}
}

// reachable tells whether ARP finds an address from a namespace.
func reachable(t *testing.T, space string, ip netip.Addr) bool {
	t.Helper()
	nettest.Run(t, "ip", "-n", space, "neigh", "flush", "all")
	ok := false
	inside(t, space, func() error {
		c, err := net.DialTimeout("tcp", netip.AddrPortFrom(ip, 7001).String(), 500*time.Millisecond)
		if err == nil {
			c.Close()
		}
		ok = err == nil || errors.Is(err, unix.ECONNREFUSED)
		return nil
	})
	return ok
}

// openTap opens a queue of a tap as QEMU does: with virtio headers, and with
// segmentation left to the other side.
func openTap(t *testing.T, name string, kind uint16) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR | kind)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatalf("open tap %s: %v", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6); err != nil {
		t.Fatalf("set offload of tap %s: %v", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// carry ends when one of the taps is closed.
func carry(from, to *os.File) {
	buf := make([]byte, 1<<17)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		// A tap that is down refuses what is for it, as a cable would lose it.
		if _, err := to.Write(buf[:n]); errors.Is(err, os.ErrClosed) {
			return
		}
	}
}
