package ebpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"ripstop/vswitch"
)

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
