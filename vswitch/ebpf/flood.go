package ebpf

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// floodChunk bounds the descriptors in use while flood lists are written. Each
// chunk waits for the readers of the lists before it once.
const floodChunk = 512

// floods is the slots of each VLAN's members, untagged ones first.
func (p *plane) floods() map[uint16][]uint32 {
	untagged, all := map[uint16][]uint32{}, map[uint16][]uint32{}
	for _, slot := range slices.Sorted(maps.Values(p.slots)) {
		port := p.ports[slot]
		if port.Flags&planePortFlagPORT_DOWN != 0 {
			continue
		}
		if port.Pvid != 0 {
			untagged[port.Pvid] = append(untagged[port.Pvid], slot)
		}
		trunk := p.trunks[slot]
		for _, vid := range trunk.list() {
			all[vid] = append(all[vid], slot)
		}
	}
	for vid, slots := range untagged {
		all[vid] = append(slots, all[vid]...)
	}
	return all
}

// compare marks the VLANs whose flood lists are not what the ports say. It looks
// at VLANs that have members alone, because before Linux 6.8 each look waits for
// the readers of all lists (maybe_wait_bpf_programs in kernel/bpf/syscall.c),
// about 17 ms. A list of another VLAN does no harm: no port lets its frames in.
func (p *plane) compare() error {
	if p.maps.Floods == nil {
		return nil
	}
	want := p.floods()
	have, err := p.readFloods(slices.Collect(maps.Keys(want)))
	if err != nil {
		return fmt.Errorf("read map %q of switch %q: %w", planeMapFloods, p.name, err)
	}
	for vid, slots := range want {
		if !slices.Equal(slots, have[vid]) {
			p.dirty[vid] = true
		}
	}
	return nil
}

// readFloods looks at one VLAN after the other: before Linux 6.14, a batch ends
// with EINTR at a VLAN that has no list.
func (p *plane) readFloods(vids []uint16) (map[uint16][]uint32, error) {
	out := map[uint16][]uint32{}
	for _, vid := range vids {
		var id ebpf.MapID
		err := p.maps.Floods.Lookup(uint32(vid), &id)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		slots, err := readList(id)
		if err != nil {
			return nil, err
		}
		out[vid] = slots
	}
	return out, nil
}

func readList(id ebpf.MapID) ([]uint32, error) {
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return nil, err
	}
	keys, slots := make([]uint32, m.MaxEntries()), make([]uint32, m.MaxEntries())
	var cursor ebpf.MapBatchCursor
	_, err = m.BatchLookup(&cursor, keys, slots, nil)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	return slots, errors.Join(err, m.Close())
}

// commit writes the flood lists of the VLANs that changed, each in one go, and
// then forgets what the FDB says of ports that left a VLAN, and what was counted
// of those that are gone.
func (p *plane) commit() error {
	if p.maps.Floods == nil {
		clear(p.dirty)
	}
	var want map[uint16][]uint32
	if len(p.dirty) > 0 {
		want = p.floods()
	}
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(p.dirty)), floodChunk) {
		if err := p.writeFloods(chunk, want); err != nil {
			return fmt.Errorf("write map %q of switch %q: %w", planeMapFloods, p.name, err)
		}
		for _, vid := range chunk {
			delete(p.dirty, vid)
		}
	}
	if !p.stale {
		return nil
	}
	_, err := p.expire()
	err = errors.Join(err, p.forgetDrops())
	p.stale = err != nil
	return err
}

// writeFloods gives VLANs their lists. Those that have no members any more share one of
// slot 0, which nobody has: each removal of a list would wait for all readers.
func (p *plane) writeFloods(vids []uint16, want map[uint16][]uint32) error {
	var keys, fds []uint32
	lists := map[string]*ebpf.Map{}
	var errs []error
	for _, vid := range vids {
		name, slots := fmt.Sprint(vid), want[vid]
		if len(slots) == 0 {
			name, slots = "nobody", []uint32{0}
		}
		if lists[name] == nil {
			list, err := newList(slots)
			if err != nil {
				errs = append(errs, err)
				break
			}
			lists[name] = list
		}
		keys, fds = append(keys, uint32(vid)), append(fds, uint32(lists[name].FD()))
	}
	if len(errs) == 0 && len(keys) > 0 {
		_, err := p.maps.Floods.BatchUpdate(keys, fds, nil)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, closeAll(lists))...)
}

// newList makes the inner map of one VLAN.
func newList(slots []uint32) (*ebpf.Map, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "flood", Type: ebpf.Array, KeySize: 4, ValueSize: 4,
		MaxEntries: uint32(len(slots)), Flags: unix.BPF_F_INNER_MAP,
	})
	if err != nil {
		return nil, err
	}
	keys := make([]uint32, len(slots))
	for i := range keys {
		keys[i] = uint32(i)
	}
	if _, err := m.BatchUpdate(keys, slots, nil); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}
