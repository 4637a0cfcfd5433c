package gap

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
)

const (
	interval = time.Millisecond
	port     = 7007
	// patience is how long a datagram may be on its way on a machine under load.
	patience = 3 * time.Second
)

// flow is datagrams from one namespace to another, one every interval, and a
// connection that carries the same numbers.
type flow struct {
	t      *testing.T
	out    net.Conn // datagrams
	in     net.PacketConn
	client *net.TCPConn
	server *net.TCPConn
	sent   atomic.Uint32
	stop   chan struct{}
	over   sync.WaitGroup

	mu    sync.Mutex
	seen  []uint8 // how often each number came
	tcp   uint32  // numbers that came through the connection
	marks []mark
}

// mark says what happened from which number on.
type mark struct {
	from uint32
	what string
}

// newFlow begins to send as soon as the receiver hears the sender.
func newFlow(t *testing.T, from, to, address string) *flow {
	t.Helper()
	f := &flow{t: t, stop: make(chan struct{})}
	var l net.Listener
	in(t, to, func() (err error) {
		if f.in, err = net.ListenPacket("udp4", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		l, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
		return err
	})
	defer l.Close()
	raw, err := f.in.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	// What a busy receiver has not read yet is not lost by the switch.
	if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	var client net.Conn
	in(t, from, func() (err error) {
		if f.out, err = net.Dial("udp4", net.JoinHostPort(address, strconv.Itoa(port))); err != nil {
			return err
		}
		client, err = net.DialTimeout("tcp4", net.JoinHostPort(address, strconv.Itoa(port)), patience)
		return err
	})
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	f.client, f.server = client.(*net.TCPConn), server.(*net.TCPConn)
	t.Cleanup(f.close)
	f.over.Go(f.receive)
	f.over.Go(f.drain)
	f.over.Go(f.send)
	return f
}

// in calls f inside a namespace.
func in(t *testing.T, netns string, f func() error) {
	t.Helper()
	s, err := link.OpenNamespace(netns)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Run(f), s.Close()); err != nil {
		t.Fatal(err)
	}
}

func (f *flow) close() {
	for _, c := range []io.Closer{f.out, f.in, f.client, f.server} {
		c.Close()
	}
}

func (f *flow) send() {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-f.stop:
			return
		case <-tick.C:
		}
		n := binary.BigEndian.AppendUint32(nil, f.sent.Load())
		if _, err := f.out.Write(n); err != nil {
			f.t.Errorf("datagram %d: %v", f.sent.Load(), err)
			return
		}
		if _, err := f.client.Write(n); err != nil {
			f.t.Errorf("the connection, at %d: %v", f.sent.Load(), err)
			return
		}
		f.sent.Add(1)
	}
}

func (f *flow) receive() {
	var b [64]byte
	for {
		n, _, err := f.in.ReadFrom(b[:])
		if err != nil {
			return // closed
		}
		if n != 4 {
			f.t.Errorf("a datagram of %d bytes", n)
			return
		}
		i := int(binary.BigEndian.Uint32(b[:]))
		f.mu.Lock()
		f.seen = append(f.seen, make([]uint8, max(0, i+1-len(f.seen)))...)
		f.seen[i]++
		f.mu.Unlock()
	}
}

func (f *flow) drain() {
	var b [4]byte
	for {
		if _, err := io.ReadFull(f.server, b[:]); err != nil {
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
				f.t.Errorf("the connection, after %d numbers: %v", f.tcp, err)
			}
			return
		}
		f.mu.Lock()
		if got := binary.BigEndian.Uint32(b[:]); got != f.tcp {
			f.t.Errorf("the connection brought %d, want %d", got, f.tcp)
		}
		f.tcp++
		f.mu.Unlock()
	}
}

// during notes what happens from now on, and lets some datagrams pass.
func (f *flow) during(what string) {
	f.mu.Lock()
	f.marks = append(f.marks, mark{f.sent.Load(), what})
	f.mu.Unlock()
	f.pass(50)
}

// pass waits until n more datagrams were sent.
func (f *flow) pass(n uint32) {
	f.t.Helper()
	until := f.sent.Load() + n
	nettest.Eventually(f.t, time.Minute, "datagrams are sent", func() bool { return f.sent.Load() >= until })
}

// end demands that each number arrived once in a datagram, and that the
// connection stands and brought all.
func (f *flow) end() {
	f.t.Helper()
	close(f.stop)
	sent := f.settle()
	retransmitted := f.retransmits()
	f.close()
	f.over.Wait()
	var wrong []string
	for n := range sent {
		if int(n) >= len(f.seen) || f.seen[n] != 1 {
			wrong = append(wrong, fmt.Sprintf("%d (%s)", n, f.what(n)))
		}
	}
	if len(wrong) > 0 || sent == 0 {
		f.t.Errorf("of %d datagrams %d were lost or doubled: %s", sent, len(wrong), strings.Join(wrong[:min(len(wrong), 20)], ", "))
	}
	if f.tcp != sent {
		f.t.Errorf("the connection brought %d of %d numbers", f.tcp, sent)
	}
	f.t.Logf("%d datagrams, %d wrong; %d numbers through the connection, %d segments sent again", sent, len(wrong), f.tcp, retransmitted)
}

// settle waits until everything came, or nothing more does, and gives what was sent.
func (f *flow) settle() uint32 {
	last, since := -1, time.Now()
	for {
		sent := f.sent.Load()
		f.mu.Lock()
		missing := slices.Index(f.seen, 0) >= 0 || len(f.seen) < int(sent) || f.tcp < sent
		count := len(f.seen) + int(f.tcp)
		f.mu.Unlock()
		if count != last {
			last, since = count, time.Now()
		}
		if quiet := time.Since(since); quiet > patience || !missing && quiet > 20*interval {
			return sent
		}
		time.Sleep(5 * time.Millisecond) // the poll interval of a condition
	}
}

// retransmits is how many segments the sender's TCP sent again.
func (f *flow) retransmits() uint32 {
	raw, err := f.client.SyscallConn()
	if err != nil {
		f.t.Fatal(err)
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		f.t.Fatal(e, err)
	}
	return info.Total_retrans
}

// what happened as a datagram was sent.
func (f *flow) what(n uint32) string {
	what := "before anything"
	for _, m := range f.marks {
		if n >= m.from {
			what = m.what
		}
	}
	return what
}
