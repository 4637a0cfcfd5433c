package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// Probe tells whether this kernel's bridge can be a switch, by letting it be one
// in a namespace that lives as long as the call (see device.Trial), with a guard
// of that namespace. A nil error means that it can.
func Probe(ctx context.Context, newGuard func() (Guard, error)) error {
	err := link.Scratch(func() (err error) {
		host, err := link.Open()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, host.Close()) }()
		guard, err := newGuard()
		if err != nil {
			return err
		}
		if c, ok := guard.(io.Closer); ok {
			defer func() { err = errors.Join(err, c.Close()) }()
		}
		return New(host, "probe", guard).tryForwarding(ctx)
	})
	if errors.Is(err, unix.EPERM) {
		return fmt.Errorf("dataplane bridge: %w: run as root, or with CAP_NET_ADMIN and CAP_SYS_ADMIN", err)
	}
	if err != nil {
		return fmt.Errorf("dataplane bridge: %w: it needs Linux 5.13 or newer with CONFIG_BRIDGE_VLAN_FILTERING, 8021q, and BPF on clsact", err)
	}
	return nil
}

func (d *Driver) tryForwarding(ctx context.Context) error {
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
	return device.Trial(ctx, d.host, func(near netlink.Link, vid uint16) error {
		return d.join(br, near, near.Attrs().Name, vswitch.Port{}, vswitch.Port{PVID: vid})
	})
}
