package vpn

import (
	"maps"
	"net/netip"
	"slices"
)

// DiffBGP is the steps that turn have into want: what goes first, then the
// speaker, its filters, neighbors and announcements. The change of one neighbor
// leaves the sessions of the others alone; only that of the speaker resets all.
func DiffBGP(want, have BGP) []BGPStep {
	var steps []BGPStep
	for _, p := range sortedPrefixes(have.Announced) {
		if _, ok := want.Announced[p]; !ok || want.Speaker == nil {
			steps = append(steps, Withdraw{p, have.Announced[p]})
		}
	}
	for _, p := range sortedPrefixes(have.Prefixes) {
		if _, ok := want.Prefixes[p]; !ok || want.L3 == nil || want.Speaker == nil {
			steps = append(steps, WithdrawPrefix{p, have.Prefixes[p]})
		}
	}
	if have.L3 != nil && (want.L3 == nil || want.Speaker == nil) {
		steps = append(steps, DelL3VNI{*have.L3})
	}
	for _, vni := range slices.Sorted(maps.Keys(have.Networks)) {
		if to, ok := want.Networks[vni]; !ok || to != have.Networks[vni] || want.Speaker == nil {
			steps = append(steps, DelNetwork{vni, have.Networks[vni]})
		}
	}
	for _, n := range slices.Sorted(maps.Keys(have.Neighbors)) {
		if _, ok := want.Neighbors[n]; !ok || want.Speaker == nil {
			steps = append(steps, DelNeighbor{n, have.Neighbors[n].Address})
		}
	}
	if want.Speaker == nil {
		if have.Speaker != nil {
			steps = append(steps, DelSpeaker{})
		}
		return steps
	}
	switch {
	case have.Speaker == nil:
		steps = append(steps, AddSpeaker{*want.Speaker})
	case *have.Speaker != *want.Speaker:
		steps = append(steps, SetSpeaker{*have.Speaker, *want.Speaker})
	}
	if !slices.EqualFunc(want.Import, have.Import, Filter.equal) {
		steps = append(steps, SetImport{cloneFilters(have.Import), cloneFilters(want.Import)})
	}
	steps = append(steps, l3Steps(want, have)...)
	for _, vni := range slices.Sorted(maps.Keys(want.Networks)) {
		if from, ok := have.Networks[vni]; !ok || from != want.Networks[vni] {
			steps = append(steps, AddNetwork{vni, want.Networks[vni]})
		}
	}
	steps = append(steps, neighborSteps(want, have)...)
	for _, p := range sortedPrefixes(want.Announced) {
		if from, ok := have.Announced[p]; !ok || from != want.Announced[p] {
			steps = append(steps, Announce{p, want.Announced[p]})
		}
	}
	for _, p := range sortedPrefixes(want.Prefixes) {
		if from, ok := have.Prefixes[p]; want.L3 != nil && (!ok || from != want.Prefixes[p]) {
			steps = append(steps, AnnouncePrefix{p, want.Prefixes[p]})
		}
	}
	return steps
}

// l3Steps has the host route in the VNI that is wanted.
func l3Steps(want, have BGP) []BGPStep {
	var steps []BGPStep
	if !slices.EqualFunc(want.L3Import, have.L3Import, Filter.equal) {
		steps = append(steps, SetL3Import{cloneFilters(have.L3Import), cloneFilters(want.L3Import)})
	}
	switch {
	case want.L3 == nil:
	case have.L3 == nil:
		steps = append(steps, AddL3VNI{*want.L3})
	case *have.L3 != *want.L3:
		steps = append(steps, SetL3VNI{*have.L3, *want.L3})
	}
	return steps
}

// neighborSteps knows that a neighbor which gets the address of another takes its
// session, and the other is made anew.
func neighborSteps(want, have BGP) []BGPStep {
	var steps []BGPStep
	now := maps.Clone(have.Neighbors)
	for _, n := range slices.Sorted(maps.Keys(want.Neighbors)) {
		to := want.Neighbors[n]
		from, ok := now[n]
		var s BGPStep
		switch {
		case !ok:
			s = AddNeighbor{n, to}
		case from != to:
			s = SetNeighbor{n, from, to}
		default:
			continue
		}
		steps = append(steps, s)
		for other, o := range now {
			if other != n && o.Address == to.Address {
				delete(now, other)
			}
		}
	}
	return steps
}

func sortedPrefixes(m map[netip.Prefix]string) []netip.Prefix {
	return slices.SortedFunc(maps.Keys(m), netip.Prefix.Compare)
}
