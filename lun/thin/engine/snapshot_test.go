package engine

import (
	"bytes"
	"errors"
	"path/filepath"
	"testing"

	"ripstop/lun"
)

// fill writes a byte over the first 64 KiB of a LUN, and holds checks it.
func fill(t *testing.T, e *Engine, name string, b byte) {
	t.Helper()
	v, err := e.Volume(name)
	must(t, err)
	must(t, v.WriteAt(t.Context(), bytes.Repeat([]byte{b}, 64<<10), 0, true))
}

func holds(t *testing.T, e *Engine, name string, b byte) {
	t.Helper()
	v, err := e.Volume(name)
	must(t, err)
	p := make([]byte, 64<<10)
	must(t, v.ReadAt(t.Context(), p, 0))
	if !bytes.Equal(p, bytes.Repeat([]byte{b}, len(p))) {
		t.Errorf("%s holds %x…, want %x", name, p[:4], b)
	}
}

// TestSnapshots takes, serves, clones, restores and deletes over a restart, with
// everything that is refused on the way.
func TestSnapshots(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	state := lun.State{
		Pools: map[string]lun.Pool{"main": main(filepath.Join(dir, "main"), 16<<20), "other": main(filepath.Join(dir, "other"), 16<<20)},
		LUNs: map[string]lun.LUN{
			"a": {Pool: "main", Size: 8 << 20, Block: 4096}, "b": {Pool: "main", Size: 8 << 20, Block: 512}, "c": {Pool: "other", Size: 8 << 20, Block: 4096},
		},
	}
	e := New(newEngine(t, Options{}).log, Options{})
	become(t, e, state)
	fill(t, e, "a", 1)
	fill(t, e, "b", 2)
	must(t, e.Snapshot(ctx, "s", "a", "b"))
	fill(t, e, "a", 3)

	wants(t, e.Snapshot(ctx, "x", "a", "c"), "LUN a is in pool main and LUN c in pool other")
	for what, err := range map[string]error{
		"a name that is taken":   e.Snapshot(ctx, "s", "b"),
		"a clone's name, too":    second(e.Clone(ctx, "a@s", "b")),
		"a name of another pool": second(e.Clone(ctx, "a@s", "c")),
	} {
		if !errors.Is(err, lun.ErrExists) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"a clone of no snapshot":   second(e.Clone(ctx, "a@none", "x")),
		"a clone of a LUN":         second(e.Clone(ctx, "a", "x")),
		"a restore to none":        e.Restore(ctx, "a", "none", "keep"),
		"the deletion of none":     second(e.DeleteSnapshot(ctx, "a@none")),
		"the deletion of no snaps": second(e.DeleteSnapshot(ctx, "a")),
	} {
		if !errors.Is(err, lun.ErrUnknown) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := e.Snapshot(ctx, "x", "none"); !errors.Is(err, lun.ErrClosed) {
		t.Errorf("a snapshot of no LUN: %v", err)
	}
	if n := len(e.Snapshots()); n != 2 {
		t.Errorf("%d snapshots after what was refused", n)
	}

	l, err := e.Clone(ctx, "a@s", "copy")
	must(t, err)
	if l != (lun.LUN{Pool: "main", Size: 8 << 20, Block: 4096}) {
		t.Errorf("the clone is %+v", l)
	}
	if _, err := e.Volume("copy"); !errors.Is(err, lun.ErrClosed) {
		t.Errorf("the clone is in service before it is opened: %v", err)
	}
	state.LUNs["copy"] = l
	become(t, e, state)
	snapshot, err := e.Volume("a@s")
	must(t, err)
	id := snapshot.Info().ID
	if i := snapshot.Info(); !i.ReadOnly || i.Size != 8<<20 {
		t.Errorf("the snapshot is %+v", i)
	}
	if err := snapshot.WriteAt(ctx, make([]byte, 4096), 0, false); !errors.Is(err, lun.ErrReadOnly) {
		t.Errorf("a write to a snapshot: %v", err)
	}
	if again, err := e.Volume("a@s"); err != nil || again != snapshot {
		t.Errorf("a second look gives another device, %v", err)
	}
	must(t, e.Restore(ctx, "a", "s", "keep"))
	must(t, e.Close())

	e = newEngine(t, Options{})
	become(t, e, state)
	holds(t, e, "a", 1)
	holds(t, e, "a@keep", 3)
	holds(t, e, "a@s", 1)
	holds(t, e, "b@s", 2)
	holds(t, e, "copy", 1)
	if snapshot, err = e.Volume("a@s"); err != nil || snapshot.Info().ID != id {
		t.Errorf("after a restart it has another identifier, %v", err)
	}
	all := e.Snapshots()
	if len(all) != 3 || all[0].Name != "a@s" || all[1].Name != "b@s" || all[2].Name != "a@keep" {
		t.Fatalf("snapshots are %+v, want them in the order of their making", all)
	}
	if s := all[2]; s.Pool != "main" || s.Used != 64<<10 || s.Exclusive != 64<<10 || s.Created.IsZero() {
		t.Errorf("what was before the restore takes %+v", s)
	}
	faults, err := e.CheckPool(ctx, "main", state.Pools["main"], func(int64) {})
	if err != nil || len(faults) != 0 {
		t.Errorf("check: %v, %v", faults, err)
	}
	gone, err := e.DeleteSnapshot(ctx, "a@keep")
	if err != nil || gone.Freed != 64<<10 || gone.Pool != "main" || gone.ID != all[2].ID {
		t.Errorf("deleted %+v, %v", gone, err)
	}
	must(t, second(e.DeleteSnapshot(ctx, "a@s")))
	holds(t, e, "copy", 1)
}

// TestSnapshotOfAThickLUN: what its room cannot be kept for again is refused.
func TestSnapshotOfAThickLUN(t *testing.T) {
	ctx := t.Context()
	e := newEngine(t, Options{})
	become(t, e, lun.State{
		Pools: map[string]lun.Pool{"main": main(filepath.Join(t.TempDir(), "main"), 16<<20)},
		LUNs:  map[string]lun.LUN{"thick": {Pool: "main", Size: 12 << 20, Block: 4096, Thick: true}},
	})
	v, err := e.Volume("thick")
	must(t, err)
	must(t, v.WriteAt(ctx, bytes.Repeat([]byte{1}, 12<<20), 0, true))
	if err := e.Snapshot(ctx, "s", "thick"); !errors.Is(err, lun.ErrNoSpace) || len(e.Snapshots()) != 0 {
		t.Errorf("%v, and there are %d", err, len(e.Snapshots()))
	}
	must(t, v.Unmap(ctx, 4<<20, 8<<20))
	must(t, e.Snapshot(ctx, "s", "thick"))
}

// TestCloneOfWhatIsBeingDeleted: either there is a whole clone, or no such
// snapshot.
func TestCloneOfWhatIsBeingDeleted(t *testing.T) {
	ctx := t.Context()
	e := newEngine(t, Options{})
	state := lun.State{
		Pools: map[string]lun.Pool{"main": main(filepath.Join(t.TempDir(), "main"), 16<<20)},
		LUNs:  map[string]lun.LUN{"a": {Pool: "main", Size: 1 << 20, Block: 4096}},
	}
	become(t, e, state)
	cloned := 0
	for i := range byte(30) {
		fill(t, e, "a", i+1)
		must(t, e.Snapshot(ctx, "s", "a"))
		deleted := make(chan error, 1)
		go func() { deleted <- second(e.DeleteSnapshot(ctx, "a@s")) }()
		l, err := e.Clone(ctx, "a@s", "copy")
		must(t, <-deleted)
		if err != nil {
			if !errors.Is(err, lun.ErrUnknown) {
				t.Fatal(err)
			}
			continue
		}
		cloned++
		must(t, e.Do(ctx, lun.OpenLUN{Name: "copy", LUN: l}))
		holds(t, e, "copy", i+1)
		must(t, e.Do(ctx, lun.CloseLUN{Name: "copy"}))
		must(t, second(e.Delete(ctx, "copy")))
	}
	t.Logf("%d of 30 were cloned", cloned)
	if n := len(e.Snapshots()) + len(e.Retained()); n != 0 {
		t.Errorf("%d are left", n)
	}
}

func second[T any](_ T, err error) error { return err }
