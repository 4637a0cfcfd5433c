package ebpf

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"ripstop/vswitch"
)

// What marks the meters of a limited port at its device: before everything else
// that the port sends, and after the filters of groups of what it receives. They
// work on the switch's own maps.
const (
	sendPriority    = fromPriority - 1
	receivePriority = filterPriority + 1
	sendName        = "ripstop-send"
	receiveName     = "ripstop-receive"
)

// meterHooks is the meters at a device, as they were seen.
type meterHooks struct {
	send, receive hook
}

// meter is one of the two at a device.
type meter struct {
	at      netlink.FilterAttrs
	name    string
	program string
}

func metersOf(ifindex int) [2]meter {
	send, receive := filterOf(ifindex), filterOf(ifindex)
	send.Priority = sendPriority
	receive.Priority, receive.Parent = receivePriority, netlink.HANDLE_MIN_EGRESS
	return [2]meter{{send, sendName, planeProgRipstopSend}, {receive, receiveName, planeProgRipstopReceive}}
}

// findMeters looks for them. Ingress comes from the same look as the switch's own;
// without one there, there is none at egress.
func (d *Driver) findMeters(ifindex int, ingress []netlink.Filter) (meterHooks, error) {
	var m meterHooks
	if m.send = hookAt(ingress, sendPriority, sendName); m.send.program == 0 {
		return m, nil
	}
	egress, err := d.host.FiltersOut(ifindex)
	m.receive = hookAt(egress, receivePriority, receiveName)
	return m, err
}

// encodeLimit is a limit in the words of the maps.
func encodeLimit(port *planePort, l vswitch.Limit) {
	if l.Any() {
		port.Limit, port.Burst = [2]uint64{l.Send, l.Receive}, uint64(l.Time())
	}
}

// limited is a slot's limit.
func (p *plane) limited(slot uint32) vswitch.Limit {
	port := p.ports[slot]
	return vswitch.Limit{Send: port.Limit[0], Receive: port.Limit[1], Burst: time.Duration(port.Burst)}
}

// metered tells whether the meters at a device are those that its slot needs.
func (p *plane) metered(slot, ifindex uint32) bool {
	h := p.meterHooks[ifindex]
	if !p.limited(slot).Any() {
		return h == meterHooks{}
	}
	return h.send.program != 0 && h.receive.program != 0 && h.send.slot == slot && h.receive.slot == slot
}

// loadMeters loads both programs over the switch's maps, once.
func (p *plane) loadMeters(spec *ebpf.CollectionSpec) error {
	if p.meters[0] != nil {
		return nil
	}
	need := p.need(spec)
	need.Programs = map[string]*ebpf.ProgramSpec{}
	for _, m := range metersOf(0) {
		need.Programs[m.program] = spec.Programs[m.program].Copy()
	}
	c, err := ebpf.NewCollectionWithOptions(need, ebpf.CollectionOptions{MapReplacements: p.maps.byName()})
	if err != nil {
		return fmt.Errorf("load the meters of switch %q: %w", p.name, err)
	}
	defer c.Close()
	for i, m := range metersOf(0) {
		p.meters[i] = c.DetachProgram(m.program)
	}
	return nil
}

// settleMeters has a device run the meters that its slot's limit needs, which is
// in the maps by then.
func (d *Driver) settleMeters(p *plane, ifindex int, slot uint32, l vswitch.Limit) error {
	if p.metered(slot, uint32(ifindex)) {
		return nil
	}
	if !l.Any() {
		delete(p.meterHooks, uint32(ifindex))
		return d.detachMeters(ifindex)
	}
	return d.attachMeters(p, ifindex, slot)
}

func (d *Driver) attachMeters(p *plane, ifindex int, slot uint32) error {
	if err := p.loadMeters(d.spec); err != nil {
		return err
	}
	if _, err := d.host.AddClsact(ifindex); err != nil {
		return err
	}
	var ids [2]ebpf.ProgramID
	for i, m := range metersOf(ifindex) {
		err := d.host.FilterReplace(&netlink.BpfFilter{FilterAttrs: m.at, ClassId: slot, Fd: p.meters[i].FD(), Name: m.name, DirectAction: true})
		if err != nil {
			return fmt.Errorf("add filter %s: %w", m.name, err)
		}
		info, err := p.meters[i].Info()
		if err != nil {
			return err
		}
		ids[i], _ = info.ID()
	}
	p.meterHooks[uint32(ifindex)] = meterHooks{hook{program: ids[0], slot: slot}, hook{program: ids[1], slot: slot}}
	return nil
}

// detachMeters takes both away, where they are.
func (d *Driver) detachMeters(ifindex int) error {
	ingress, err := d.host.Filters(ifindex)
	if err != nil {
		return err
	}
	h, err := d.findMeters(ifindex, ingress)
	if err != nil {
		return err
	}
	all := metersOf(ifindex)
	remove := func(m meter, h hook) error {
		if h.program == 0 {
			return nil
		}
		if err := d.host.FilterDel(&netlink.BpfFilter{FilterAttrs: m.at}); err != nil && !isGone(err) {
			return fmt.Errorf("remove filter %s: %w", m.name, err)
		}
		return nil
	}
	// The one at ingress goes last: it tells that there is another.
	if err := remove(all[1], h.receive); err != nil {
		return err
	}
	return remove(all[0], h.send)
}

// renewMeters makes all limited ports run this package's programs over the
// switch's maps, whatever a process before this one had them run.
func (d *Driver) renewMeters(p *plane) error {
	if p.metersChecked {
		return nil
	}
	for ifindex, h := range maps.Clone(p.meterHooks) {
		slot, ok := p.slots[ifindex]
		if !ok || !p.limited(slot).Any() {
			continue
		}
		if err := p.loadMeters(d.spec); err != nil {
			return err
		}
		same := true
		for i, id := range []ebpf.ProgramID{h.send.program, h.receive.program} {
			one, err := p.runsMeter(id, i)
			if err != nil {
				return err
			}
			same = same && one
		}
		if same {
			continue
		}
		if err := d.attachMeters(p, int(ifindex), slot); err != nil {
			return err
		}
	}
	p.metersChecked = true
	return nil
}

// runsMeter tells whether a program is this package's meter over the switch's maps.
func (p *plane) runsMeter(id ebpf.ProgramID, which int) (bool, error) {
	same, err := worksOn(id, metersOf(0)[which].program, p.maps.Ports)
	if err != nil || !same {
		return false, err
	}
	prog, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // gone since it was seen
	}
	if err != nil {
		return false, fmt.Errorf("open program %d: %w", id, err)
	}
	theirs, err := prog.Info()
	if err = errors.Join(err, prog.Close()); err != nil {
		return false, err
	}
	ours, err := p.meters[which].Info()
	return err == nil && ours.Tag == theirs.Tag, err
}
