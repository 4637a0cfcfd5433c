package lun

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

func someCopies(r *rand.Rand) Copies {
	c := Copies{Of: map[string]Copy{}}
	for i := range r.IntN(4) {
		x := Copy{
			Portal: []string{"a:3260", "b:3260"}[r.IntN(2)], Target: "iqn.2026-11.org.example:far", LUNs: []uint16{0, 1}[:1+r.IntN(2)],
			Initiator: "iqn.2026-11.org.example:a", Every: time.Duration(1+r.IntN(2)) * time.Minute,
		}
		if r.IntN(2) == 0 {
			x.CHAP = &Proof{"a", Password([]string{"one", "two"}[r.IntN(2)])}
		}
		if r.IntN(3) == 0 {
			x.Held = []string{"copy-1"}
		}
		c.Of[fmt.Sprint("lun", i+r.IntN(2))] = x
	}
	return c
}

// TestDiffCopies: nothing is to be done where nothing differs, and all of what is to be
// done makes what was wanted.
func TestDiffCopies(t *testing.T) {
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		want, have := someCopies(r), someCopies(r)
		if steps := DiffCopies(want, want.Clone()); len(steps) > 0 {
			t.Fatalf("seed %d: %v", seed, steps)
		}
		for _, s := range DiffCopies(want, have) {
			if s.String() == "" || strings.Contains(s.String(), "one") || !strings.HasPrefix(s.Object(), "copy/") || s.Disturbs() != "" {
				t.Fatalf("seed %d: %q of %s disturbs %q", seed, s, s.Object(), s.Disturbs())
			}
			if _, ends := s.(EndCopy); ends != s.Removes() {
				t.Fatalf("%T removes %v", s, s.Removes())
			}
			if err := s.apply(&have); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		if !reflect.DeepEqual(want.Of, have.Of) {
			t.Fatalf("seed %d: %v, want %v", seed, have.Of, want.Of)
		}
	}
	if err := (ChangeCopy{LUN: "a"}).apply(&Copies{Of: map[string]Copy{}}); err == nil {
		t.Error("what is not there is changed")
	}
}

func TestCopiesTell(t *testing.T) {
	at := time.Date(2026, 11, 27, 10, 0, 0, 0, time.UTC)
	c := Copies{
		Of: map[string]Copy{},
		Seen: map[string]Lag{
			"new": {Behind: -1}, "well": {Taken: at, Behind: 4096}, "busy": {Taken: at, Left: 512},
			"late": {Taken: at, Late: true}, "bad": {Taken: at, Trouble: "it is away"},
		},
	}
	for name := range c.Seen {
		c.Of[name] = Copy{Portal: "far:3260", Target: "iqn.x", LUNs: []uint16{0, 1}, Every: time.Hour}
	}
	want := map[string]string{
		"copy/new": "nothing is known of what is there", "copy/well": "as of 2026-11-27T10:00:00Z, 4096 bytes behind",
		"copy/busy": "as of 2026-11-27T10:00:00Z, 512 bytes are on their way", "copy/late": "as of 2026-11-27T10:00:00Z", "copy/bad": "as of 2026-11-27T10:00:00Z",
	}
	if got := c.Describe(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
	waits := c.Waiting()
	if len(waits) != 3 || waits["copy/bad"] != "it is away" || !strings.Contains(waits["copy/new"], "first round") || !strings.Contains(waits["copy/late"], "longer `every:`") {
		t.Errorf("%v", waits)
	}
	if got := (Copies{Of: c.Of}).Describe()["copy/well"]; got != "every 1h to LUN 0 and 1 of iqn.x at far:3260" {
		t.Errorf("%s", got)
	}
}

func TestCopyNames(t *testing.T) {
	name := CopyName(time.Date(2026, 11, 27, 10, 0, 0, 5e6, time.UTC))
	if name != "copy-20261127T100000.005Z" || !IsCopyName(name) || IsCopyName("copy-monday") || IsScheduled(name) {
		t.Error(name)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", Password("hidden"), Proof{"a", "hidden"}, Proof{"a", "hidden"}, Password("hidden").LogValue()); strings.Contains(text, "hidden") {
		t.Error(text)
	}
	if b, err := Password("hidden").MarshalText(); err != nil || string(b) != "(secret)" || Password("x").Reveal() != "x" {
		t.Error(string(b), err)
	}
}
