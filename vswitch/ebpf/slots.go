package ebpf

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"ripstop/vswitch"
)

// maxPorts is how many slots the map of ports has; slot 0 is never used.
const maxPorts = uint32(planeLayoutMAX_PORTS)

// frameOverhead is what a frame may be longer than its port's MTU: the Ethernet
// header, and a tag that is the sender's content.
const frameOverhead = 14 + 4

// member is what the program knows of a port.
type member struct {
	ifindex  int
	mtu      int
	pvid     uint16
	tagged   []uint16 // without pvid
	isolated bool
	down     bool
	security vswitch.Security
	far      vswitch.MAC // of a veth's other end, zero for others
	gated    bool        // what goes there has to pass groups
	filters  map[uint16]*vswitch.Policy
	limit    vswitch.Limit
	overlay  planePortFlag // PORT_OVERLAY and PORT_TOLD of a VXLAN device
	own      []vswitch.MAC // what nobody else may send from; the port may send from others, too
}

// limit is the most stations of a port.
func limit(s vswitch.Security) uint32 { return uint32(cmp.Or(s.MACLimit, vswitch.DefaultMACLimit)) }

// gatewaySecurity is that of the host itself.
var gatewaySecurity = vswitch.Security{Trusted: true}

// encode is the member in the words of the maps.
func (m member) encode() (planePort, planeTrunk) {
	port := planePort{Ifindex: uint32(m.ifindex), MaxFrame: uint32(m.mtu + frameOverhead), Pvid: m.pvid}
	if m.gated {
		port.Gated = m.far
	} else {
		port.Far = m.far
	}
	var trunk planeTrunk
	for _, vid := range m.tagged {
		trunk.set(vid)
	}
	if len(m.tagged) > 0 {
		port.Flags |= planePortFlagPORT_TRUNK
	}
	if m.isolated {
		port.Flags |= planePortFlagPORT_ISOLATED
	}
	if m.down {
		port.Flags |= planePortFlagPORT_DOWN
	}
	s := m.security
	port.Flags |= securityFlags(s) | m.overlay
	port.MacLimit = limit(s)
	encodeLimit(&port, m.limit)
	port.Storm = [3]uint32{s.Storm.Broadcast, s.Storm.Multicast, s.Storm.UnknownUnicast}
	return port, trunk
}

// overlayFlags is what the program has to know of the way to other hosts.
func overlayFlags(p vswitch.Port) planePortFlag {
	switch {
	case p.Kind != vswitch.VXLAN:
		return 0
	case p.Overlay.Told:
		return planePortFlagPORT_OVERLAY | planePortFlagPORT_TOLD
	}
	return planePortFlagPORT_OVERLAY
}

func securityFlags(s vswitch.Security) (f planePortFlag) {
	if len(s.AllowedMACs) > 0 {
		f |= planePortFlagPORT_LOCKED_MAC
	}
	if len(s.AllowedIPs) > 0 {
		f |= planePortFlagPORT_LOCKED_IP
	}
	if s.Six() {
		f |= planePortFlagPORT_LINK_LOCAL
	}
	if s.Trusted {
		f |= planePortFlagPORT_TRUSTED
	}
	if s.BPDUGuard {
		f |= planePortFlagPORT_BPDU_GUARD
	}
	if s.LoopDetection {
		f |= planePortFlagPORT_LOOP_DETECTION
	}
	return f
}

// security is what the maps say of a slot's.
func (p *plane) security(slot uint32) vswitch.Security {
	port := p.ports[slot]
	s := vswitch.Security{
		MACLimit:      int(port.MacLimit),
		Storm:         vswitch.Storm{Broadcast: port.Storm[0], Multicast: port.Storm[1], UnknownUnicast: port.Storm[2]},
		Trusted:       port.Flags&planePortFlagPORT_TRUSTED != 0,
		BPDUGuard:     port.Flags&planePortFlagPORT_BPDU_GUARD != 0,
		LoopDetection: port.Flags&planePortFlagPORT_LOOP_DETECTION != 0,
	}
	if port.Flags&planePortFlagPORT_LOCKED_MAC != 0 {
		s.AllowedMACs = slices.Clone(p.macs[slot])
	}
	if port.Flags&planePortFlagPORT_LOCKED_IP != 0 {
		s.AllowedIPs = slices.Clone(p.ips[slot])
	}
	return s
}

func (t *planeTrunk) set(vid uint16)      { t.Vlans[vid>>6] |= 1 << (vid & 63) }
func (t *planeTrunk) has(vid uint16) bool { return t.Vlans[vid>>6]>>(vid&63)&1 != 0 }

// list is the VLANs in ascending order.
func (t *planeTrunk) list() []uint16 {
	var out []uint16
	for i, word := range t.Vlans {
		for ; word != 0; word &= word - 1 {
			out = append(out, uint16(i*64+bits.TrailingZeros64(word)))
		}
	}
	return out
}

// reset empties the mirror, as it is for new maps.
func (p *plane) reset() {
	p.places, p.hooks, p.vanished = map[uint32]place{}, map[uint32]ebpf.ProgramID{}, nil
	p.meterHooks = map[uint32]meterHooks{}
	p.ports = make([]planePort, maxPorts)
	p.trunks = map[uint32]planeTrunk{}
	p.macs, p.ips = map[uint32][]vswitch.MAC{}, map[uint32][]netip.Prefix{}
	p.slots = map[uint32]uint32{}
}

// read brings the mirror up to what the maps hold now.
func (p *plane) read() error {
	p.reset()
	keys := make([]uint32, maxPorts)
	var cursor ebpf.MapBatchCursor
	n, err := p.maps.Ports.BatchLookup(&cursor, keys, p.ports, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) || n != len(keys) {
		return fmt.Errorf("read map %q of switch %q: %d of %d slots: %w", planeMapPorts, p.name, n, len(keys), err)
	}
	for slot, port := range p.ports {
		if port.Ifindex == 0 {
			continue
		}
		p.slots[port.Ifindex] = uint32(slot)
		p.last = max(p.last, uint32(slot))
		if port.Flags&planePortFlagPORT_TRUNK == 0 {
			continue
		}
		var trunk planeTrunk
		if err := p.maps.Trunks.Lookup(uint32(slot), &trunk); err != nil {
			return fmt.Errorf("read map %q of switch %q: %w", planeMapTrunks, p.name, err)
		}
		p.trunks[uint32(slot)] = trunk
	}
	return p.readAllowed()
}

// put writes a member and gives its slot. Receivers of floods learn of it with
// the next commit.
func (p *plane) put(m member) (uint32, error) {
	port, trunk := m.encode()
	slot, ok := p.slots[port.Ifindex]
	if !ok {
		if slot, ok = p.free(); !ok {
			return 0, fmt.Errorf("switch %q has all of its %d ports: use a second switch", p.name, maxPorts-1)
		}
	}
	if p.ports[slot].Ifindex == port.Ifindex { // which regroup alone changes
		port.Groups = p.ports[slot].Groups
	}
	macs, ips := slices.Concat(m.security.AllowedMACs, m.own), m.security.AllowedIPs
	allowed := slices.Equal(p.macs[slot], macs) && slices.Equal(p.ips[slot], ips)
	if p.ports[slot] == port && p.trunks[slot] == trunk && allowed {
		return slot, nil
	}
	p.touch(slot)
	if err := p.allow(slot, macs, ips); err != nil { // before the flags that make it count
		return 0, err
	}
	if len(m.tagged) > 0 { // before the flag that makes it count
		if err := p.maps.Trunks.Put(slot, &trunk); err != nil {
			return 0, fmt.Errorf("write map %q of switch %q: %w", planeMapTrunks, p.name, err)
		}
	}
	if err := p.maps.Ports.Put(slot, &port); err != nil {
		return 0, fmt.Errorf("write map %q of switch %q: %w", planeMapPorts, p.name, err)
	}
	p.mirror(slot, port, trunk)
	p.touch(slot)
	return slot, p.disallow(slot, macs, ips)
}

// regroup gives a slot's groups another number, or none, so that what they have
// let pass before says nothing of what they let pass now. It is called after each
// change of them.
func (p *plane) regroup(slot uint32, grouped bool) error {
	port := p.ports[slot]
	if port.Groups = 0; grouped {
		port.Groups = rand.Uint32() | 1
	}
	if port == p.ports[slot] || port.Ifindex == 0 {
		return nil
	}
	if err := p.maps.Ports.Put(slot, &port); err != nil {
		return fmt.Errorf("write map %q of switch %q: %w", planeMapPorts, p.name, err)
	}
	p.ports[slot] = port
	return nil
}

// clear makes the slot of a device serve nobody.
func (p *plane) clear(ifindex uint32) error {
	slot, ok := p.slots[ifindex]
	if !ok {
		return nil
	}
	if err := p.maps.Ports.Put(slot, &planePort{}); err != nil {
		return fmt.Errorf("write map %q of switch %q: %w", planeMapPorts, p.name, err)
	}
	if err := errors.Join(p.disallow(slot, nil, nil), p.forgetActivity(slot), p.forgetNonce(slot)); err != nil {
		return err
	}
	if p.groups != nil {
		if err := p.groups.clear(slot); err != nil {
			return err
		}
	}
	p.touch(slot)
	delete(p.slots, ifindex)
	delete(p.places, ifindex)
	delete(p.hooks, ifindex)
	delete(p.meterHooks, ifindex)
	p.mirror(slot, planePort{}, planeTrunk{})
	return nil
}

func (p *plane) mirror(slot uint32, port planePort, trunk planeTrunk) {
	p.ports[slot] = port
	delete(p.trunks, slot)
	if port.Flags&planePortFlagPORT_TRUNK != 0 {
		p.trunks[slot] = trunk
	}
	if port.Ifindex != 0 {
		p.slots[port.Ifindex] = slot
		p.last = slot
	}
}

// free finds a slot for a new port.
func (p *plane) free() (uint32, bool) {
	for range maxPorts - 1 {
		p.last = p.last%(maxPorts-1) + 1
		if p.ports[p.last].Ifindex == 0 {
			return p.last, true
		}
	}
	return 0, false
}

// touch notes that the VLANs of a slot need new flood lists.
func (p *plane) touch(slot uint32) {
	if p.ports[slot].Ifindex != 0 {
		p.stale, p.dirty = true, true
	}
}

// member tells whether a slot takes part in a VLAN now, as the program sees it.
func (p *plane) member(slot uint32, vid uint16) bool {
	port := p.ports[slot]
	if port.Ifindex == 0 || port.Flags&planePortFlagPORT_DOWN != 0 {
		return false
	}
	trunk := p.trunks[slot]
	return port.Pvid == vid || trunk.has(vid)
}
