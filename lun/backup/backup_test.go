package backup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

func random(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(1 + r.IntN(255))
	}
	return p
}

// TestRoundTrip: disks that change at random, backed up in full and by changes, pruned at
// random, are what they were.
func TestRoundTrip(t *testing.T) {
	for _, key := range []*Key{nil, testKey(t, 1)} {
		for seed := range uint64(6) {
			t.Run(fmt.Sprint("sealed ", key != nil, " seed ", seed), func(t *testing.T) {
				rnd := rand.New(rand.NewPCG(seed, 7))
				m := newMem()
				r := newRepo(t, m, key)
				d := newModel(minChunk*(1+rnd.Int64N(40)) + 512*rnd.Int64N(100))
				var last *Backup
				was := map[string][]byte{}
				for range 12 {
					m.advance(time.Hour)
					for range rnd.IntN(6) {
						off := rnd.Int64N(int64(len(d.data))/512) * 512
						n := min(int64(len(d.data))-off, 512*(1+rnd.Int64N(300)))
						p := make([]byte, n)
						if rnd.IntN(3) > 0 {
							copy(p, random(rnd, len(p)))
						}
						d.write(off, p)
					}
					if rnd.IntN(4) == 0 { // it grows, to the end of a block
						d.data = append(d.data, make([]byte, 512*rnd.IntN(400))...)
					}
					parent := last
					if rnd.IntN(4) == 0 {
						parent = nil
					}
					if rnd.IntN(3) == 0 {
						r = reopen(t, m, key)
					}
					b, err := backUp(t.Context(), r, d, parent, m.now)
					must(t, err)
					last = &b
					was[b.ID] = bytes.Clone(d.data)
					if rnd.IntN(3) == 0 {
						done, err := reopen(t, m, key).Prune(t.Context(), PruneOptions{Rules: Rules{Last: 1 + rnd.IntN(4)}})
						must(t, err)
						for _, e := range done.Backups {
							delete(was, e.ID)
						}
					}
				}
				all, err := r.Backups(t.Context())
				must(t, err)
				if len(all) != len(was) {
					t.Fatalf("%d backups, want %d", len(all), len(was))
				}
				for _, e := range all {
					same(t, r, e.Backup, was[e.ID])
				}
				faults, err := r.Check(t.Context(), all, true)
				must(t, err)
				if len(faults) > 0 {
					t.Fatal(faults)
				}
				_, err = r.Prune(t.Context(), PruneOptions{Drop: ids(all)})
				must(t, err)
				if left := m.names(""); len(left) != 1 {
					t.Fatalf("without backups there is still %v", left)
				}
			})
		}
	}
}

func ids(all []Entry) []string {
	var out []string
	for _, e := range all {
		out = append(out, e.ID)
	}
	return out
}

// TestStoredOnce: what two disks have in common is stored once, and what repeats.
func TestStoredOnce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for _, key := range []*Key{nil, testKey(t, 1)} {
		m := newMem()
		r := newRepo(t, m, key)
		d := newModel(64 * minChunk)
		d.write(0, random(rnd, 32*minChunk))
		_, err := backUp(t.Context(), r, d, nil, m.now)
		must(t, err)
		once := m.bytes()
		if once > 33*minChunk {
			t.Fatalf("32 chunks of data take %d bytes", once)
		}
		copyOf := newModel(80 * minChunk) // another LUN: the same at another place, twice
		copyOf.write(8*minChunk, d.data[:32*minChunk])
		copyOf.write(40*minChunk, d.data[:32*minChunk])
		copyOf.write(75*minChunk, random(rnd, minChunk))
		b, err := backUp(t.Context(), r, copyOf, nil, m.now)
		must(t, err)
		more := m.bytes() - once
		if more < minChunk || more > 2*minChunk || b.Stored != int64(more) || b.Data != 65*minChunk {
			t.Errorf("65 chunks, of which one is new, took %d bytes more, and it says %d of %d", more, b.Stored, b.Data)
		}
		// The ratio of what disks hold to what the store does: (32+65)/33 without pages.
		if ratio := float64(32+65) * minChunk / float64(m.bytes()); ratio < 2.8 {
			t.Errorf("dedup ratio %.2f, want 2.8 or more", ratio)
		}
		text := newModel(4 * minChunk)
		text.write(0, bytes.Repeat([]byte("what can be compressed is compressed\n"), 7000))
		b, err = backUp(t.Context(), r, text, nil, m.now)
		must(t, err)
		if b.Stored > b.Data/8 {
			t.Errorf("text of %d bytes takes %d", b.Data, b.Stored)
		}
	}
}

// TestKilledAtEachStep: a backup that ends at any access leaves no backup, and the next
// is whole, brings only what is missing, and what is left over goes.
func TestKilledAtEachStep(t *testing.T) {
	rnd := rand.New(rand.NewPCG(2, 2))
	key := testKey(t, 1)
	for step := 1; ; step++ {
		m := newMem()
		r := newRepo(t, m, key)
		d := newModel(12 * minChunk)
		d.write(0, random(rnd, 4*minChunk))
		first, err := backUp(t.Context(), r, d, nil, m.now)
		must(t, err)
		was := bytes.Clone(d.data)
		d.write(6*minChunk, random(rnd, 3*minChunk))
		start := m.ops
		m.before = func(op int, _, _ string) error {
			if op >= start+step {
				return errKilled
			}
			return nil
		}
		_, err = backUp(t.Context(), reopenAs(r), d, &first, m.now)
		m.before = nil
		all, listed := r.Backups(t.Context())
		must(t, listed)
		if err == nil {
			if step < 10 {
				t.Fatalf("a backup of three chunks made %d accesses", step)
			}
			return
		}
		for _, e := range all { // the last accesses only tidy up
			if e.ID != first.ID {
				same(t, r, e.Backup, d.data)
			}
		}
		had := len(m.names(chunksDir))
		if _, err := reopenAs(r).Prune(t.Context(), PruneOptions{Grace: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if now := len(m.names(chunksDir)); now != had {
			t.Fatalf("step %d: prune left %d of %d chunks that an interrupted backup had brought", step, now, had)
		}
		b, err := backUp(t.Context(), reopenAs(r), d, &first, m.now)
		must(t, err)
		same(t, r, b, d.data)
		same(t, r, first, was)
		m.advance(2 * time.Hour)
		_, err = r.Prune(t.Context(), PruneOptions{Grace: time.Hour})
		must(t, err)
		if len(m.names(pendingDir)) > 0 || len(m.names(chunksDir)) != 9 {
			t.Fatalf("step %d: left over %v", step, m.names(""))
		}
	}
}

// reopenAs is the Repo of another process.
func reopenAs(r *Repo) *Repo {
	again := *r
	again.known, again.bad = nil, map[Name]struct{}{}
	return &again
}

// TestPruneKilledAtEachStep: what stays is whole.
func TestPruneKilledAtEachStep(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 3))
	for step := 1; ; step++ {
		m := newMem()
		r := newRepo(t, m, nil)
		d := newModel(8 * minChunk)
		was := map[string][]byte{}
		var last *Backup
		for range 3 {
			m.advance(time.Hour)
			d.write(rnd.Int64N(8)*minChunk, random(rnd, minChunk))
			b, err := backUp(t.Context(), r, d, last, m.now)
			must(t, err)
			was[b.ID], last = bytes.Clone(d.data), &b
		}
		start := m.ops
		m.before = func(op int, _, _ string) error {
			if op >= start+step {
				return errKilled
			}
			return nil
		}
		_, err := reopenAs(r).Prune(t.Context(), PruneOptions{Rules: Rules{Last: 1}})
		m.before = nil
		all, listed := r.Backups(t.Context())
		must(t, listed)
		for _, e := range all {
			same(t, r, e.Backup, was[e.ID])
		}
		if len(all) == 0 || all[len(all)-1].ID != last.ID {
			t.Fatal("the newest is gone")
		}
		if err == nil {
			return
		}
		// A note that a killed prune left holds up nobody for longer than its time.
		m.advance(pruneStale)
		b, err := backUp(t.Context(), reopenAs(r), d, last, m.now)
		must(t, err)
		same(t, r, b, d.data)
	}
}

// TestPruneAtEachStepOfABackup: a prune that runs as a whole between any two accesses of a
// backup that builds on chunks nobody names takes nothing that it needs.
func TestPruneAtEachStepOfABackup(t *testing.T) {
	rnd := rand.New(rand.NewPCG(4, 4))
	gone := 0
	for step := 1; ; step++ {
		m := newMem()
		r := newRepo(t, m, nil)
		d := newModel(8 * minChunk)
		d.write(0, random(rnd, 6*minChunk))
		old, err := backUp(t.Context(), r, d, nil, m.now)
		must(t, err)
		d.write(7*minChunk, random(rnd, minChunk))
		m.advance(time.Hour)
		start, pruned := m.ops, false
		m.before = func(op int, _, _ string) error {
			if op == start+step {
				m.mu.Lock()
				m.before = nil
				m.mu.Unlock()
				pruned = true
				m.advance(time.Second) // as clocks do
				_, err := reopenAs(r).Prune(context.Background(), PruneOptions{Drop: []string{old.ID}})
				return err
			}
			return nil
		}
		b, err := backUp(t.Context(), reopenAs(r), d, &old, m.now)
		if errors.Is(err, ErrGone) {
			gone++
			b, err = backUp(t.Context(), reopenAs(r), d, nil, m.now)
		}
		must(t, err)
		same(t, r, b, d.data)
		if !pruned {
			if gone == 0 {
				t.Error("no prune took anything: this tests nothing")
			}
			return
		}
		if len(m.names(pendingDir)) > 0 {
			t.Fatalf("step %d: %v is still pending", step, m.names(pendingDir))
		}
	}
}

// TestBackupAtEachStepOfAPrune is the other way round: the backup runs from any access of the
// prune on, beside it, and waits for its end.
func TestBackupAtEachStepOfAPrune(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	for step := 1; ; step++ {
		m := newMem()
		r := newRepo(t, m, nil)
		d := newModel(8 * minChunk)
		d.write(0, random(rnd, 6*minChunk))
		old, err := backUp(t.Context(), r, d, nil, m.now)
		must(t, err)
		m.advance(time.Hour)
		type result struct {
			b   Backup
			err error
		}
		made := make(chan result, 1)
		begun := make(chan struct{})
		start, ran := m.ops, false
		m.before = func(op int, _, _ string) error {
			if op != start+step {
				return nil
			}
			m.mu.Lock()
			m.before = func(_ int, what, name string) error {
				if what == "put" && strings.HasPrefix(name, pendingDir) {
					select {
					case <-begun:
					default:
						close(begun)
					}
				}
				return nil
			}
			m.mu.Unlock()
			ran = true
			go func() {
				b, err := backUp(t.Context(), reopenAs(r), d, &old, m.now)
				for n := 1; errors.Is(err, ErrGone) && n < Attempts; n++ {
					b, err = backUp(t.Context(), reopenAs(r), d, nil, m.now)
				}
				made <- result{b, err}
			}()
			<-begun
			return nil
		}
		_, err = reopenAs(r).Prune(t.Context(), PruneOptions{Drop: []string{old.ID}})
		must(t, err)
		if !ran {
			return
		}
		got := <-made
		must(t, got.err)
		same(t, r, got.b, d.data)
		if len(m.names(pruningDir)) > 0 {
			t.Fatal("the note of the prune is still there")
		}
	}
}

// TestPruneStandsStill: a prune that could not renew its note takes nothing more.
func TestPruneStandsStill(t *testing.T) {
	m := newMem()
	r := newRepo(t, m, nil)
	d := newModel(2 * minChunk)
	d.write(0, []byte("abc"))
	b, err := backUp(t.Context(), r, d, nil, m.now)
	must(t, err)
	r.stale, r.refresh = 0, time.Hour // as if that time had passed
	if _, err := r.Prune(t.Context(), PruneOptions{Drop: []string{b.ID}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("it went on: %v", err)
	}
	same(t, r, b, d.data)
}

// TestBackupWaits: as long as a prune renews its note, a backup is not finished.
func TestBackupWaits(t *testing.T) {
	m := newMem()
	r := newRepo(t, m, nil)
	must(t, m.Put(t.Context(), pruningDir+"other", nil))
	looked := make(chan struct{}, 100)
	m.before = func(_ int, what, name string) error {
		if what == "list" && name == pruningDir {
			select {
			case looked <- struct{}{}:
			default:
			}
		}
		return nil
	}
	made := make(chan error, 1)
	d := newModel(minChunk)
	d.write(0, []byte("abc"))
	go func() {
		_, err := backUp(t.Context(), r, d, nil, time.Unix(1e9, 0))
		made <- err
	}()
	for range 3 {
		<-looked
	}
	if n := m.names(backupsDir); len(n) > 0 || len(m.names(pendingDir)) != 1 {
		t.Fatalf("it did not wait: %v", n)
	}
	m.advance(pruneStale) // the other one was killed
	must(t, <-made)
	if len(m.names(backupsDir)) != 1 || len(m.names(pendingDir)) != 0 {
		t.Fatal(m.names(""))
	}
}

// TestRules: which backups stay.
func TestRules(t *testing.T) {
	day := func(s string) time.Time {
		at, err := time.Parse("2006-01-02 15", s)
		must(t, err)
		return at
	}
	times := []time.Time{ // newest first; the 5th of January 2026 is a Monday
		day("2026-01-06 20"), day("2026-01-06 08"), day("2026-01-05 20"), day("2026-01-04 20"),
		day("2026-01-01 20"), day("2025-12-31 20"), day("2025-12-20 20"), day("2025-11-20 20"),
	}
	for _, tt := range []struct {
		rules Rules
		want  []int
	}{
		{Rules{}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{Rules{Last: 2}, []int{0, 1}},
		{Rules{Last: 99}, []int{0, 1, 2, 3, 4, 5, 6, 7}},
		{Rules{Daily: 3}, []int{0, 2, 3}},
		{Rules{Weekly: 2}, []int{0, 3}},
		{Rules{Monthly: 3}, []int{0, 5, 7}},
		{Rules{Last: 2, Daily: 2, Weekly: 3, Monthly: 2}, []int{0, 1, 2, 3, 5, 6}},
	} {
		var got []int
		for i, stays := range tt.rules.keep(times) {
			if stays {
				got = append(got, i)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%+v keeps %v, want %v", tt.rules, got, tt.want)
		}
	}
}

// TestRulesAreOfEachLUN: hosts and LUNs do not count for each other.
func TestRulesAreOfEachLUN(t *testing.T) {
	var all []Entry
	for i := range 4 {
		for _, of := range []Backup{{Host: "a", LUN: "x"}, {Host: "a", LUN: "y"}, {Host: "b", LUN: "x"}} {
			of.Created, of.ID = time.Unix(int64(i), 0), fmt.Sprint(of.Host, of.LUN, i)
			all = append(all, Entry{Backup: of})
		}
	}
	keep, drop, err := parted(all, PruneOptions{Rules: Rules{Last: 1}, Drop: []string{"ax3"}}, partedCapsules{})
	must(t, err)
	got := ids(keep)
	slices.Sort(got)
	if !slices.Equal(got, []string{"ax2", "ay3", "bx3"}) || len(drop) != 9 {
		t.Fatalf("kept %v, dropped %v", got, ids(drop))
	}
}

func TestFind(t *testing.T) {
	bad := errors.New("bad")
	all := []Entry{
		{Backup: Backup{ID: "20260101t000000z-aaaaaaaa", LUN: "x", Snapshot: "s"}}, {Backup: Backup{ID: "20260102t000000z-bbbbbbbb", LUN: "x"}},
		{Backup: Backup{ID: "20260103t000000z-cccccccc", LUN: "y"}}, {Backup: Backup{ID: "20260104t000000z-dddddddd"}, Err: bad},
		{Backup: Backup{ID: "20260105t000000z-eeeeeeee", LUN: "w", Host: "a"}}, {Backup: Backup{ID: "20260106t000000z-ffffffff", LUN: "w", Host: "b"}},
	}
	for ref, want := range map[string]int{"x": 1, "x@s": 0, "y": 2, "20260103": 2, "20260102T000000Z-BBB": 1, "z": -1, "x@none": -1, "2026": -1, "": -1, "20260104": -2, "w": -1, "20260105": 4} {
		e, err := Find(all, ref)
		switch {
		case want == -2:
			if !errors.Is(err, bad) || e.ID != all[3].ID {
				t.Errorf("%q: %v", ref, err)
			}
		case want < 0 != (err != nil) || want >= 0 && e.ID != all[want].ID:
			t.Errorf("%q: %s, %v", ref, e.ID, err)
		}
	}
}
