package ebpf

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"

	"ripstop/vswitch"
)

// ageing is how long a station is remembered after its last frame, the default
// of IEEE 802.1Q, 8.8.3.
const ageing = 300 * time.Second

// errForeign says that a program is not this package's, or of another layout.
var errForeign = errors.New("program is of another kind or layout")

// plane is the kernel's side of one switch: the program, its maps, and a mirror
// of the maps that say which port is a member of which VLAN.
type plane struct {
	name    string
	program string // which of the object's programs
	ageing  time.Duration
	self    planeIdentity
	prog    *ebpf.Program
	number  ebpf.ProgramID // of prog, 0 before somebody asked for it
	maps    planeMaps

	ports  []planePort               // by slot, as in the map
	trunks map[uint32]planeTrunk     // by slot, of the ports that carry tagged VLANs
	macs   map[uint32][]vswitch.MAC  // by slot, that belong to it, sorted
	ips    map[uint32][]netip.Prefix // by slot, that it may send from, sorted
	slots  map[uint32]uint32         // ifindex to slot
	last   uint32                    // slot given out last; a freed one rests until all others had their turn
	dirty  bool                      // the flood lists have to be written
	stale  bool                      // the FDB may name ports that have left a VLAN

	places        map[uint32]place          // what each device is, by ifindex
	hooks         map[uint32]ebpf.ProgramID // program of each device's filter, by ifindex
	groups        *groupFilter              // of ports that have some, nil before the first
	groupHooks    map[uint32]groupHooks     // as they were seen, by ifindex
	groupPrograms map[ebpf.ProgramID]bool   // those that were seen, and whether they work on the maps of groups
	meters        [2]*ebpf.Program          // of limited ports, nil before the first
	metersChecked bool                      // they are this package's newest
	meterHooks    map[uint32]meterHooks     // as they were seen, by ifindex
	vanished      []uint32                  // ifindexes that have slots and no device any more
	nonces        map[uint32]uint64         // of the probes of each slot
	round         int                       // of probes
	closed        map[uint32]string         // why ports were shut when DetectLoops looked last, by ifindex
	checked       bool                      // the program is this package's newest
	fresh         *relic                    // of which the maps are a copy, until the first commit
}

// place is a port or a gateway of a switch.
type place struct {
	name    string
	gateway bool
}

// newPlane loads a program with empty maps for a switch.
func newPlane(spec *ebpf.CollectionSpec, program, name string) (*plane, error) {
	id := planeIdentity{Layout: planeLayoutLAYOUT, Ageing: uint64(ageing), Secret: secret()}
	if copy(id.Name[:], name) != len(name) {
		return nil, fmt.Errorf("name is longer than %d bytes", len(id.Name))
	}
	p, err := (&plane{program: program}).next(spec)
	if err != nil {
		return nil, err
	}
	p.name, p.ageing, p.self, p.checked = name, ageing, id, true
	if err := p.maps.Self.Put(uint32(0), &id); err != nil {
		return nil, errors.Join(fmt.Errorf("write map %q: %w", planeMapSelf, err), p.close())
	}
	p.reset()
	return p, nil
}

// secret is a number that nobody guesses, and not 0.
func secret() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint64(b[:]) | 1
}

// next is the switch with the program of the spec, over the same maps.
func (p *plane) next(spec *ebpf.CollectionSpec) (*plane, error) {
	need := p.need(spec)
	// Before Linux 5.11 a lack of it looks like a lack of privileges.
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("lift the limit of locked memory: %w", err)
	}
	c, err := ebpf.NewCollectionWithOptions(need, ebpf.CollectionOptions{MapReplacements: p.maps.byName()})
	if err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	defer c.Close()
	return &plane{program: p.program, prog: c.DetachProgram(p.program), maps: mapsOf(c.DetachMap)}, nil
}

// need is what the plane's program needs of the object.
func (p *plane) need(spec *ebpf.CollectionSpec) *ebpf.CollectionSpec {
	need := spec.Copy()
	maps.DeleteFunc(need.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return name != p.program })
	delete(need.Maps, planeMapVerdicts)
	delete(need.Maps, planeMapCopies)
	if p.program == planeProgRipstopGuard { // sends to nobody
		delete(need.Maps, planeMapFloods)
		delete(need.Maps, planeMapHanded)
		delete(need.Maps, planeMapPasses)
	}
	return need
}

func mapsOf(get func(name string) *ebpf.Map) planeMaps {
	return planeMaps{
		Activities: get(planeMapActivities), AllowedIps: get(planeMapAllowedIps), AllowedMacs: get(planeMapAllowedMacs),
		Drops: get(planeMapDrops), Fdb: get(planeMapFdb), Floods: get(planeMapFloods), Handed: get(planeMapHanded), Learned: get(planeMapLearned),
		Heard: get(planeMapHeard), HeardAt: get(planeMapHeardAt), Neighbors: get(planeMapNeighbors), Moves: get(planeMapMoves), Nonces: get(planeMapNonces),
		Passes: get(planeMapPasses), Recents: get(planeMapRecents),
		Ports: get(planeMapPorts), Self: get(planeMapSelf), Trunks: get(planeMapTrunks), Vlans: get(planeMapVlans),
	}
}

// upgrade loads the program of the spec unless the kernel runs it already, and
// tells whether filters have to be given the new one.
func (p *plane) upgrade(spec *ebpf.CollectionSpec) (bool, error) {
	next, err := p.next(spec)
	if err != nil {
		return false, err
	}
	have, err := p.prog.Info()
	if err != nil {
		return false, errors.Join(err, next.close())
	}
	want, err := next.prog.Info()
	if err != nil || have.Tag == want.Tag {
		return false, errors.Join(err, next.close())
	}
	before := plane{prog: p.prog, maps: p.maps}
	p.prog, p.number, p.maps = next.prog, 0, next.maps
	return true, before.close()
}

// openPlane takes over a switch by its program, whose id a filter tells. The
// error is errForeign when the program is none to take over.
func openPlane(spec *ebpf.CollectionSpec, program string, id ebpf.ProgramID) (*plane, error) {
	prog, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return nil, fmt.Errorf("open program %d: %w", id, err)
	}
	p := &plane{program: program, prog: prog, stale: true}
	if err := p.openMaps(spec); err != nil {
		return nil, errors.Join(fmt.Errorf("open maps of program %d: %w", id, err), p.close())
	}
	p.reset()
	return p, nil
}

func (p *plane) openMaps(spec *ebpf.CollectionSpec) error {
	info, err := p.prog.Info()
	if err != nil {
		return err
	}
	if info.Name != p.program {
		return errForeign
	}
	found, err := openMapsOf(info)
	if err != nil {
		return err
	}
	for name, want := range p.need(spec).Maps {
		if m, ok := found[name]; !ok || want.Compatible(m) != nil {
			return errors.Join(errForeign, closeAll(found))
		}
	}
	p.maps = mapsOf(func(name string) *ebpf.Map { return found[name] })
	return p.identify()
}

// identify reads the switch's name and refuses maps of another meaning.
func (p *plane) identify() error {
	var id planeIdentity
	if err := p.maps.Self.Lookup(uint32(0), &id); err != nil {
		return fmt.Errorf("read map %q: %w", planeMapSelf, err)
	}
	if id.Layout != planeLayoutLAYOUT {
		return errForeign
	}
	name, _, _ := bytes.Cut(id.Name[:], []byte{0})
	p.name, p.ageing, p.self = string(name), time.Duration(id.Ageing), id
	return nil
}

// id is the number under which filters name the program.
func (p *plane) id() (ebpf.ProgramID, error) {
	if p.number != 0 {
		return p.number, nil
	}
	info, err := p.prog.Info()
	if err != nil {
		return 0, fmt.Errorf("read program of switch %q: %w", p.name, err)
	}
	p.number, _ = info.ID()
	return p.number, nil
}

// close lets go of the program and the maps. Those that filters hold live on.
func (p *plane) close() error {
	err := errors.Join(closeAll(p.maps.byName()), p.release(), p.groups.close())
	for _, prog := range append(p.meters[:], p.prog) {
		if prog != nil {
			err = errors.Join(err, prog.Close())
		}
	}
	return err
}

func (m *planeMaps) byName() map[string]*ebpf.Map {
	all := map[string]*ebpf.Map{
		planeMapActivities: m.Activities, planeMapAllowedIps: m.AllowedIps, planeMapAllowedMacs: m.AllowedMacs,
		planeMapDrops: m.Drops, planeMapFdb: m.Fdb, planeMapFloods: m.Floods, planeMapHanded: m.Handed, planeMapLearned: m.Learned,
		planeMapHeard: m.Heard, planeMapHeardAt: m.HeardAt, planeMapNeighbors: m.Neighbors, planeMapMoves: m.Moves, planeMapNonces: m.Nonces,
		planeMapPasses: m.Passes, planeMapRecents: m.Recents,
		planeMapPorts: m.Ports, planeMapSelf: m.Self, planeMapTrunks: m.Trunks, planeMapVlans: m.Vlans,
	}
	maps.DeleteFunc(all, func(_ string, m *ebpf.Map) bool { return m == nil })
	return all
}

func closeAll(all map[string]*ebpf.Map) error {
	var errs []error
	for _, m := range all {
		errs = append(errs, m.Close())
	}
	return errors.Join(errs...)
}
