package vswitchtest

import (
	"maps"
	"slices"

	"ripstop/vswitch"
)

// model is what a switch must do: which of its ports hear a frame, and with which
// tags. It is written from the standards and the promises, not from a dataplane.
type model struct {
	ports ports
	known map[seat]string // where a station was seen last
}

// seat is a station in a VLAN.
type seat struct {
	vid uint16
	mac vswitch.MAC
}

// in tells whether a port is in a VLAN, and carries whether it works for it now.
func in(p vswitch.Port, vid uint16) bool {
	return vid != 0 && (p.PVID == vid || slices.Contains(p.Tagged, vid))
}

func carries(p vswitch.Port, vid uint16) bool { return !p.Down && in(p, vid) }

// owner is the port that an address belongs to in a VLAN, also while it is down;
// "" for none.
func (m *model) owner(at seat) string {
	for name, p := range m.ports {
		if in(p, at.vid) && slices.Contains(p.Security.AllowedMACs, at.mac) {
			return name
		}
	}
	return ""
}

// change is told that ports are others now: who left a VLAN is not known there
// any more, nor is whose address belongs to somebody, or did.
func (m *model) change(to ports) {
	before := *m
	m.ports = maps.Clone(to)
	maps.DeleteFunc(m.known, func(at seat, port string) bool {
		return !carries(m.ports[port], at.vid) || before.owner(at) != m.owner(at)
	})
}

// classify is the VLAN of a frame and the tags that are content in it; ok is
// false for one that no port takes.
func classify(p vswitch.Port, tags []tag) (vid uint16, inside []tag, ok bool) {
	vid, inside = p.PVID, tags
	if len(tags) > 0 && tags[0].kind == cTag {
		inside = tags[1:]
		if v := tags[0].vid; v != 0 {
			if vid = v; len(p.Tagged) == 0 {
				return 0, nil, false
			}
		}
		if len(inside) > 0 && inside[0].kind == cTag {
			return 0, nil, false
		}
	}
	if len(inside) > 0 && inside[0] == (tag{sTag, 0}) {
		return 0, nil, false
	}
	return vid, inside, carries(p, vid)
}

// deliver is who hears a frame.
func (m *model) deliver(from string, f frame) map[string][]tag {
	p := m.ports[from]
	vid, inside, ok := classify(p, f.tags)
	if !ok || f.dst[0] == 1 && f.dst[1] == 0x80 && f.dst[2] == 0xc2 {
		return none
	}
	here := seat{vid, f.src}
	if owner := m.owner(here); owner != "" && owner != from {
		return none
	}
	if macs := p.Security.AllowedMACs; len(macs) > 0 && !slices.Contains(macs, f.src) {
		return none
	}
	m.known[here] = from
	out := map[string][]tag{}
	for name, q := range m.ports {
		if name == from || !carries(q, vid) || p.Isolated && q.Isolated || !m.meant(seat{vid, f.dst}, name) {
			continue
		}
		out[name] = inside
		if q.PVID != vid {
			out[name] = append([]tag{{cTag, vid}}, inside...)
		}
	}
	return out
}

// meant tells whether a frame to a station is for a port.
func (m *model) meant(to seat, port string) bool {
	if to.mac[0]&1 != 0 {
		return true
	}
	if owner := m.owner(to); owner != "" { // known before it sends
		return owner == port
	}
	at, ok := m.known[to]
	return !ok || at == port
}
