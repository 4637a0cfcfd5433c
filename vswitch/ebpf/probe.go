package ebpf

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch/device"
)

// Probe tells whether this kernel can forward with this dataplane, by letting
// it forward in a namespace that lives as long as the call (see device.Trial). A
// nil error means that it can.
func Probe(ctx context.Context) error {
	err := link.Scratch(func() error { return tryForwarding(ctx) })
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("dataplane ebpf: %w: run as root, or with CAP_NET_ADMIN, CAP_SYS_ADMIN and CAP_BPF", err)
	}
	if err != nil {
		return fmt.Errorf("dataplane ebpf: %w: it needs Linux 5.17 or newer with BPF, clsact and veth", err)
	}
	return nil
}

func tryForwarding(ctx context.Context) (err error) {
	host, err := link.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	spec, err := loadPlane()
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	p, err := newPlane(spec, planeProgRipstopSwitch, "probe")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.close()) }()
	return device.Trial(ctx, host, func(near netlink.Link, vid uint16) error {
		slot, err := p.put(member{ifindex: near.Attrs().Index, mtu: near.Attrs().MTU, pvid: vid})
		if err != nil {
			return err
		}
		if err := attach(host, near.Attrs().Index, p.prog, slot); err != nil {
			return err
		}
		return errors.Join(host.SetUp(near, true), p.commit())
	})
}
