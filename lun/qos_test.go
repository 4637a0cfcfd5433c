package lun

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

func randomQoS(r *rand.Rand) QoS {
	q := QoS{}.Clone()
	policy := func() Policy {
		return Policy{Limit: Rate{IOPS: int64(r.IntN(2)) * 500}, Reservation: Rate{Bandwidth: int64(r.IntN(2)) << 20}, Shares: r.IntN(2) * 50}
	}
	for _, name := range []string{"a", "b", "c"} {
		if r.IntN(2) == 0 {
			q.LUNs[name] = Share{Policy: policy(), Pool: "p", Target: []string{"", "iqn.t"}[r.IntN(2)]}
		}
	}
	if r.IntN(2) == 0 {
		q.Targets["iqn.t"] = policy()
	}
	return q
}

// TestDiffQoSLaws: nothing differs from itself, and doing all of a difference
// gives what was wanted, without a disturbance.
func TestDiffQoSLaws(t *testing.T) {
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		want, have := randomQoS(r), randomQoS(r)
		if s := DiffQoS(want, want.Clone()); len(s) != 0 {
			t.Fatalf("seed %d: policies differ from themselves: %v", seed, s)
		}
		for _, s := range DiffQoS(want, have) {
			before := have.Clone()
			name := s.Object()[len("qos/"):]
			have = have.Do(s)
			_, isLUN := have.LUNs[name]
			_, isTarget := have.Targets[name]
			if s.Removes() == (isLUN || isTarget) || s.Disturbs() != "" || s.String() == "" || reflect.DeepEqual(before, have) {
				t.Fatalf("seed %d: %s: %v", seed, s.Object(), s)
			}
		}
		if !reflect.DeepEqual(have, want) || len(have.Describe()) != len(want.LUNs)+len(want.Targets) {
			t.Fatalf("seed %d:\n got %+v\nwant %+v", seed, have, want)
		}
	}
}

func TestPolicyText(t *testing.T) {
	for want, p := range map[string]Policy{
		"no promise": {},
		"limit 5000 IOPS 200MiB/s burst 10s, shares 40": {Limit: Rate{5000, 200 << 20}, Burst: 10 * time.Second, Shares: 40},
		"reservation 1537B/s":                           {Reservation: Rate{Bandwidth: 1537}},
	} {
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	q := QoS{LUNs: map[string]Share{"a": {Pool: "p"}}}
	if s, ok := q.Of("a@monday"); !ok || s.Pool != "p" {
		t.Errorf("a snapshot's share: %v, %v", s, ok)
	}
	if _, ok := q.Of("b@monday"); ok {
		t.Error("a snapshot of a LUN without a share has one")
	}
}
