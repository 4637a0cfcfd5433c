package disk

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLuck: after a row of misses few reads look into memory, until one hits.
func TestLuck(t *testing.T) {
	var l Luck
	looks := func(n int) (looked int) {
		for range n {
			if l.Worth() {
				looked++
				l.Note(false)
			}
		}
		return looked
	}
	if n := looks(badLuck); n != badLuck {
		t.Errorf("%d of the first %d look", n, badLuck)
	}
	if n := looks(800); n != 100 {
		t.Errorf("%d of 800 look after a row of misses", n)
	}
	l.Note(true)
	if n := looks(badLuck); n != badLuck {
		t.Errorf("%d of %d look after a hit", n, badLuck)
	}
}

// TestBrake: one slow write keeps others away for a while.
func TestBrake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Brake
		b.Note(slowWrite)
		if b.On() {
			t.Error("on after a quick one")
		}
		b.Note(slowWrite + 1)
		if !b.On() {
			t.Error("off after a slow one")
		}
		time.Sleep(slowFor)
		if b.On() || b.until.Load() != 0 {
			t.Error("on for ever")
		}
	})
}
