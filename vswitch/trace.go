package vswitch

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

// Trace is what a switch would do with a frame, decision by decision.
type Trace struct {
	Switch    string
	Port      string // the port or gateway at which the frame comes in
	Dataplane Dataplane
	VLAN      uint16     // 0: it went nowhere before it had one
	Decisions []Decision // in their order
	Egress    []Egress   // who hears it, sorted by port; empty when Reason says why
	Reason    string     // as PortCounters.Drops names it; "" when somebody hears the frame
}

// Decision is one thing that the switch finds out or decides about a frame.
type Decision struct {
	Stage  string // one of the Stages
	Result string // for people
	Rule   string // the key of the file that decides, "" where none does
}

// The stages of a frame's way, in their order.
const (
	StageLimit   = "limit"   // whether a port's limit has room for it: first where it comes in, last where it leaves
	StageFilter  = "filter"  // what a port's groups say of it: before the rest where it comes in, after the rest where it leaves
	StageIngress = "ingress" // the frame's VLAN
	StageGuard   = "guard"   // whether the port may send it
	StageLearn   = "learn"   // what the FDB would learn of its sender
	StageFDB     = "fdb"     // where its receiver is
	StageEgress  = "egress"  // a port that would send it, or does not
)

// Egress is a frame as it would leave through a port.
type Egress struct {
	Port   string
	Tagged bool // with the 802.1Q tag of Trace.VLAN
}

// Tracer is a Driver that can tell what would become of a frame. Nothing is sent,
// counted or learned by that.
type Tracer interface {
	// Trace lets a frame come in at a port or gateway: as it is on the wire, with
	// its tags and without FCS. The error is a *NoPortError where there is no such
	// port on this dataplane.
	Trace(ctx context.Context, port string, frame []byte) (Trace, error)
}

// NoPortError says that no switch has a port or gateway of the name.
type NoPortError struct {
	Name string
}

// Error is what, why and what to do.
func (e *NoPortError) Error() string {
	return fmt.Sprintf("port %q: no switch has a port or gateway of this name: `ripstop get port` lists them", e.Name)
}

// rules is the key of a port in the file that makes a drop's reason.
var rules = map[string]string{
	"port-down":             "state",
	"tagged-on-access":      "vlan",
	"vlan-not-allowed":      "trunk",
	"no-native-vlan":        "native",
	"isolated":              "isolated",
	"too-big":               "mtu",
	"mac-spoofed":           "allowed-macs",
	"ip-spoofed":            "allowed-ips",
	"mac-limit":             "mac-limit",
	"storm-broadcast":       "storm-control.broadcast",
	"storm-multicast":       "storm-control.multicast",
	"storm-unknown-unicast": "storm-control.unknown-unicast",
	"bpdu-guard":            "bpdu-guard",
	"loop":                  "loop-detection",
	"limit":                 "limit",
	"dhcp-guard":            "trusted",
	"ra-guard":              "trusted",
}

// Rule is the key of the file behind a drop's reason at a port, as
// switches.lab.ports.web.allowed-macs; "" for reasons that no file changes.
func Rule(sw, port, reason string) string {
	key, ok := rules[reason]
	if !ok {
		return ""
	}
	return PortKey(sw, port, key)
}

// PortKey is the place of a port's key in the file.
func PortKey(sw, port, key string) string {
	return strings.Join([]string{"switches", sw, "ports", port, key}, ".")
}

// Note adds a decision.
func (t *Trace) Note(stage, rule, format string, args ...any) {
	t.Decisions = append(t.Decisions, Decision{stage, fmt.Sprintf(format, args...), rule})
}

// Deliver sets who hears the frame.
func (t *Trace) Deliver(to []Egress) {
	t.Egress = to
	slices.SortFunc(t.Egress, func(a, b Egress) int { return cmp.Compare(a.Port, b.Port) })
	for _, e := range t.Egress {
		form := "untagged"
		if e.Tagged {
			form = fmt.Sprintf("with the 802.1Q tag %d", t.VLAN)
		}
		t.Note(StageEgress, "", "%s: sent %s", e.Port, form)
	}
}

// SplitTag takes the outer 802.1Q or 802.1ad tag out of a frame, as the kernel
// does before a switch sees it: its EtherType in the upper half and its control
// information in the lower one, 0 where there is none.
func SplitTag(frame []byte) (rest []byte, tag uint32) {
	const addresses, size = 12, 4
	if len(frame) < addresses+size+2 {
		return frame, 0
	}
	kind := uint32(frame[addresses])<<8 | uint32(frame[addresses+1])
	if kind != 0x8100 && kind != 0x88a8 {
		return frame, 0
	}
	tag = kind<<16 | uint32(frame[addresses+2])<<8 | uint32(frame[addresses+3])
	rest = append(append([]byte{}, frame[:addresses]...), frame[addresses+size:]...)
	return rest, tag
}
