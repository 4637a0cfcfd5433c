package ebpf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"ripstop/internal/link"
	"ripstop/vswitch"
	"ripstop/vswitch/device"
)

// toldPort is a switch's port to other hosts that is told who is there.
type toldPort struct {
	plane *plane
	vlan  uint16
	slot  uint32
	at    uint32 // ifindex
}

// toldPorts is those of all switches, by the VNIs of their devices.
func (d *Driver) toldPorts(overlays map[uint32]device.Overlay) map[uint32]toldPort {
	out := map[uint32]toldPort{}
	for vni, o := range overlays {
		p := d.planes[o.Switch]
		if p == nil {
			continue
		}
		slot, ok := p.slots[uint32(o.Index)]
		if ok && p.ports[slot].Flags&planePortFlagPORT_TOLD != 0 && p.ports[slot].Pvid != 0 {
			out[vni] = toldPort{p, p.ports[slot].Pvid, slot, uint32(o.Index)}
		}
	}
	return out
}

// News counts what frames and steps changed.
func (d *Driver) News(context.Context) (uint64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum := d.changes
	for _, p := range d.planes {
		for i := range uint32(2) {
			var n uint64
			if err := p.maps.Moves.Lookup(i, &n); err != nil {
				return 0, fmt.Errorf("read map %q of switch %q: %w", planeMapMoves, p.name, err)
			}
			sum += n
		}
	}
	return sum, nil
}

// Stations is those behind ports and gateways of VLANs that are told who is elsewhere.
func (d *Driver) Stations(context.Context) ([]vswitch.Station, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	overlays, err := d.devices.Overlays()
	if err != nil || len(overlays) == 0 {
		return nil, err
	}
	vnis := map[*plane]map[uint16]uint32{}
	for vni, o := range d.toldPorts(overlays) {
		if vnis[o.plane] == nil {
			vnis[o.plane] = map[uint16]uint32{}
		}
		vnis[o.plane][o.vlan] = vni
	}
	var out []vswitch.Station
	for p, of := range vnis {
		list, err := p.stationsOf(of)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// stationsOf is this host's stations in some VLANs, whose VNIs are given.
func (p *plane) stationsOf(vnis map[uint16]uint32) ([]vswitch.Station, error) {
	all, err := p.stations()
	if err != nil {
		return nil, err
	}
	ips, err := p.heard()
	if err != nil {
		return nil, err
	}
	var out []vswitch.Station
	for _, s := range all {
		vni, ok := vnis[s.Vid]
		if !ok || s.told || !p.lives(s) || p.ports[s.Slot].Flags&planePortFlagPORT_OVERLAY != 0 {
			continue
		}
		mac := vswitch.MAC(s.Mac)
		if mac.IsAnycast() && p.places[s.Ifindex].gateway {
			continue // that of all hosts
		}
		out = append(out, vswitch.Station{StationKey: vswitch.StationKey{VNI: vni, MAC: mac}, Fixed: s.static, IPs: ips[seat{s.planeStation, s.Slot, s.Ifindex}]})
	}
	return out, nil
}

// seat is a station at a port.
type seat struct {
	planeStation
	slot, ifindex uint32
}

// heardFor is how long an address is a station's that says it no more. Who needs one that
// is not known asks all, and hears it anew.
const heardFor = 30 * time.Minute

// heard is the addresses of stations, each list sorted.
func (p *plane) heard() (map[seat][]netip.Addr, error) {
	now, err := clock()
	if err != nil {
		return nil, err
	}
	out := map[seat][]netip.Addr{}
	err = readAll(p.maps.Heard, func(key planeAddress, b planeBearer) {
		at := seat{planeStation{Vid: uint16(key.Vid), Mac: b.Mac}, b.Slot, b.Ifindex}
		ip := netip.AddrFrom16(key.Addr).Unmap()
		if !ip.IsLinkLocalUnicast() && !b.silent(now) {
			out[at] = append(out[at], ip)
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read map %q of switch %q: %w", planeMapHeard, p.name, err)
	}
	for _, list := range out {
		slices.SortFunc(list, netip.Addr.Compare)
	}
	return out, nil
}

// silent tells whether a station says an address no more.
func (b planeBearer) silent(now time.Duration) bool { return now-time.Duration(b.Seen) > heardFor }

// expireHeard removes the addresses that are silent, and those of devices that are no
// ports any more, and counts what each port has left.
func (p *plane) expireHeard() (int, error) {
	now, err := clock()
	if err != nil {
		return 0, err
	}
	var old []planeAddress
	want := make([]int32, maxPorts)
	err = readAll(p.maps.Heard, func(key planeAddress, b planeBearer) {
		if b.silent(now) || b.Slot >= maxPorts || p.ports[b.Slot].Ifindex != b.Ifindex {
			old = append(old, key)
			return
		}
		want[b.Slot]++
	})
	if err != nil {
		return 0, fmt.Errorf("read map %q of switch %q: %w", planeMapHeard, p.name, err)
	}
	for _, key := range old {
		if err := gone(p.maps.Heard.Delete(&key)); err != nil {
			return 0, fmt.Errorf("clear map %q of switch %q: %w", planeMapHeard, p.name, err)
		}
	}
	return len(old), p.putCounts(p.maps.HeardAt, planeMapHeardAt, want)
}

// Told is what devices and programs both know.
func (d *Driver) Told(context.Context) (vswitch.Told, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	overlays, err := d.devices.Overlays()
	if err != nil {
		return vswitch.Told{}, err
	}
	ports := d.toldPorts(overlays)
	mine := map[uint32]device.Overlay{}
	for vni := range ports {
		mine[vni] = overlays[vni]
	}
	told, err := d.devices.ToldOf(mine)
	if err != nil {
		return vswitch.Told{}, err
	}
	known := map[*plane]map[planeStation]planeSighting{}
	for key := range told.Stations {
		o := ports[key.VNI]
		if known[o.plane] == nil {
			all, err := o.plane.stations()
			if err != nil {
				return vswitch.Told{}, err
			}
			known[o.plane] = map[planeStation]planeSighting{}
			for _, s := range all {
				known[o.plane][s.planeStation] = s.planeSighting
			}
		}
		// One that was seen here, or that is somebody's own, is not to be told again.
		s, ok := known[o.plane][planeStation{Vid: o.vlan, Mac: key.MAC}]
		if !ok || s.Seen == isTold && (s.Slot != o.slot || s.Ifindex != o.at) {
			delete(told.Stations, key)
		}
	}
	for vni, o := range ports {
		if err := o.plane.readNeighbors(vni, o.vlan, told.Addresses); err != nil {
			return vswitch.Told{}, err
		}
	}
	return told, nil
}

func (p *plane) readNeighbors(vni uint32, vlan uint16, out map[vswitch.AddressKey]vswitch.MAC) error {
	err := readAll(p.maps.Neighbors, func(key planeAddress, n planeNeighbor) {
		if key.Vid == uint32(vlan) {
			out[vswitch.AddressKey{VNI: vni, IP: netip.AddrFrom16(key.Addr).Unmap()}] = n.Mac
		}
	})
	if err != nil {
		return fmt.Errorf("read map %q of switch %q: %w", planeMapNeighbors, p.name, err)
	}
	return nil
}

// readAll goes through a hash table bucket by bucket. A walk from key to key begins anew
// when a program removes the key it stands at, and so may never see the rest.
func readAll[K, V any](m *ebpf.Map, yield func(K, V)) error {
	var cursor ebpf.MapBatchCursor
	keys, values := make([]K, fdbChunk), make([]V, fdbChunk)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		done := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !done {
			return err
		}
		for i := range n {
			yield(keys[i], values[i])
		}
		if done {
			return nil
		}
	}
}

// Tell changes what devices and programs know. A station's device comes first and
// goes last, so that nothing is sent where no way is known.
func (d *Driver) Tell(_ context.Context, add, lost vswitch.Told) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	overlays, err := d.devices.Overlays()
	if err != nil {
		return err
	}
	ports := d.toldPorts(overlays)
	mine := map[uint32]device.Overlay{}
	for vni := range ports {
		mine[vni] = overlays[vni]
	}
	errs := []error{d.devices.TellFloods(mine, add.Floods, lost.Floods)}
	touched := map[*plane]*change{}
	of := func(p *plane) *change {
		if touched[p] == nil {
			touched[p] = &change{static: p.static()}
		}
		return touched[p]
	}
	var batch link.Neighbors
	failed := map[vswitch.StationKey]bool{}
	for key, vtep := range add.Stations {
		if _, ok := ports[key.VNI]; ok {
			mine[key.VNI].TellStation(&batch, key.MAC, vtep, 0, func() { failed[key] = true })
		}
	}
	errs = append(errs, batch.Do())
	for key := range add.Stations {
		o, ok := ports[key.VNI]
		if !ok || failed[key] {
			continue
		}
		of(o.plane).know(planeStation{Vid: o.vlan, Mac: key.MAC}, planeSighting{Slot: o.slot, Ifindex: o.at, Seen: isTold})
	}
	for key, mac := range add.Addresses {
		if o, ok := ports[key.VNI]; ok {
			of(o.plane).answer(addressOf(o.vlan, key.IP), mac)
		}
	}
	for p, c := range touched {
		errs = append(errs, p.learnTold(c))
	}
	batch = link.Neighbors{}
	for key, vtep := range lost.Stations {
		if o, ok := ports[key.VNI]; ok {
			errs = append(errs, o.plane.unlearnTold(planeStation{Vid: o.vlan, Mac: key.MAC}))
			mine[key.VNI].ForgetStation(&batch, key.MAC, vtep, 0)
			of(o.plane)
		}
	}
	errs = append(errs, batch.Do())
	for key := range lost.Addresses {
		if o, ok := ports[key.VNI]; ok {
			at := addressOf(o.vlan, key.IP)
			errs = append(errs, gone(o.plane.maps.Neighbors.Delete(&at)))
		}
	}
	for p := range touched {
		errs = append(errs, p.wrote())
	}
	return errors.Join(errs...)
}

// change is entries to be written at once.
type change struct {
	static    map[planeStation]planeSighting
	stations  []planeStation
	sightings []planeSighting
	addresses []planeAddress
	neighbors []planeNeighbor
}

// know adds a station, unless it is an address that belongs to a port here.
func (c *change) know(s planeStation, at planeSighting) {
	if _, own := c.static[s]; !own {
		c.stations, c.sightings = append(c.stations, s), append(c.sightings, at)
	}
}

func (c *change) answer(a planeAddress, mac vswitch.MAC) {
	c.addresses, c.neighbors = append(c.addresses, a), append(c.neighbors, planeNeighbor{Mac: mac})
}

func (p *plane) learnTold(c *change) error {
	if len(c.stations) > 0 {
		if _, err := p.maps.Fdb.BatchUpdate(c.stations, c.sightings, nil); err != nil {
			return fmt.Errorf("write map %q of switch %q: %w", planeMapFdb, p.name, err)
		}
	}
	if len(c.addresses) > 0 {
		if _, err := p.maps.Neighbors.BatchUpdate(c.addresses, c.neighbors, nil); err != nil {
			return fmt.Errorf("write map %q of switch %q: %w", planeMapNeighbors, p.name, err)
		}
	}
	return nil
}

// unlearnTold forgets a station that was told, not one that is seen here.
func (p *plane) unlearnTold(s planeStation) error {
	var at planeSighting
	err := p.maps.Fdb.Lookup(&s, &at)
	if err == nil && at.Seen == isTold {
		err = p.maps.Fdb.Delete(&s)
	}
	return gone(err)
}

func addressOf(vlan uint16, ip netip.Addr) planeAddress {
	return planeAddress{Vid: uint32(vlan), Addr: ip.As16()}
}

// News is as Driver.News.
func (g *Guard) News(ctx context.Context) (uint64, error) { return g.d.News(ctx) }

// Heard is the addresses of a switch's stations by the index of their port's device, and
// by VLAN (in the place of the VNI) and Ethernet address, each list sorted. What a port
// says of a station that is at another one is none of that station's.
func (g *Guard) Heard(_ context.Context, sw string) (map[int]map[vswitch.StationKey][]netip.Addr, error) {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	p := g.d.planes[sw]
	if p == nil {
		return nil, nil
	}
	all, err := p.heard()
	if err != nil {
		return nil, err
	}
	out := map[int]map[vswitch.StationKey][]netip.Addr{}
	for at, ips := range all {
		if p.ports[at.slot].Ifindex != at.ifindex {
			continue
		}
		if out[int(at.ifindex)] == nil {
			out[int(at.ifindex)] = map[vswitch.StationKey][]netip.Addr{}
		}
		out[int(at.ifindex)][vswitch.StationKey{VNI: uint32(at.Vid), MAC: at.Mac}] = ips
	}
	return out, nil
}

// Neighbors adds to out for whom ports of a VLAN get answers, under its VNI.
func (g *Guard) Neighbors(_ context.Context, sw string, vni uint32, vlan uint16, out map[vswitch.AddressKey]vswitch.MAC) error {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	if p := g.d.planes[sw]; p != nil {
		return p.readNeighbors(vni, vlan, out)
	}
	return nil
}

// Tell changes that.
func (g *Guard) Tell(_ context.Context, sw string, vni uint32, vlan uint16, add, lost map[vswitch.AddressKey]vswitch.MAC) error {
	g.d.mu.Lock()
	defer g.d.mu.Unlock()
	p := g.d.planes[sw]
	if p == nil {
		return nil
	}
	c := &change{}
	for key, mac := range add {
		if key.VNI == vni {
			c.answer(addressOf(vlan, key.IP), mac)
		}
	}
	errs := []error{p.learnTold(c)}
	for key := range lost {
		if key.VNI == vni {
			at := addressOf(vlan, key.IP)
			errs = append(errs, gone(p.maps.Neighbors.Delete(&at)))
		}
	}
	return errors.Join(errs...)
}
