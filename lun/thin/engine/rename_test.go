package engine

import (
	"bytes"
	"path/filepath"
	"testing"

	"ripstop/lun"
)

// TestRename: a LUN in service gets another name and identifier and keeps its data,
// and another pool may have one of the former name.
func TestRename(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	e := newEngine(t, Options{StateDir: dir})
	want := lun.State{
		Pools: map[string]lun.Pool{"p": main(filepath.Join(dir, "p"), 64<<20), "q": main(filepath.Join(dir, "q"), 64<<20)},
		LUNs:  map[string]lun.LUN{"a": {Pool: "p", Size: 1 << 20, Block: 4096}, "b": {Pool: "q", Size: 1 << 20, Block: 4096}},
	}
	become(t, e, want)
	next := [16]byte{1, 2, 3}
	a, b := volumeOf(t, e, "a"), volumeOf(t, e, "b")
	data := pattern(4096, 1)
	must(t, b.WriteAt(ctx, data, 0, true))
	wants(t, e.Rename(ctx, "q", "b", "a", next), "pool p has one of this name in service")
	must(t, e.Rename(ctx, "p", "a", "a~gone", a.Info().ID))
	must(t, e.Rename(ctx, "q", "b", "a", next))
	must(t, e.Rename(ctx, "q", "b", "a", next)) // was done
	if i := b.Info(); volumeOf(t, e, "a") != b || i.Name != "a" || i.ID != next {
		t.Errorf("it is %+v", i)
	}
	if volumeOf(t, e, "a~gone") != a {
		t.Error("the other is gone")
	}
	wants(t, e.Rename(ctx, "q", "none", "x", next), lun.ErrUnknown.Error())
	wants(t, e.Rename(ctx, "none", "a", "x", next), "pool none is not in service")
	must(t, e.Do(ctx, lun.CloseLUN{Name: "a~gone"}))
	must(t, e.Close())

	e = newEngine(t, Options{StateDir: dir})
	want.LUNs = map[string]lun.LUN{"a": {Pool: "q", Size: 1 << 20, Block: 4096}, "a~gone": {Pool: "p", Size: 1 << 20, Block: 4096}}
	become(t, e, want)
	p := make([]byte, 4096)
	must(t, volumeOf(t, e, "a").ReadAt(ctx, p, 0))
	if !bytes.Equal(p, data) || volumeOf(t, e, "a").Info().ID != next {
		t.Error("it is another")
	}
}
