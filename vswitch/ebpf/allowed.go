package ebpf

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"ripstop/vswitch"
)

// ofIPv6 marks a slot in the keys of its IPv6 addresses.
const ofIPv6 = 1 << 31

func ipKey(slot uint32, p netip.Prefix) planeAllowedIp {
	key := planeAllowedIp{Slot: slot, Bits: uint32(32 + p.Bits())}
	if p.Addr().Is6() {
		key.Slot |= ofIPv6
	}
	copy(key.Addr[:], p.Addr().AsSlice())
	return key
}

func (k planeAllowedIp) prefix() netip.Prefix {
	a := netip.AddrFrom4([4]byte(k.Addr[:4]))
	if k.Slot&ofIPv6 != 0 {
		a = netip.AddrFrom16(k.Addr)
	}
	return netip.PrefixFrom(a, int(k.Bits)-32)
}

func macKey(slot uint32, m vswitch.MAC) planeAllowedMac { return planeAllowedMac{Slot: slot, Mac: m} }

// readAllowed reads the addresses of all slots in use, sorted.
func (p *plane) readAllowed() error {
	var mac planeAllowedMac
	var ip planeAllowedIp
	var value uint32
	all := p.maps.AllowedMacs.Iterate()
	for all.Next(&mac, &value) {
		p.macs[mac.Slot] = append(p.macs[mac.Slot], mac.Mac)
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("read map %q of switch %q: %w", planeMapAllowedMacs, p.name, err)
	}
	all = p.maps.AllowedIps.Iterate()
	for all.Next(&ip, &value) {
		slot := ip.Slot &^ ofIPv6
		p.ips[slot] = append(p.ips[slot], ip.prefix())
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("read map %q of switch %q: %w", planeMapAllowedIps, p.name, err)
	}
	for _, list := range p.macs {
		slices.SortFunc(list, func(a, b vswitch.MAC) int { return bytes.Compare(a[:], b[:]) })
	}
	for _, list := range p.ips {
		slices.SortFunc(list, func(a, b netip.Prefix) int {
			return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
		})
	}
	return nil
}

// allow adds what a slot has not yet of addresses.
func (p *plane) allow(slot uint32, macs []vswitch.MAC, ips []netip.Prefix) error {
	for _, m := range macs {
		key := macKey(slot, m)
		if err := p.maps.AllowedMacs.Put(&key, uint32(1)); err != nil {
			return fmt.Errorf("write map %q of switch %q: %w", planeMapAllowedMacs, p.name, err)
		}
	}
	for _, ip := range ips {
		key := ipKey(slot, ip)
		if err := p.maps.AllowedIps.Put(&key, uint32(1)); err != nil {
			return fmt.Errorf("write map %q of switch %q: %w", planeMapAllowedIps, p.name, err)
		}
	}
	return nil
}

// disallow removes what a slot has over these addresses, which are sorted as in
// a canonical state.
func (p *plane) disallow(slot uint32, macs []vswitch.MAC, ips []netip.Prefix) error {
	var errs []error
	for _, m := range p.macs[slot] {
		if key := macKey(slot, m); !slices.Contains(macs, m) {
			errs = append(errs, gone(p.maps.AllowedMacs.Delete(&key)))
		}
	}
	for _, ip := range p.ips[slot] {
		if key := ipKey(slot, ip); !slices.Contains(ips, ip) {
			errs = append(errs, gone(p.maps.AllowedIps.Delete(&key)))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove allowed addresses of switch %q: %w", p.name, err)
	}
	p.macs[slot], p.ips[slot] = macs, ips
	return nil
}

// gone is the error of a deletion; that there was nothing is none.
func gone(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}

// forgetActivity makes a slot's counts those of a port that is new.
func (p *plane) forgetActivity(slot uint32) error {
	err := errors.Join(p.maps.Activities.Put(slot, &planeActivity{}), p.maps.Learned.Put(slot, int32(0)), p.maps.HeardAt.Put(slot, int32(0)))
	if p.maps.Handed == nil {
		return err
	}
	processors, why := ebpf.PossibleCPU()
	if why != nil {
		return errors.Join(err, fmt.Errorf("count processors: %w", why))
	}
	return errors.Join(err, p.maps.Handed.Put(slot, make([]planeTraffic, processors)))
}

// forgetDrops removes the counters of devices that are no ports any more.
func (p *plane) forgetDrops() error {
	var key planePlace
	var values []planeLosses
	var old []planePlace
	all := p.maps.Drops.Iterate()
	for all.Next(&key, &values) {
		if _, ok := p.slots[key.Ifindex]; !ok {
			old = append(old, key)
		}
	}
	errs := []error{all.Err()}
	for _, key := range old {
		errs = append(errs, gone(p.maps.Drops.Delete(&key)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clear map %q of switch %q: %w", planeMapDrops, p.name, err)
	}
	return nil
}

// static is the FDB's entries of addresses that belong to a port.
func (p *plane) static() map[planeStation]planeSighting {
	out := map[planeStation]planeSighting{}
	for ifindex, slot := range p.slots {
		port, trunk := p.ports[slot], p.trunks[slot]
		for _, m := range p.macs[slot] {
			for _, vid := range trunk.list() {
				out[planeStation{Vid: vid, Mac: m}] = planeSighting{Slot: slot, Ifindex: ifindex, Seen: isStatic}
			}
			if port.Pvid != 0 {
				out[planeStation{Vid: port.Pvid, Mac: m}] = planeSighting{Slot: slot, Ifindex: ifindex, Seen: isStatic}
			}
		}
	}
	return out
}

// recount writes how many stations each port has.
func (p *plane) recount(all []station) error {
	want := make([]int32, maxPorts)
	for _, s := range all {
		if !s.static && !s.told && s.Slot < maxPorts {
			want[s.Slot]++
		}
	}
	return p.putCounts(p.maps.Learned, planeMapLearned, want)
}

// putCounts makes a map of counts by slot be these.
func (p *plane) putCounts(m *ebpf.Map, name string, want []int32) error {
	keys, have := make([]uint32, maxPorts), make([]int32, maxPorts)
	var cursor ebpf.MapBatchCursor
	if _, err := m.BatchLookup(&cursor, keys, have, nil); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("read map %q of switch %q: %w", name, p.name, err)
	}
	for i, slot := range keys {
		if have[i] == want[slot] {
			continue
		}
		if err := m.Put(slot, want[slot]); err != nil {
			return fmt.Errorf("write map %q of switch %q: %w", name, p.name, err)
		}
	}
	return nil
}
