package ebpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// reasons is how a reason to drop a frame is called towards people.
var reasons = [planeReasonREASONS]string{
	planeReasonREASON_PORT_UNKNOWN:       "port-unknown",
	planeReasonREASON_PORT_DOWN:          "port-down",
	planeReasonREASON_MALFORMED:          "malformed",
	planeReasonREASON_RESERVED_MULTICAST: "reserved-multicast",
	planeReasonREASON_BAD_SOURCE:         "bad-source",
	planeReasonREASON_TAGGED_ON_ACCESS:   "tagged-on-access",
	planeReasonREASON_VLAN_NOT_ALLOWED:   "vlan-not-allowed",
	planeReasonREASON_NO_NATIVE_VLAN:     "no-native-vlan",
	planeReasonREASON_SAME_PORT:          "same-port",
	planeReasonREASON_ISOLATED:           "isolated",
	planeReasonREASON_TOO_BIG:            "too-big",
	planeReasonREASON_DOUBLE_TAGGED:      "double-tagged",
	planeReasonREASON_NO_DESTINATION:     "no-destination",
	planeReasonREASON_FDB_FULL:           "fdb-full",
	planeReasonREASON_HIDDEN:             "hidden-protocol",
	planeReasonREASON_MAC_SPOOFED:        "mac-spoofed",
	planeReasonREASON_IP_SPOOFED:         "ip-spoofed",
	planeReasonREASON_MAC_LIMIT:          "mac-limit",
	planeReasonREASON_STORM_BROADCAST:    "storm-broadcast",
	planeReasonREASON_STORM_MULTICAST:    "storm-multicast",
	planeReasonREASON_STORM_UNICAST:      "storm-unknown-unicast",
	planeReasonREASON_BPDU_GUARD:         "bpdu-guard",
	planeReasonREASON_DHCP_GUARD:         "dhcp-guard",
	planeReasonREASON_RA_GUARD:           "ra-guard",
	planeReasonREASON_LOOP:               "loop",
	planeReasonREASON_LIMIT:              "limit",
}

// vlanTraffic is what entered each VLAN that saw a frame.
func (p *plane) vlanTraffic() (map[uint32]planeTraffic, error) {
	return p.traffic(p.maps.Vlans, planeMapVlans, planeLayoutMAX_VLANS)
}

// handed is by slot what went to the other end of a veth past its device.
func (p *plane) handed() (map[uint32]planeTraffic, error) {
	if p.maps.Handed == nil {
		return nil, nil
	}
	return p.traffic(p.maps.Handed, planeMapHanded, planeLayoutMAX_PORTS)
}

// traffic is the sum over all processors of each counter that is not zero.
func (p *plane) traffic(m *ebpf.Map, name string, size planeLayout) (map[uint32]planeTraffic, error) {
	processors, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("count processors: %w", err)
	}
	keys := make([]uint32, size)
	values := make([]planeTraffic, len(keys)*processors)
	var cursor ebpf.MapBatchCursor
	n, err := m.BatchLookup(&cursor, keys, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("read map %q of switch %q: %w", name, p.name, err)
	}
	out := map[uint32]planeTraffic{}
	for i, key := range keys[:n] {
		var sum planeTraffic
		for _, v := range values[i*processors : (i+1)*processors] {
			sum.Frames += v.Frames
			sum.Bytes += v.Bytes
		}
		if sum.Frames != 0 {
			out[key] = sum
		}
	}
	return out, nil
}

// portLosses is the frames dropped on each device, by VLAN and reason.
func (p *plane) portLosses() (map[uint32]map[uint16]map[string]uint64, error) {
	out := map[uint32]map[uint16]map[string]uint64{}
	var at planePlace
	var values []planeLosses
	all := p.maps.Drops.Iterate()
	for all.Next(&at, &values) {
		sum := map[string]uint64{}
		for _, v := range values {
			for why, n := range v.Frames {
				if n != 0 {
					sum[reasons[why]] += n
				}
			}
		}
		if out[at.Ifindex] == nil {
			out[at.Ifindex] = map[uint16]map[string]uint64{}
		}
		out[at.Ifindex][uint16(at.Vid)] = sum
	}
	if err := all.Err(); err != nil {
		return nil, fmt.Errorf("read map %q of switch %q: %w", planeMapDrops, p.name, err)
	}
	if p.groups != nil {
		return out, p.groups.losses(out)
	}
	return out, nil
}
