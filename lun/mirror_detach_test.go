package lun

import (
	"context"
	"errors"
	"testing"
)

// A leg that could not be taken away is not among those that are deleted: it may be
// the only one soon that has everything.
func TestMirrorKeepsLegThatDetachLeft(t *testing.T) {
	const size = 1 << 20
	var last *witness
	o := MirrorOptions{Save: func(_ string, b []byte) (err error) {
		last, err = decodeWitness(b)
		return err
	}}
	broken := errors.New("the disk is broken")
	keep := func(pool string, _ []byte) error {
		if pool == "a" {
			return broken
		}
		return nil
	}
	a, b := newLeg("a", "db", nil), newLeg("b", "db"+legSuffix, nil)
	legs := &view{[2]*leg{a, b}, [2]LegState{LegInSync, LegInSync}}
	m := newMirror(context.Background(), "db", [16]byte{1}, legs, size, 512, newRegions(size), o, keep)
	m.epoch = epoch{}.next()
	if err := m.detach("b"); !errors.Is(err, broken) {
		t.Fatalf("detach: %v", err)
	}
	if err := m.lose(a, broken); err != nil {
		t.Fatalf("lose: %v", err)
	}
	if len(last.Whole) != 1 || last.Whole[0] != "b" || len(last.Gone) != 0 {
		t.Fatalf("the witness has whole %v and gone %v", last.Whole, last.Gone)
	}
}
