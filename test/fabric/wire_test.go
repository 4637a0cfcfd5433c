package fabric

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
)

// outer is the network that the hosts share, and port where their mesh listens.
var outer = netip.MustParsePrefix("192.0.2.0/24")

const port = 51820

// verdict is what becomes of a frame.
type verdict int

const (
	pass verdict = iota
	drop
	late // after the next frame of the same way
)

// wire joins the hosts' taps. Frames go to every other end: the hosts' kernels
// take what is theirs.
type wire struct {
	t     testing.TB
	ends  []*end
	tasks sync.WaitGroup

	mu     sync.Mutex
	rule   func(from, to string, frame []byte) verdict
	held   map[string][]byte // by way, what comes late
	leaks  []string
	frames int
	hello  map[string][]byte // the last handshake initiation of a host
}

type end struct {
	host string
	tap  *os.File
}

func newWire(t testing.TB) *wire {
	w := &wire{t: t, held: map[string][]byte{}, hello: map[string][]byte{}}
	t.Cleanup(func() {
		for _, e := range w.ends {
			e.tap.Close()
		}
		w.tasks.Wait()
	})
	return w
}

// plug gives a host's namespace the device wan with an address, and a default
// route to where nobody is, so that what has no other way is seen.
func (w *wire) plug(host, address string) {
	w.t.Helper()
	tap, err := openTap(host)
	if err != nil {
		w.t.Fatal(err)
	}
	nettest.Run(w.t, "ip", "-n", host, "link", "set", "wan", "up")
	nettest.Run(w.t, "ip", "-n", host, "address", "add", address, "dev", "wan")
	nettest.Run(w.t, "ip", "-n", host, "neighbor", "add", "192.0.2.254", "lladdr", "02:00:00:00:00:fe", "dev", "wan")
	nettest.Run(w.t, "ip", "-n", host, "route", "add", "default", "via", "192.0.2.254")
	e := &end{host, tap}
	w.mu.Lock()
	w.ends = append(w.ends, e)
	w.mu.Unlock()
	w.tasks.Go(func() { w.carry(e) })
}

// openTap makes the device in a named namespace. Its thread stays there and ends.
func openTap(netns string) (*os.File, error) {
	type answer struct {
		f   *os.File
		err error
	}
	got := make(chan answer)
	go func() {
		runtime.LockOSThread()
		f, err := tapIn(netns)
		got <- answer{f, err}
	}()
	a := <-got
	return a.f, a.err
}

func tapIn(netns string) (*os.File, error) {
	ns, err := os.Open("/run/netns/" + netns)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter namespace %s: %w", netns, err)
	}
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open tap: %w", err)
	}
	req, err := unix.NewIfreq("wan")
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("make tap: %w", err)
	}
	return os.NewFile(uintptr(fd), "wan of "+netns), nil
}

// carry passes on what one host sends until its tap is closed.
func (w *wire) carry(from *end) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.tap.Read(buf)
		if err != nil {
			return
		}
		w.send(from, bytes.Clone(buf[:n]))
	}
}

func (w *wire) send(from *end, frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames++
	if why := leak(frame); why != "" && len(w.leaks) < 20 {
		w.leaks = append(w.leaks, fmt.Sprintf("%s sent %s: %x", from.host, why, frame[:min(len(frame), 80)]))
	}
	if data := datagram(frame); len(data) > 0 && data[0] == 1 {
		w.hello[from.host] = frame
	}
	for _, to := range w.ends {
		if to == from {
			continue
		}
		way, v := from.host+to.host, pass
		if w.rule != nil {
			v = w.rule(from.host, to.host, frame)
		}
		switch {
		case v == drop:
			continue
		case v == late && w.held[way] == nil:
			w.held[way] = frame
			continue
		}
		w.give(to, frame)
		if h := w.held[way]; h != nil {
			delete(w.held, way)
			w.give(to, h)
		}
	}
}

// give hands a frame to a host. One whose queue is full loses it, as a NIC would.
func (w *wire) give(to *end, frame []byte) { _, _ = to.tap.Write(frame) }

// set lets a rule decide from now on; nil passes everything.
func (w *wire) set(rule func(from, to string, frame []byte) verdict) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rule = rule
}

// cut drops what goes from any of the hosts to any of the others, and nothing else.
func cut(ways ...string) func(from, to string, frame []byte) verdict {
	return func(from, to string, _ []byte) verdict {
		if slices.Contains(ways, from+to) {
			return drop
		}
		return pass
	}
}

// rough loses and turns around some frames in a hundred, chosen by seed.
func rough(lost, turned int, seed uint64) func(from, to string, frame []byte) verdict {
	random := rand.New(rand.NewPCG(seed, 0))
	return func(string, string, []byte) verdict {
		switch n := random.IntN(100); {
		case n < lost:
			return drop
		case n < lost+turned:
			return late
		}
		return pass
	}
}

// replay sends the last handshake initiation of a host to another once more, from
// the address of somebody else.
func (w *wire) replay(of, to string, from netip.Addr) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	frame := bytes.Clone(w.hello[of])
	if frame == nil {
		w.t.Fatalf("%s has begun no handshake", of)
	}
	ip := frame[14:]
	copy(ip[12:16], from.AsSlice())
	ip[10], ip[11] = 0, 0
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum>>16+sum))
	ip[26], ip[27] = 0, 0 // no UDP checksum
	for _, e := range w.ends {
		if e.host == to {
			w.give(e, frame)
		}
	}
}

// datagram is what a frame carries between two ends of the mesh, nil when it
// carries something else.
func datagram(frame []byte) []byte {
	if len(frame) < 42 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 || frame[14] != 0x45 || frame[23] != unix.IPPROTO_UDP {
		return nil
	}
	for _, at := range []int{26, 30} {
		if a, _ := netip.AddrFromSlice(frame[at : at+4]); !outer.Contains(a) {
			return nil
		}
	}
	if binary.BigEndian.Uint16(frame[34:]) != port || binary.BigEndian.Uint16(frame[36:]) != port {
		return nil
	}
	return frame[42:]
}

// leak says what of the inner networks a frame shows, "" for nothing: the mesh's
// datagrams may pass, what the kernels need to find one another, and their errors.
func leak(frame []byte) string {
	if len(frame) < 34 {
		return "a short frame"
	}
	if data := datagram(frame); data != nil {
		if len(data) < 4 || data[0] < 1 || data[0] > 4 || data[1]|data[2]|data[3] != 0 {
			return "what is no message of WireGuard"
		}
		if bytes.Contains(data, bytes.Repeat([]byte{data[len(data)/2]}, 64)) {
			return "what is not encrypted"
		}
		return ""
	}
	addrs := func(at ...int) string {
		for _, i := range at {
			if a, _ := netip.AddrFromSlice(frame[i : i+4]); !outer.Contains(a) {
				return "an inner address " + a.String()
			}
		}
		return ""
	}
	switch kind := binary.BigEndian.Uint16(frame[12:]); {
	case kind == 0x0806 && len(frame) >= 42:
		if a, _ := netip.AddrFromSlice(frame[28:32]); a.IsUnspecified() {
			return addrs(38) // a probe (RFC 5227)
		}
		return addrs(28, 38)
	case kind == 0x86dd && (frame[20] == unix.IPPROTO_ICMPV6 || frame[20] == unix.IPPROTO_HOPOPTS):
		return ""
	case kind == 0x0800 && frame[23] == unix.IPPROTO_ICMP:
		return addrs(26, 30)
	case kind == 0x0800 && binary.BigEndian.Uint16(frame[20:])&0x1fff != 0:
		return addrs(26, 30) // the rest of a datagram that was judged by its first piece
	case kind == 0x0800:
		return fmt.Sprintf("protocol %d outside the mesh", frame[23])
	default:
		return fmt.Sprintf("EtherType %04x", kind)
	}
}

// clean demands that nothing of the inner networks was seen, and that there was
// something to see.
func (w *wire) clean() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.leaks {
		w.t.Errorf("leak: %s", l)
	}
	if w.frames == 0 {
		w.t.Error("no frame was on the wire")
	}
}
