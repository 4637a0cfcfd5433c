package lun

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
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
