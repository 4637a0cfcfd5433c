package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
)

// Probe tells whether this kernel's bridge can be a switch, by letting it be one
// in a namespace that lives as long as the call: a frame has to reach its own
// VLAN and must not reach another, and an access port must not take a tag. A
// kernel may accept every command and do none of it. A nil error means that it can.
func Probe(ctx context.Context) error {
	err := link.Scratch(func() (err error) {
		host, err := link.Open()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, host.Close()) }()
		return New(host, "probe").tryForwarding(ctx)
	})
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("dataplane bridge: %w: run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN", err)
	}
	if err != nil {
		return fmt.Errorf("dataplane bridge: %w: it needs CONFIG_BRIDGE_VLAN_FILTERING, 8021q, cls_flower and act_gact", err)
	}
	return nil
}

func (d *Driver) tryForwarding(ctx context.Context) (err error) {
	if err := d.makeSwitch("probe"); err != nil {
		return err
	}
	br, err := d.bridge("probe")
	if err != nil {
		return err
	}
	gateway := vswitch.AddGateway{Switch: "probe", Name: "gateway", Gateway: vswitch.Gateway{VLAN: 10}}
	if err := d.makeGateway(gateway); err != nil {
		return err
	}
	var stations []int
	defer func() {
		for _, s := range stations {
			err = errors.Join(err, unix.Close(s))
		}
	}()
	for i, vid := range []uint16{10, 10, 20} {
		s, err := d.probePort(br, fmt.Sprintf("p%d", i), vid)
		if err != nil {
			return fmt.Errorf("make port: %w", err)
		}
		stations = append(stations, s)
	}
	return exchange(ctx, stations)
}

// probePort makes a port and gives a socket of the station behind it.
func (d *Driver) probePort(br netlink.Link, name string, vid uint16) (int, error) {
	if err := d.host.AddVeth(link.Veth{Name: name, FarName: "s" + name}); err != nil {
		return 0, err
	}
	near, err := d.host.Link(name)
	if err != nil {
		return 0, err
	}
	far, err := d.host.Link("s" + name)
	if err != nil {
		return 0, err
	}
	if err := errors.Join(d.join(br, near, vswitch.Port{PVID: vid}), d.host.SetUp(far, true)); err != nil {
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

// experimental is IEEE 802's EtherType for local experiments.
const experimental = 0x88b5

// exchange sends frames from the first station: one with the tag of its own
// VLAN, which goes nowhere, and two without, which the second station gets.
// When it has them, whatever the first caused is done, too.
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
		n, err := unix.Read(stations[1], buf)
		if err != nil {
			return fmt.Errorf("a frame does not reach its VLAN: %w", err)
		}
		if !bytes.Equal(buf[:n], frame) {
			return fmt.Errorf("another frame than was sent reaches the VLAN: %x became %x", frame, buf[:n])
		}
	}
	n, _, err := unix.Recvfrom(stations[2], buf, unix.MSG_DONTWAIT)
	if !errors.Is(err, unix.EAGAIN) {
		return fmt.Errorf("a frame of %d bytes reaches another VLAN: %v", n, err)
	}
	return nil
}
