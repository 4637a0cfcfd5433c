package wg

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip/checksum"

	"ripstop/vpn"
)

// A way to a peer is looked at when it is new, when the tunnel's MTU or the peer's endpoint
// changes, and now and then while something passes: an ICMP echo of the tunnel's MTU
// that nobody may fragment has to come back. A peer that is silent, answers no echo, or has no
// address of its own tells nothing.
const (
	pathLook    = 5 * time.Second  // how often it is asked which ways are due
	pathAgain   = 10 * time.Minute // when a way that was looked at is due
	pathNarrow  = 30 * time.Second // when one is that carried too little
	pathTraffic = 1 << 16          // bytes that have to have come since
	pathWait    = time.Second      // for an answer
	pathTries   = 5                // large packets that are lost, with a small one that passes after each
	pathSmall   = 500              // which is less than any way carries that has a tunnel
	pathGrain   = 4                // how exactly it is found out what passes
	pathAtOnce  = 16
)

// path is what is known of the way to one peer.
type path struct {
	to      netip.Addr
	mtu     int
	at      netip.AddrPort
	rx      int64
	looked  time.Time
	passes  int // the largest packet that was seen to come back; 0 is not known
	looking bool
}

func (p path) narrow() bool { return p.passes > 0 && p.passes < p.mtu }

// duePath is a way that has to be looked at.
type duePath struct {
	way
	path
}

// way is the name of a path.
type way struct {
	tunnel string
	key    vpn.Key
}

// ServePaths looks whether ways carry what the MTUs of tunnels say, until ctx is cancelled;
// changed is called when the answer is another one.
func (d *Driver) ServePaths(ctx context.Context, ready, changed func()) error {
	ready()
	var looks sync.WaitGroup
	defer looks.Wait()
	slots := make(chan struct{}, pathAtOnce)
	tick := time.NewTicker(pathLook)
	defer tick.Stop()
	for {
		due, gone, err := d.duePaths()
		if err != nil && !errors.Is(err, errClosed) {
			d.log.Warn("ways of tunnels not looked at", "error", err)
		}
		if gone {
			changed()
		}
		for _, p := range due {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return nil
			}
			looks.Go(func() {
				defer func() { <-slots }()
				if d.lookAt(ctx, p) {
					changed()
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// duePaths is the ways to look at now. Those of peers that are silent are forgotten; gone
// tells whether a narrow one was among them.
func (d *Driver) duePaths() (due []duePath, gone bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all, err := d.look()
	if err != nil {
		return nil, false, err
	}
	now, stay := d.now(), map[way]bool{}
	for _, s := range all {
		if s.user != nil {
			continue // its stack is no network of the host
		}
		for _, p := range s.device.Peers {
			to, ok := s.addressOf(prefixes(p))
			w, known := way{s.name, vpn.Key(p.PublicKey)}, d.paths[way{s.name, vpn.Key(p.PublicKey)}]
			if !ok || now.Sub(p.LastHandshakeTime) >= vpn.Silence {
				continue
			}
			stay[w] = true
			if known.looking {
				continue
			}
			age := now.Sub(known.looked)
			if known.to == to && known.mtu == s.mtu() && known.at == endpoint(p) &&
				(known.narrow() && age < pathNarrow || !known.narrow() && (age < pathAgain || p.ReceiveBytes-known.rx < pathTraffic)) {
				continue
			}
			if known.to != to || known.mtu != s.mtu() || known.at != endpoint(p) {
				gone = gone || known.narrow()
				known = path{to: to, mtu: s.mtu(), at: endpoint(p)}
			}
			known.looking, known.looked, known.rx = true, now, p.ReceiveBytes
			d.paths[w] = known
			due = append(due, duePath{w, known})
		}
	}
	for w, p := range d.paths {
		if !stay[w] && !p.looking {
			gone = gone || p.narrow()
			delete(d.paths, w)
		}
	}
	return due, gone, nil
}

// addressOf is an address of a peer itself: a single one, best in a network of the tunnel's.
func (s seen) addressOf(allowed []netip.Prefix) (netip.Addr, bool) {
	var out netip.Addr
	for _, p := range allowed {
		if !p.IsSingleIP() {
			continue
		}
		if slices.ContainsFunc(s.addresses, func(a netip.Prefix) bool { return a.Contains(p.Addr()) }) {
			return p.Addr(), true
		}
		if !out.IsValid() {
			out = p.Addr()
		}
	}
	return out, out.IsValid()
}

// lookAt finds out what a way carries, and tells whether that is news.
func (d *Driver) lookAt(ctx context.Context, due duePath) bool {
	passes, err := measure(ctx, due.tunnel, due.path)
	if err != nil && ctx.Err() == nil {
		d.log.Debug("way of a tunnel not looked at", "tunnel", due.tunnel, "to", due.to, "error", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	known, ok := d.paths[due.way]
	if !ok {
		return false
	}
	was := known.narrow()
	known.looking, known.looked = false, d.now()
	known.passes = cmp.Or(passes, known.passes)
	d.paths[due.way] = known
	if known.narrow() && !was {
		d.log.Warn("a tunnel's way loses large packets", "tunnel", due.tunnel, "to", due.to, "mtu", due.mtu, "passes", known.passes)
	}
	return known.narrow() != was
}

// narrowPaths is the ways that carry too little, in the words of package vpn.
func (d *Driver) narrowPaths() []vpn.Narrow {
	var out []vpn.Narrow
	for w, p := range d.paths {
		if p.narrow() {
			out = append(out, vpn.Narrow{Tunnel: w.tunnel, Key: w.key, To: p.to, MTU: p.mtu, Passes: p.passes})
		}
	}
	return out
}

// measure is the largest packet that comes back, at most p.mtu; 0 where nothing is known.
func measure(ctx context.Context, device string, p path) (int, error) {
	if p.mtu <= pathSmall {
		return 0, nil
	}
	e, err := openPinger(ctx, device, p.to)
	if err != nil {
		return 0, err
	}
	defer e.close()
	for range pathTries {
		if ok, err := e.passes(p.mtu); ok || err != nil {
			return p.mtu, err
		}
		if p.narrow() {
			return p.passes, nil
		}
		if ok, err := e.passes(pathSmall); !ok || err != nil {
			return 0, err
		}
	}
	low, high := pathSmall, p.mtu
	for high-low > pathGrain {
		size := (low + high) / 2
		ok, err := e.passes(size)
		if err == nil && !ok {
			ok, err = e.passes(size)
		}
		if err != nil {
			return 0, err
		}
		if ok {
			low = size
		} else {
			high = size
		}
	}
	if e.back[p.mtu] { // late
		return p.mtu, nil
	}
	return low, nil
}

// pinger asks one address for echoes (RFC 792, RFC 4443).
type pinger struct {
	conn *net.IPConn
	ctx  context.Context
	six  bool
	id   uint16
	sent []int        // sizes, by sequence number
	back map[int]bool // sizes that came back
}

func openPinger(ctx context.Context, device string, to netip.Addr) (*pinger, error) {
	e := &pinger{ctx: ctx, six: to.Is6(), id: uint16(rand.Uint32()), back: map[int]bool{}}
	network, level, option, probe := "ip4:icmp", unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if e.six {
		network, level, option, probe = "ip6:ipv6-icmp", unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
	}
	// Nobody fragments it, and what is known of the way already is not believed.
	dialer := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		return errors.Join(c.Control(func(fd uintptr) {
			err = errors.Join(unix.BindToDevice(int(fd), device), unix.SetsockoptInt(int(fd), level, option, probe))
		}), err)
	}}
	conn, err := dialer.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, fmt.Errorf("ask %s for echoes: %w", to, err)
	}
	e.conn = conn.(*net.IPConn)
	return e, nil
}

func (e *pinger) close() { _ = e.conn.Close() } // a socket without data to lose

// passes tells whether a packet of a size comes back, header included.
func (e *pinger) passes(size int) (bool, error) {
	header, kind, reply := 20, byte(8), byte(0)
	if e.six {
		header, kind, reply = 40, 128, 129
	}
	request := make([]byte, size-header)
	request[0] = kind
	binary.BigEndian.PutUint16(request[4:], e.id)
	binary.BigEndian.PutUint16(request[6:], uint16(len(e.sent)))
	e.sent = append(e.sent, size)
	if !e.six { // the kernel does it for the other
		binary.BigEndian.PutUint16(request[2:], ^checksum.Checksum(request, 0))
	}
	if err := e.ctx.Err(); err != nil {
		return false, err
	}
	if err := e.conn.SetDeadline(time.Now().Add(pathWait)); err != nil {
		return false, err
	}
	if _, err := e.conn.Write(request); err != nil {
		return false, fmt.Errorf("send an echo request of %d bytes: %w", size, err)
	}
	answer := make([]byte, largestIP)
	for {
		n, _, err := e.conn.ReadFrom(answer) // which leaves out a header of IPv4
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("await an echo of %d bytes: %w", size, err)
		case n < 8 || answer[0] != reply || binary.BigEndian.Uint16(answer[4:]) != e.id:
			continue
		}
		if seq := int(binary.BigEndian.Uint16(answer[6:])); seq < len(e.sent) {
			e.back[e.sent[seq]] = true
		}
		if e.back[size] {
			return true, nil
		}
	}
}
