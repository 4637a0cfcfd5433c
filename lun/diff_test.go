package lun

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"ripstop/internal/reconcile"
)

var _ reconcile.Target[State, Step] = (*Sim)(nil)

func randomState(r *rand.Rand) State {
	s := State{Pools: map[string]Pool{}, LUNs: map[string]LUN{}}
	var pools []string
	for _, name := range []string{"main", "fast", "old"} {
		if r.IntN(3) > 0 {
			s.Pools[name] = Pool{
				Kind: []Kind{Raw, Thin, Thin, Thin}[r.IntN(4)],
				Path: "/pools/" + name + strings.Repeat("2", r.IntN(5)/4),
				Size: int64(1+r.IntN(2)) << 30, Overcommit: float64(1 + r.IntN(2)), Direct: r.IntN(2) == 0,
			}
			pools = append(pools, name)
		}
	}
	for i := range 4 {
		if len(pools) > 0 && r.IntN(3) > 0 {
			s.LUNs[fmt.Sprintf("l%d", i)] = LUN{
				Pool: pools[r.IntN(len(pools))], Size: int64(1+r.IntN(3)) << 20, Block: []int{512, 4096, 4096, 4096}[r.IntN(4)], Thick: r.IntN(3) == 0,
				Encryption: randomEncryption(r),
			}
		}
	}
	return s
}

// randomEncryption is none, mostly, or of few keys.
func randomEncryption(r *rand.Rand) (e Encryption) {
	if r.IntN(4) == 0 {
		e.Key.k[0] = byte(1 + r.IntN(2))
	}
	if e.On() && r.IntN(3) == 0 {
		e.Former.k[0] = 3 - e.Key.k[0]
	}
	return e
}

// TestDiffLaws: nothing differs from itself, and doing all of a difference
// gives what was wanted, but for the objects whose change was refused: those
// stay as they are and differ still.
func TestDiffLaws(t *testing.T) {
	whole := 0
	for seed := range uint64(5000) {
		r := rand.New(rand.NewPCG(seed, 1))
		want, have := randomState(r), randomState(r)
		if s := Diff(want, want.Clone()); len(s) != 0 {
			t.Fatalf("seed %d: a state differs from itself: %v", seed, s)
		}
		sim := NewSim(have)
		failed := map[string]error{}
		reconcile.Run(t.Context(), sim, Diff(want, have), failed)
		got, err := sim.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range Diff(want, got) {
			if _, ok := failed[s.Object()]; !ok {
				t.Fatalf("seed %d: left to do: %v", seed, s)
			}
		}
		if len(failed) > 0 {
			keeps(t, seed, have, got)
			continue
		}
		whole++
		if !maps.Equal(got.Pools, want.Pools) || !maps.Equal(got.LUNs, want.LUNs) {
			t.Fatalf("seed %d:\n got %+v\nwant %+v", seed, got, want)
		}
	}
	if whole < 100 {
		t.Errorf("only %d of the pairs had nothing refused", whole)
	}
}

// keeps: no LUN in service shrinks, moves or changes its blocks.
func keeps(t *testing.T, seed uint64, have, got State) {
	t.Helper()
	for name, l := range got.LUNs {
		was, ok := have.LUNs[name]
		if ok && (l.Size < was.Size || l.Pool != was.Pool || l.Block != was.Block) {
			t.Fatalf("seed %d: LUN %s was %+v and is %+v", seed, name, was, l)
		}
	}
}

func TestDiffText(t *testing.T) {
	have := State{
		Pools: map[string]Pool{"main": {Kind: Raw, Path: "/pools/main", Size: 10 << 30, Overcommit: 4, Direct: false}, "old": {Kind: Raw, Path: "/pools/old", Size: 1 << 30, Overcommit: 1, Direct: false}, "still": {Kind: Raw, Path: "/a", Size: 1 << 30, Overcommit: 1, Direct: false}},
		LUNs: map[string]LUN{
			"data": {Pool: "main", Size: 2 << 30, Block: 4096}, "logs": {Pool: "main", Size: 1 << 30, Block: 512}, "gone": {Pool: "old", Size: 1 << 20, Block: 4096}, "thick": {Pool: "main", Size: 1 << 30, Block: 4096, Thick: true}, "thin": {Pool: "main", Size: 1 << 30, Block: 4096},
			"big": {Pool: "main", Size: 3 << 30, Block: 4096}, "moved": {Pool: "main", Size: 1 << 30, Block: 4096}, "ready": {Pool: "main", Size: 1 << 30, Block: 4096, Ready: "new"},
		},
	}
	want := State{
		Pools: map[string]Pool{"main": {Kind: Raw, Path: "/pools/main", Size: 20 << 30, Overcommit: 2.5, Direct: true}, "new": {Kind: Raw, Path: "/pools/new", Size: 1536 << 20, Overcommit: 1, Direct: false}, "still": {Kind: Raw, Path: "/b", Size: 1 << 30, Overcommit: 1, Direct: false}},
		LUNs: map[string]LUN{
			"data": {Pool: "main", Size: 4 << 30, Block: 4096}, "logs": {Pool: "main", Size: 1 << 30, Block: 4096}, "fresh": {Pool: "new", Size: 1000 * 512, Block: 512, Thick: true}, "thick": {Pool: "main", Size: 2 << 30, Block: 4096}, "thin": {Pool: "main", Size: 2 << 30, Block: 4096, Thick: true},
			"big": {Pool: "main", Size: 1 << 30, Block: 4096}, "moved": {Pool: "new", Size: 1 << 30, Block: 4096}, "ready": {Pool: "new", Size: 1 << 30, Block: 4096},
		},
	}
	tests := []struct{ object, text, disturbs string }{
		{"lun/gone", "# LUN gone: out of service, its data stay", "ends I/O to LUN gone"},
		{"pool/old", "# pool old: out of service, its data stay", ""},
		{"pool/main", "# pool main: raw, 20GiB past the page cache, promised up to 2.5 times, was raw, 10GiB, promised up to 4 times", ""},
		{"pool/new", "mkdir -p /pools/new # pool new: raw, 1536MiB, promised up to 1 times", ""},
		{"pool/still", "# refused: pool still: it is in service at /a and does not move to /b by a file: " +
			"stop ripstop and move the directory, or give the new pool another name", ""},
		{"lun/big", "# refused: LUN big: it has 3GiB and does not shrink to 1GiB, which would cut off data: " +
			"write `size: 3GiB`, or copy the data to a smaller LUN", ""},
		{"lun/data", "ripstop lun resize data 4GiB", ""},
		{"lun/fresh", "ripstop lun create fresh --pool new --size 500KiB --block 512 --thick", ""},
		{"lun/logs", "# refused: LUN logs: its blocks have 512 bytes, and 4096 would make its data unreadable: " +
			"write `block: 512`, or copy the data to a new LUN", ""},
		{"lun/moved", "# refused: LUN moved: its data are in pool main and do not move to pool new by a file: " +
			"`ripstop lun move moved --pool new` moves them while they are in use; until then write `pool: main`", ""},
		{"lun/ready", "# LUN ready: moved from pool main to pool new", ""},
		{"lun/thick", "# LUN thick: thin, others may have the room that it has not written to", ""},
		{"lun/thick", "ripstop lun resize thick 2GiB", ""},
		{"lun/thin", "ripstop lun resize thin 2GiB", ""},
		{"lun/thin", "# LUN thin: thick, room for all of its 2GiB is kept", ""},
	}
	steps := Diff(want, have)
	if len(steps) != len(tests) {
		t.Fatalf("%d steps, want %d: %v", len(steps), len(tests), steps)
	}
	for i, tt := range tests {
		s := steps[i]
		if s.Object() != tt.object || s.String() != tt.text || s.Disturbs() != tt.disturbs || s.Removes() != (i < 2) {
			t.Errorf("step %d is %s\n got %s\nwant %s\nremoves %t, disturbs %q", i, s.Object(), s, tt.text, s.Removes(), s.Disturbs())
		}
	}
}

func TestSimRefuses(t *testing.T) {
	sim := NewSim(State{Pools: map[string]Pool{"main": {}}, LUNs: map[string]LUN{"data": {Pool: "main"}}})
	tests := []struct {
		step Step
		want string
	}{
		{ClosePool{"main"}, "close pool main: LUN data is in service in it"},
		{OpenLUN{"logs", LUN{Pool: "none"}}, "open LUN logs: pool none is not in service"},
		{GrowLUN{"logs", 1, 2}, "grow LUN logs: it is not in service"},
		{SwitchLUN{"data", "main", "new"}, "switch LUN data: it is not ready in pool new"},
		{ReserveLUN{"logs", 1, true}, "reserve room for LUN logs: it is not in service"},
		{Refuse{"lun/data", "because"}, "because"},
	}
	for _, tt := range tests {
		if err := sim.Do(t.Context(), tt.step); err == nil || err.Error() != tt.want {
			t.Errorf("%v: %v, want %s", tt.step, err, tt.want)
		}
	}
}

func TestDescribe(t *testing.T) {
	s := State{
		Pools: map[string]Pool{"main": {Kind: Raw, Path: "/pools/main", Size: 10 << 30, Overcommit: 4, Direct: true}},
		LUNs:  map[string]LUN{"data": {Pool: "main", Size: 2 << 30, Block: 512, Thick: true}},
	}
	want := map[string]string{
		"pool/main": "raw, 10GiB past the page cache, promised up to 4 times in /pools/main",
		"lun/data":  "2GiB in pool main, 512-byte blocks, thick",
	}
	if got := s.Describe(); !maps.Equal(got, want) {
		t.Errorf("describes %q, want %q", got, want)
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	medium := &MediumError{Offset: 4096, Err: cause}
	if medium.Error() != "medium error at byte 4096: cause" || !errors.Is(medium, cause) {
		t.Errorf("got %v", medium)
	}
	if got := (&Miscompare{Offset: 7}).Error(); got != "data differ at byte 7 of the range" {
		t.Errorf("got %s", got)
	}
}
