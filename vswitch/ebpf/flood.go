package ebpf

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

const (
	maxVLANs = int(planeLayoutMAX_VLANS)
	pieceLen = int(planeLayoutPIECE)
)

// piece is struct piece of the program.
type piece [pieceLen]uint32

// deviceChains is how many chains there are of devices in a namespace, in which the
// kernel looks for each receiver by its number (NETDEV_HASHENTRIES in net/core/dev.c).
const deviceChains = 256

// floods is the slots of each VLAN's members, untagged ones first. Devices of one chain
// follow each other, so that a flood to many finds it in the processor's cache.
func (p *plane) floods() map[uint16][]uint32 {
	var untagged, all [maxVLANs][]uint32
	for _, ifindex := range slices.SortedFunc(maps.Keys(p.slots), func(a, b uint32) int {
		return cmp.Or(cmp.Compare(a%deviceChains, b%deviceChains), cmp.Compare(a, b))
	}) {
		slot := p.slots[ifindex]
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
	lists := map[uint16][]uint32{}
	for vid := range all {
		if slots := append(untagged[vid], all[vid]...); len(slots) > 0 {
			lists[uint16(vid)] = slots
		}
	}
	return lists
}

// encodeFloods is lists in the pieces of the map floods: those that tell where each
// VLAN's list begins, and the lists. VLANs of the same members share one.
func encodeFloods(lists map[uint16][]uint32) []piece {
	pieces := make([]piece, maxVLANs/pieceLen)
	begins := map[string]uint32{}
	var key []byte
	for _, vid := range slices.Sorted(maps.Keys(lists)) {
		slots := lists[vid]
		if len(slots) == 0 {
			continue
		}
		key = key[:0]
		for _, slot := range slots {
			key = binary.NativeEndian.AppendUint32(key, slot)
		}
		at, ok := begins[string(key)]
		if !ok {
			at = uint32(len(pieces))
			begins[string(key)] = at
			for chunk := range slices.Chunk(slots, pieceLen) {
				pieces = append(pieces, piece{})
				copy(pieces[len(pieces)-1][:], chunk)
			}
			if len(slots)%pieceLen == 0 { // where the 0 is that ends it
				pieces = append(pieces, piece{})
			}
		}
		pieces[int(vid)/pieceLen][int(vid)%pieceLen] = at
	}
	return pieces
}

// decodeFloods is the lists as the program reads them.
func decodeFloods(pieces []piece) map[uint16][]uint32 {
	lists := map[uint16][]uint32{}
	if len(pieces) < maxVLANs/pieceLen {
		return lists
	}
	for vid := range maxVLANs {
		at := int(pieces[vid/pieceLen][vid%pieceLen])
		for end := at == 0; !end && at < len(pieces); at++ {
			slots := pieces[at][:]
			n := slices.Index(slots, 0)
			if end = n >= 0; end {
				slots = slots[:n]
			}
			if len(slots) > 0 {
				lists[uint16(vid)] = append(lists[uint16(vid)], slots...)
			}
		}
	}
	return lists
}

// compare finds out whether the flood lists are not what the ports say.
func (p *plane) compare() error {
	if p.maps.Floods == nil {
		return nil
	}
	have, err := p.readFloods()
	if err != nil {
		return fmt.Errorf("read map %q of switch %q: %w", planeMapFloods, p.name, err)
	}
	if !maps.EqualFunc(p.floods(), have, slices.Equal) {
		p.dirty = true
	}
	return nil
}

// readFloods is the flood lists that the program uses.
func (p *plane) readFloods() (map[uint16][]uint32, error) {
	var id ebpf.MapID
	err := p.maps.Floods.Lookup(uint32(0), &id)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return map[uint16][]uint32{}, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := ebpf.NewMapFromID(id)
	if err != nil {
		return nil, err
	}
	keys, pieces := make([]uint32, m.MaxEntries()), make([]piece, m.MaxEntries())
	var cursor ebpf.MapBatchCursor
	_, err = m.BatchLookup(&cursor, keys, pieces, nil)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		err = nil
	}
	return decodeFloods(pieces), errors.Join(err, m.Close())
}

// commit writes the flood lists if some changed, in one go, and then forgets what
// the FDB says of ports that left a VLAN, and what was counted of those that are
// gone.
func (p *plane) commit() error {
	if p.dirty && p.maps.Floods != nil {
		if err := p.writeFloods(encodeFloods(p.floods())); err != nil {
			return fmt.Errorf("write map %q of switch %q: %w", planeMapFloods, p.name, err)
		}
	}
	p.dirty = false
	if !p.stale {
		return nil
	}
	_, err := p.expire()
	err = errors.Join(err, p.forgetDrops())
	p.stale = err != nil
	return err
}

// writeFloods gives the program other lists, all at once. The kernel waits until no
// program uses those before (maybe_wait_bpf_programs in kernel/bpf/syscall.c), some
// milliseconds: so there is one map of them, and not one for each VLAN.
func (p *plane) writeFloods(pieces []piece) error {
	m, err := ebpf.NewMap(&ebpf.MapSpec{
		Name: "flood", Type: ebpf.Array, KeySize: 4, ValueSize: uint32(binary.Size(piece{})),
		MaxEntries: uint32(len(pieces)), Flags: unix.BPF_F_INNER_MAP,
	})
	if err != nil {
		return err
	}
	keys := make([]uint32, len(pieces))
	for i := range keys {
		keys[i] = uint32(i)
	}
	_, err = m.BatchUpdate(keys, pieces, nil)
	if err == nil {
		err = p.maps.Floods.Put(uint32(0), uint32(m.FD()))
	}
	return errors.Join(err, m.Close())
}
