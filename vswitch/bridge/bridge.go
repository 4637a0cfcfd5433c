// Package bridge is the dataplane that the kernel has: one VLAN-aware bridge per
// switch, named like it.
//
//	web ─ pvid 10 untagged ─┐
//	                        lab (bridge, vlan_filtering 1) ─ lab self vid 10 ─ blue (vlan device)
//	up ── vid 10,30 tagged ─┘
//
// The bridge alone is not enough: it takes a tagged frame from an access port
// when the tag names the port's own VLAN, forwards bridge protocol data units
// while it does not speak STP, believes every source address, and counts no
// reasons. A Guard at the ingress of each port decides what the bridge gets.
//
// # Caveats
//
// It keeps no state: what it made is in the kernel and forwards without it.
//
// A frame with two 802.1Q tags is dropped at every port, also at trunks: the
// bridge would take the outer one off towards an untagged member, whose neighbor
// would believe the inner. 802.1ad tags, outside or inside, pass as content,
// but priority tags (see vswitch/ebpf).
package bridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// bridgeMTU keeps the bridge's own MTU from following its smallest port; ports
// and gateways have their own.
const bridgeMTU = 65535

// Driver is the bridges of one host. It is safe for concurrent use; steps of one
// object are to come one after the other.
type Driver struct {
	host    *link.Space
	devices *device.Devices
	guard   Guard
	fdb     fdb
	settled atomic.Bool // the ports' states are those of DetectLoops, not of a process before
}

// New is a Driver for the namespace in which the process runs, which is where
// host must be open; host stays the caller's. Identity is the host's, as
// device.New wants it; guard is of the same namespace and stays the caller's.
func New(host *link.Space, identity string, guard Guard) *Driver {
	return &Driver{host: host, devices: device.New(host, identity), guard: guard}
}

// Do carries out one step.
func (d *Driver) Do(ctx context.Context, step vswitch.Step) error {
	switch s := step.(type) {
	case vswitch.AddSwitch:
		return d.addSwitch(s.Name)
	case vswitch.DelSwitch:
		return d.delSwitch(ctx, s.Name)
	case vswitch.AddPort:
		return d.addPort(s)
	case vswitch.SetPort:
		return d.setPort(s)
	case vswitch.DelPort:
		return d.delPort(s)
	case vswitch.AddGateway:
		return d.addGateway(s)
	case vswitch.SetGateway:
		return d.setGateway(s)
	case vswitch.DelGateway:
		return d.delGateway(s)
	case vswitch.Refuse:
		return s.Err()
	}
	return fmt.Errorf("step %T is unknown to the bridge dataplane", step)
}

// Commit is the guard's, and removes what a crash left of namespaces, the first
// time; the bridge has nothing that is written once.
func (d *Driver) Commit(ctx context.Context) error {
	return errors.Join(d.guard.Commit(ctx), d.devices.Sweep())
}

func (d *Driver) addSwitch(name string) error {
	l, err := d.host.Link(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return d.makeSwitch(name)
	case err != nil:
		return fmt.Errorf("switch %q: %w", name, err)
	case isSwitch(l, name):
		return d.repair(l)
	case link.HalfMade(l, name):
		if err := d.host.Delete(l); err != nil {
			return fmt.Errorf("switch %q: %w", name, err)
		}
		return d.makeSwitch(name)
	}
	return fmt.Errorf("switch %q: %w", name, device.Foreign(l))
}

func isSwitch(l netlink.Link, name string) bool {
	return l.Type() == "bridge" && l.Attrs().Name == name && l.Attrs().Alias == link.Alias{Switch: name}.String()
}

func (d *Driver) makeSwitch(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = name, link.Group(name)
	// A bridge with an address of its own keeps it when ports come and go, and so
	// do the gateways on it.
	attrs.HardwareAddr = d.devices.MAC("switch", name, "")
	on, off, none := true, false, uint16(0)
	br := &netlink.Bridge{LinkAttrs: attrs, VlanFiltering: &on, VlanDefaultPVID: &none, MulticastSnooping: &off}
	err := d.host.LinkAdd(br)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("switch %q: this kernel's bridge has no VLAN filtering: use `dataplane: ebpf`, or a kernel with CONFIG_BRIDGE_VLAN_FILTERING", name)
	}
	if err != nil {
		return fmt.Errorf("switch %q: make bridge: %w", name, err)
	}
	l, err := d.host.Link(name)
	if err != nil {
		return fmt.Errorf("switch %q: %w", name, err)
	}
	return d.repair(l)
}

// repair brings a bridge to what every switch is. The alias comes last.
func (d *Driver) repair(l netlink.Link) error {
	name := l.Attrs().Name
	if br, ok := l.(*netlink.Bridge); ok && (br.VlanFiltering == nil || !*br.VlanFiltering) {
		if err := d.filter(name); err != nil {
			return fmt.Errorf("switch %q: filter by VLAN: %w", name, err)
		}
	}
	err := link.DisableIPv6(name)
	if err == nil {
		err = d.host.SetMTU(l, bridgeMTU)
	}
	if err == nil {
		err = d.host.SetUp(l, true)
	}
	if err == nil {
		err = d.host.SetAlias(l, link.Alias{Switch: name})
	}
	if err != nil {
		return fmt.Errorf("switch %q: %w", name, err)
	}
	return nil
}

// filter turns VLAN filtering on, and says nothing of what else the bridge is:
// its address, for one, the kernel does not take while it is up.
func (d *Driver) filter(name string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	on := true
	return d.host.LinkModify(&netlink.Bridge{LinkAttrs: attrs, VlanFiltering: &on})
}

// bridge is the bridge of a switch that a step names.
func (d *Driver) bridge(name string) (netlink.Link, error) {
	l, err := d.host.Link(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &vswitch.NoSwitchError{Name: name}
	}
	if err != nil {
		return nil, fmt.Errorf("switch %q: %w", name, err)
	}
	if !isSwitch(l, name) {
		return nil, fmt.Errorf("switch %q: %w", name, device.Foreign(l))
	}
	return l, nil
}
