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

func second[T any](_ T, err error) error { return err }
