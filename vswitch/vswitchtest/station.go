package vswitchtest

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/internal/nettest"
	"ripstop/vswitch"
)

// station is a packet socket on an interface inside a namespace, promiscuous:
// it sees all that the switch sends to its port.
type station struct {
	name string
	mac  vswitch.MAC
	open func() (*link.Space, error) // its namespace
	dev  string
	fd   int
	buf  []byte
	kind uint8 // of the last frame: unix.PACKET_HOST and others
}

// openStation opens a socket on dev in the namespace, or in the test's own when
// space is "".
func openStation(t testing.TB, name, space, dev string) *station {
	t.Helper()
	s := &station{name: name, open: link.Open, dev: dev, fd: -1, buf: make([]byte, 1<<16)}
	if space != "" {
		s.open = func() (*link.Space, error) { return link.OpenNamespace(space) }
	}
	ns, err := s.open()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	l, err := ns.Link(dev)
	if err != nil {
		t.Fatal(err)
	}
	copy(s.mac[:], l.Attrs().HardwareAddr)
	err = ns.Run(func() (err error) {
		s.fd, err = packetSocket(l.Attrs().Index)
		return err
	})
	if err != nil {
		t.Fatalf("open packet socket on %s: %v", name, err)
	}
	t.Cleanup(func() { unix.Close(s.fd) })
	return s
}

func packetSocket(ifindex int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	all := uint16(unix.ETH_P_ALL)
	all = all<<8 | all>>8
	member := &unix.PacketMreq{Ifindex: int32(ifindex), Type: unix.PACKET_MR_PROMISC}
	for _, set := range []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20) },
		func() error {
			return unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, member)
		},
		func() error { return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}) },
	} {
		if err := set(); err != nil {
			unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

// running waits until the kernel has noticed that the station's link has carrier: until
// then it drops what is sent (linkwatch_do_dev in net/core/link_watch.c), however long ago
// the other end came up.
func (s *station) running(t testing.TB) {
	t.Helper()
	nettest.Eventually(t, 30*time.Second, s.name+" is connected", func() bool {
		ns, err := s.open()
		if err != nil {
			return false
		}
		defer ns.Close()
		l, err := ns.Link(s.dev)
		return err == nil && l.Attrs().OperState == netlink.OperUp
	})
}

func (s *station) send(t testing.TB, f frame) {
	t.Helper()
	_, err := unix.Write(s.fd, f.bytes())
	for err == unix.ENOBUFS || err == unix.EAGAIN {
		wait([]*station{s}, unix.POLLOUT, time.Millisecond)
		_, err = unix.Write(s.fd, f.bytes())
	}
	if err != nil {
		t.Fatalf("send from %s: %v", s.name, err)
	}
}

// receive is the next frame as it was on the wire; nil when there is none now.
func (s *station) receive(t testing.TB) []byte {
	t.Helper()
	oob := make([]byte, 256)
	n, noob, _, from, err := unix.Recvmsg(s.fd, s.buf, oob, 0)
	if err == unix.EAGAIN || err == unix.ENETDOWN {
		return nil
	}
	if err != nil {
		t.Fatalf("receive at %s: %v", s.name, err)
	}
	if at, ok := from.(*unix.SockaddrLinklayer); ok {
		s.kind = at.Pkttype
	}
	return withTag(bytes.Clone(s.buf[:n]), oob[:noob])
}

// withTag puts back the tag that the kernel keeps beside the frame (struct
// tpacket_auxdata of linux/if_packet.h).
func withTag(b, oob []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(b) < 12 {
		return b
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		kind := uint16(cTag)
		if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
			kind = binary.NativeEndian.Uint16(m.Data[18:])
		}
		tagged := append([]byte(nil), b[:12]...)
		tagged = binary.BigEndian.AppendUint16(tagged, kind)
		tagged = binary.BigEndian.AppendUint16(tagged, binary.NativeEndian.Uint16(m.Data[16:]))
		return append(tagged, b[12:]...)
	}
	return b
}

// wait waits until one of the stations is ready or the limit is over.
func wait(list []*station, events int16, limit time.Duration) bool {
	fds := make([]unix.PollFd, len(list))
	for i, s := range list {
		fds[i] = unix.PollFd{Fd: int32(s.fd), Events: events}
	}
	for {
		n, err := unix.Poll(fds, int(limit.Milliseconds()))
		if err != unix.EINTR {
			return n > 0
		}
	}
}
