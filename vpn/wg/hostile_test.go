package wg

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
)

// listen hears the IP packets on a device until the test ends; each call of next
// gives those since the one before.
func (l *lab) listen(device string) (next func() [][]byte) {
	l.Helper()
	d, err := net.InterfaceByName(device)
	if err != nil {
		l.Fatal(err)
	}
	all := uint16(unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8)
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: d.Index}); err != nil {
		l.Fatal(err)
	}
	return func() (got [][]byte) {
		for {
			buf := make([]byte, 1<<16)
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return got
			}
			got = append(got, buf[:n])
		}
	}
}

// source is who sent an IPv4 packet.
func source(packet []byte) netip.Addr {
	if len(packet) < 20 || packet[0]>>4 != 4 {
		return netip.Addr{}
	}
	return netip.AddrFrom4([4]byte(packet[12:16]))
}

// sent is the payload of a WireGuard message of a type in an IPv4 packet to a port,
// nil of any other.
func sent(packet []byte, port uint16, kind byte) []byte {
	const ip, udp = 20, 8
	if source(packet) != netip.MustParseAddr("192.0.2.2") || packet[0] != 0x45 || packet[9] != unix.IPPROTO_UDP || len(packet) < ip+udp+4 ||
		binary.BigEndian.Uint16(packet[ip+2:]) != port || packet[ip+udp] != kind {
		return nil
	}
	return packet[ip+udp:]
}

const (
	initiation = 1 // of a handshake
	data       = 4
)

// testReplay: what was heard on the wire and is sent again, from elsewhere, moves no
// endpoint and begins no session.
func testReplay(l *lab) {
	heard := l.listen("wire")
	l.site2.Peers[0].Endpoint = "192.0.2.1:51820"
	l.both()
	l.reaches("10.50.0.1")
	nettest.Run(l, "ip", "netns", "exec", "far", "ping", "-c", "3", "-i", "0.01", "10.99.0.1")
	// A second session, so that the first one's packets are of the past.
	l.far.ask(request{Verb: "apply"})
	l.far.ask(request{Verb: "apply", Specs: []spec{l.site2}})
	nettest.Run(l, "ip", "netns", "exec", "far", "ping", "-c", "3", "-i", "0.01", "-W", "9", "10.99.0.1")
	var replays [][]byte
	kinds := map[byte]int{}
	for _, p := range heard() {
		for _, kind := range []byte{initiation, data} {
			if m := sent(p, 51820, kind); m != nil {
				replays, kinds[kind] = append(replays, m), kinds[kind]+1
			}
		}
	}
	if kinds[initiation] == 0 || kinds[data] < 3 {
		l.Fatalf("heard %v", kinds)
	}
	nettest.Run(l, "ip", "-n", "far", "address", "add", "192.0.2.66/24", "dev", "wire")
	inside := l.listen("site")
	before := l.peer()
	for _, m := range replays {
		l.far.ask(request{Verb: "send", From: "192.0.2.66:51999", Address: "192.0.2.1:51820", Data: m})
	}
	nettest.Run(l, "ip", "netns", "exec", "far", "ping", "-c", "1", "10.99.0.1") // comes after all of them
	after := l.peer()
	if after.Endpoint != before.Endpoint || !after.LastHandshake.Equal(before.LastHandshake) {
		l.Errorf("%v before, %v after", before, after)
	}
	if got := fromFar(inside()); got != 1 {
		l.Errorf("%d packets came through the tunnel, want that of the last ping", got)
	}
	if steps := l.apply(l.site); len(steps) != 0 {
		l.Errorf("replays are taken for drift: %q", steps)
	}
	l.reaches("10.50.0.1")
}

func fromFar(packets [][]byte) (n int) {
	for _, p := range packets {
		if source(p) == netip.MustParseAddr("10.99.0.2") {
			n++
		}
	}
	return n
}

// testStolenAddress: the far end sends with addresses that are not its own: nobody's,
// another peer's, and our own.
func testStolenAddress(l *lab) {
	other := peerSpec{Name: "other", Key: newKeys(l).public, Allowed: []string{"10.60.0.0/16"}}
	l.site.Peers = append(l.site.Peers, other)
	l.both()
	l.reaches("10.50.0.1")
	inside := l.listen("site")
	stolen := []string{"10.66.0.1", "10.60.0.1", "10.50.0.1"}
	for _, a := range stolen[:2] {
		nettest.Run(l, "ip", "-n", "far", "address", "add", a+"/32", "dev", "lo")
	}
	for _, a := range stolen {
		_ = exec.Command("ip", "netns", "exec", "far", "ping", "-c", "2", "-i", "0.01", "-W", "1", "-I", a, "10.99.0.1").Run() // two of them have no answer
	}
	nettest.Run(l, "ip", "netns", "exec", "far", "ping", "-c", "1", "10.99.0.1")
	seen := map[netip.Addr]bool{}
	for _, p := range inside() {
		seen[source(p)] = true
	}
	for i, a := range stolen {
		if own := i == 2; seen[netip.MustParseAddr(a)] != own {
			l.Errorf("a packet from %s came in: %v", a, !own)
		}
	}
}

// testMove: the far end gets another address under a flow, and passes meanwhile leave
// the peer where it is heard from.
func testMove(l *lab) {
	l.site2.Peers[0].Endpoint, l.site2.Peers[0].Keepalive = "192.0.2.1:51820", time.Second
	l.both()
	l.reaches("10.50.0.1")
	stop := l.flow("10.50.0.1:7001", patience)
	for _, to := range []string{"192.0.2.3", "192.0.2.4", "192.0.2.2"} {
		nettest.Run(l, "ip", "-n", "far", "-4", "address", "flush", "dev", "wire")
		nettest.Run(l, "ip", "-n", "far", "address", "add", to+"/24", "dev", "wire")
		nettest.Eventually(l, patience, "the peer is heard from "+to, func() bool {
			steps := l.apply(l.site)
			return len(steps) == 0 && l.peer().Endpoint == netip.AddrPortFrom(netip.MustParseAddr(to), 51821)
		})
	}
	stop()
}

// testRevoked: a peer that is removed is heard no more from that moment on, with the
// session that it has and with a new one.
func testRevoked(l *lab) {
	l.site2.Peers[0].Endpoint = "192.0.2.1:51820"
	l.both()
	l.reaches("10.50.0.1")
	inside := l.listen("site")
	peers := l.site.Peers
	l.site.Peers = nil
	if steps := l.apply(l.site); !slices.ContainsFunc(steps, func(s string) bool { return strings.HasSuffix(s, " remove") }) {
		l.Errorf("steps are %q", steps)
	}
	inside()
	for range 2 {
		_ = exec.Command("ip", "netns", "exec", "far", "ping", "-c", "3", "-i", "0.01", "-W", "1", "10.99.0.1").Run() // has no answer
		l.far.ask(request{Verb: "apply"})
		l.far.ask(request{Verb: "apply", Specs: []spec{l.site2}})
	}
	if got := fromFar(inside()); got != 0 {
		l.Errorf("%d packets of a removed peer came in", got)
	}
	l.site.Peers = peers
	l.apply(l.site)
	nettest.Run(l, "ip", "netns", "exec", "far", "ping", "-c", "1", "-W", "9", "10.99.0.1")
}
