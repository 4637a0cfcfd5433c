package lun

import (
	"fmt"
	"strings"
	"testing"
)

// What is found by its name may lie in another pool, and be another LUN.
func TestMuxOther(t *testing.T) {
	p := newPair(t)
	p.pools("a")
	p.settle()
	for pool, want := range map[string]string{"a": "", "b": "a"} {
		if got := p.mux.Other(pool, "data"); got != want || p.mux.Has(pool, "data") != (want == "") {
			t.Errorf("data of its name besides those in pool %s are in %q, want %q", pool, got, want)
		}
	}
}

// A LUN with more snapshots than a pool renames at once is refused before anything is
// copied, also when they stay behind: those get other names, too.
func TestMoveOfTooManySnapshots(t *testing.T) {
	p := newPair(t)
	p.pools("b")
	p.settle()
	for n := range MostMoved + 1 {
		p.ram("b").snaps = append(p.ram("b").snaps, fmt.Sprint(n))
	}
	for _, alone := range []bool{false, true} {
		if _, err := p.mux.BeginMove(t.Context(), "data", "c", alone); err == nil || !strings.Contains(err.Error(), "2048 snapshots, and moves with at most 2047: delete some") {
			t.Errorf("alone %t: %v", alone, err)
		}
	}
	if p.mux.Has("c", "data"+copySuffix) || p.mux.moving("data") != nil {
		t.Error("something of the move is left")
	}
}
