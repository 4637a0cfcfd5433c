package ebpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
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

// toldEach is how many drops of one port the log has of a second.
const toldEach = 10

// filterReasons is how a reason to drop a frame is called towards people.
var filterReasons = [filterFilterReasonFILTER_REASONS]string{
	filterFilterReasonFILTER_DENIED:    "filtered",
	filterFilterReasonFILTER_NOT_IP:    "filtered-not-ip",
	filterFilterReasonFILTER_FRAGMENT:  "filtered-fragment",
	filterFilterReasonFILTER_MALFORMED: "filtered-malformed",
	filterFilterReasonFILTER_CROWDED:   "filtered-new-connections",
	filterFilterReasonFILTER_CLOSED:    "filtered-closed",
}

// groupFilter is the kernel's side of the groups of one switch's ports: two
// programs over maps of their own, held by the filters on the devices alone.
type groupFilter struct {
	log      *slog.Logger
	name     string
	from, to *ebpf.Program
	maps     filterMaps
	checked  bool      // the programs are this package's newest
	over     *ebpf.Map // the switch's ports, for which they work

	ports    map[uint32]filterFilterPort // by slot, those in use
	bindings map[uint32]filterBinding
	policies map[uint64]*vswitch.Policy // in the kernel; the rules of those that this process wrote
	changed  map[uint32]bool            // slots whose groups are others than their number says
	ends     chan struct{}              // closed when nothing is told any more
	events   *ringbuf.Reader
}

func newGroupFilter(log *slog.Logger, name string, of planeMaps) (*groupFilter, error) {
	g, err := (&groupFilter{log: log, name: name}).load(of)
	if err != nil {
		return nil, err
	}
	g.checked = true
	id := filterFilterIdentity{Layout: filterFilterLayoutFILTER_LAYOUT, Told: toldEach}
	if copy(id.Name[:], name) != len(name) {
		return nil, errors.Join(fmt.Errorf("name is longer than %d bytes", len(id.Name)), g.closeKernel())
	}
	if err := g.maps.FilterSelf.Put(uint32(0), &id); err != nil {
		return nil, errors.Join(fmt.Errorf("write map %q: %w", filterMapFilterSelf, err), g.closeKernel())
	}
	return g, g.listen()
}

// load is the filter with this package's programs, over the same maps, for the
// ports of a switch with these.
func (g *groupFilter) load(of planeMaps) (*groupFilter, error) {
	spec, err := loadFilter()
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	delete(spec.Programs, filterProgRipstopFilter)
	shared := g.byName()
	for name, m := range map[string]*ebpf.Map{filterMapPorts: of.Ports, filterMapPasses: of.Passes} {
		if m != nil {
			shared[name] = m
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if err != nil {
		return nil, fmt.Errorf("load the program of groups: %w", err)
	}
	defer c.Close()
	next := &groupFilter{
		log: g.log, name: g.name, from: c.DetachProgram(filterProgRipstopFrom), to: c.DetachProgram(filterProgRipstopTo),
		maps: filterMapsOf(c.DetachMap), ports: map[uint32]filterFilterPort{}, bindings: map[uint32]filterBinding{},
		policies: map[uint64]*vswitch.Policy{}, changed: map[uint32]bool{}, over: of.Ports,
	}
	return next, nil
}

func filterMapsOf(get func(name string) *ebpf.Map) filterMaps {
	return filterMaps{
		Bindings: get(filterMapBindings), Connections: get(filterMapConnections), FilterActs: get(filterMapFilterActs),
		FilterDrops: get(filterMapFilterDrops), FilterEvents: get(filterMapFilterEvents), FilterPorts: get(filterMapFilterPorts),
		FilterSelf: get(filterMapFilterSelf), Passes: get(filterMapPasses), Policies: get(filterMapPolicies), Ports: get(filterMapPorts),
	}
}

func (g *groupFilter) byName() map[string]*ebpf.Map {
	all := map[string]*ebpf.Map{
		filterMapBindings: g.maps.Bindings, filterMapConnections: g.maps.Connections, filterMapFilterActs: g.maps.FilterActs,
		filterMapFilterDrops: g.maps.FilterDrops, filterMapFilterEvents: g.maps.FilterEvents, filterMapFilterPorts: g.maps.FilterPorts,
		filterMapFilterSelf: g.maps.FilterSelf, filterMapPasses: g.maps.Passes, filterMapPolicies: g.maps.Policies, filterMapPorts: g.maps.Ports,
	}
	maps.DeleteFunc(all, func(_ string, m *ebpf.Map) bool { return m == nil })
	return all
}

// openGroupFilter takes over the filter of a process before this one by a program
// of it, for the ports of a switch with these maps. The error is errForeign when
// there is none to take over.
func openGroupFilter(log *slog.Logger, id ebpf.ProgramID, of planeMaps) (*groupFilter, error) {
	theirs, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	defer theirs.Close()
	info, err := theirs.Info()
	if err != nil {
		return nil, err
	}
	if info.Name != filterProgRipstopFrom {
		return nil, errForeign
	}
	spec, err := loadFilter()
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	found, err := openMapsOf(info)
	if err != nil {
		return nil, err
	}
	before := &groupFilter{log: log}
	before.maps = filterMapsOf(func(name string) *ebpf.Map {
		if m, ok := found[name]; ok && spec.Maps[name].Compatible(m) == nil {
			return m
		}
		if name != filterMapPorts && name != filterMapPasses { // which are the switch's
			err = errForeign
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, closeAll(found))
	}
	var self filterFilterIdentity
	if err := before.maps.FilterSelf.Lookup(uint32(0), &self); err != nil {
		return nil, errors.Join(err, closeAll(found))
	}
	if self.Layout != filterFilterLayoutFILTER_LAYOUT {
		return nil, errors.Join(errForeign, closeAll(found))
	}
	name, _, _ := bytes.Cut(self.Name[:], []byte{0})
	before.name = string(name)
	g, err := before.load(of)
	if err = errors.Join(err, closeAll(found)); err != nil {
		return nil, err
	}
	if err := g.read(); err != nil {
		return nil, errors.Join(err, g.closeKernel())
	}
	return g, g.listen()
}

// read brings the mirror up to what the maps hold.
func (g *groupFilter) read() error {
	g.ports, g.bindings = map[uint32]filterFilterPort{}, map[uint32]filterBinding{}
	keys, values := make([]uint32, maxPorts), make([]filterFilterPort, maxPorts)
	var cursor ebpf.MapBatchCursor
	n, err := g.maps.FilterPorts.BatchLookup(&cursor, keys, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("read map %q of switch %q: %w", filterMapFilterPorts, g.name, err)
	}
	for i, slot := range keys[:n] {
		if values[i].Ifindex != 0 {
			g.ports[slot] = values[i]
		}
	}
	var at uint32
	var b filterBinding
	all := g.maps.Bindings.Iterate()
	for all.Next(&at, &b) {
		g.bindings[at] = b
		if g.policies[b.Policy] != nil {
			continue
		}
		p, err := g.policy(b)
		if err != nil {
			return err
		}
		g.policies[b.Policy] = p
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("read map %q of switch %q: %w", filterMapBindings, g.name, err)
	}
	return nil
}

// policy is a policy that another process wrote.
func (g *groupFilter) policy(b filterBinding) (*vswitch.Policy, error) {
	var m *ebpf.Map
	if err := g.maps.Policies.Lookup(b.Policy, &m); err != nil {
		if gone(err) == nil {
			return &vswitch.Policy{}, nil // of no number that anybody wants
		}
		return nil, fmt.Errorf("read map %q of switch %q: %w", filterMapPolicies, g.name, err)
	}
	groups, err := readText(m)
	return &vswitch.Policy{ID: b.Policy, Log: b.Log != 0, Groups: groups}, errors.Join(err, m.Close())
}

// ensure has the kernel know a policy.
func (g *groupFilter) ensure(p *vswitch.Policy) error {
	if g.policies[p.ID] != nil {
		return nil
	}
	entries := compile(p)
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "policy", Type: ebpf.LPMTrie, KeySize: uint32(binary.Size(filterPolicyKey{})), ValueSize: uint32(binary.Size(filterPolicyValue{})),
		MaxEntries: uint32(len(entries)), Flags: unix.BPF_F_NO_PREALLOC,
	})
	if err != nil {
		return fmt.Errorf("make the map of a policy: %w", err)
	}
	defer m.Close()
	for _, e := range entries {
		if err := m.Put(&e.key, &e.value); err != nil {
			return fmt.Errorf("write a policy of %d entries: %w", len(entries), err)
		}
	}
	if err := g.maps.Policies.Put(p.ID, m); err != nil {
		return fmt.Errorf("write map %q of switch %q: %w", filterMapPolicies, g.name, err)
	}
	g.policies[p.ID] = p
	return nil
}

func bindingKey(slot uint32, vid uint16) uint32 { return slot<<12 | uint32(vid) }

// prepare has a slot follow these policies from now on. What it had in other
// VLANs stays until settle, so that there is no moment without. While the port's
// own VLAN changes, nothing passes.
func (g *groupFilter) prepare(slot uint32, port filterFilterPort, filters map[uint16]*vswitch.Policy) error {
	for _, p := range filters {
		if err := g.ensure(p); err != nil {
			return err
		}
	}
	have, known := g.ports[slot]
	if !known || have != port {
		if known && have.Ifindex == port.Ifindex {
			port.Closed = 1
		}
		if err := g.putPort(slot, port); err != nil {
			return err
		}
	}
	return g.bind(slot, filters)
}

func (g *groupFilter) putPort(slot uint32, port filterFilterPort) error {
	if err := g.maps.FilterPorts.Put(slot, &port); err != nil {
		return fmt.Errorf("write map %q of switch %q: %w", filterMapFilterPorts, g.name, err)
	}
	g.ports[slot] = port
	g.changed[slot] = true
	return nil
}

func (g *groupFilter) bind(slot uint32, filters map[uint16]*vswitch.Policy) error {
	for vid, p := range filters {
		b := filterBinding{Policy: p.ID}
		if p.Log {
			b.Log = 1
		}
		at := bindingKey(slot, vid)
		if g.bindings[at] == b {
			continue
		}
		if err := g.maps.Bindings.Put(at, &b); err != nil {
			return fmt.Errorf("write map %q of switch %q: %w", filterMapBindings, g.name, err)
		}
		g.bindings[at] = b
		g.changed[slot] = true
	}
	return nil
}

// settle takes away what a slot follows over these policies, and opens it.
func (g *groupFilter) settle(slot uint32, filters map[uint16]*vswitch.Policy) error {
	if port, ok := g.ports[slot]; ok && port.Closed != 0 {
		port.Closed = 0
		if err := g.putPort(slot, port); err != nil {
			return err
		}
	}
	for at := range g.bindings {
		if at>>12 != slot || filters[uint16(at&0xfff)] != nil {
			continue
		}
		if err := gone(g.maps.Bindings.Delete(at)); err != nil {
			return fmt.Errorf("clear map %q of switch %q: %w", filterMapBindings, g.name, err)
		}
		delete(g.bindings, at)
		g.changed[slot] = true
	}
	return nil
}

// clear makes a slot follow nothing.
func (g *groupFilter) clear(slot uint32) error {
	if _, ok := g.ports[slot]; !ok {
		return nil
	}
	if err := g.settle(slot, nil); err != nil {
		return err
	}
	err := g.putPort(slot, filterFilterPort{})
	delete(g.ports, slot)
	delete(g.changed, slot) // nothing of it passes any more
	return err
}

// sweep forgets policies that nobody follows.
func (g *groupFilter) sweep() error {
	used := map[uint64]bool{}
	for _, b := range g.bindings {
		used[b.Policy] = true
	}
	for id := range g.policies {
		if used[id] {
			continue
		}
		if err := gone(g.maps.Policies.Delete(id)); err != nil {
			return fmt.Errorf("clear map %q of switch %q: %w", filterMapPolicies, g.name, err)
		}
		delete(g.policies, id)
	}
	return nil
}

// of is what a slot follows.
func (g *groupFilter) of(slot uint32) map[uint16]*vswitch.Policy {
	var out map[uint16]*vswitch.Policy
	for at, b := range g.bindings {
		if at>>12 != slot {
			continue
		}
		if out == nil {
			out = map[uint16]*vswitch.Policy{}
		}
		out[uint16(at&0xfff)] = g.policies[b.Policy]
	}
	return out
}

// losses adds the frames that were dropped on each device to out.
func (g *groupFilter) losses(out map[uint32]map[uint16]map[string]uint64) error {
	var at filterFilterPlace
	var values []filterFilterLosses
	all := g.maps.FilterDrops.Iterate()
	for all.Next(&at, &values) {
		if out[at.Ifindex] == nil {
			out[at.Ifindex] = map[uint16]map[string]uint64{}
		}
		sum := out[at.Ifindex][uint16(at.Vid)]
		if sum == nil {
			sum = map[string]uint64{}
			out[at.Ifindex][uint16(at.Vid)] = sum
		}
		for _, v := range values {
			for why, n := range v.Frames {
				if n != 0 {
					sum[filterReasons[why]] += n
				}
			}
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("read map %q of switch %q: %w", filterMapFilterDrops, g.name, err)
	}
	return nil
}

// listen tells the log of drops until the filter is closed.
func (g *groupFilter) listen() error {
	events, err := ringbuf.NewReader(g.maps.FilterEvents)
	if err != nil {
		return errors.Join(fmt.Errorf("read map %q of switch %q: %w", filterMapFilterEvents, g.name, err), g.closeKernel())
	}
	g.events, g.ends = events, make(chan struct{})
	names := g.maps.Policies
	go func() {
		defer close(g.ends)
		for {
			record, err := events.Read()
			if errors.Is(err, os.ErrClosed) {
				return
			}
			var e filterFilterEvent
			if err != nil || binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &e) != nil {
				continue
			}
			g.log.Warn("frame filtered", e.words(g.name, names)...)
		}
	}()
	return nil
}

// words is a drop as the log tells it.
func (e *filterFilterEvent) words(sw string, policies *ebpf.Map) []any {
	addr := func(b [16]byte) netip.Addr {
		if e.Kind == filterFlowKindFLOW_IPV4 {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16(b)
	}
	from, to := addr(e.Local), addr(e.Remote)
	fromPort, toPort := swap(e.LocalPort), swap(e.RemotePort)
	direction := "out"
	if e.Direction == filterDirectionTO_PORT {
		from, to, fromPort, toPort, direction = to, from, toPort, fromPort, "in"
	}
	port := fmt.Sprint("interface ", e.Ifindex)
	if i, err := netlink.LinkByIndex(int(e.Ifindex)); err == nil {
		port = i.Attrs().Name
	}
	words := []any{
		"switch", sw, "port", port, "vlan", e.Vid, "direction", direction, "reason", filterReasons[min(e.Reason, filterFilterReasonFILTER_REASONS-1)],
		"protocol", e.Protocol, "from", netip.AddrPortFrom(from, fromPort), "to", netip.AddrPortFrom(to, toPort),
	}
	rule := "none allows it"
	var m *ebpf.Map
	if e.Group != 0 && policies.Lookup(e.Policy, &m) == nil {
		if groups, err := readText(m); err == nil && int(e.Group) <= len(groups) {
			rule = fmt.Sprintf("groups.%s.rules[%d]", groups[e.Group-1], e.Rule)
		}
		m.Close()
	}
	return append(words, "rule", rule)
}

func swap(v uint16) uint16 { return v<<8 | v>>8 }

func (g *groupFilter) closeKernel() error {
	return errors.Join(closeAll(g.byName()), g.from.Close(), g.to.Close())
}

// close lets go. What devices run lives on.
func (g *groupFilter) close() error {
	if g == nil {
		return nil
	}
	err := g.events.Close()
	<-g.ends
	return errors.Join(err, g.closeKernel())
}

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

// reload takes programs for the ports of a switch with these maps.
func (g *groupFilter) reload(of planeMaps) error {
	next, err := g.load(of)
	if err != nil {
		return err
	}
	// Who listens has the other maps as they are.
	g.from, next.from = next.from, g.from
	g.to, next.to = next.to, g.to
	g.maps.Ports, next.maps.Ports = next.maps.Ports, g.maps.Ports
	g.maps.Passes, next.maps.Passes = next.maps.Passes, g.maps.Passes
	g.over, g.checked = of.Ports, false
	return next.closeKernel()
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
