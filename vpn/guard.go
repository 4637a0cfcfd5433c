package vpn

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Guarded is the prefixes that have to be guarded, sorted: those that are routed
// into a tunnel, and the networks of its addresses, whether or not it can be made. A guard is a route of the
// highest metric that refuses packets: they go nowhere else while the tunnel is
// away, whatever default route the host has. Networks on the link and single
// addresses, which are the host's own, need none.
func (s State) Guarded() []netip.Prefix {
	return slices.SortedFunc(maps.Keys(s.guarded()), netip.Prefix.Compare)
}

// guarded is a tunnel for each prefix that has to be guarded: the first by name, and
// blocked ones last.
func (s State) guarded() map[netip.Prefix]string {
	out := map[netip.Prefix]string{}
	for _, tunnels := range []map[string]Tunnel{s.Blocked, s.Tunnels} {
		for _, name := range slices.Backward(slices.Sorted(maps.Keys(tunnels))) {
			for _, p := range tunnels[name].guarded() {
				out[p] = name
			}
		}
	}
	return out
}

func (t Tunnel) guarded() []netip.Prefix {
	if t.User {
		return nil // the host sends nothing there
	}
	out := t.Needs()
	for _, a := range t.Addresses {
		if !a.IsSingleIP() && !a.Addr().IsLinkLocalUnicast() {
			out = append(out, a.Masked())
		}
	}
	return out
}

// AddGuard refuses packets to a prefix that no tunnel takes.
type AddGuard struct {
	Tunnel string // one that takes them
	Prefix netip.Prefix
}

// DelGuard leaves packets to a prefix to the host's other routes.
type DelGuard struct {
	Tunnel string // one that took them, "" when none is left
	Prefix netip.Prefix
}

// Object is "tunnel/TUNNEL".
func (s AddGuard) Object() string { return tunnelObject(s.Tunnel) }

// Object is "tunnel/TUNNEL", or "guard/PREFIX" when no tunnel is left.
func (s DelGuard) Object() string {
	if s.Tunnel == "" {
		return "guard/" + s.Prefix.String()
	}
	return tunnelObject(s.Tunnel)
}

// Removes is false.
func (AddGuard) Removes() bool { return false }

// Removes is true.
func (DelGuard) Removes() bool { return true }

// Disturbs is empty.
func (AddGuard) Disturbs() string { return "" }

// Disturbs is empty.
func (DelGuard) Disturbs() string { return "" }

// GuardMetric is that of a guard's route: any other is taken before it.
const GuardMetric = 1<<32 - 1

// String is the ip command.
func (s AddGuard) String() string {
	return fmt.Sprintf("ip route add unreachable %s metric %d proto %d", s.Prefix, uint32(GuardMetric), RouteProtocol)
}

// String is the ip command.
func (s DelGuard) String() string {
	return fmt.Sprintf("ip route del unreachable %s metric %d proto %d", s.Prefix, uint32(GuardMetric), RouteProtocol)
}

func (AddGuard) apply(map[string]Tunnel) {}
func (DelGuard) apply(map[string]Tunnel) {}

// guard is the guards after a step.
func guard(have []netip.Prefix, step Step) []netip.Prefix {
	switch s := step.(type) {
	case AddGuard:
		return sorted(append(without(have, []netip.Prefix{s.Prefix}), s.Prefix))
	case DelGuard:
		return without(have, []netip.Prefix{s.Prefix})
	}
	return have
}

// guardSteps is the guards that come, before anything else, and those that go, after
// everything.
func guardSteps(want, have State) (add, del []Step) {
	needs, had := want.guarded(), have.guarded()
	for _, p := range without(want.Guarded(), have.Guards) {
		add = append(add, AddGuard{needs[p], p})
	}
	for _, p := range have.Guards {
		if _, ok := needs[p]; !ok {
			del = append(del, DelGuard{had[p], p})
		}
	}
	return add, del
}
