package wg

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// joinStacks carries packets from each of two stacks to the other, with do in
// between, which may break or drop them. It gives what waits until both are closed.
func joinStacks(t *testing.T, a, b *stackTun, do func(p []byte) []byte) (wait func()) {
	t.Helper()
	const offset = 16
	carry := func(from, to *stackTun) {
		bufs, sizes := make([][]byte, 128), make([]int, 128)
		for i := range bufs {
			bufs[i] = make([]byte, 1<<16)
		}
		for {
			n, err := from.Read(bufs, sizes, offset)
			if err != nil {
				return
			}
			var out [][]byte
			for i := range n {
				p := bufs[i][offset:][:sizes[i]]
				if len(p) > from.mtu() {
					t.Errorf("a packet of %d bytes, the MTU is %d", len(p), from.mtu())
				}
				if _, ok := sound(p); !ok {
					t.Errorf("a packet that is not sound: %x", p[:min(len(p), 60)])
				}
				if p = do(p); p != nil {
					out = append(out, bufs[i][:offset+len(p)])
				}
			}
			if _, err := to.Write(out, offset); err != nil {
				t.Error(err)
			}
		}
	}
	var ends sync.WaitGroup
	ends.Go(func() { carry(a, b) })
	ends.Go(func() { carry(b, a) })
	return ends.Wait
}

func newStack(t *testing.T, addresses ...string) *stackTun {
	t.Helper()
	s, err := newStackTun("site", 1420)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.setAddresses(parsed(addresses)); err != nil {
		t.Fatal(err)
	}
	return s
}

// dial connects from the stack's own address.
func (t *stackTun) dial(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	proto := tcpip.NetworkProtocolNumber(ipv4.ProtocolNumber)
	if to.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	wq := new(waiter.Queue)
	ep, err := t.stack.NewEndpoint(tcp.ProtocolNumber, proto, wq)
	if err != nil {
		return nil, errors.New(err.String())
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents)
	wq.EventRegister(&entry)
	defer wq.EventUnregister(&entry)
	err = ep.Connect(tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(to.Addr().AsSlice()), Port: to.Port()})
	if _, started := err.(*tcpip.ErrConnectStarted); started {
		select {
		case <-ctx.Done():
			ep.Close()
			return nil, ctx.Err()
		case <-ready:
		}
		err = ep.LastError()
	}
	if err != nil {
		ep.Close()
		return nil, errors.New(err.String())
	}
	return &stackConn{gonet.NewTCPConn(wq, ep), ep}, nil
}

// echoStack gives back what comes to an address.
func echoStack(t *testing.T, s *stackTun, at netip.AddrPort) net.Listener {
	t.Helper()
	l, err := s.listen(at)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	return l
}

// TestStackCarries has data go both ways through stacks, over IPv4 and IPv6, whole
// and in order, though packets are lost and broken.
func TestStackCarries(t *testing.T) {
	for _, tt := range []struct {
		name string
		at   string
		loss bool
	}{{"IPv4", "10.99.0.1:3260", false}, {"IPv6", "[fd99::1]:3260", false}, {"loss", "10.99.0.1:3260", true}} {
		t.Run(tt.name, func(t *testing.T) {
			near, far := newStack(t, "10.99.0.1/24", "fd99::1/64"), newStack(t, "10.99.0.2/24", "fd99::2/64")
			r, n := rand.New(rand.NewPCG(1, 2)), 0
			lock := make(chan struct{}, 1)
			joinStacks(t, near, far, func(p []byte) []byte {
				lock <- struct{}{}
				defer func() { <-lock }()
				if n++; !tt.loss {
					return p
				}
				switch {
				case n%97 == 0:
					return nil
				case n%101 == 0:
					p[len(p)-1-r.IntN(min(len(p), 20))] ^= 1 << r.IntN(8) // the checksums find it
				}
				return p
			})
			at := netip.MustParseAddrPort(tt.at)
			echoStack(t, near, at)
			c, err := far.dial(t.Context(), at)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			data := make([]byte, 4<<20)
			if tt.loss {
				data = data[:2<<20]
			}
			for i := range data {
				data[i] = byte(r.Uint32())
			}
			go func() {
				pieces := net.Buffers{data[:48], data[48 : 1<<20], data[1<<20 : 1<<20+1], data[1<<20+1:]}
				if err := c.(*stackConn).WriteBuffers(&pieces); err != nil || len(pieces) > 0 {
					t.Errorf("write: %v, %d pieces are left", err, len(pieces))
				}
			}()
			got := make([]byte, len(data))
			c.SetReadDeadline(time.Now().Add(patience))
			if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read: %v, equal %t", err, bytes.Equal(got, data))
			}
		})
	}
}

// TestStackRelabels: an address stays when its prefix gets another length, with its
// connections, and the last address of a prefix is a host's.
func TestStackRelabels(t *testing.T) {
	near, far := newStack(t, "10.99.0.1/24"), newStack(t, "10.99.0.255/16")
	joinStacks(t, near, far, func(p []byte) []byte { return p })
	at := netip.MustParseAddrPort("10.99.0.1:3260")
	echoStack(t, near, at)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := far.dial(ctx, at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	for _, want := range []string{"10.99.0.1/24", "10.99.0.1/16", "10.99.0.1/25"} {
		if err := near.setAddresses(parsed([]string{want})); err != nil {
			t.Fatal(err)
		}
		if got := near.addresses(); len(got) != 1 || got[0].String() != want {
			t.Errorf("addresses %v, want %s", got, want)
		}
		if _, err := c.Write([]byte("ping")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatalf("with %s: %v", want, err)
		}
	}
}

// TestStackEnds: what waits is told of a deadline, of a listener that closes, and
// of a tunnel that goes.
func TestStackEnds(t *testing.T) {
	near, far := newStack(t, "10.99.0.1/24"), newStack(t, "10.99.0.2/24")
	wait := joinStacks(t, near, far, func(p []byte) []byte { return p })
	at := netip.MustParseAddrPort("10.99.0.1:3260")
	l := echoStack(t, near, at)
	if _, err := near.listen(at); err == nil {
		t.Error("two listeners at one address")
	}
	if _, err := near.listen(netip.MustParseAddrPort("10.99.0.7:3260")); err == nil {
		t.Error("a listener at an address that is not there")
	}
	c, err := far.dial(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); err != os.ErrDeadlineExceeded {
		t.Errorf("read: %v", err)
	}
	l.Close()
	again, err := near.listen(at)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error)
	go func() {
		_, err := again.Accept()
		ended <- err
	}()
	near.Close()
	if err := <-ended; err != net.ErrClosed {
		t.Errorf("accept: %v", err)
	}
	far.setMTU(1300)
	if e := <-far.Events(); e != tun.EventMTUUpdate || far.mtu() != 1300 {
		t.Errorf("event %v, MTU %d", e, far.mtu())
	}
	far.Close()
	wait()
	if _, err := near.Read(make([][]byte, 1), make([]int, 1), 0); err != os.ErrClosed {
		t.Errorf("read packets: %v", err)
	}
}

// FuzzSound takes what comes out of a tunnel: whatever it is, it is dropped or
// harmless.
func FuzzSound(f *testing.F) {
	segment := make([]byte, 40)
	segment[0], segment[9], segment[3], segment[32] = 0x45, 6, 40, 0x50
	header.IPv4(segment).SetChecksum(^header.IPv4(segment).CalculateChecksum())
	sum := checksum.Checksum(segment[20:], pseudo(segment, header.TCPProtocolNumber, 20))
	segment[36], segment[37] = byte(^sum>>8), byte(^sum)
	if _, ok := sound(segment); !ok {
		f.Fatal("a sound packet is none")
	}
	f.Add(segment)
	six := make([]byte, 60)
	six[0], six[5], six[6] = 0x60, 20, 6
	f.Add(six)
	f.Add([]byte{0x45})
	f.Add([]byte{})
	s, err := newStackTun("fuzz", 1420)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	if err := s.setAddresses(parsed([]string{"10.99.0.1/24", "fd99::1/64"})); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if _, err := s.Write([][]byte{p, p}, 0); err != nil {
			t.Error(err)
		}
	})
}
