package figures

import "slices"

// Key is whose figures a sample has: those of one who was measured, in a cell of the
// table, in a round. Fault is why there are none.
type Key[C comparable] struct {
	Cell  C
	Who   string
	Round int
	Fault string
}

// Keyed is a sample.
type Keyed[C comparable] interface{ Key() Key[C] }

// Samples are those of a run.
type Samples[C comparable, S Keyed[C]] []S

// Cells are those that were measured, in the order in which they were first.
func (s Samples[C, S]) Cells() (seen []C) {
	for _, one := range s {
		if c := one.Key().Cell; !slices.Contains(seen, c) {
			seen = append(seen, c)
		}
	}
	return seen
}

// Of are the good samples of one, by round.
func (s Samples[C, S]) Of(c C, who string) map[int]S {
	m := map[int]S{}
	for _, one := range s {
		if k := one.Key(); k.Cell == c && k.Who == who && k.Fault == "" {
			m[k.Round] = one
		}
	}
	return m
}

// Fault is why one has no figures; "" when it has, or was not measured.
func (s Samples[C, S]) Fault(c C, who string) string {
	for _, one := range s {
		if k := one.Key(); k.Cell == c && k.Who == who && k.Fault != "" {
			return k.Fault
		}
	}
	return ""
}

// Value is one figure over the rounds.
func (s Samples[C, S]) Value(c C, who string, figure func(S) float64) Spread {
	var v []float64
	for _, one := range s.Of(c, who) {
		v = append(v, figure(one))
	}
	return SpreadOf(v)
}

// Ratio compares two round by round: in one round both met the same machine.
func (s Samples[C, S]) Ratio(c C, who, to string, figure func(S) float64) Spread {
	var v []float64
	others := s.Of(c, to)
	for round, one := range s.Of(c, who) {
		if o, ok := others[round]; ok && figure(o) > 0 {
			v = append(v, figure(one)/figure(o))
		}
	}
	return SpreadOf(v)
}

// Join is these samples with those of a later run, which are the only ones of the
// cells that both have.
func (s Samples[C, S]) Join(later Samples[C, S]) Samples[C, S] {
	again := later.Cells()
	kept := slices.DeleteFunc(slices.Clone(s), func(one S) bool { return slices.Contains(again, one.Key().Cell) })
	return append(kept, later...)
}
