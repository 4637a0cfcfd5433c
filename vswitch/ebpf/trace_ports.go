package ebpf

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"ripstop/vswitch"
)

// What groups and limits of a port say of a frame is found by their very programs,
// over the maps that they read, and copies of those that they write. So nothing is
// counted, told or remembered.

// stop is one device that a frame passes in a dry run.
type stop struct {
	*plane
	port    string
	ifindex uint32
	slot    uint32
	way     vswitch.Direction
	rest    []byte // the frame without its outer tag
	tag     uint32 // as vswitch.SplitTag has it
}

// vid is the frame's VLAN as the groups of the port see it.
func (s stop) vid() uint16 {
	if vid := uint16(s.tag & 0xfff); s.tag>>16 == 0x8100 && vid != 0 {
		return vid
	}
	return s.ports[s.slot].Pvid
}

// pass notes what the port's limit and groups say, in the order in which they are
// asked, and gives the reason to drop the frame, if there is one.
func (d *Driver) pass(s stop, t *vswitch.Trace) (string, error) {
	asked := []func(stop, *vswitch.Trace) (string, error){d.passLimit, d.passGroups}
	if s.way == vswitch.In {
		slices.Reverse(asked)
	}
	for _, ask := range asked {
		if why, err := ask(s, t); why != "" || err != nil {
			return why, err
		}
	}
	return "", nil
}

func (d *Driver) passLimit(s stop, t *vswitch.Trace) (string, error) {
	l := s.limited(s.slot)
	rate, verb := l.Send, "sends"
	if s.way == vswitch.In {
		rate, verb = l.Receive, "gets"
	}
	if rate == 0 {
		return "", nil
	}
	verdict, err := d.dryMeter(s)
	if err != nil {
		return "", fmt.Errorf("limit of port %q: %w", s.port, err)
	}
	rule := vswitch.PortKey(t.Switch, s.port, "limit")
	if verdict == actShot {
		why := reasons[planeReasonREASON_LIMIT]
		t.Note(vswitch.StageLimit, rule, "%s: dropped, %s: it %s more than %d bit/s at this moment", s.port, why, verb, rate)
		return why, nil
	}
	t.Note(vswitch.StageLimit, rule, "%s: within the %d bit/s that it %s", s.port, rate, verb)
	return "", nil
}

// actShot is TC_ACT_SHOT of linux/pkt_cls.h.
const actShot = 2

func (d *Driver) dryMeter(s stop) (uint32, error) {
	spec := d.spec.Copy()
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != planeProgRipstopMeter })
	read := s.maps.byName()
	maps.DeleteFunc(read, func(name string, _ *ebpf.Map) bool { return name != planeMapPorts && name != planeMapSelf })
	c, err := loadOver(spec, read)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var a planeActivity
	if err := s.maps.Activities.Lookup(s.slot, &a); err != nil {
		return 0, fmt.Errorf("read map %q: %w", planeMapActivities, err)
	}
	if err := c.Maps[planeMapActivities].Put(s.slot, &a); err != nil {
		return 0, fmt.Errorf("copy map %q: %w", planeMapActivities, err)
	}
	verdict, _, err := d.dryRun(c.Programs[planeProgRipstopMeter], s)
	return verdict, err
}

// loadOver loads a program over some maps; the others are empty.
func loadOver(spec *ebpf.CollectionSpec, read map[string]*ebpf.Map) (*ebpf.Collection, error) {
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: read})
	if err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	return c, nil
}

// dryRun gives a program the frame, and what it left in cb.
func (d *Driver) dryRun(prog *ebpf.Program, s stop) (verdict uint32, cb [5]uint32, err error) {
	in := traceContext{Ifindex: s.ifindex, CB: [5]uint32{s.slot, s.tag, uint32(s.way)}}
	var out struct { // struct __sk_buff, and room for what it may grow by
		_  [12]uint32
		CB [5]uint32
		_  [111]uint32
	}
	err = d.host.Run(func() error {
		verdict, err = prog.Run(&ebpf.RunOptions{Data: s.rest, Context: in, ContextOut: &out})
		return err
	})
	if err != nil {
		return 0, cb, fmt.Errorf("run program: %w", err)
	}
	return verdict, out.CB, nil
}

func (d *Driver) passGroups(s stop, t *vswitch.Trace) (string, error) {
	g := s.groups
	if g == nil {
		return "", nil
	}
	port, ok := g.ports[s.slot]
	b, bound := g.bindings[bindingKey(s.slot, s.vid())]
	if !ok || !bound && port.Closed == 0 {
		return "", nil
	}
	v, err := d.dryGroups(s)
	if err != nil {
		return "", fmt.Errorf("groups of port %q: %w", s.port, err)
	}
	key := vswitch.PortKey(t.Switch, s.port, "groups")
	rule, words := key, "no rule of its groups allows it "+s.way.String()
	if p := g.policies[b.Policy]; v.number != 0 && p != nil && int(v.group) < len(p.Groups) {
		rule = fmt.Sprintf("groups.%s.rules[%d]", p.Groups[v.group], v.place)
		words = "a rule says so"
	}
	switch {
	case v.reason == filterReasons[filterFilterReasonFILTER_DENIED]:
		t.Note(vswitch.StageFilter, rule, "%s: dropped, %s: %s", s.port, v.reason, words)
	case v.reason != "":
		t.Note(vswitch.StageFilter, key, "%s: dropped, %s", s.port, v.reason)
	case v.number != 0:
		t.Note(vswitch.StageFilter, rule, "%s: passes %s, a connection may begin so", s.port, s.way)
	default:
		t.Note(vswitch.StageFilter, key, "%s: passes %s, of a connection that is known, or as what needs no rule", s.port, s.way)
	}
	return v.reason, nil
}

// groupVerdict is what groups say of a frame.
type groupVerdict struct {
	reason               string // to drop it
	number, group, place uint32 // of the rule; number 0: none decides
}

func (d *Driver) dryGroups(s stop) (v groupVerdict, err error) {
	spec, err := loadFilter()
	if err != nil {
		return v, fmt.Errorf("read program: %w", err)
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != filterProgRipstopFilter })
	flows, seen, err := s.groups.connectionsOf(s.ifindex, s.vid())
	if err != nil {
		return v, err
	}
	// All of the port's fit, and nothing is put out to make room.
	scratch := spec.Maps[filterMapConnections]
	scratch.Type, scratch.MaxEntries = ebpf.Hash, uint32(len(flows)+8)
	read := s.groups.byName()
	for _, written := range []string{filterMapConnections, filterMapFilterActs, filterMapFilterDrops, filterMapFilterEvents} {
		delete(read, written)
	}
	for _, brief := range []string{filterMapPorts, filterMapPasses} { // empty, so that it takes the long look
		delete(read, brief)
		spec.Maps[brief].MaxEntries = 1
	}
	c, err := loadOver(spec, read)
	if err != nil {
		return v, err
	}
	defer c.Close()
	if len(flows) > 0 {
		if _, err := c.Maps[filterMapConnections].BatchUpdate(flows, seen, nil); err != nil {
			return v, fmt.Errorf("copy map %q: %w", filterMapConnections, err)
		}
	}
	var a filterFilterActivity
	if err := s.groups.maps.FilterActs.Lookup(s.slot, &a); err != nil {
		return v, fmt.Errorf("read map %q: %w", filterMapFilterActs, err)
	}
	if err := c.Maps[filterMapFilterActs].Put(s.slot, &a); err != nil {
		return v, fmt.Errorf("copy map %q: %w", filterMapFilterActs, err)
	}
	verdict, cb, err := d.dryRun(c.Programs[filterProgRipstopFilter], s)
	if err != nil {
		return v, err
	}
	v.number, v.group, v.place = cb[2], cb[3], cb[4]
	if verdict == actShot {
		v.reason, err = reasonIn(c.Maps[filterMapFilterDrops])
	}
	return v, err
}

// reasonIn is the reason of the only frame that was dropped.
func reasonIn(drops *ebpf.Map) (string, error) {
	var at filterFilterPlace
	var values []filterFilterLosses
	all := drops.Iterate()
	for all.Next(&at, &values) {
		for _, v := range values {
			for why, n := range v.Frames {
				if n != 0 {
					return filterReasons[why], nil
				}
			}
		}
	}
	return filterReasons[filterFilterReasonFILTER_DENIED], all.Err()
}

// connectionsChunk is how many connections are read at a time.
const connectionsChunk = 4096

// connectionsOf is the connections of one port in a VLAN.
func (g *groupFilter) connectionsOf(ifindex uint32, vid uint16) (keys []filterFlow, values []filterConnection, err error) {
	k, v := make([]filterFlow, connectionsChunk), make([]filterConnection, connectionsChunk)
	var cursor ebpf.MapBatchCursor
	for err == nil {
		var n int
		n, err = g.maps.Connections.BatchLookup(&cursor, k, v, nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil, nil, fmt.Errorf("read map %q: %w", filterMapConnections, err)
		}
		for i := range n {
			if k[i].Ifindex == ifindex && k[i].Vid == vid {
				keys, values = append(keys, k[i]), append(values, v[i])
			}
		}
	}
	return keys, values, nil
}

// depart asks the groups and limits of all who would hear the frame.
func (d *Driver) depart(p *plane, t *vswitch.Trace, frame []byte) error {
	var heard []vswitch.Egress
	var last string
	for _, e := range t.Egress {
		s := stop{plane: p, port: e.Port, way: vswitch.In}
		for ifindex, at := range p.places {
			if at.name == e.Port && !at.gateway {
				s.ifindex, s.slot = ifindex, p.slots[ifindex]
			}
		}
		s.rest, s.tag = leaving(frame, t.VLAN, e.Tagged)
		if s.slot != 0 {
			why, err := d.pass(s, t)
			if err != nil {
				return err
			}
			if why != "" {
				last = why
				continue
			}
		}
		heard = append(heard, e)
	}
	if t.Egress = heard; len(heard) == 0 && t.Reason == "" {
		t.Reason = last
	}
	return nil
}

// leaving is a frame as it leaves through a port, its outer tag apart.
func leaving(frame []byte, vid uint16, tagged bool) (rest []byte, tag uint32) {
	rest, tag = vswitch.SplitTag(frame)
	isContent := tag != 0 && tag>>16 != 0x8100
	if !tagged {
		if isContent {
			return rest, tag
		}
		return rest, 0
	}
	own := uint32(0x8100)<<16 | uint32(vid)
	if isContent {
		return frame, own
	}
	return rest, own | tag&0xe000 // with the sender's priority
}

// Depart is the part of a Trace that comes after the choice of receivers, where
// another forwards: what their groups and limits say.
func (g *Guard) Depart(_ context.Context, t vswitch.Trace, frame []byte) (vswitch.Trace, error) {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	p := g.d.planes[t.Switch]
	if p == nil {
		return t, nil
	}
	err := g.d.depart(p, &t, frame)
	return t, err
}
