package ebpf

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"ripstop/internal/link"
	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// Driver is the dataplane: a vswitch.Driver and a vswitch.Inspector. It is safe
// for concurrent use.
type Driver struct {
	log     *slog.Logger
	program string // that its switches run
	spec    *ebpf.CollectionSpec
	host    *link.Space
	devices *device.Devices

	mu      sync.Mutex
	planes  map[string]*plane
	changes uint64          // that steps and ageing made to stations
	orphans map[string]bool // switches of which there are devices, but no program
}

// New is the dataplane of the network namespace in which the process runs. It
// changes nothing: switches of a process before this one are found by Observe.
// Identity is the host's, as device.New wants it.
func New(log *slog.Logger, identity string) (*Driver, error) {
	return open(log, planeProgRipstopSwitch, identity)
}

func open(log *slog.Logger, program, identity string) (*Driver, error) {
	spec, err := loadPlane()
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	host, err := link.Open()
	if err != nil {
		return nil, err
	}
	return &Driver{
		log: log, program: program, spec: spec, host: host, devices: device.New(host, identity),
		planes: map[string]*plane{}, orphans: map[string]bool{},
	}, nil
}

// Close lets go of everything. The switches that have a port forward on.
func (d *Driver) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, p := range d.planes {
		errs = append(errs, p.close())
	}
	clear(d.planes)
	return errors.Join(append(errs, d.host.Close())...)
}

// Do carries out one step. Receivers of floods learn of new members with Commit;
// who leaves a VLAN gets nothing more of it at once.
func (d *Driver) Do(_ context.Context, step vswitch.Step) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.changes++
	switch s := step.(type) {
	case vswitch.AddSwitch:
		return d.addSwitch(s.Name)
	case vswitch.DelSwitch:
		return d.delSwitch(s.Name)
	case vswitch.AddPort:
		return d.addPort(s.Switch, s.Name, s.Port)
	case vswitch.SetPort:
		return d.setPort(s.Switch, s.Name, s.To)
	case vswitch.DelPort:
		return d.delPort(s)
	case vswitch.AddGateway:
		return d.setGateway(s.Switch, s.Name, s.Gateway)
	case vswitch.SetGateway:
		return d.setGateway(s.Switch, s.Name, s.To)
	case vswitch.DelGateway:
		return d.delGateway(s.Switch, s.Name)
	case vswitch.Refuse:
		return s.Err()
	}
	return fmt.Errorf("step %T is unknown to dataplane ebpf", step)
}

// Commit writes the flood lists of the VLANs that changed, clears up after
// devices that vanished, and puts a newer program in the place of that of a
// process before this one.
func (d *Driver) Commit(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(d.planes)) {
		if err := d.commit(d.planes[name]); err != nil {
			errs = append(errs, fmt.Errorf("switch %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func (d *Driver) commit(p *plane) error {
	if err := p.inherit(d.spec); err != nil {
		return err
	}
	for _, ifindex := range p.vanished {
		if err := p.clear(ifindex); err != nil {
			return err
		}
	}
	p.vanished = nil
	if err := p.commit(); err != nil {
		return err
	}
	return errors.Join(d.renew(p), d.renewGroups(p), d.renewMeters(p))
}

// renew makes all filters of a switch run this package's program. Each is
// replaced in one step, so that no frame is lost: over the same maps, or from
// maps of another layout to their copy. Ports of both programs reach each other
// meanwhile, for a frame leaves through a device whatever runs at its ingress.
func (d *Driver) renew(p *plane) error {
	if !p.checked {
		if _, err := p.upgrade(d.spec); err != nil {
			return err
		}
		p.checked = true
	}
	id, err := p.id()
	if err != nil {
		return err
	}
	changed := 0
	for ifindex, have := range p.hooks {
		if have == id {
			continue
		}
		if err := d.attach(p, int(ifindex), p.slots[ifindex]); err != nil {
			return err
		}
		changed++
	}
	if changed > 0 {
		d.log.Info("program replaced", "switch", p.name, "ports", changed)
	}
	return nil
}

func (d *Driver) addSwitch(name string) error {
	if d.planes[name] != nil {
		return nil
	}
	p, err := newPlane(d.spec, d.program, name)
	if err != nil {
		return fmt.Errorf("switch %q: %w", name, err)
	}
	d.planes[name] = p
	return nil
}

// delSwitch removes the devices of a switch, and with the last of them the
// kernel removes the program and the maps.
func (d *Driver) delSwitch(name string) error {
	if err := d.unhook(name, ""); err != nil {
		return fmt.Errorf("switch %q: %w", name, err)
	}
	if err := d.devices.DeleteSwitch(name); err != nil {
		return fmt.Errorf("switch %q: %w", name, err)
	}
	p := d.planes[name]
	delete(d.planes, name)
	delete(d.orphans, name)
	if p == nil {
		return nil
	}
	return p.close()
}

// plane is the switch of that name. One that has devices, but lost its program,
// gets a new one.
func (d *Driver) plane(name string) (*plane, error) {
	if p := d.planes[name]; p != nil {
		return p, nil
	}
	if !d.orphans[name] {
		return nil, &vswitch.NoSwitchError{Name: name}
	}
	if err := d.addSwitch(name); err != nil {
		return nil, err
	}
	delete(d.orphans, name)
	return d.planes[name], nil
}

// join makes a device a member of the switch.
func (d *Driver) join(p *plane, l netlink.Link, at place, m member) error {
	m.ifindex = l.Attrs().Index
	if slot, ok := p.slots[uint32(m.ifindex)]; ok {
		if err := d.prepareGroups(p, m.ifindex, slot, m.pvid, m.filters); err != nil {
			return err
		}
	}
	slot, err := p.put(m)
	if err != nil {
		return err
	}
	p.places[uint32(m.ifindex)] = at
	if err := d.prepareGroups(p, m.ifindex, slot, m.pvid, m.filters); err != nil {
		return err
	}
	if err := d.settleMeters(p, m.ifindex, slot, m.limit); err != nil {
		return err
	}
	if err := d.attach(p, m.ifindex, slot); err != nil {
		return err
	}
	return d.settleGroups(p, m.ifindex, slot, m.filters)
}

func (d *Driver) attach(p *plane, ifindex int, slot uint32) error {
	if err := attach(d.host, ifindex, p.prog, slot); err != nil {
		return err
	}
	id, err := p.id()
	p.hooks[uint32(ifindex)] = id
	return err
}

// leave forgets the device of a port or gateway.
func (p *plane) leave(at place) error {
	for ifindex, other := range p.places {
		if other == at {
			return p.clear(ifindex)
		}
	}
	return nil
}
