package iscsi

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"ripstop/internal/reconcile"
)

var _ reconcile.Target[State, Step] = (*Sim)(nil)

func randomCHAP(r *rand.Rand) *CHAP {
	if r.IntN(2) == 0 {
		return nil
	}
	return &CHAP{User: "u" + fmt.Sprint(r.IntN(2)), Secret: Secret(fmt.Sprintf("hush-hush-%d", r.IntN(2)))}
}

func randomInitiator(r *rand.Rand) Initiator {
	i := Initiator{CHAP: randomCHAP(r), Mutual: randomCHAP(r)}
	if r.IntN(2) == 0 {
		i.LUNs = []uint16{}
		for n := range uint16(3) {
			if r.IntN(2) == 0 {
				i.LUNs = append(i.LUNs, n)
			}
		}
	}
	if r.IntN(3) == 0 {
		i.Places = []Place{randomPlace(r, "san")}
		if r.IntN(2) == 0 {
			i.Places = append(i.Places, randomPlace(r, "site"))
		}
	}
	if r.IntN(3) == 0 {
		i.Addresses = randomPrefixes(r)
	}
	return i
}

func randomPlace(r *rand.Rand, device string) Place {
	if r.IntN(3) == 0 {
		return Place{Device: device}
	}
	p := &Peer{Name: fmt.Sprint(r.IntN(2)), Key: [32]byte{byte(1 + r.IntN(2))}, Allowed: randomPrefixes(r)}
	if r.IntN(3) == 0 {
		p.Next = [32]byte{byte(1 + r.IntN(3))}
	}
	if r.IntN(2) == 0 {
		p.Others = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 99, 0, byte(r.IntN(4))}), 32)}
	}
	return Place{Device: device, Peer: p}
}

func randomPrefixes(r *rand.Rand) []netip.Prefix {
	all := []string{"10.99.0.0/24", "10.99.0.0/31", "10.99.0.2/31", "10.99.0.2/32"}
	return []netip.Prefix{netip.MustParsePrefix(all[r.IntN(len(all))])}
}

func randomOrigin(r *rand.Rand) Origin {
	o := Origin{Device: []string{"", "san", "site"}[r.IntN(3)], Address: netip.AddrFrom4([4]byte{10, 99, 0, byte(r.IntN(4))})}
	if r.IntN(2) == 0 {
		o.Key = &[32]byte{byte(r.IntN(4))}
	}
	return o
}

func randomTarget(r *rand.Rand) Target {
	t := Target{LUNs: map[uint16]string{}, Initiators: map[string]Initiator{}}
	for i := range 3 {
		if r.IntN(2) == 0 {
			t.Portals = append(t.Portals, Portal{
				Address: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 3260),
				Device:  []string{"", "san"}[r.IntN(2)],
				Via:     []string{"address", "vlan san"}[r.IntN(2)],
			})
		}
		if r.IntN(2) == 0 {
			t.LUNs[uint16(i)] = []string{"data", "logs"}[r.IntN(2)]
		}
		if r.IntN(2) == 0 {
			t.Initiators[fmt.Sprintf("iqn.1993-08.org.debian:01:i%d", i)] = randomInitiator(r)
		}
	}
	if r.IntN(2) == 0 {
		i := randomInitiator(r)
		t.Any = &i
	}
	return t
}

func randomState(r *rand.Rand) State {
	s := State{Targets: map[string]Target{}}
	for i := range 3 {
		if r.IntN(3) > 0 {
			s.Targets[fmt.Sprintf("iqn.2026-11.org.example:t%d", i)] = randomTarget(r)
		}
	}
	return s
}

// TestDiffLaws: nothing differs from itself, and doing all of a difference
// gives what was wanted; taking away and adding are never one step.
func TestDiffLaws(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		want, have := randomState(r), randomState(r)
		if s := Diff(want, want.Clone()); len(s) != 0 {
			t.Fatalf("seed %d: a state differs from itself: %v", seed, s)
		}
		sim := NewSim(have)
		steps := Diff(want, have)
		for _, o := range reconcile.Run(t.Context(), sim, steps, map[string]error{}) {
			if o.Err != nil {
				t.Fatalf("seed %d: %v: %v", seed, o.Step, o.Err)
			}
		}
		got, err := sim.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !maps.EqualFunc(got.Targets, want.Targets, Target.Equal) {
			t.Fatalf("seed %d: did %v\n got %+v\nwant %+v", seed, steps, got, want)
		}
		checkSteps(t, seed, steps)
	}
}

// TestDismissalsLaws: whoever may come and soon may not is asked to go first,
// nobody else is, and what follows gives what was wanted all the same.
func TestDismissalsLaws(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 4))
		want, have := randomState(r), randomState(r)
		if s := Dismissals(have, have); len(s) != 0 {
			t.Fatalf("seed %d: nothing changes, and %v", seed, s)
		}
		sim := NewSim(have)
		first := Dismissals(want, have)
		steps := append(first, Diff(want, have)...)
		o := randomOrigin(r)
		for n, s := range steps {
			if n == len(first) {
				checkDismissed(t, seed, want, have, sim.state, o)
			}
			if err := sim.Do(t.Context(), s); err != nil {
				t.Fatal(err)
			}
			if d, ok := s.(Dismiss); ok && (d.Removes() || d.Object() != "target/"+d.Name || d.String() == "" || d.Disturbs() == "" && d.From.Any == nil) {
				t.Fatalf("seed %d: %v disturbs %q", seed, d, d.Disturbs())
			}
		}
		if !maps.EqualFunc(sim.state.Targets, want.Targets, Target.Equal) {
			t.Fatalf("seed %d: did %v\n got %+v\nwant %+v", seed, steps, sim.state, want)
		}
	}
}

func checkDismissed(t *testing.T, seed uint64, want, have, now State, o Origin) {
	t.Helper()
	for iqn, from := range have.Targets {
		for name, was := range from.Initiators {
			is, there := now.Targets[iqn].Initiators[name]
			to, stays := want.Targets[iqn].Initiators[name]
			switch may := there && is.Refuses(o) == ""; {
			case was.Refuses(o) != "":
			case stays && to.Refuses(o) != "" && may:
				t.Fatalf("seed %d: %s still may come to %s from %+v", seed, name, iqn, o)
			case stays && to.Refuses(o) == "" && !may:
				t.Fatalf("seed %d: %s was sent away from %s, coming from %+v", seed, name, iqn, o)
			}
		}
	}
}

// TestDismissalsOpenNothing: who shall see another LUN, from elsewhere, sees none of
// what is there until then.
func TestDismissalsOpenNothing(t *testing.T) {
	const iqn, web = "iqn.2026-11.org.example:data", "iqn.1993-08.org.debian:01:web"
	branch := &Peer{Name: "branch", Key: [32]byte{1}, Allowed: nets("10.99.0.2/32")}
	guest := &Peer{Name: "guest", Key: [32]byte{2}, Allowed: nets("10.99.0.3/32")}
	state := func(p *Peer, lun uint16) State {
		return State{map[string]Target{iqn: {
			LUNs:       map[uint16]string{0: "books", 1: "games"},
			Initiators: map[string]Initiator{web: {Places: []Place{{"site", p}}, LUNs: []uint16{lun}}},
		}}}
	}
	have, want := state(branch, 0), state(guest, 1)
	sim := NewSim(have)
	for _, s := range Dismissals(want, have) {
		if err := sim.Do(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	now := sim.state.Targets[iqn].Initiators[web]
	for _, p := range []*Peer{branch, guest} {
		if now.Refuses(Origin{"site", p.Allowed[0].Addr(), &p.Key}) == "" {
			t.Errorf("%s may come and sees %v", p.Name, sim.state.Targets[iqn].Visible(now))
		}
	}
	if again := Dismissals(want, sim.state); len(again) > 0 {
		t.Errorf("asks again: %v", again)
	}
}

func checkSteps(t *testing.T, seed uint64, steps []Step) {
	t.Helper()
	added := false
	for _, s := range steps {
		if text := s.String(); text == "" || strings.Contains(text, "hush") {
			t.Fatalf("seed %d: %T prints %q", seed, s, text)
		}
		if added && s.Removes() {
			t.Fatalf("seed %d: %v comes after an addition", seed, s)
		}
		added = added || !s.Removes()
		set, ok := s.(SetTarget)
		if ok && !set.Removes() && !meet(set.From, set.To).Equal(set.From) {
			t.Fatalf("seed %d: one step takes away and adds:\n%v", seed, s)
		}
	}
}

// TestEndsIsAnnounced: every session that a live change ends is announced.
func TestEndsIsAnnounced(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 2))
		s := SetTarget{"iqn.2026-11.org.example:t", randomTarget(r), randomTarget(r)}
		names := append(s.named(), "iqn.2026-11.org.example:stranger")
		o := randomOrigin(r)
		ends := false
		for _, p := range s.From.Portals {
			for _, name := range names {
				if i, ok := s.From.Admit(name); ok && i.Refuses(o) == "" && s.Ends(name, p, o) {
					ends = true
				}
			}
		}
		if said := strings.Contains(s.Disturbs(), "ends"); ends && !said {
			t.Fatalf("seed %d: sessions end, and the step says %q\n%v", seed, s.Disturbs(), s)
		}
	}
}

func example() Target {
	return Target{
		Portals: []Portal{{Address: netip.MustParseAddrPort("10.30.0.1:3260"), Device: "san", Via: "vlan san"}},
		LUNs:    map[uint16]string{0: "data", 1: "logs"},
		Initiators: map[string]Initiator{
			"iqn.1993-08.org.debian:01:web": {CHAP: &CHAP{"web", "hush-hush-hush"}, LUNs: []uint16{0}},
		},
		Any: &Initiator{},
	}
}

func TestSteps(t *testing.T) {
	const name = "iqn.2026-11.org.example:data"
	const at = "targetcli /iscsi/" + name + "/tpg1"
	less, other := example(), example()
	delete(less.LUNs, 1)
	less.Portals[0].Via = "renamed"
	other.Portals[0].Address = netip.MustParseAddrPort("[fd00::1]:3261")
	other.Portals[0].Device = ""
	other.Initiators = map[string]Initiator{
		"iqn.1993-08.org.debian:01:web": {Mutual: &CHAP{"us", "hush-hush-hush"}, LUNs: []uint16{1}},
	}
	other.Any = nil
	closed := example()
	closed.Any = &Initiator{CHAP: &CHAP{"any", "hush-hush-hush"}}
	tests := []struct {
		name, want, disturbs string
		step                 Step
		removes              bool
	}{
		{
			name: "add", step: AddTarget{name, example()},
			want: "targetcli /iscsi create " + name + "\n" +
				at + "/luns create /backstores/fileio/data lun=0\n" +
				at + "/luns create /backstores/fileio/logs lun=1\n" +
				at + "/portals create 10.30.0.1 3260 # through san\n" +
				at + "/acls create iqn.1993-08.org.debian:01:web add_mapped_luns=false\n" +
				at + "/acls/iqn.1993-08.org.debian:01:web set auth userid=web password=(secret)\n" +
				at + "/acls/iqn.1993-08.org.debian:01:web create mapped_lun=0 tpg_lun_or_backstore=lun0\n" +
				at + " set attribute generate_node_acls=1",
		},
		{
			name: "a LUN goes", step: SetTarget{name, example(), less}, removes: true,
			want:     at + "/luns delete lun1",
			disturbs: "takes LUN 1 (logs) from initiators that are not named",
		},
		{
			name: "much changes", step: SetTarget{name, example(), other},
			want: at + "/portals create fd00::1 3261\n" +
				at + "/portals delete 10.30.0.1 3260 # through san\n" +
				at + "/acls/iqn.1993-08.org.debian:01:web set auth userid= password=\n" +
				at + "/acls/iqn.1993-08.org.debian:01:web set auth mutual_userid=us mutual_password=(secret)\n" +
				at + "/acls/iqn.1993-08.org.debian:01:web delete mapped_lun=0\n" +
				at + "/acls/iqn.1993-08.org.debian:01:web create mapped_lun=1 tpg_lun_or_backstore=lun1\n" +
				at + " set attribute generate_node_acls=0",
			disturbs: "ends sessions through 10.30.0.1:3260%san; " +
				"takes LUN 0 (data) from iqn.1993-08.org.debian:01:web; " +
				"ends sessions of initiators that are not named",
		},
		{
			name: "proof is asked", step: SetTarget{name, example(), closed},
			want:     at + " set auth userid=any password=(secret)",
			disturbs: "ends sessions of initiators that are not named",
		},
		{
			name: "delete", step: DelTarget{name}, removes: true,
			want: "targetcli /iscsi delete " + name, disturbs: "ends all sessions of " + name,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.step.String(); got != tt.want {
				t.Errorf("prints\n%s\nwant\n%s", got, tt.want)
			}
			if got := tt.step.Disturbs(); got != tt.disturbs {
				t.Errorf("disturbs %q, want %q", got, tt.disturbs)
			}
			if tt.step.Removes() != tt.removes || tt.step.Object() != "target/"+name {
				t.Errorf("removes %t of %s", tt.step.Removes(), tt.step.Object())
			}
		})
	}
}

func TestEnds(t *testing.T) {
	const web, other = "iqn.1993-08.org.debian:01:web", "iqn.1993-08.org.debian:01:other"
	from := example()
	rotated := example()
	rotated.Initiators[web] = Initiator{CHAP: &CHAP{"web", "another-secret"}, LUNs: []uint16{0}}
	strict := example()
	strict.Any = &Initiator{CHAP: &CHAP{"any", "hush-hush-hush"}}
	unnamed := example()
	unnamed.Initiators, unnamed.Any = nil, nil
	moved := example()
	moved.Portals[0].Device = "lan"
	tests := []struct {
		name, initiator string
		to              Target
		want            bool
	}{
		{"a new secret holds from the next login", web, rotated, false},
		{"proof is asked where none was", other, strict, true},
		{"proof is asked of others", web, strict, false},
		{"no longer named", web, unnamed, true},
		{"no longer open to any", other, unnamed, true},
		{"the portal moves to another device", web, moved, true},
		{"nothing changes", web, example(), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := (SetTarget{"iqn.2026-11.org.example:data", from, tt.to}).Ends(tt.initiator, from.Portals[0], Origin{Device: "san"}); got != tt.want {
				t.Errorf("ends %t, want %t", got, tt.want)
			}
		})
	}
}

func TestDescribe(t *testing.T) {
	s := State{Targets: map[string]Target{"iqn.2026-11.org.example:data": example(), "iqn.2026-11.org.example:empty": {}}}
	want := map[string]string{
		"target/iqn.2026-11.org.example:data":  "on 10.30.0.1:3260%san, LUNs 0:data 1:logs, for 1 initiator and any other",
		"target/iqn.2026-11.org.example:empty": "on none, LUNs none, for 0 initiators",
	}
	if got := s.Describe(); !maps.Equal(got, want) {
		t.Errorf("describes %q, want %q", got, want)
	}
}

// TestObserveIsACopy: what leaves the Sim is nobody else's.
func TestObserveIsACopy(t *testing.T) {
	const name = "iqn.2026-11.org.example:data"
	sim := NewSim(State{Targets: map[string]Target{name: example()}})
	got, err := sim.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got.Targets[name].LUNs[0] = "changed"
	got.Targets[name].Portals[0].Device = "changed"
	got.Targets[name].Initiators["iqn.1993-08.org.debian:01:web"].CHAP.User = "changed"
	if again, err := sim.Observe(context.WithoutCancel(t.Context())); err != nil || !again.Targets[name].Equal(example()) {
		t.Errorf("the Sim changed with a copy of its state: %+v, %v", again, err)
	}
}
