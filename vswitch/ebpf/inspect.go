package ebpf

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/vishvananda/netlink"

	"ripstop/vswitch"
)

// FDB is every station that a switch sends frames to.
func (d *Driver) FDB(context.Context) ([]vswitch.FDBEntry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []vswitch.FDBEntry
	for _, name := range slices.Sorted(maps.Keys(d.planes)) {
		p := d.planes[name]
		all, err := p.stations()
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			at, ok := p.places[s.Ifindex]
			if ok && p.lives(s) {
				out = append(out, vswitch.FDBEntry{Switch: name, VLAN: s.Vid, MAC: s.Mac, Port: at.name, Static: s.static, Age: s.age})
			}
		}
	}
	slices.SortFunc(out, func(a, b vswitch.FDBEntry) int {
		return cmp.Or(cmp.Compare(a.Switch, b.Switch), cmp.Compare(a.VLAN, b.VLAN), bytes.Compare(a.MAC[:], b.MAC[:]))
	})
	return out, nil
}

// Counters is what went through every port and gateway, and what entered every
// VLAN since its switch was made.
func (d *Driver) Counters(context.Context) (vswitch.Counters, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out vswitch.Counters
	links, err := d.host.Counted()
	if err != nil {
		return out, err
	}
	byIndex := map[uint32]*netlink.LinkAttrs{}
	for _, l := range links {
		byIndex[uint32(l.Attrs().Index)] = l.Attrs()
	}
	for _, name := range slices.Sorted(maps.Keys(d.planes)) {
		p := d.planes[name]
		ports, err := p.portCounters(byIndex)
		if err != nil {
			return vswitch.Counters{}, err
		}
		traffic, err := p.vlanTraffic()
		if err != nil {
			return vswitch.Counters{}, err
		}
		out.Ports = append(out.Ports, ports...)
		for _, vid := range slices.Sorted(maps.Keys(traffic)) {
			t := traffic[vid]
			out.VLANs = append(out.VLANs, vswitch.VLANCounters{Switch: name, VLAN: uint16(vid), Frames: t.Frames, Bytes: t.Bytes})
		}
	}
	return out, nil
}

func (p *plane) portCounters(links map[uint32]*netlink.LinkAttrs) ([]vswitch.PortCounters, error) {
	losses, err := p.portLosses()
	if err != nil {
		return nil, err
	}
	now, err := clock()
	if err != nil {
		return nil, err
	}
	handed, err := p.handed()
	if err != nil {
		return nil, err
	}
	var out []vswitch.PortCounters
	for ifindex, at := range p.places {
		c := vswitch.PortCounters{Switch: p.name, Port: at.name, Drops: map[string]uint64{}, VLANDrops: losses[ifindex]}
		for _, lost := range losses[ifindex] {
			for why, n := range lost {
				c.Drops[why] += n
			}
		}
		if _, c.Shut, err = p.activity(p.slots[ifindex], now); err != nil {
			return nil, err
		}
		if l := links[ifindex]; l != nil && l.Statistics != nil {
			c.RxFrames, c.RxBytes = l.Statistics.RxPackets, l.Statistics.RxBytes
			past := handed[p.slots[ifindex]]
			c.TxFrames, c.TxBytes = l.Statistics.TxPackets+past.Frames, l.Statistics.TxBytes+past.Bytes
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b vswitch.PortCounters) int { return cmp.Compare(a.Port, b.Port) })
	return out, nil
}

// shut is why a port is shut, and what to do about it; "" for one that is not.
func (p *plane) shut(slot uint32, now time.Duration) (string, error) {
	a, closed, err := p.activity(slot, now)
	if err != nil || !closed {
		return "", err
	}
	if a.Looped == 0 {
		return "its BPDU guard saw a bridge behind it and has it shut: " +
			"take the bridge away, and the port opens 300 s after the last BPDU", nil
	}
	other := "another port"
	if a.Looped == slot {
		other = "itself"
	} else if a.Looped < maxPorts && p.ports[a.Looped].Ifindex != 0 {
		other = fmt.Sprintf("port %q", p.places[p.ports[a.Looped].Ifindex].name)
	}
	return "it is in a loop with " + other + " and shut for that: " +
		"take the cable or the bridge between them away, and the port opens 5 s later", nil
}

// activity is what happened at a port, and whether it is shut.
func (p *plane) activity(slot uint32, now time.Duration) (a planeActivity, closed bool, err error) {
	if p.ports[slot].Flags&(planePortFlagPORT_BPDU_GUARD|planePortFlagPORT_LOOP_DETECTION) == 0 {
		return a, false, nil
	}
	if err := p.maps.Activities.Lookup(slot, &a); err != nil {
		return a, false, fmt.Errorf("read map %q of switch %q: %w", planeMapActivities, p.name, err)
	}
	return a, now < time.Duration(a.Shut), nil
}

// Expire removes the stations from the FDBs that have aged out, and tells how
// many. The switches do not use them any more; this is to make room. Once a
// minute is often enough.
func (d *Driver) Expire(context.Context) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	sum := 0
	var errs []error
	for name, p := range d.planes {
		n, err := p.expire()
		sum += n
		d.changes += uint64(n)
		if err != nil {
			errs = append(errs, fmt.Errorf("switch %q: %w", name, err))
		}
	}
	return sum, errors.Join(errs...)
}
