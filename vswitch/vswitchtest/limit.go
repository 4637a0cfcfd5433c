package vswitchtest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// flow is how long a case sends as much as it can: some times the burst.
const flow = 1500 * time.Millisecond

// cubic is the congestion control that most guests have.
const cubic = "cubic"

// carried is what arrived, and in what time.
type carried struct {
	bytes int
	took  time.Duration
}

// under demands that a flow had no more than its limit and the burst together.
func (c carried) under(t *testing.T, what string, limit uint64) {
	t.Helper()
	const frame = 64 << 10
	bits, whole := float64(8*c.bytes), float64(limit)*c.took.Seconds()
	if most := whole + float64(limit)*vswitch.DefaultBurst.Seconds() + 8*frame; bits > most {
		t.Errorf("%s: %.0f kbit in %v are more than %.0f", what, bits/1e3, c.took, most/1e3)
	}
	t.Logf("%s: %.2f Mbit/s of %d", what, bits/c.took.Seconds()/1e6, limit/1e6)
}

// keeps demands that it had its limit, too, as far as a loaded or emulated machine
// can carry it; datagrams are lost there before they are received.
func (c carried) keeps(t *testing.T, what string, limit uint64) {
	t.Helper()
	c.under(t, what, limit)
	if bits, least := float64(8*c.bytes), float64(limit)*c.took.Seconds()/2; bits < least {
		t.Errorf("%s: %.0f kbit in %v are less than %.0f", what, bits/1e3, c.took, least/1e3)
	}
}

// datagrams has one namespace send to another as fast as it can.
func datagrams(t *testing.T, from, to, address string) carried {
	t.Helper()
	const header = 14 + 20 + 8
	var in net.PacketConn
	inside(t, to, func() (err error) {
		in, err = net.ListenPacket("udp", address)
		return err
	})
	defer in.Close()
	out := dial(t, from, "udp", address, arrival)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for b := make([]byte, 1400); ctx.Err() == nil; {
			_, _ = out.Write(b)
		}
	}()
	defer func() { cancel(); <-done }()
	var c carried
	var start time.Time
	patience := time.Now().Add(arrival)
	for b := make([]byte, 1<<16); c.took < flow; {
		if err := in.SetReadDeadline(patience); err != nil {
			t.Fatal(err)
		}
		n, _, err := in.ReadFrom(b)
		if err != nil {
			t.Errorf("%s to %s: after %d bytes: %v", from, to, c.bytes, err)
			return c
		}
		if start.IsZero() {
			start = time.Now()
		}
		c.bytes += n + header
		c.took = time.Since(start)
		patience = time.Now().Add(arrival)
	}
	return c
}

// tcpStream is a TCP connection that has one namespace send to another as fast as it
// can.
func tcpStream(t *testing.T, from, to, address, congestion string) carried {
	t.Helper()
	var listener net.Listener
	inside(t, to, func() (err error) {
		listener, err = net.Listen("tcp", address)
		return err
	})
	defer listener.Close()
	out, ok := dial(t, from, "tcp", address, 10*time.Second).(*net.TCPConn)
	if !ok {
		t.Fatalf("%s does not reach %s", from, address)
	}
	raw, err := out.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var why error
	err = raw.Control(func(fd uintptr) {
		why = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, congestion)
	})
	if err := errors.Join(err, why); err != nil {
		t.Fatalf("choose the congestion control: %v", err)
	}
	in, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			if _, err := out.Write(b); err != nil {
				return
			}
		}
	}()
	defer func() { in.Close(); out.Close(); <-done }()
	start := time.Now()
	if err := in.SetReadDeadline(start.Add(flow)); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, in)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s to %s: after %d bytes: %v", from, to, n, err)
	}
	return carried{int(n), time.Since(start)}
}

// limits has a limited port send and receive as much as it can, beside others.
func (s suite) limits(t *testing.T) {
	const send, receive = 10_000_000, 5_000_000
	a := access(10, "a", "10.10.0.2/24")
	a.Limit = vswitch.Limit{Send: send, Receive: receive}
	l := s.lab(t, ports{"a": a, "b": access(10, "b", "10.10.0.3/24"), "c": access(10, "c"), "d": access(10, "d")})
	l.learn("a", "b", "c", "d")
	others := l.stream("c", "d", time.Millisecond)
	datagrams(t, "a", "b", "10.10.0.3:7000").under(t, "datagrams from a", send)
	datagrams(t, "b", "a", "10.10.0.2:7000").under(t, "datagrams to a", receive)
	others.end()
	if n := l.drops("a", 10, "limit"); n == 0 {
		t.Error("no frame is counted as dropped by the limit")
	}
	if n := l.drops("b", 10, "limit"); n != 0 {
		t.Errorf("%d frames are counted at b, which has no limit", n)
	}
	tcpStream(t, "a", "b", "10.10.0.3:7000", cubic).keeps(t, "TCP from a", send)
	tcpStream(t, "b", "a", "10.10.0.2:7000", cubic).keeps(t, "TCP to a", receive)
}

// limitsOfTap does the same with a VM.
func (s suite) limitsOfTap(t *testing.T) {
	const send, receive = 10_000_000, 5_000_000
	l := s.lab(t, ports{
		"a":  access(10, "a", "10.10.0.2/24"),
		"vm": {Kind: vswitch.Tap, PVID: 10, User: "1000", Limit: vswitch.Limit{Send: send, Receive: receive}},
	})
	nettest.Namespace(t, "g")
	var inner *os.File
	inside(t, "g", func() error { inner = openTap(t, "eth0", 0); return nil })
	outer := openTap(t, "vm", 0)
	go carry(outer, inner)
	go carry(inner, outer)
	nettest.Run(t, "ip", "-n", "g", "address", "add", "10.10.0.3/24", "dev", "eth0")
	nettest.Run(t, "ip", "-n", "g", "link", "set", "eth0", "up")
	tcpStream(t, "g", "a", "10.10.0.2:7000", cubic).keeps(t, "TCP from the VM", send)
	tcpStream(t, "a", "g", "10.10.0.3:7000", cubic).keeps(t, "TCP to the VM", receive)
	datagrams(t, "a", "g", "10.10.0.3:7000").under(t, "datagrams to the VM", receive)
	if n := l.drops("vm", 10, "limit"); n == 0 {
		t.Error("no frame is counted as dropped by the limit")
	}
}

// limitsChange changes limits under traffic that needs less.
func (s suite) limitsChange(t *testing.T) {
	l := s.lab(t, ports{"a": access(10, "a", "10.10.0.2/24"), "b": access(10, "b", "10.10.0.3/24")})
	l.learn("a", "b")
	limit := func(to vswitch.Limit) {
		t.Helper()
		l.set("a", func(p *vswitch.Port) { p.Limit = to })
	}
	there, back := l.stream("a", "b", time.Millisecond), l.stream("b", "a", time.Millisecond)
	for n, to := range []vswitch.Limit{
		{Send: 100_000_000, Receive: 100_000_000}, {Send: 50_000_000}, {Receive: 1_000_000_000, Burst: time.Second}, {},
		{Send: 10_000_000, Receive: 10_000_000},
	} {
		limit(to)
		if n%2 == 0 {
			l.restart()
		}
	}
	there.end()
	back.end()
	groups := policy(rule(false, vswitch.In, "", vswitch.AnyProtocol, 0, 65535), rule(false, vswitch.Out, "", vswitch.AnyProtocol, 0, 65535))
	l.set("a", func(p *vswitch.Port) { p.Filters = map[uint16]*vswitch.Policy{10: groups} })
	datagrams(t, "a", "b", "10.10.0.3:7000").under(t, "datagrams from a", 10_000_000)
	l.set("a", func(p *vswitch.Port) { p.Filters = nil })
	for _, damage := range []string{"tc filter del dev a egress", "tc filter del dev a ingress prio 29294", "tc qdisc del dev a clsact"} {
		nettest.Run(t, "sh", "-c", damage)
		if len(l.diff()) == 0 {
			t.Errorf("%s: nobody sees it", damage)
		}
		l.apply()
	}
	datagrams(t, "b", "a", "10.10.0.2:7000").under(t, "datagrams to a", 10_000_000)
	// What a slow limit let pass does not count against a faster one.
	limit(vswitch.Limit{Send: 64_000, Burst: time.Millisecond})
	l.stations["a"].send(t, l.frame("a", l.stations["b"].mac).pad(1400))
	limit(vswitch.Limit{Send: 10_000_000_000, Burst: time.Millisecond})
	l.sends("a", l.frame("a", l.stations["b"].mac), untagged("b"))
	limit(vswitch.Limit{})
	for _, hook := range []string{"ingress", "egress"} {
		if out := nettest.Run(t, "tc", "filter", "show", "dev", "a", hook); strings.Contains(out, "ripstop-send") || strings.Contains(out, "ripstop-receive") {
			t.Errorf("without a limit there is still\n%s", out)
		}
	}
}
