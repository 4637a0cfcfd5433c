package capture

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrGone says that the interface was removed while frames were awaited.
var ErrGone = errors.New("the interface went away")

// snapLength is the most bytes of a frame: what a device hands on at once may be
// that of many frames on a wire.
const snapLength = 256 << 10

// memory is how much waits in the kernel until it is read.
const memory = 32 << 20

// Socket sees the frames of one interface. It changes nothing of the interface.
type Socket struct {
	fd      int
	seen    Stats
	buf     []byte
	control []byte
	far     bool // the interface is the far end: what it receives was sent to the port
}

// Stats is how many frames a Socket saw, and how many of them it lost because
// nobody read them in time.
type Stats struct{ Received, Dropped uint64 }

// Open opens a socket on an interface of the calling thread's network namespace.
// Far is for the other end of a port's cable.
func Open(ifindex int, far bool) (*Socket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open packet socket: %w", err)
	}
	for _, set := range []func() error{
		func() error { return unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1) },
		func() error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, memory) },
		func() error {
			return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: bigEndian(unix.ETH_P_ALL), Ifindex: ifindex})
		},
	} {
		if err := set(); err != nil {
			return nil, errors.Join(fmt.Errorf("set packet socket: %w", err), unix.Close(fd))
		}
	}
	return &Socket{fd: fd, buf: make([]byte, snapLength), control: make([]byte, 256), far: far}, nil
}

func bigEndian(v uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, v))
}

// Close ends it.
func (s *Socket) Close() error { return unix.Close(s.fd) }

// Next is the next frame, whose bytes are good until the call after this one. Idle
// is called before the call waits. The error is the context's when it ends, and
// ErrGone when the interface does.
func (s *Socket) Next(ctx context.Context, idle func() error) (Frame, error) {
	for {
		f, err := s.receive()
		if !errors.Is(err, unix.EAGAIN) {
			return f, err
		}
		if err := idle(); err != nil {
			return Frame{}, err
		}
		if err := s.wait(ctx); err != nil {
			return Frame{}, err
		}
	}
}

// wait returns when there may be a frame, or the context has ended.
func (s *Socket) wait(ctx context.Context) (err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("wait for frames: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { w.Close() })
	defer func() {
		if stop() {
			err = errors.Join(err, w.Close())
		}
		err = errors.Join(err, r.Close())
	}()
	fds := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}, {Fd: int32(r.Fd())}}
	for {
		_, err := unix.Poll(fds, -1)
		if err == nil {
			return ctx.Err()
		}
		if err != unix.EINTR {
			return fmt.Errorf("wait for frames: %w", err)
		}
	}
}

func (s *Socket) receive() (Frame, error) {
	n, nc, _, from, err := unix.Recvmsg(s.fd, s.buf, s.control, unix.MSG_TRUNC)
	if err == unix.ENETDOWN {
		return Frame{}, s.down()
	}
	if err != nil {
		return Frame{}, err
	}
	f := Frame{Time: time.Now(), Length: n, Bytes: s.buf[:min(n, len(s.buf))]}
	if a, ok := from.(*unix.SockaddrLinklayer); ok {
		f.Out = (a.Pkttype == unix.PACKET_OUTGOING) != s.far
	}
	messages, err := unix.ParseSocketControlMessage(s.control[:nc])
	if err != nil {
		return Frame{}, fmt.Errorf("read what the kernel says of a frame: %w", err)
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16:
			f.Time = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA:
			f = withTag(f, m.Data)
		}
	}
	return f, nil
}

// down tells an interface that was brought down from one that is gone.
func (s *Socket) down() error {
	a, err := unix.Getsockname(s.fd)
	if ll, ok := a.(*unix.SockaddrLinklayer); err == nil && ok && ll.Ifindex > 0 {
		return unix.EAGAIN // it may come up again
	}
	return ErrGone
}

// withTag puts back the tag that the kernel keeps beside a frame (struct
// tpacket_auxdata of linux/if_packet.h).
func withTag(f Frame, aux []byte) Frame {
	const addresses = 12
	if len(aux) < 20 || len(f.Bytes) < addresses {
		return f
	}
	status := binary.NativeEndian.Uint32(aux)
	if status&unix.TP_STATUS_VLAN_VALID == 0 {
		return f
	}
	kind := uint16(unix.ETH_P_8021Q)
	if status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
		kind = binary.NativeEndian.Uint16(aux[18:])
	}
	b := append(make([]byte, 0, len(f.Bytes)+4), f.Bytes[:addresses]...)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, binary.NativeEndian.Uint16(aux[16:]))
	f.Bytes, f.Length = append(b, f.Bytes[addresses:]...), f.Length+4
	return f
}

// Stats is of all frames since the Socket was opened.
func (s *Socket) Stats() (Stats, error) {
	st, err := unix.GetsockoptTpacketStats(s.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS) // since the last call
	if err != nil {
		return s.seen, fmt.Errorf("read the packet socket's counters: %w", err)
	}
	s.seen.Received += uint64(st.Packets)
	s.seen.Dropped += uint64(st.Drops)
	return s.seen, nil
}
