package device

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
)

// experimental is IEEE 802's EtherType for local experiments.
const experimental = 0x88b5

// Trial tells whether a dataplane really forwards: a kernel may accept every
// command and do none of it. It makes four veth pairs in the namespace of host,
// which is to be one of a trial's own, has join make one end of each an access
// port of a VLAN that is up, and sends frames. A nil error means that they
// reached all of their own VLAN and no other, and that a tag was not let in.
func Trial(ctx context.Context, host *link.Space, join func(near netlink.Link, vid uint16) error) (err error) {
	var stations []int // sockets at the far ends
	defer func() {
		for _, s := range stations {
			err = errors.Join(err, unix.Close(s))
		}
	}()
	for i, vid := range []uint16{10, 10, 10, 20} {
		s, err := trialPort(host, fmt.Sprintf("p%d", i), func(near netlink.Link) error { return join(near, vid) })
		if err != nil {
			return fmt.Errorf("make port: %w", err)
		}
		stations = append(stations, s)
	}
	return exchange(ctx, stations)
}

// trialPort makes a port and gives a socket of the station behind it.
func trialPort(host *link.Space, name string, join func(near netlink.Link) error) (int, error) {
	if err := host.AddVeth(link.Veth{Name: name, FarName: "s" + name}); err != nil {
		return 0, err
	}
	near, err := host.Link(name)
	if err != nil {
		return 0, err
	}
	far, err := host.Link("s" + name)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(join(near), host.SetUp(far, true)); err != nil {
		return 0, err
	}
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open packet socket: %w", err)
	}
	err = unix.Bind(s, &unix.SockaddrLinklayer{Protocol: experimental<<8&0xff00 | experimental>>8, Ifindex: far.Attrs().Index})
	if err == nil {
		err = unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2})
	}
	if err != nil {
		return 0, errors.Join(err, unix.Close(s))
	}
	return s, nil
}

// exchange sends frames from the first station: one with the tag of its own
// VLAN, which goes nowhere, and two without. All have these but the last, which
// has nothing when whatever the first frames caused is done.
func exchange(ctx context.Context, stations []int) error {
	head := append(bytes.Repeat([]byte{0xff}, 6), 2, 0, 0, 0, 0, 1)
	tagged := append(bytes.Clone(head), 0x81, 0, 0, 10, experimental>>8, experimental&0xff, 9)
	if _, err := unix.Write(stations[0], append(tagged, make([]byte, 45)...)); err != nil {
		return fmt.Errorf("send tagged frame: %w", err)
	}
	buf := make([]byte, 128)
	for i := range byte(2) {
		if err := ctx.Err(); err != nil {
			return err
		}
		frame := append(bytes.Clone(head), experimental>>8, experimental&0xff, i)
		frame = append(frame, make([]byte, 45)...)
		if _, err := unix.Write(stations[0], frame); err != nil {
			return fmt.Errorf("send frame: %w", err)
		}
		for _, s := range stations[1 : len(stations)-1] {
			n, err := unix.Read(s, buf)
			if err != nil {
				return fmt.Errorf("a frame does not reach its VLAN: %w", err)
			}
			if !bytes.Equal(buf[:n], frame) {
				return fmt.Errorf("another frame than was sent reaches the VLAN: %x became %x", frame, buf[:n])
			}
		}
	}
	n, _, err := unix.Recvfrom(stations[len(stations)-1], buf, unix.MSG_DONTWAIT)
	if !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("a frame of %d bytes reaches another VLAN: %v", n, err)
	}
	return nil
}
