package ebpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/vishvananda/netlink"
)

// toldEach is how many drops of one port the log has of a second.
const toldEach = 10

// filterReasons is how a reason to drop a frame is called towards people.
var filterReasons = [filterFilterReasonFILTER_REASONS]string{
	filterFilterReasonFILTER_DENIED:    "filtered",
	filterFilterReasonFILTER_NOT_IP:    "filtered-not-ip",
	filterFilterReasonFILTER_FRAGMENT:  "filtered-fragment",
	filterFilterReasonFILTER_MALFORMED: "filtered-malformed",
	filterFilterReasonFILTER_CROWDED:   "filtered-new-connections",
	filterFilterReasonFILTER_CLOSED:    "filtered-closed",
}

// losses adds the frames that were dropped on each device to out.
func (g *groupFilter) losses(out map[uint32]map[uint16]map[string]uint64) error {
	var at filterFilterPlace
	var values []filterFilterLosses
	all := g.maps.FilterDrops.Iterate()
	for all.Next(&at, &values) {
		if out[at.Ifindex] == nil {
			out[at.Ifindex] = map[uint16]map[string]uint64{}
		}
		sum := out[at.Ifindex][uint16(at.Vid)]
		if sum == nil {
			sum = map[string]uint64{}
			out[at.Ifindex][uint16(at.Vid)] = sum
		}
		for _, v := range values {
			for why, n := range v.Frames {
				if n != 0 {
					sum[filterReasons[why]] += n
				}
			}
		}
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("read map %q of switch %q: %w", filterMapFilterDrops, g.name, err)
	}
	return nil
}

// listen tells the log of drops until the filter is closed.
func (g *groupFilter) listen() error {
	events, err := ringbuf.NewReader(g.maps.FilterEvents)
	if err != nil {
		return errors.Join(fmt.Errorf("read map %q of switch %q: %w", filterMapFilterEvents, g.name, err), g.closeKernel())
	}
	g.events, g.ends = events, make(chan struct{})
	names := g.maps.Policies
	go func() {
		defer close(g.ends)
		for {
			record, err := events.Read()
			if errors.Is(err, os.ErrClosed) {
				return
			}
			var e filterFilterEvent
			if err != nil || binary.Read(bytes.NewReader(record.RawSample), binary.NativeEndian, &e) != nil {
				continue
			}
			g.log.Warn("frame filtered", e.words(g.name, names)...)
		}
	}()
	return nil
}

// words is a drop as the log tells it.
func (e *filterFilterEvent) words(sw string, policies *ebpf.Map) []any {
	addr := func(b [16]byte) netip.Addr {
		if e.Kind == filterFlowKindFLOW_IPV4 {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16(b)
	}
	from, to := addr(e.Local), addr(e.Remote)
	fromPort, toPort := swap(e.LocalPort), swap(e.RemotePort)
	direction := "out"
	if e.Direction == filterDirectionTO_PORT {
		from, to, fromPort, toPort, direction = to, from, toPort, fromPort, "in"
	}
	port := fmt.Sprint("interface ", e.Ifindex)
	if i, err := netlink.LinkByIndex(int(e.Ifindex)); err == nil {
		port = i.Attrs().Name
	}
	words := []any{
		"switch", sw, "port", port, "vlan", e.Vid, "direction", direction, "reason", filterReasons[min(e.Reason, filterFilterReasonFILTER_REASONS-1)],
		"protocol", e.Protocol, "from", netip.AddrPortFrom(from, fromPort), "to", netip.AddrPortFrom(to, toPort),
	}
	rule := "none allows it"
	var m *ebpf.Map
	if e.Group != 0 && policies.Lookup(e.Policy, &m) == nil {
		if groups, err := readText(m); err == nil && int(e.Group) <= len(groups) {
			rule = fmt.Sprintf("groups.%s.rules[%d]", groups[e.Group-1], e.Rule)
		}
		m.Close()
	}
	return append(words, "rule", rule)
}

func swap(v uint16) uint16 { return v<<8 | v>>8 }
