package lun

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// snapper is a half that takes snapshots, and notes what it is asked.
type snapper struct {
	*half
	have  []SnapshotStats
	asked []string
}

func (s *snapper) note(words ...string) { s.asked = append(s.asked, strings.Join(words, " ")) }

func (s *snapper) Snapshots() []SnapshotStats { return s.have }

func (s *snapper) Snapshot(_ context.Context, name string, luns ...string) error {
	s.note("snapshot", name, strings.Join(luns, ","))
	for _, l := range luns {
		s.have = append(s.have, SnapshotStats{Info: Info{Name: l + "@" + name}})
	}
	return nil
}

func (s *snapper) Clone(_ context.Context, snapshot, name string) (LUN, error) {
	s.note("clone", snapshot, name)
	return LUN{Pool: "new"}, nil
}

func (s *snapper) Restore(_ context.Context, name, snapshot, keep string) error {
	s.note("restore", name, snapshot, keep)
	return nil
}

func (s *snapper) DeleteSnapshot(_ context.Context, snapshot string) (Deleted, error) {
	s.note("delete", snapshot)
	return Deleted{Pool: "new"}, nil
}

func (s *snapper) CheckPool(_ context.Context, name string, _ Pool, _ func(int64)) (map[string][]string, error) {
	return map[string][]string{"": {"pool " + name}}, nil
}

// TestMuxSnapshots: what concerns a snapshot goes to the engine that has it, and
// a raw pool's LUN is told what to do.
func TestMuxSnapshots(t *testing.T) {
	ctx := t.Context()
	of := func(kind Kind, pool string, luns ...string) *half {
		s := State{Pools: map[string]Pool{pool: {Kind: kind}}, LUNs: map[string]LUN{}}
		kept := map[string]string{}
		for _, l := range luns {
			s.LUNs[l], kept[l] = LUN{Pool: pool}, pool
		}
		return &half{NewSim(s), kind, kept}
	}
	thin := &snapper{half: of(Thin, "new", "a", "b")}
	m := NewMux(map[Kind]Engine{Raw: of(Raw, "old", "r"), Thin: thin})
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	fails := func(err, is error, text string) {
		t.Helper()
		if !errors.Is(err, is) || !strings.Contains(err.Error(), text) {
			t.Errorf("got %v, want %v and %q", err, is, text)
		}
	}
	ok(m.Snapshot(ctx, "s", "b", "a"))
	if s := m.Snapshots(); len(s) != 2 || s[0].Name != "a@s" || s[1].Name != "b@s" {
		t.Errorf("snapshots are %+v", s)
	}
	l, err := m.Clone(ctx, "a@s", "c")
	ok(err)
	ok(m.Restore(ctx, "a", "s", "before"))
	d, err := m.DeleteSnapshot(ctx, "b@s")
	ok(err)
	if l.Pool != "new" || d.Pool != "new" {
		t.Errorf("cloned to %+v, deleted from %+v", l, d)
	}
	if want := []string{"snapshot s b,a", "clone a@s c", "restore a s before", "delete b@s"}; !slices.Equal(thin.asked, want) {
		t.Errorf("asked %q, want %q", thin.asked, want)
	}

	fails(m.Snapshot(ctx, "s"), ErrUnknown, "of no LUN")
	fails(m.Snapshot(ctx, "s", "r"), ErrNoSnapshots, "make a pool of `kind: thin`")
	fails(m.Snapshot(ctx, "s", "a", "gone"), ErrClosed, "LUN gone")
	_, err = m.Clone(ctx, "a@gone", "c")
	fails(err, ErrUnknown, "clone snapshot a@gone")
	_, err = m.Clone(ctx, "a@s", "r")
	fails(err, ErrExists, "pool old has one of this name")
	fails(m.Restore(ctx, "a", "gone", "x"), ErrUnknown, "restore LUN a")
	_, err = m.DeleteSnapshot(ctx, "a@gone")
	fails(err, ErrUnknown, "delete snapshot a@gone")

	if f, ok, err := m.CheckPool(ctx, "new", Pool{Kind: Thin}, nil); err != nil || !ok || !slices.Equal(f[""], []string{"pool new"}) {
		t.Errorf("checked %v, %t, %v", f, ok, err)
	}
	if f, ok, err := m.CheckPool(ctx, "old", Pool{Kind: Raw}, nil); err != nil || ok {
		t.Errorf("a raw pool has more: %v, %t, %v", f, ok, err)
	}
}

func TestScheduleSteps(t *testing.T) {
	tests := []struct {
		step interface {
			Object() string
			Removes() bool
			Disturbs() string
			Routine()
		}
		removes bool
	}{{BeginSchedule{LUN: "a"}, false}, {TakeSnapshot{LUN: "a"}, false}, {DropSnapshot{LUN: "a"}, true}}
	for _, tt := range tests {
		tt.step.Routine()
		if tt.step.Object() != "schedule/a" || tt.step.Removes() != tt.removes || tt.step.Disturbs() != "" {
			t.Errorf("%T: %s, removes %t, disturbs %q", tt.step, tt.step.Object(), tt.step.Removes(), tt.step.Disturbs())
		}
	}
}

// gated is a mem whose snapshots of a pool wait until ask returns.
type gated struct {
	*mem
	ask     func(ctx context.Context, luns []string) error
	mu      sync.Mutex
	deleted []string
}

func (g *gated) Snapshot(ctx context.Context, name string, luns ...string) error {
	if err := g.ask(ctx, luns); err != nil {
		return err
	}
	return g.mem.Snapshot(ctx, name, luns...)
}

func (g *gated) DeleteSnapshot(_ context.Context, name string) (Deleted, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.deleted = append(g.deleted, name)
	return Deleted{}, nil
}

// TestSnapshotOfSeveralPools: no change of a LUN begins between the first pool's snapshot and
// the last one's; where one fails or hangs, nothing is kept, and nobody waits for long.
func TestSnapshotOfSeveralPools(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		g := &gated{mem: newMem()}
		m := NewMux(map[Kind]Engine{Thin: g})
		for _, p := range []string{"p", "q"} {
			for _, s := range []Step{OpenPool{p, Pool{Kind: Thin, Size: 1 << 20, Overcommit: 1}}, OpenLUN{Name: "of-" + p, LUN: LUN{Pool: p, Size: 1 << 16, Block: 4096}}} {
				if err := m.Do(ctx, s); err != nil {
					t.Fatal(err)
				}
			}
		}
		v, err := m.Volume("of-p")
		if err != nil {
			t.Fatal(err)
		}
		begun, gate := make(chan struct{}, 2), make(chan struct{})
		g.ask = func(_ context.Context, luns []string) error {
			begun <- struct{}{}
			if luns[0] == "of-q" {
				<-gate
			}
			return nil
		}
		kept := make(chan error, 1)
		go func() { kept <- m.Snapshot(ctx, "s", "of-p", "of-q") }()
		<-begun
		<-begun
		synctest.Wait() // p has its snapshot
		var done atomic.Int32
		block := make([]byte, 4096)
		for _, change := range []func() error{
			func() error { return v.WriteAt(ctx, block, 0, false) }, func() error { return v.Unmap(ctx, 0, 4096) },
			func() error { return v.WriteZeroes(ctx, 0, 4096) }, func() error { return v.CompareAndWrite(ctx, block, block, 0) },
		} {
			go func() {
				if err := change(); err != nil {
					t.Error(err)
				}
				done.Add(1)
			}()
		}
		synctest.Wait()
		ok, err := v.(Prompt).TryWriteAt(block, 0)
		if done.Load() != 0 || ok || err != nil || v.(Queue).StartWriteAt(block, 0, nil) {
			t.Errorf("%d changes began between two pools, %t, %v", done.Load(), ok, err)
		}
		if err := v.ReadAt(ctx, block, 0); err != nil {
			t.Error(err)
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if err := v.WriteAt(ended, block, 0, false); !errors.Is(err, context.Canceled) {
			t.Errorf("who goes away waits: %v", err)
		}
		close(gate)
		if err := <-kept; err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if done.Load() != 4 {
			t.Errorf("%d changes of 4 are done", done.Load())
		}
		if err := m.Snapshot(ctx, "s", "of-p", "of-q"); !errors.Is(err, ErrExists) {
			t.Errorf("a name that is taken: %v", err)
		}

		began, gate := time.Now(), make(chan struct{})
		g.ask = func(_ context.Context, luns []string) error {
			if luns[0] == "of-q" {
				<-gate // a disk cannot be told to stop
			}
			return nil
		}
		if err := m.Snapshot(ctx, "x", "of-p", "of-q"); !errors.Is(err, ErrHangs) || time.Since(began) != holdMost {
			t.Errorf("a disk that hangs: after %s %v", time.Since(began), err)
		}
		if !slices.Equal(g.deleted, []string{"of-p@x"}) {
			t.Errorf("deleted %v", g.deleted)
		}
		if m.snaps["of-q"] != 1 {
			t.Errorf("a LUN may move while its pool makes a snapshot: %v", m.snaps)
		}
		close(gate)
		synctest.Wait()
		if !slices.Equal(g.deleted, []string{"of-p@x", "of-q@x"}) || len(m.snaps) != 0 {
			t.Errorf("when the disk answered, deleted %v, %v", g.deleted, m.snaps)
		}
		if err := v.WriteAt(ctx, block, 0, false); err != nil {
			t.Error(err)
		}
	})
}
