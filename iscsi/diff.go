package iscsi

import (
	"maps"
	"slices"
)

// Diff is the steps that turn have into want: what goes first, then what
// changes or comes, each sorted by name. A target that both loses and gains
// gets two steps, the loss first.
func Diff(want, have State) []Step {
	var less, more []Step
	for _, name := range sorted(have.Targets) {
		from := have.Targets[name]
		to, ok := want.Targets[name]
		if !ok {
			less = append(less, DelTarget{name})
			continue
		}
		if m := meet(from, to); !m.Equal(from) {
			less = append(less, SetTarget{name, from, m})
		}
	}
	for _, name := range sorted(want.Targets) {
		to := want.Targets[name]
		from, ok := have.Targets[name]
		if !ok {
			more = append(more, AddTarget{name, to})
			continue
		}
		if m := meet(from, to); !m.Equal(to) {
			more = append(more, SetTarget{name, m, to})
		}
	}
	return append(less, more...)
}

// meet is what from keeps on its way to to. An initiator that changes is kept
// as it was: its change is a gain.
func meet(from, to Target) Target {
	m := Target{LUNs: map[uint16]string{}, Initiators: map[string]Initiator{}}
	for _, p := range from.Portals {
		if slices.ContainsFunc(to.Portals, p.same) {
			m.Portals = append(m.Portals, p)
		}
	}
	for n, name := range from.LUNs {
		if to.LUNs[n] == name {
			m.LUNs[n] = name
		}
	}
	for name, i := range from.Initiators {
		if _, ok := to.Initiators[name]; ok {
			m.Initiators[name] = i
		}
	}
	if to.Any != nil {
		m.Any = from.Any
	}
	return m
}

// missing is the portals of a that b has not.
func missing(a, b []Portal) []Portal {
	return slices.DeleteFunc(slices.Clone(a), func(p Portal) bool { return slices.ContainsFunc(b, p.same) })
}

// Equal tells whether two targets are the same to every initiator; labels and
// the order of portals do not count.
func (t Target) Equal(u Target) bool {
	return len(missing(t.Portals, u.Portals)) == 0 && len(missing(u.Portals, t.Portals)) == 0 &&
		maps.Equal(t.LUNs, u.LUNs) &&
		maps.EqualFunc(t.Initiators, u.Initiators, Initiator.equal) &&
		(t.Any == nil) == (u.Any == nil) && (t.Any == nil || t.Any.equal(*u.Any))
}

func (p Portal) same(q Portal) bool {
	return p.Address == q.Address && p.Device == q.Device && p.User == q.User
}

func (i Initiator) equal(j Initiator) bool {
	return i.CHAP.equal(j.CHAP) && i.Mutual.equal(j.Mutual) &&
		(i.LUNs == nil) == (j.LUNs == nil) && slices.Equal(i.LUNs, j.LUNs) &&
		i.sameOrigin(j)
}

func (c *CHAP) equal(d *CHAP) bool {
	return c == d || c != nil && d != nil && *c == *d
}

// Admit is how the named initiator is served; ok is false for one that is refused.
func (t Target) Admit(initiator string) (i Initiator, ok bool) {
	if i, ok = t.Initiators[initiator]; ok {
		return i, true
	}
	if t.Any != nil {
		return *t.Any, true
	}
	return Initiator{}, false
}

// Visible is the LUNs that an initiator served as i sees.
func (t Target) Visible(i Initiator) map[uint16]string {
	if i.LUNs == nil {
		return maps.Clone(t.LUNs)
	}
	seen := map[uint16]string{}
	for _, n := range i.LUNs {
		if name, ok := t.LUNs[n]; ok {
			seen[n] = name
		}
	}
	return seen
}

// sorted is the keys of a map in their order.
func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
