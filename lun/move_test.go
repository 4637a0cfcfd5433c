package lun

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

const moveSize = 4 << 20

// ship is a Mux over pools of two kinds with a LUN in the first.
type ship struct {
	t         *testing.T
	raw, thin *mem
	mux       *Mux
}

var shipPools = map[string]Pool{"old": {Kind: Raw, Path: "/old"}, "new": {Kind: Thin, Path: "/new"}, "too": {Kind: Thin, Path: "/too"}}

func newShip(t *testing.T) *ship {
	s := &ship{t: t, raw: newMem(), thin: newMem()}
	s.boot()
	s.do(OpenLUN{"data", LUN{Pool: "old", Size: moveSize, Block: 4096}})
	return s
}

// boot is a process that begins: nothing is in service but the pools.
func (s *ship) boot(moved ...Moved) {
	s.raw.mu.Lock()
	s.raw.all(func(_, _ string, r *ram) { r.open = false })
	s.raw.mu.Unlock()
	s.thin.mu.Lock()
	s.thin.all(func(_, _ string, r *ram) { r.open = false })
	s.thin.mu.Unlock()
	s.mux = NewMux(map[Kind]Engine{Raw: s.raw, Thin: s.thin})
	for _, m := range moved {
		s.mux.Expect("data", m)
	}
	for _, name := range []string{"new", "old", "too"} {
		s.do(OpenPool{name, shipPools[name]})
	}
}

func (s *ship) do(step Step) {
	s.t.Helper()
	if err := s.mux.Do(s.t.Context(), step); err != nil {
		s.t.Fatalf("%v: %v", step, err)
	}
}

func (s *ship) volume() Volume {
	s.t.Helper()
	v, err := s.mux.Volume("data")
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// pass has the LUN be in a pool.
func (s *ship) pass(pool string) error {
	have, err := s.mux.Observe(s.t.Context())
	if err != nil {
		return err
	}
	want := State{Pools: shipPools, LUNs: map[string]LUN{"data": {Pool: pool, Size: int64(moveSize), Block: 4096}}}
	if l, ok := have.LUNs["data"]; ok {
		l.Pool, l.Ready = pool, ""
		want.LUNs["data"] = l
	}
	for _, step := range Diff(want, have) {
		if err := s.mux.Do(s.t.Context(), step); err != nil {
			return err
		}
	}
	return nil
}

// only is what all pools have.
func (s *ship) only(want ...string) {
	s.t.Helper()
	var have []string
	for _, m := range []*mem{s.raw, s.thin} {
		m.mu.Lock()
		m.all(func(pool, name string, _ *ram) { have = append(have, pool+"/"+name) })
		m.mu.Unlock()
	}
	slices.Sort(have)
	if !slices.Equal(have, want) {
		s.t.Fatalf("the pools have %v, want %v", have, want)
	}
}

// well fails nowhere.
func well(string) error { return nil }

// load changes a LUN at random, and knows what it holds.
type load struct {
	r    *rand.Rand
	v    Volume
	from int64 // of the part that it has alone
	want []byte
}

func (l *load) step(ctx context.Context) error {
	n := 4096 * (1 + l.r.Int64N(40))
	at := l.r.Int64N((int64(len(l.want)) - n) / 4096 * 4096)
	at -= at % 4096
	off, is := l.from+at, l.want[at:at+n]
	switch l.r.IntN(8) {
	case 0:
		clear(is)
		return l.v.Unmap(ctx, off, n)
	case 1:
		clear(is)
		return l.v.WriteZeroes(ctx, off, n)
	case 2:
		return l.v.Flush(ctx)
	case 3:
		p := make([]byte, n)
		if err := l.v.ReadAt(ctx, p, off); err != nil || !bytes.Equal(p, is) {
			return fmt.Errorf("read %d bytes at %d: %w", n, off, errors.Join(err, errors.New("they may differ")))
		}
		return nil
	case 4:
		old, data := slices.Clone(is[:4096]), bytes.Repeat([]byte{byte(l.r.Int())}, 4096)
		copy(is, data)
		if err := l.v.CompareAndWrite(ctx, old, data, off); err != nil {
			return err
		}
		wrong := append([]byte{^data[0]}, data[1:]...)
		var differ *Miscompare
		if err := l.v.CompareAndWrite(ctx, wrong, old, off); !errors.As(err, &differ) {
			return fmt.Errorf("a wrong comparison gives %w", err)
		}
		return nil
	}
	p := bytes.Repeat([]byte{byte(l.r.Int())}, int(n))
	copy(is, p)
	return l.v.WriteAt(ctx, p, off, l.r.IntN(4) == 0)
}

// loads is several loads at once, until stop is called, which compares everything.
func (s *ship) loads(seed uint64) (stop func()) {
	over := make(chan struct{})
	var crew sync.WaitGroup
	const parts = 4
	var all []*load
	v := s.volume()
	for i := range int64(parts) {
		l := &load{r: rand.New(rand.NewPCG(seed, uint64(i))), v: v, from: i * moveSize / parts, want: make([]byte, moveSize/parts)}
		if err := v.ReadAt(s.t.Context(), l.want, l.from); err != nil {
			s.t.Fatal(err)
		}
		all = append(all, l)
		crew.Go(func() {
			for {
				select {
				case <-over:
					return
				default:
				}
				if err := l.step(s.t.Context()); err != nil {
					s.t.Error(err)
					return
				}
			}
		})
	}
	return func() {
		s.t.Helper()
		close(over)
		crew.Wait()
		p := make([]byte, moveSize/parts)
		for _, l := range all {
			if err := s.volume().ReadAt(s.t.Context(), p, l.from); err != nil || !bytes.Equal(p, l.want) {
				s.t.Errorf("what was written is not there: %v", err)
			}
		}
	}
}

func (s *ship) begin(pool string) *Move {
	s.t.Helper()
	m, err := s.mux.BeginMove(s.t.Context(), "data", pool, false)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// TestMove: a LUN goes from pool to pool while it changes, is the same volume to its
// users, and leaves nothing behind.
func TestMove(t *testing.T) {
	ctx := t.Context()
	s := newShip(t)
	first := s.volume()
	for n, pool := range []string{"new", "too", "old"} {
		was := first.Info()
		stop := s.loads(uint64(n))
		m := s.begin(pool)
		if _, err := s.mux.BeginMove(ctx, "data", "too", false); !errors.Is(err, ErrMoves) {
			t.Errorf("it moves twice: %v", err)
		}
		if err := s.mux.Snapshot(ctx, "s", "data"); !errors.Is(err, ErrMoves) {
			t.Errorf("a snapshot of what moves: %v", err)
		}
		if err := s.mux.Do(ctx, ReserveLUN{"data", moveSize, true}); !errors.Is(err, ErrMoves) {
			t.Errorf("room for what moves: %v", err)
		}
		if err := s.mux.Do(ctx, ClosePool{pool}); err == nil || !strings.Contains(err.Error(), "is being moved into it") {
			t.Errorf("the pool closes: %v", err)
		}
		far := int64(0)
		if err := m.Run(ctx, func(done int64) { far = max(far, done) }); err != nil || far != moveSize {
			t.Fatalf("%v at %d", err, far)
		}
		if err := s.mux.CommitMove(ctx, "data"); err != nil || m.ID() != was.ID {
			t.Fatal(err)
		}
		s.mux.Moved("data")
		have, err := s.mux.Observe(ctx)
		if l := have.LUNs["data"]; err != nil || len(have.LUNs) != 1 || l.Ready != pool || l.Pool == pool {
			t.Errorf("observed %+v, %v", have.LUNs, err)
		}
		if done, err := s.mux.TidyMoved(ctx, "data", nil); done || err != nil {
			t.Errorf("tidied before it is done: %v", err)
		}
		if err := s.pass(pool); err != nil {
			t.Fatal(err)
		}
		if done, err := s.mux.TidyMoved(ctx, "data", nil); !done || err != nil {
			t.Errorf("not tidied: %v", err)
		}
		stop()
		if is := s.volume().Info(); s.volume() != first || is != was {
			t.Errorf("it was %+v and is %+v", was, is)
		}
		s.only(pool + "/data")
		if st := s.mux.Stats().LUNs; len(st) != 1 || st[0].Pool != pool {
			t.Errorf("stats are %+v", st)
		}
	}
	if done, err := s.mux.TidyMoved(ctx, "data", nil); !done || err != nil {
		t.Errorf("nothing to tidy: %v", err)
	}
}

// TestMoveSparse: what is not mapped is not written, nor what an earlier attempt has
// copied, and what only that has is taken away.
func TestMoveSparse(t *testing.T) {
	ctx := t.Context()
	s := newShip(t)
	v := s.volume()
	for off := int64(0); off < moveSize; off += 64 << 10 {
		if err := v.WriteAt(ctx, bytes.Repeat([]byte{byte(off >> 16)}, 8192), off, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.begin("new").Run(ctx, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	is := s.thin.data["new"]["data"+copySuffix]
	if n := s.mapped(is); n != 2*moveSize>>16 {
		t.Errorf("%d blocks are mapped", n)
	}
	s.boot() // nothing was committed
	s.do(OpenLUN{"data", LUN{Pool: "old", Size: moveSize, Block: 4096}})
	v = s.volume()
	if err := errors.Join(v.Unmap(ctx, 0, 64<<10), v.WriteAt(ctx, bytes.Repeat([]byte{7}, 4096), 1<<20, false)); err != nil {
		t.Fatal(err)
	}
	writes := 0
	s.thin.fail(func(what string) error {
		if what == "write new" {
			writes++
		}
		return nil
	})
	m := s.begin("new")
	if err := m.Run(ctx, func(int64) {}); err != nil || writes > 1 {
		t.Errorf("%d writes again, %v", writes, err)
	}
	if n := s.mapped(is); n != 2*moveSize>>16-2 || !bytes.Equal(is.b, s.raw.data["old"]["data"].b) {
		t.Errorf("%d blocks are mapped, or the copy differs", n)
	}
	// On the way it grows.
	s.do(GrowLUN{"data", moveSize, moveSize + 8192})
	if err := errors.Join(v.WriteAt(ctx, make([]byte, 4096), moveSize+4096, true), m.Run(ctx, func(int64) {}), s.mux.CommitMove(ctx, "data")); err != nil {
		t.Error(err)
	}
	m.Revoke()
	s.do(CloseLUN{"data"})
	if over, err := s.mux.EndMove(ctx, "data", "new"); !over || err != nil {
		t.Error(err)
	}
	s.only("old/data")
}

func (s *ship) mapped(r *ram) (n int) {
	for _, m := range r.mapped {
		if m {
			n++
		}
	}
	return n
}

// TestMoveFails: whatever fails on the way, the LUN stays, and its users do not hear
// of the copy.
func TestMoveFails(t *testing.T) {
	bad := errors.New("bad")
	for _, tt := range []struct{ name, at, want string }{
		{"a write of the copy", "write new", "the copy in pool new: bad"},
		{"its flush", "flush new", "the copy in pool new: bad"},
		{"a trim", "unmap new", "the copy in pool new: bad"},
		{"its map", "extents new", "bad"},
		{"a read of the LUN", "read old", "the LUN in pool old: bad"},
		{"its map", "extents old", "bad"},
		{"making the copy", "lun.OpenLUN", "bad"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx := t.Context()
			s := newShip(t)
			v := s.volume()
			if err := v.WriteAt(ctx, bytes.Repeat([]byte{1}, 1<<20), 0, false); err != nil {
				t.Fatal(err)
			}
			fail := func(what string) error {
				if what == tt.at {
					return bad
				}
				return nil
			}
			s.raw.fail(fail)
			s.thin.fail(fail)
			m, err := s.mux.BeginMove(ctx, "data", "new", false)
			if err == nil {
				for _, err := range []error{v.WriteAt(ctx, make([]byte, 4096), 0, true), v.Unmap(ctx, 8192, 4096), v.Flush(ctx), v.WriteZeroes(ctx, 4096, 4096)} {
					if err != nil {
						t.Errorf("users hear of it: %v", err)
					}
				}
				err = m.Run(ctx, func(int64) {})
				if again := m.Run(ctx, func(int64) {}); err == nil || again == nil || s.mux.CommitMove(ctx, "data") == nil {
					t.Errorf("it goes on: %v", again)
				}
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("it fails with %v, want %s", err, tt.want)
			}
			s.raw.fail(well)
			s.thin.fail(well)
			if over, err := s.mux.EndMove(ctx, "data", "new"); !over || err != nil {
				t.Error(err)
			}
			s.only("old/data")
			p := make([]byte, 4096)
			if err := v.ReadAt(ctx, p, 64<<10); err != nil || p[0] != 1 || s.volume() != v {
				t.Errorf("what is left is %v, %v", p[0], err)
			}
		})
	}
}

// TestMoveOfALUNThatFails: what a write of the LUN left half done is copied again,
// and is nobody's reason to stay.
func TestMoveOfALUNThatFails(t *testing.T) {
	ctx := t.Context()
	s := newShip(t)
	v := s.volume()
	m := s.begin("new")
	if err := m.Run(ctx, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	s.raw.fail(func(what string) error {
		if what == "write old" {
			r := s.raw.data["old"]["data"]
			r.mu.Lock()
			r.put([]byte{9}, 8192) // a part of it
			r.mu.Unlock()
			return ErrNoSpace
		}
		return nil
	})
	if err := v.WriteAt(ctx, make([]byte, 8192), 8192, false); !errors.Is(err, ErrNoSpace) {
		t.Errorf("the user hears %v", err)
	}
	if err := v.WriteAt(ctx, make([]byte, 4096), moveSize, false); !errors.Is(err, ErrRange) {
		t.Errorf("the user hears %v", err)
	}
	if err := s.mux.CommitMove(ctx, "data"); !errors.Is(err, ErrDiffers) {
		t.Errorf("committed: %v", err)
	}
	if err := errors.Join(m.Run(ctx, func(int64) {}), s.mux.CommitMove(ctx, "data")); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(s.raw.data["old"]["data"].b, s.thin.data["new"]["data"+copySuffix].b) {
		t.Error("the copy differs")
	}
	// Once both are the LUN, what one cannot do is not done.
	s.raw.fail(well)
	s.thin.fail(func(what string) error {
		if what == "write new" {
			return ErrNoSpace
		}
		return nil
	})
	if err := v.WriteAt(ctx, make([]byte, 4096), 0, false); !errors.Is(err, ErrNoSpace) {
		t.Errorf("the user hears %v", err)
	}
	m.Revoke()
	s.raw.fail(func(what string) error {
		if what == "write old" {
			return ErrReadOnly
		}
		return nil
	})
	for range mostDirty + 1 {
		if v.WriteAt(ctx, make([]byte, 4096), 0, false) == nil {
			t.Fatal("written")
		}
	}
	if err := m.Err(); err == nil || !strings.Contains(err.Error(), "too many writes") {
		t.Errorf("it goes on: %v", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := v.WriteAt(ended, make([]byte, 4096), 0, false); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
}

// TestMoveOfALUNThatLacksData: a LUN that takes no more writes stays where that is
// seen, from whenever it does not.
func TestMoveOfALUNThatLacksData(t *testing.T) {
	ctx := t.Context()
	s := newShip(t)
	fail := func(is bool) {
		r := s.raw.data["old"]["data"]
		r.mu.Lock()
		defer r.mu.Unlock()
		r.failed = is
	}
	m := s.begin("new")
	if err := m.Run(ctx, func(int64) {}); err != nil {
		t.Fatal(err)
	}
	fail(true)
	if err := s.mux.CommitMove(ctx, "data"); !errors.Is(err, ErrReadOnly) {
		t.Errorf("committed: %v", err)
	}
	if over, err := s.mux.EndMove(ctx, "data", "new"); !over || err != nil {
		t.Fatal(err)
	}
	if err := s.begin("new").Run(ctx, func(int64) {}); !errors.Is(err, ErrReadOnly) {
		t.Errorf("copied: %v", err)
	}
	if over, err := s.mux.EndMove(ctx, "data", "new"); !over || err != nil {
		t.Fatal(err)
	}
	fail(false)
	m = s.begin("new")
	if err := errors.Join(m.Run(ctx, func(int64) {}), s.mux.CommitMove(ctx, "data")); err != nil {
		t.Error(err)
	}
}

// TestMoveCancelled: the cause of the end is what ends it.
func TestMoveCancelled(t *testing.T) {
	s := newShip(t)
	why := errors.New("no more")
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := s.volume().WriteAt(ctx, make([]byte, moveSize), 0, false); err != nil {
		t.Fatal(err)
	}
	err := s.begin("new").Run(ctx, func(int64) { cancel(why) })
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

// TestMoveOfAReopenedPool: when an engine has another volume of the LUN, nobody does
// to the copy what is done to that.
func TestMoveOfAReopenedPool(t *testing.T) {
	s := newShip(t)
	v := s.volume()
	m := s.begin("new")
	s.raw.mu.Lock()
	r := s.raw.data["old"]["data"]
	s.raw.data["old"]["data"] = &ram{of: s.raw, name: "data", pool: "old", id: r.id, block: 4096, b: r.b, mapped: r.mapped, open: true}
	r.open = false
	s.raw.mu.Unlock()
	if is := s.volume(); is == v {
		t.Error("it is the closed volume")
	}
	if err := m.Err(); !errors.Is(err, ErrClosed) {
		t.Errorf("the move goes on: %v", err)
	}
}

// TestMoveRefused is bad input.
func TestMoveRefused(t *testing.T) {
	ctx := t.Context()
	s := newShip(t)
	fails := func(name, pool, text string) {
		t.Helper()
		if _, err := s.mux.BeginMove(ctx, name, pool, false); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%s to %s: %v, want %s", name, pool, err, text)
		}
	}
	fails("none", "new", ErrClosed.Error())
	fails("data", "none", "pool none is not in service")
	fails("data", "old", "it is in pool old: name another pool")
	s.raw.data["old"]["data"].snaps = []string{"s"}
	fails("data", "new", "it has snapshots, and pool new takes none: data@s: name a pool of kind thin")
	s.raw.data["old"]["data"].snaps = nil
	m := s.begin("new")
	s.raw.data["old"]["data"].snaps = []string{"late"}
	if err := errors.Join(m.Run(ctx, func(int64) {}), s.mux.CommitMove(ctx, "data")); err == nil || !errors.Is(err, errOtherPast) {
		t.Errorf("committed: %v", err)
	}
	if err := s.mux.CommitMove(ctx, "none"); !errors.Is(err, ErrClosed) {
		t.Errorf("committed: %v", err)
	}
	if over, err := s.mux.EndMove(ctx, "data", "gone"); over || err != nil {
		t.Errorf("the copy in a pool that is not there: %v, %v", over, err)
	}
	half := NewMux(map[Kind]Engine{Raw: &half{NewSim(State{Pools: shipPools, LUNs: map[string]LUN{"data": {Pool: "old"}}}), Raw, map[string]string{}}})
	if _, err := half.BeginMove(ctx, "data", "new", false); err == nil {
		t.Error("an engine that cannot gives a LUN away")
	}
}

// TestMoveCrashes ends the process at each step after the commit: whoever begins
// finds one LUN, the copy, and tidies up.
func TestMoveCrashes(t *testing.T) {
	crash := errors.New("crash")
	for _, at := range []string{"nowhere", "rename data", "renamed data", "rename data~copy", "renamed data~copy", "lun.CloseLUN", "delete"} {
		for _, away := range []bool{false, true} {
			t.Run(fmt.Sprint(at, " ", away), func(t *testing.T) {
				ctx := t.Context()
				s := newShip(t)
				stop := s.loads(3)
				m := s.begin("new")
				if err := errors.Join(m.Run(ctx, func(int64) {}), s.mux.CommitMove(ctx, "data")); err != nil {
					t.Fatal(err)
				}
				s.mux.Moved("data")
				fail := func(what string) error {
					if what == at {
						return crash
					}
					return nil
				}
				s.raw.fail(fail)
				s.thin.fail(fail)
				err := s.pass("new")
				if err == nil {
					_, err = s.mux.TidyMoved(ctx, "data", nil)
				}
				if (err == nil) != (at == "nowhere") {
					t.Fatalf("%v", err)
				}
				stop() // served all the time
				if all := s.mux.Stats().LUNs; len(all) != 1 || all[0].Name != "data" {
					t.Errorf("there are %+v", all)
				}
				s.raw.fail(well)
				s.thin.fail(well)
				moved := Moved{"old", "new", m.ID()}
				s.boot(moved)
				if away { // the former pool comes last
					s.boot()
					s.do(ClosePool{"old"})
					s.mux.Expect("data", moved)
				}
				if r := s.mux.Retained(); slices.ContainsFunc(r, func(l LUNStats) bool { return strings.Contains(l.Name, "~") }) {
					t.Errorf("what is apart shows: %+v", r)
				}
				s.do(OpenLUN{"data", LUN{Pool: "new", Size: moveSize, Block: 4096}})
				if away {
					if done, err := s.mux.TidyMoved(ctx, "data", nil); done || err != nil {
						t.Errorf("tidied without the pool: %v", err)
					}
					s.do(OpenPool{"old", shipPools["old"]})
				}
				if i := s.volume().Info(); i.ID != m.ID() || i.Name != "data" {
					t.Errorf("it is %+v", i)
				}
				if done, err := s.mux.TidyMoved(ctx, "data", nil); !done || err != nil {
					t.Errorf("not tidied: %v", err)
				}
				s.only("new/data")
			})
		}
	}
}

// hung is an engine whose disk hangs for a while.
type hung struct {
	*mem
	hangs bool
}

func (h *hung) Do(ctx context.Context, s Step) error {
	if h.hangs {
		return ErrHangs
	}
	return h.mem.Do(ctx, s)
}

func (h *hung) Record(context.Context, string, string) ([]byte, error) {
	if h.hangs {
		return nil, ErrHangs
	}
	return nil, nil
}

func (h *hung) Records(context.Context, string) ([]string, error)       { return nil, nil }
func (h *hung) SetRecord(context.Context, string, string, []byte) error { return nil }

// TestMoveToADiskThatHangs: what a disk makes after nobody waits for it any more is
// not left there.
func TestMoveToADiskThatHangs(t *testing.T) {
	ctx := t.Context()
	s := newShip(t)
	h := &hung{s.thin, true}
	s.mux.engines[Thin] = h
	if _, err := s.mux.BeginMove(ctx, "data", "new", false); !errors.Is(err, ErrHangs) {
		t.Fatal(err)
	}
	if over, err := s.mux.EndMove(ctx, "data", "new"); over || !errors.Is(err, ErrHangs) {
		t.Errorf("it is over: %v, %v", over, err)
	}
	h.hangs = false
	s.do(OpenLUN{"data" + copySuffix, LUN{Pool: "new", Size: moveSize, Block: 4096}}) // what was begun ends
	if over, err := s.mux.EndMove(ctx, "data", "new"); !over || err != nil {
		t.Errorf("it is not over: %v", err)
	}
	s.only("old/data")
}

// TestDeleteBesideADiskThatHangs: a LUN is deleted where it is, and no other kind of
// pool is asked before.
func TestDeleteBesideADiskThatHangs(t *testing.T) {
	ctx := t.Context()
	s := newShip(t)
	s.do(OpenLUN{"other", LUN{Pool: "new", Size: moveSize, Block: 4096}})
	s.do(CloseLUN{"other"})
	s.raw.fail(func(what string) error {
		if what == "delete" {
			return ErrHangs
		}
		return nil
	})
	if d, err := s.mux.Delete(ctx, "other"); err != nil || d.Pool != "new" {
		t.Errorf("deleted %+v, %v", d, err)
	}
	s.only("old/data")
}

// late is an engine that has something happen right after it was asked for a volume.
type late struct {
	*mem
	then func()
}

func (l *late) Volume(name string) (Volume, error) {
	v, err := l.mem.Volume(name)
	if then := l.then; name == "data" && then != nil {
		l.then = nil
		then()
	}
	return v, err
}

// unhurried is an engine that has something happen before it makes a snapshot.
type unhurried struct {
	*mem
	before func()
}

func (u *unhurried) Snapshot(ctx context.Context, name string, luns ...string) error {
	u.before()
	return u.mem.Snapshot(ctx, name, luns...)
}

// TestNoMoveDuringASnapshot: a LUN does not begin to move while a snapshot of it waits
// for its pool, for that would come after the commit.
func TestNoMoveDuringASnapshot(t *testing.T) {
	ctx := t.Context()
	s := newShip(t)
	s.mux.engines[Raw] = &unhurried{s.raw, func() {
		if _, err := s.mux.BeginMove(ctx, "data", "new", false); err == nil || !strings.Contains(err.Error(), "a snapshot of it is being made") {
			t.Errorf("it moves: %v", err)
		}
	}}
	if err := s.mux.Snapshot(ctx, "s", "data"); err != nil {
		t.Fatal(err)
	}
	s.raw.data["old"]["data"].snaps = nil
	s.begin("new")
}

// TestMoveSwitchesMeanwhile: who asks for a LUN while it is switched gets what its
// users have, and not what the move leaves behind.
func TestMoveSwitchesMeanwhile(t *testing.T) {
	ctx := t.Context()
	s := newShip(t)
	l := &late{mem: s.raw}
	s.mux.engines[Raw] = l
	v := s.volume()
	m := s.begin("new")
	if err := errors.Join(m.Run(ctx, func(int64) {}), s.mux.CommitMove(ctx, "data")); err != nil {
		t.Fatal(err)
	}
	s.mux.Moved("data")
	l.then = func() { s.do(SwitchLUN{"data", "old", "new"}) }
	if s.volume() != v {
		t.Error("it is another volume")
	}
	if done, err := s.mux.TidyMoved(ctx, "data", nil); !done || err != nil {
		t.Errorf("not tidied: %v", err)
	}
	if err := s.volume().WriteAt(ctx, make([]byte, 4096), 0, true); err != nil || s.volume() != v {
		t.Errorf("it is another volume: %v", err)
	}
}

// TestMoveOfALUNThatIsGone: a LUN that was deleted after its move, and another one of
// its name, are in nobody's way while the former pool is out of service.
func TestMoveOfALUNThatIsGone(t *testing.T) {
	ctx := t.Context()
	s := newShip(t)
	m := s.begin("new")
	if err := errors.Join(m.Run(ctx, func(int64) {}), s.mux.CommitMove(ctx, "data")); err != nil {
		t.Fatal(err)
	}
	s.mux.Moved("data")
	if err := s.pass("new"); err != nil {
		t.Fatal(err)
	}
	s.do(CloseLUN{"data"})
	s.do(ClosePool{"old"})
	if _, err := s.mux.Delete(ctx, "data"); err != nil {
		t.Fatal(err)
	}
	open := OpenLUN{"data", LUN{Pool: "new", Size: moveSize, Block: 4096}}
	s.do(open)
	id := s.volume().Info().ID
	s.do(CloseLUN{"data"})
	s.do(open)
	s.boot(Moved{"old", "new", m.ID()}) // which opens the former pool, too
	s.do(open)
	if is := s.volume().Info().ID; is != id || is == m.ID() {
		t.Errorf("it was %x and is %x", id, is)
	}
	if done, err := s.mux.TidyMoved(ctx, "data", nil); !done || err != nil {
		t.Errorf("not tidied: %v", err)
	}
	s.only("new/data")
}

// TestMoveClosed: a LUN that goes out of service on its way stays, and one that has
// arrived is where it arrived.
func TestMoveClosed(t *testing.T) {
	ctx := t.Context()
	s := newShip(t)
	m := s.begin("new")
	s.do(CloseLUN{"data"})
	if err := m.Run(ctx, func(int64) {}); !errors.Is(err, ErrClosed) {
		t.Errorf("it goes on: %v", err)
	}
	if over, err := s.mux.EndMove(ctx, "data", "new"); !over || err != nil {
		t.Error(err)
	}
	s.only("old/data")
	s.do(OpenLUN{"data", LUN{Pool: "old", Size: moveSize, Block: 4096}})
	m = s.begin("new")
	if err := errors.Join(m.Run(ctx, func(int64) {}), s.mux.CommitMove(ctx, "data")); err != nil {
		t.Fatal(err)
	}
	if err := s.mux.Do(ctx, CloseLUN{"data"}); !errors.Is(err, ErrMoves) {
		t.Errorf("closed while it is decided which of the two it is: %v", err)
	}
	s.mux.Moved("data")
	s.do(CloseLUN{"data"})
	s.do(OpenLUN{"data", LUN{Pool: "new", Size: moveSize, Block: 4096}})
	if done, err := s.mux.TidyMoved(ctx, "data", nil); !done || err != nil {
		t.Error(err)
	}
	s.only("new/data")
}

// TestFrontWithoutMore: what a volume cannot, its front cannot.
func TestFrontWithoutMore(t *testing.T) {
	s := newShip(t)
	f := s.volume().(*front)
	if ok, err := f.TryReadAt(make([]byte, 4096), 0); !ok || err != nil || f.Usage().PoolSize != 1 || !f.StartReadAt(nil, 0, nil) || !f.StartWriteAt(nil, 0, nil) {
		t.Error("it cannot what its volume can")
	}
	if ok, err := f.TryWriteAt(nil, 0); !ok || err != nil {
		t.Error("it cannot write at once")
	}
	s.begin("new")
	if ok, err := f.TryWriteAt(nil, 0); ok || err != nil || f.StartWriteAt(nil, 0, nil) {
		t.Error("on its way it writes to one alone")
	}
	type plain struct{ Volume }
	f = newFront("data", plain{s.volume()})
	r, rerr := f.TryReadAt(nil, 0)
	w, werr := f.TryWriteAt(nil, 0)
	if r || w || rerr != nil || werr != nil || f.StartReadAt(nil, 0, nil) || f.StartWriteAt(nil, 0, nil) || f.Usage() != (Usage{}) {
		t.Error("it can what its volume cannot")
	}
	n := 0
	if err := f.Extents(t.Context(), 0, moveSize, func(int64, int64, bool) bool { n++; return true }); err != nil || n != 1 {
		t.Errorf("%d runs, %v", n, err)
	}
}

// TestSeenInBothPools: a LUN that goes over between looks at two pools is one LUN.
func TestSeenInBothPools(t *testing.T) {
	seen := []LUNStats{{Info: Info{Name: "data"}, Pool: "a"}, {Info: Info{Name: "other"}, Pool: "a"}, {Info: Info{Name: "data"}, Pool: "b"}}
	got := visible(NewMux(nil), seen, func(l *LUNStats) *string { return &l.Name })
	if len(got) != 2 || got[0].Name != "data" || got[0].Pool != "b" || got[1].Name != "other" {
		t.Errorf("seen: %+v", got)
	}
}

// passing is an engine that is looked at while a move ends.
type passing struct {
	Engine
	looks []LUNStats // by look
	after func()     // of the first
}

func (p *passing) Stats() Stats {
	is := p.looks[0]
	if len(p.looks) > 1 {
		p.looks = p.looks[1:]
		p.after()
	}
	return Stats{LUNs: []LUNStats{is}}
}

// TestMoveIsSeenWhileNamesChange: a LUN whose move is being carried out is there at each
// moment, by whatever name the pools have it.
func TestMoveIsSeenWhileNamesChange(t *testing.T) {
	for name, looks := range map[string][]string{
		"the former one is renamed":   {"data~gone"},
		"between its pool and engine": {"data~copy"},
		"the move ends meanwhile":     {"data~gone", "data"},
		"it ends, seen in its pool":   {"data~copy", "data"},
	} {
		t.Run(name, func(t *testing.T) {
			e := &passing{}
			for _, is := range looks {
				e.looks = append(e.looks, LUNStats{Info: Info{Name: is}})
			}
			m := NewMux(map[Kind]Engine{Thin: e})
			v := &Move{name: "data"}
			v.state.Store(moveDone)
			m.moves["data"] = v
			e.after = func() { m.forgetMove("data") }
			if all := m.Stats().LUNs; len(all) != 1 || all[0].Name != "data" {
				t.Errorf("there are %+v", all)
			}
		})
	}
}
