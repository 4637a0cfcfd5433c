package lun

import (
	"errors"
	"testing"
)

// TestWrittenInAnotherTime: a leg that was written alone in a time which the state
// directory knows nothing of, as after state directories were exchanged, is nobody's to
// overwrite; one that is merely old is, and so is one that somebody gave up.
func TestWrittenInAnotherTime(t *testing.T) {
	id := [16]byte{1}
	leg := func(pool string, k legKind, is, base epoch) found {
		return found{pool: pool, there: true, data: true, record: &legRecord{ID: id, Kind: k, Epoch: is, Base: base}}
	}
	now, before := epoch{7, 1}, epoch{6, 1}
	for _, c := range []struct {
		name  string
		base  epoch
		other found
		fate  legFate
		split bool
	}{
		{"from the same point", before, leg("b", legAlone, epoch{7, 9}, before), 0, true},
		{"from long ago", before, leg("b", legAlone, epoch{4, 9}, epoch{3, 1}), 0, true},
		{"an old one", before, leg("b", legPaired, epoch{4, 9}, epoch{}), fateBlank, false},
		{"one behind", before, leg("b", legPaired, before, epoch{}), fateLags, false},
		{"one that was alone before", before, leg("b", legAlone, before, epoch{5, 1}), fateLags, false},
		{"one that was given up", epoch{}, leg("b", legAlone, epoch{6, 9}, epoch{5, 1}), fateBlank, false},
	} {
		w := &witness{ID: id, Epoch: now, Base: c.base, Pools: []string{"a", "b"}, Whole: []string{"a"}}
		v, err := decide("db", w, []found{leg("a", legAlone, now, c.base), c.other})
		if errors.Is(err, ErrMirrorSplit) != c.split || !c.split && (err != nil || v.fate != [2]legFate{fateWhole, c.fate}) {
			t.Errorf("%s: %v, %v", c.name, v.fate, err)
		}
	}
}
