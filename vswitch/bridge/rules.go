package bridge

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"ripstop/internal/link"
	"ripstop/vswitch"
)

// rule is one tc flower filter at a port's ingress. Its priority says which.
type rule struct {
	priority uint16
	protocol uint16 // EtherType of the frame, that of the outer tag included
	reason   string // of the drop; empty for a rule that lets pass
	keys     func(options *nl.RtAttr)
}

// priorities of ripstop's filters: high enough that an operator's come first.
const (
	dropReserved uint16 = 0x7270 + iota
	dropDouble
	passPriority
	dropTagged
)

// rules are, in order: frames to the reserved addresses 01:80:c2:00:00:00–0f
// (IEEE 802.1Q, 8.6.3) go no further; nor do frames with two 802.1Q tags; and at
// an access port a tag may carry a priority but no VLAN id.
var rules = []rule{
	{dropReserved, unix.ETH_P_ALL, "reserved-multicast", func(o *nl.RtAttr) {
		o.AddRtAttr(nl.TCA_FLOWER_KEY_ETH_DST, []byte{0x01, 0x80, 0xc2, 0, 0, 0})
		o.AddRtAttr(nl.TCA_FLOWER_KEY_ETH_DST_MASK, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xf0})
	}},
	{dropDouble, unix.ETH_P_8021Q, "double-tagged", func(o *nl.RtAttr) {
		o.AddRtAttr(nl.TCA_FLOWER_KEY_ETH_TYPE, bigEndian(unix.ETH_P_8021Q))
		o.AddRtAttr(nl.TCA_FLOWER_KEY_VLAN_ETH_TYPE, bigEndian(unix.ETH_P_8021Q))
	}},
	{passPriority, unix.ETH_P_8021Q, "", func(o *nl.RtAttr) {
		o.AddRtAttr(nl.TCA_FLOWER_KEY_ETH_TYPE, bigEndian(unix.ETH_P_8021Q))
		o.AddRtAttr(nl.TCA_FLOWER_KEY_VLAN_ID, nl.Uint16Attr(0))
	}},
	{dropTagged, unix.ETH_P_8021Q, "tagged-on-access", func(o *nl.RtAttr) {
		o.AddRtAttr(nl.TCA_FLOWER_KEY_ETH_TYPE, bigEndian(unix.ETH_P_8021Q))
	}},
}

// rulesOf is the rules of a port: trunks need the first two only.
func rulesOf(p vswitch.Port) []rule {
	if len(p.Tagged) > 0 {
		return rules[:2]
	}
	return rules
}

func bigEndian(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// setRules makes exactly these of the rules be at a port.
func setRules(h *link.Space, l netlink.Link, want []rule) error {
	have, err := rulesAt(h, l)
	if err != nil {
		return err
	}
	if _, err := h.AddClsact(l.Attrs().Index); err != nil {
		return fmt.Errorf("interface %q: %w", l.Attrs().Name, err)
	}
	for _, r := range rules {
		wanted := slices.ContainsFunc(want, func(w rule) bool { return w.priority == r.priority })
		_, there := have[r.priority]
		switch {
		case wanted && !there:
			err = r.send(unix.RTM_NEWTFILTER, unix.NLM_F_CREATE|unix.NLM_F_EXCL, l)
		case !wanted && there:
			err = r.send(unix.RTM_DELTFILTER, 0, l)
		}
		if err != nil {
			return fmt.Errorf("set filter %d of %q: %w", r.priority, l.Attrs().Name, err)
		}
	}
	return nil
}

// clearRules takes ripstop's filters off a port, and the place for filters when
// nobody else uses it.
func clearRules(h *link.Space, l netlink.Link) error {
	if err := setRules(h, l, nil); err != nil {
		return err
	}
	if err := h.RemoveClsact(l.Attrs().Index); err != nil {
		return fmt.Errorf("interface %q: %w", l.Attrs().Name, err)
	}
	return nil
}

// rulesAt is the frames that each of ripstop's filters at a port has met, by priority.
func rulesAt(h *link.Space, l netlink.Link) (map[uint16]uint64, error) {
	list, err := h.Filters(l.Attrs().Index)
	if err != nil {
		return nil, fmt.Errorf("interface %q: %w", l.Attrs().Name, err)
	}
	out := map[uint16]uint64{}
	for _, f := range list {
		p := f.Attrs().Priority
		flower, ok := f.(*netlink.Flower)
		if !ok || p < dropReserved || p > dropTagged {
			continue
		}
		out[p] += 0
		for _, a := range flower.Actions {
			if s := a.Attrs().Statistics; s != nil && s.Basic != nil {
				out[p] += uint64(s.Basic.Packets)
			}
		}
	}
	return out, nil
}

// send makes or removes the filter of a link in the process's namespace.
func (r rule) send(kind, flags int, l netlink.Link) error {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{
		Family: nl.FAMILY_ALL, Ifindex: int32(l.Attrs().Index), Parent: netlink.HANDLE_MIN_INGRESS,
		Info: netlink.MakeHandle(r.priority, nl.Swap16(r.protocol)),
	})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("flower")))
	if kind == unix.RTM_NEWTFILTER {
		options := nl.NewRtAttr(nl.TCA_OPTIONS, nil)
		r.keys(options)
		do := netlink.TC_ACT_OK
		if r.reason != "" {
			do = netlink.TC_ACT_SHOT
		}
		action := &netlink.GenericAction{ActionAttrs: netlink.ActionAttrs{Action: do}}
		if err := netlink.EncodeActions(options.AddRtAttr(nl.TCA_FLOWER_ACT, nil), []netlink.Action{action}); err != nil {
			return err
		}
		req.AddData(options)
	}
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
