package wg

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/stack/gro"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

const (
	nicID     = 1
	outQueue  = 512       // packets of the stack, of up to 64 KiB, that WireGuard has not taken
	maxBuffer = 4 << 20   // bytes of a connection in each direction
	maxGSO    = 1<<16 - 1 // bytes of a packet that is cut later
)

// stackTun is the inner end of a tunnel: a TCP/IP stack instead of a device.
//
//	connection ─► stack ─ 64 KiB packets ─► Read: cut ─► WireGuard ─► UDP
//	           ◄─       ◄─ GRO: joined ── Write ◄──────────────────────┘
//
// Towards WireGuard it is a tun.Device that takes and gives batches. What the stack
// sends is cut into packets here, and what comes is joined into few, so that most of
// the stack's work is done once for many packets.
type stackTun struct {
	name   string
	stack  *stack.Stack
	link   *stackLink
	events chan tun.Event
	closed ended
	left   *outgoing // of the stack, and not taken; Read's own
	close  sync.Once

	mu sync.Mutex // guards what follows
	on []netip.Prefix
}

// stackLink is the stack's network card.
type stackLink struct {
	*channel.Endpoint                // but for its queue
	gro               sync.Pool      // of *gro.GRO
	out               chan *outgoing // what WireGuard has not taken
	idle              sync.Pool      // of *outgoing

	mu   sync.RWMutex
	into stack.NetworkDispatcher // nil when the card is gone
}

// GSOMaxSize is the longest packet that is cut here.
func (*stackLink) GSOMaxSize() uint32 { return maxGSO }

// WritePackets queues packets. Where there is no room they are lost, as on a wire.
func (l *stackLink) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	for n, pkt := range list.AsSlice() {
		o := l.idle.Get().(*outgoing)
		o.take(pkt)
		select {
		case l.out <- o:
		default:
			l.idle.Put(o)
			return n, nil
		}
	}
	return list.Len(), nil
}

// Attach is told where packets go.
func (l *stackLink) Attach(d stack.NetworkDispatcher) {
	l.Endpoint.Attach(d)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.into = d
}

// DeliverNetworkPacket hands a packet to the stack.
func (l *stackLink) DeliverNetworkPacket(p tcpip.NetworkProtocolNumber, pkt *stack.PacketBuffer) {
	l.mu.RLock()
	into := l.into
	l.mu.RUnlock()
	if into != nil {
		into.DeliverNetworkPacket(p, pkt)
	}
}

// DeliverLinkPacket has nobody to tell.
func (*stackLink) DeliverLinkPacket(tcpip.NetworkProtocolNumber, *stack.PacketBuffer) {}

func newStackTun(name string, mtu int) (*stackTun, error) {
	t := &stackTun{
		name: name, events: make(chan tun.Event, 4), closed: make(ended),
		stack: stack.New(stack.Options{
			NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
		}),
	}
	t.link = &stackLink{Endpoint: channel.New(0, uint32(mtu), ""), out: make(chan *outgoing, outQueue)}
	t.link.idle.New = func() any { return new(outgoing) }
	t.link.gro.New = func() any {
		g := &gro.GRO{Dispatcher: t.link}
		g.Init(true)
		return g
	}
	t.link.SupportedGSOKind = stack.HostGSOSupported
	t.link.LinkEPCapabilities = stack.CapabilityRXChecksumOffload // Write checks them
	if err := t.prepare(); err != nil {
		t.stack.Close()
		return nil, err
	}
	return t, nil
}

func (t *stackTun) prepare() error {
	sack, moderate, cubic := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true), tcpip.CongestionControlOption("cubic")
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: 1 << 20, Max: maxBuffer}
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: 1 << 20, Max: maxBuffer}
	recovery := tcpip.TCPRecovery(0) // without RACK, which fills holes late here
	for _, o := range []tcpip.SettableTransportProtocolOption{&recovery, &sack, &moderate, &cubic, &send, &receive} {
		if err := t.stack.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set up TCP: %s", err)
		}
	}
	if err := t.stack.CreateNIC(nicID, t.link); err != nil {
		return fmt.Errorf("set up the stack: %s", err)
	}
	t.stack.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: nicID}, {Destination: header.IPv6EmptySubnet, NIC: nicID}})
	return nil
}

// Name is the tunnel's.
func (t *stackTun) Name() (string, error) { return t.name, nil }

// File is none.
func (*stackTun) File() *os.File { return nil }

// Events tells of a new MTU.
func (t *stackTun) Events() <-chan tun.Event { return t.events }

// MTU is bytes of a packet.
func (t *stackTun) MTU() (int, error) { return t.mtu(), nil }

// BatchSize is what the outer end has, too.
func (*stackTun) BatchSize() int { return conn.IdealBatchSize }

func (t *stackTun) mtu() int { return int(t.link.Endpoint.MTU()) }

func (t *stackTun) setMTU(mtu int) {
	if mtu == t.mtu() {
		return
	}
	t.link.SetMTU(uint32(mtu))
	select {
	case t.events <- tun.EventMTUUpdate:
	default: // it will ask anyway, for one that is on its way
	}
}

// Close ends all connections and listeners.
func (t *stackTun) Close() error {
	t.close.Do(func() {
		close(t.closed)
		t.stack.Close()
		t.link.Endpoint.Close()
		t.stack.Wait()
		close(t.events)
	})
	return nil
}

// Read waits for packets of the stack and gives as many as there are and fit.
func (t *stackTun) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	select {
	case <-t.closed:
		return 0, os.ErrClosed
	default:
	}
	o := t.left
	t.left = nil
	if o == nil {
		select {
		case o = <-t.link.out:
		case <-t.closed:
			return 0, os.ErrClosed
		}
	}
	for n := 0; ; {
		count := o.pieces()
		if count > len(bufs)-n && count <= len(bufs) {
			t.left = o
			return n, nil
		}
		if count <= len(bufs) { // else of an MSS that nobody should have
			o.cut(bufs[n:n+count], sizes[n:n+count], offset)
			n += count
		}
		t.link.idle.Put(o)
		select {
		case o = <-t.link.out:
		default:
			return n, nil
		}
	}
}

// Write gives packets to the stack, but for those that are broken or fragments:
// the stack is told that it need not look at checksums.
func (t *stackTun) Write(bufs [][]byte, offset int) (int, error) {
	g := t.link.gro.Get().(*gro.GRO)
	defer t.link.gro.Put(g)
	for _, b := range bufs {
		p := b[offset:]
		proto, ok := sound(p)
		if !ok {
			continue
		}
		pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithData(p)})
		pkt.NetworkProtocolNumber, pkt.RXChecksumValidated = proto, true
		g.Enqueue(pkt)
		pkt.DecRef()
	}
	g.Flush()
	return len(bufs), nil
}

func (t *stackTun) addresses() []netip.Prefix {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.on)
}

// setAddresses makes want of what there is, new addresses first. The stack knows
// them without their networks, for all that it sends goes into the tunnel: a
// prefix may change its length under connections, and its last address is a host's.
func (t *stackTun) setAddresses(want []netip.Prefix) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range want {
		if slices.Contains(t.on, p) {
			continue
		}
		if has(t.on, p.Addr()) {
			t.on = append(t.on, p)
			continue
		}
		a := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: tcpip.AddrFromSlice(p.Addr().AsSlice()).WithPrefix()}
		if p.Addr().Is6() {
			a.Protocol = ipv6.ProtocolNumber
		}
		if err := t.stack.AddProtocolAddress(nicID, a, stack.AddressProperties{}); err != nil {
			return fmt.Errorf("add address %s: %s", p, err)
		}
		t.on = append(t.on, p)
	}
	for _, p := range slices.Clone(t.on) {
		if slices.Contains(want, p) {
			continue
		}
		if !has(want, p.Addr()) {
			if err := t.stack.RemoveAddress(nicID, tcpip.AddrFromSlice(p.Addr().AsSlice())); err != nil {
				return fmt.Errorf("remove address %s: %s", p, err)
			}
		}
		t.on = slices.DeleteFunc(t.on, func(q netip.Prefix) bool { return p == q })
	}
	slices.SortFunc(t.on, netip.Prefix.Compare)
	return nil
}

// has tells whether one of the prefixes is of this very address.
func has(all []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Addr() == a })
}

// stackListener listens inside the stack.
type stackListener struct {
	*gonet.TCPListener
	ep     tcpip.Endpoint
	wq     *waiter.Queue
	tunnel ended
	closed ended
	once   sync.Once
}

func (t *stackTun) listen(at netip.AddrPort) (net.Listener, error) {
	if !has(t.addresses(), at.Addr()) {
		return nil, syscall.EADDRNOTAVAIL
	}
	proto := tcpip.NetworkProtocolNumber(ipv4.ProtocolNumber)
	if at.Addr().Is6() {
		proto = ipv6.ProtocolNumber
	}
	wq := new(waiter.Queue)
	ep, err := t.stack.NewEndpoint(tcp.ProtocolNumber, proto, wq)
	if err != nil {
		return nil, errors.New(err.String())
	}
	ep.SocketOptions().SetReuseAddress(true) // connections of a listener before may live on
	err = ep.Bind(tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(at.Addr().AsSlice()), Port: at.Port()})
	if err == nil {
		err = ep.Listen(1024)
	}
	if err != nil {
		ep.Close()
		return nil, errors.New(err.String())
	}
	return &stackListener{TCPListener: gonet.NewTCPListener(t.stack, wq, ep), ep: ep, wq: wq, tunnel: t.closed, closed: make(ended)}, nil
}

// Accept waits for a connection, until the listener or the tunnel is closed.
func (l *stackListener) Accept() (net.Conn, error) {
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	l.wq.EventRegister(&entry)
	defer l.wq.EventUnregister(&entry)
	for {
		ep, wq, err := l.ep.Accept(nil)
		switch err.(type) {
		case nil:
			return &stackConn{gonet.NewTCPConn(wq, ep), ep}, nil
		case *tcpip.ErrWouldBlock:
		default:
			return nil, net.ErrClosed
		}
		select {
		case <-ready:
		case <-l.tunnel:
			return nil, net.ErrClosed
		case <-l.closed:
			return nil, net.ErrClosed
		}
	}
}

// Close ends Accept.
func (l *stackListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.TCPListener.Close()
}

// stackConn is a connection of the stack that says of its ends what the net
// package says.
type stackConn struct {
	*gonet.TCPConn
	ep tcpip.Endpoint
}

// Read is as that of net.Conn.
func (c *stackConn) Read(p []byte) (int, error) {
	n, err := c.TCPConn.Read(p)
	return n, c.plain(err)
}

// Write is as that of net.Conn.
func (c *stackConn) Write(p []byte) (int, error) {
	n, err := c.TCPConn.Write(p)
	return n, c.plain(err)
}

// WriteBuffers writes all of the pieces, as few packets as may be, and takes off
// what was written.
func (c *stackConn) WriteBuffers(b *net.Buffers) error {
	p := payload{b: b}
	for _, piece := range *b {
		p.n += len(piece)
	}
	for p.n > 0 {
		_, err := c.ep.Write(&p, tcpip.WriteOptions{})
		switch err.(type) {
		case nil:
			continue
		case *tcpip.ErrWouldBlock:
		default:
			return errors.New(err.String())
		}
		// No room: whoever waits in Write wakes when there is some.
		first := (*b)[0][:min(len((*b)[0]), 64<<10)]
		n, werr := c.Write(first)
		p.n -= n
		p.skip(n)
		if werr != nil {
			return werr
		}
	}
	return nil
}

// plain is an error in the words of the net package.
func (c *stackConn) plain(err error) error {
	var net net.Error
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return err
	case errors.As(err, &net) && net.Timeout():
		return os.ErrDeadlineExceeded
	}
	if _, reset := c.ep.LastError().(*tcpip.ErrConnectionReset); reset {
		return syscall.ECONNRESET
	}
	return err
}

// payload reads several pieces as one.
type payload struct {
	b *net.Buffers
	n int // bytes that are left
}

// Len is how many bytes are left.
func (p *payload) Len() int { return p.n }

// Read takes bytes off the front.
func (p *payload) Read(to []byte) (int, error) {
	n := 0
	for n < len(to) && len(*p.b) > 0 {
		k := copy(to[n:], (*p.b)[0])
		n += k
		p.skip(k)
	}
	p.n -= n
	if n == 0 && len(to) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// skip takes bytes of the first piece off.
func (p *payload) skip(n int) {
	if (*p.b)[0] = (*p.b)[0][n:]; len((*p.b)[0]) == 0 {
		*p.b = (*p.b)[1:]
	}
}

// ended is a context that ends when the channel is closed, and has no other.
type ended chan struct{}

// Deadline is none.
func (ended) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done is the channel.
func (e ended) Done() <-chan struct{} { return e }

// Err tells that the channel is closed.
func (e ended) Err() error {
	select {
	case <-e:
		return net.ErrClosed
	default:
		return nil
	}
}

// Value is none.
func (ended) Value(any) any { return nil }
