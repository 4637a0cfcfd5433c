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
