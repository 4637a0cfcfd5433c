package vswitch

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Step is one change of a switch. The set is closed: Add, Set and Del of a
// port and of a gateway, Add and Del of a switch, and Refuse. String is written in the
// words of ip, bridge and tc.
type Step interface {
	fmt.Stringer
	// Object is "switch/SWITCH", "port/SWITCH/PORT" or "gateway/SWITCH/VLAN".
	Object() string
	// Removes tells whether the step takes an object away.
	Removes() bool
	// Disturbs says whose frames stop, empty when nobody's.
	Disturbs() string
	// Engine is the dataplane that carries the step out.
	Engine() Dataplane

	apply(s map[string]Switch)
}

// AddSwitch makes a switch without ports.
type AddSwitch struct {
	Name      string
	Dataplane Dataplane
}

// DelSwitch removes a switch with all ports and gateways that it still has.
type DelSwitch struct {
	Name      string
	Dataplane Dataplane
	Ports     []string // that go with it, sorted
	Gateways  []string // that go with it, sorted
}

// AddPort makes a port and its device.
type AddPort struct {
	Switch    string
	Dataplane Dataplane
	Name      string
	Port      Port
}

// SetPort changes a port while it forwards. Kind, Netns, IfName, User, MultiQueue
// and Device are the same on both sides, and so is MAC where To chooses none.
type SetPort struct {
	Switch    string
	Dataplane Dataplane
	Name      string
	From, To  Port
}

// DelPort removes a port and what was made for it; a Device goes back to the
// host as it was lent.
type DelPort struct {
	Switch    string
	Dataplane Dataplane
	Name      string
	Port      Port // as it was seen
	// Next is the interface that the port is to have in the place of its Device. While
	// the host has none of that name, the port keeps what it has, and the step fails.
	Next string
}

// AddGateway makes the host's presence in a VLAN.
type AddGateway struct {
	Switch    string
	Dataplane Dataplane
	Name      string
	Gateway   Gateway
}

// SetGateway changes a gateway in place; VLAN is the same on both sides.
type SetGateway struct {
	Switch    string
	Dataplane Dataplane
	Name      string
	From, To  Gateway
}

// DelGateway takes the host out of a VLAN.
type DelGateway struct {
	Switch    string
	Dataplane Dataplane
	Name      string
	Gateway   Gateway // as it was seen
}

// Refuse is what no step can do: it fails with the reason.
type Refuse struct {
	Switch    string
	Dataplane Dataplane
	Name      string // of a port
	Reason    string
}

// Err is what, why and what to do.
func (s Refuse) Err() error { return errors.New(s.Reason) }

// Object is "port/SWITCH/PORT".
func (s Refuse) Object() string { return "port/" + s.Switch + "/" + s.Name }

// Removes is false.
func (Refuse) Removes() bool { return false }

// Engine is the switch's dataplane.
func (s Refuse) Engine() Dataplane { return s.Dataplane }

// Disturbs is empty.
func (Refuse) Disturbs() string { return "" }

// String is the reason as a comment.
func (s Refuse) String() string { return "# " + s.Reason }

func (Refuse) apply(map[string]Switch) {}

// Object is "switch/SWITCH".
func (s AddSwitch) Object() string { return "switch/" + s.Name }

// Object is "switch/SWITCH".
func (s DelSwitch) Object() string { return "switch/" + s.Name }

// Object is "port/SWITCH/PORT".
func (s AddPort) Object() string { return "port/" + s.Switch + "/" + s.Name }

// Object is "port/SWITCH/PORT".
func (s SetPort) Object() string { return "port/" + s.Switch + "/" + s.Name }

// Object is "port/SWITCH/PORT".
func (s DelPort) Object() string { return "port/" + s.Switch + "/" + s.Name }

// Object is "gateway/SWITCH/VLAN".
func (s AddGateway) Object() string { return "gateway/" + s.Switch + "/" + s.Name }

// Object is "gateway/SWITCH/VLAN".
func (s SetGateway) Object() string { return "gateway/" + s.Switch + "/" + s.Name }

// Object is "gateway/SWITCH/VLAN".
func (s DelGateway) Object() string { return "gateway/" + s.Switch + "/" + s.Name }

// Removes is false.
func (AddSwitch) Removes() bool { return false }

// Removes is true.
func (DelSwitch) Removes() bool { return true }

// Removes is false.
func (AddPort) Removes() bool { return false }

// Removes is false: the port stays.
func (SetPort) Removes() bool { return false }

// Removes is true.
func (DelPort) Removes() bool { return true }

// Removes is false.
func (AddGateway) Removes() bool { return false }

// Removes is false: the gateway stays.
func (SetGateway) Removes() bool { return false }

// Removes is true.
func (DelGateway) Removes() bool { return true }

// Engine is the dataplane that makes the switch.
func (s AddSwitch) Engine() Dataplane { return s.Dataplane }

// Engine is the dataplane that the switch had.
func (s DelSwitch) Engine() Dataplane { return s.Dataplane }

// Engine is the switch's dataplane.
func (s AddPort) Engine() Dataplane { return s.Dataplane }

// Engine is the switch's dataplane.
func (s SetPort) Engine() Dataplane { return s.Dataplane }

// Engine is the switch's dataplane.
func (s DelPort) Engine() Dataplane { return s.Dataplane }

// Engine is the switch's dataplane.
func (s AddGateway) Engine() Dataplane { return s.Dataplane }

// Engine is the switch's dataplane.
func (s SetGateway) Engine() Dataplane { return s.Dataplane }

// Engine is the switch's dataplane.
func (s DelGateway) Engine() Dataplane { return s.Dataplane }

// Disturbs is empty.
func (AddSwitch) Disturbs() string { return "" }

// Disturbs names everything that goes with the switch.
func (s DelSwitch) Disturbs() string {
	var out []string
	if len(s.Ports) > 0 {
		out = append(out, "cuts off "+strings.Join(s.Ports, ", "))
	}
	if len(s.Gateways) > 0 {
		out = append(out, "takes the host out of "+strings.Join(s.Gateways, ", "))
	}
	return strings.Join(out, "; ")
}

// Disturbs is empty.
func (AddPort) Disturbs() string { return "" }

// Disturbs says which VLANs and addresses the port loses.
func (s SetPort) Disturbs() string {
	if s.To.Down && !s.From.Down {
		return "cuts off " + s.Name
	}
	var out []string
	for _, v := range s.From.vlans() {
		if !slices.Contains(s.To.vlans(), v) {
			out = append(out, fmt.Sprintf("takes %s out of VLAN %d", s.Name, v))
		} else if (v == s.From.PVID) != (v == s.To.PVID) {
			out = append(out, fmt.Sprintf("changes the tagging of VLAN %d on %s", v, s.Name))
		}
	}
	for _, a := range s.From.Addresses {
		if !slices.Contains(s.To.Addresses, a) {
			out = append(out, fmt.Sprintf("takes %s from %s", a, s.Name))
		}
	}
	if s.From.MAC != s.To.MAC {
		out = append(out, "changes the MAC address of "+s.Name)
	}
	if gone := without(s.From.Overlay.Peers, s.To.Overlay.Peers); len(gone) > 0 {
		out = append(out, fmt.Sprintf("cuts the VLAN off from %s", join(gone)))
	}
	if s.To.Isolated && !s.From.Isolated {
		out = append(out, "cuts "+s.Name+" off from other isolated ports")
	}
	out = append(out, s.To.Security.tightens(s.From.Security, s.Name)...)
	out = append(out, s.filters()...)
	out = append(out, s.To.Limit.tightens(s.From.Limit, s.Name)...)
	return strings.Join(out, "; ")
}

// Disturbs says that the port is cut off.
func (s DelPort) Disturbs() string { return "cuts off " + s.Name }

// Disturbs is empty.
func (AddGateway) Disturbs() string { return "" }

// Disturbs says which addresses go.
func (s SetGateway) Disturbs() string {
	var out []string
	for _, a := range s.From.Addresses {
		if !slices.Contains(s.To.Addresses, a) {
			out = append(out, fmt.Sprintf("takes %s from the host in %s", a, s.Name))
		}
	}
	if s.From.MAC != s.To.MAC {
		out = append(out, "changes the MAC address of the gateway of "+s.Name)
	}
	return strings.Join(out, "; ")
}

// Disturbs says that the host leaves the VLAN.
func (s DelGateway) Disturbs() string { return "takes the host out of " + s.Name }

func (s AddSwitch) apply(m map[string]Switch) {
	m[s.Name] = Switch{Dataplane: s.Dataplane, Ports: map[string]Port{}, Gateways: map[string]Gateway{}}
}
func (s DelSwitch) apply(m map[string]Switch)  { delete(m, s.Name) }
func (s AddPort) apply(m map[string]Switch)    { m[s.Switch].Ports[s.Name] = s.Port.canonical() }
func (s SetPort) apply(m map[string]Switch)    { m[s.Switch].Ports[s.Name] = s.To.canonical() }
func (s DelPort) apply(m map[string]Switch)    { delete(m[s.Switch].Ports, s.Name) }
func (s AddGateway) apply(m map[string]Switch) { m[s.Switch].Gateways[s.Name] = s.Gateway.canonical() }
func (s SetGateway) apply(m map[string]Switch) { m[s.Switch].Gateways[s.Name] = s.To.canonical() }
func (s DelGateway) apply(m map[string]Switch) { delete(m[s.Switch].Gateways, s.Name) }

// vlans is every VLAN that the port is in, sorted.
func (p Port) vlans() []uint16 {
	if p.PVID == 0 || p.PVID == NotAttached {
		return p.Tagged
	}
	all := append(slices.Clone(p.Tagged), p.PVID)
	slices.Sort(all)
	return slices.Compact(all)
}

func names[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
