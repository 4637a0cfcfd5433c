package ebpf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"ripstop/vswitch"
)

// What marks the filters of groups at a device: at ingress before the switch or
// the guard, at egress alone.
const (
	fromPriority = filterPriority - 1
	fromName     = "ripstop-from"
	toName       = "ripstop-to"
)

// groupHooks is the filters of groups at a device, as they were seen.
type groupHooks struct {
	from, to hook
}

// placeOf is the place of a filter of groups at a device.
func placeOf(ifindex int, egress bool) netlink.FilterAttrs {
	a := filterOf(ifindex)
	if a.Priority = fromPriority; egress {
		a.Priority, a.Parent = filterPriority, netlink.HANDLE_MIN_EGRESS
	}
	return a
}

// findGroupHooks looks for them. Ingress comes from the same look as the switch's
// own; without one there, there is none at egress.
func (d *Driver) findGroupHooks(ifindex int, ingress []netlink.Filter) (groupHooks, error) {
	var g groupHooks
	if g.from = hookAt(ingress, fromPriority, fromName); g.from.program == 0 {
		return g, nil
	}
	egress, err := d.host.FiltersOut(ifindex)
	g.to = hookAt(egress, filterPriority, toName)
	return g, err
}

func hookAt(all []netlink.Filter, priority uint16, name string) hook {
	for _, f := range all {
		a := f.Attrs()
		if b, ok := f.(*netlink.BpfFilter); ok && a.Priority == priority && a.Handle == filterHandle && b.Name == name {
			return hook{program: ebpf.ProgramID(b.Id), slot: b.ClassId}
		}
	}
	return hook{}
}

// attachGroups has a device run both programs.
func (d *Driver) attachGroups(g *groupFilter, ifindex int, slot uint32) error {
	if _, err := d.host.AddClsact(ifindex); err != nil {
		return err
	}
	for _, h := range []struct {
		egress bool
		prog   *ebpf.Program
		name   string
	}{{false, g.from, fromName}, {true, g.to, toName}} {
		err := d.host.FilterReplace(&netlink.BpfFilter{
			FilterAttrs: placeOf(ifindex, h.egress), ClassId: slot, Fd: h.prog.FD(), Name: h.name, DirectAction: true,
		})
		if err != nil {
			return fmt.Errorf("add filter %s: %w", h.name, err)
		}
	}
	return nil
}

// detachGroups takes both away, where they are.
func (d *Driver) detachGroups(ifindex int) error {
	ingress, err := d.host.Filters(ifindex)
	if err != nil {
		return err
	}
	h, err := d.findGroupHooks(ifindex, ingress)
	if err != nil {
		return err
	}
	for _, at := range []struct {
		there  bool
		egress bool
	}{{h.to.program != 0, true}, {h.from.program != 0, false}} {
		if !at.there {
			continue
		}
		if err := d.host.FilterDel(&netlink.BpfFilter{FilterAttrs: placeOf(ifindex, at.egress)}); err != nil && !isGone(err) {
			return fmt.Errorf("remove filter: %w", err)
		}
	}
	return nil
}

func isGone(err error) bool { return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) }

// adoptGroups finds the filter of a switch's groups by its devices.
func (d *Driver) adoptGroups(p *plane, hooks map[uint32]groupHooks) error {
	if p.groups != nil {
		return p.groups.read()
	}
	for _, ifindex := range slices.Sorted(maps.Keys(hooks)) {
		if hooks[ifindex].from.program == 0 {
			continue
		}
		g, err := openGroupFilter(d.log, hooks[ifindex].from.program, p.maps)
		if errors.Is(err, errForeign) || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if g.name != p.name {
			if err := g.close(); err != nil {
				return err
			}
			continue
		}
		p.groups = g
		return nil
	}
	return nil
}

// filtersOf is the policies that a port follows, and whether its filters are
// whole: both or none.
func (p *plane) filtersOf(slot, ifindex uint32, h groupHooks) (map[uint16]*vswitch.Policy, bool) {
	if p.groups == nil {
		return nil, h == groupHooks{}
	}
	port, ok := p.groups.ports[slot]
	if !ok {
		return nil, h == groupHooks{}
	}
	whole := port.Ifindex == ifindex && port.Pvid == p.ports[slot].Pvid && port.Closed == 0 &&
		h.from.slot == slot && h.to.slot == slot && p.groupPrograms[h.from.program] && p.groupPrograms[h.to.program]
	return p.groups.of(slot), whole
}

// observeGroups reads what the kernel has of a switch's groups.
func (d *Driver) observeGroups(p *plane, hooks map[uint32]groupHooks) error {
	if err := d.adoptGroups(p, hooks); err != nil {
		return err
	}
	return p.readGroupPrograms(hooks)
}

// readGroupPrograms notes which programs work on the maps of the switch's groups.
func (p *plane) readGroupPrograms(hooks map[uint32]groupHooks) error {
	p.groupHooks, p.groupPrograms = hooks, map[ebpf.ProgramID]bool{}
	if p.groups == nil {
		return nil
	}
	for _, h := range hooks {
		for id, name := range map[ebpf.ProgramID]string{h.from.program: filterProgRipstopFrom, h.to.program: filterProgRipstopTo} {
			if _, known := p.groupPrograms[id]; known || id == 0 {
				continue
			}
			same, err := worksOn(id, name, p.groups.maps.Connections)
			if err != nil {
				return err
			}
			p.groupPrograms[id] = same
		}
	}
	return nil
}

// prepareGroups has a device's slot follow what a port's groups say. It is called
// before the slot becomes a member of new VLANs, where it is known by then.
func (d *Driver) prepareGroups(p *plane, ifindex int, slot uint32, pvid uint16, filters map[uint16]*vswitch.Policy) error {
	if len(filters) == 0 {
		return nil
	}
	if p.groups == nil {
		g, err := newGroupFilter(d.log, p.name, p.maps)
		if err != nil {
			return err
		}
		p.groups = g
	}
	err := p.groups.prepare(slot, filterFilterPort{Ifindex: uint32(ifindex), Pvid: pvid}, filters)
	if err = errors.Join(err, p.regrouped(slot)); err != nil {
		return err
	}
	return d.attachGroups(p.groups, ifindex, slot)
}

// settleGroups ends what prepareGroups began.
func (d *Driver) settleGroups(p *plane, ifindex int, slot uint32, filters map[uint16]*vswitch.Policy) error {
	if len(filters) > 0 {
		return errors.Join(p.groups.settle(slot, filters), p.regrouped(slot))
	}
	if _, had := p.groupHooks[uint32(ifindex)]; !had && (p.groups == nil || p.groups.ports[slot].Ifindex == 0) {
		return nil
	}
	if err := d.detachGroups(ifindex); err != nil || p.groups == nil {
		return err
	}
	return errors.Join(p.groups.clear(slot), p.regroup(slot, false))
}

// regrouped gives a slot another number when its groups have changed.
func (p *plane) regrouped(slot uint32) error {
	if !p.groups.changed[slot] {
		return nil
	}
	if err := p.regroup(slot, true); err != nil {
		return err
	}
	delete(p.groups.changed, slot)
	return nil
}

// renewGroups makes all devices run this package's programs, over the same maps
// and for the ports as the switch has them now.
func (d *Driver) renewGroups(p *plane) error {
	if p.groups == nil {
		return nil
	}
	if err := p.groups.sweep(); err != nil {
		return err
	}
	if p.groups.over != p.maps.Ports {
		if err := p.groups.reload(p.maps); err != nil {
			return err
		}
	}
	if p.groups.checked {
		return nil
	}
	tags := map[string]bool{}
	for _, prog := range []*ebpf.Program{p.groups.from, p.groups.to} {
		info, err := prog.Info()
		if err != nil {
			return err
		}
		tags[info.Tag] = true
	}
	for slot, port := range p.groups.ports {
		same, err := d.runs(p.groupHooks[port.Ifindex], tags, p.maps.Ports)
		if err != nil {
			return err
		}
		if same {
			continue
		}
		if err := d.attachGroups(p.groups, int(port.Ifindex), slot); err != nil {
			return err
		}
	}
	p.groups.checked = true
	return nil
}

// runs tells whether a device's programs are of these kinds, for these ports.
func (d *Driver) runs(h groupHooks, tags map[string]bool, ports *ebpf.Map) (bool, error) {
	if same, err := worksOn(h.from.program, filterProgRipstopFrom, ports); err != nil || !same {
		return false, err
	}
	for _, id := range []ebpf.ProgramID{h.from.program, h.to.program} {
		prog, err := ebpf.NewProgramFromID(id)
		if errors.Is(err, fs.ErrNotExist) || id == 0 {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		info, err := prog.Info()
		if err = errors.Join(err, prog.Close()); err != nil {
			return false, err
		}
		if !tags[info.Tag] {
			return false, nil
		}
	}
	return true, nil
}
