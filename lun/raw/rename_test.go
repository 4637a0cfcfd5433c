package raw

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"ripstop/lun"
)

// TestRename: a LUN in service gets another name and identifier, also when an
// earlier attempt ended at any step, and keeps its data and volume.
func TestRename(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	pool := lun.OpenPool{Name: "p", Pool: lun.Pool{Kind: lun.Raw, Path: filepath.Join(dir, "p"), Size: 1 << 30, Overcommit: 4}}
	shape := lun.LUN{Pool: "p", Size: 1 << 20, Block: 4096}
	data := bytes.Repeat([]byte{7}, 4096)
	next := [16]byte{1, 2, 3}
	path := func(name string) string { return filepath.Join(dir, "p", name) }
	left := map[string]func(from id){
		"nothing": func(id) {},
		"data":    func(id) { must(t, os.Rename(path("a.lun"), path("b.lun"))) },
		"data and metadata": func(from id) {
			must(t, os.Rename(path("a.lun"), path("b.lun")))
			m, err := readMeta[lunMeta](path("a.lun.json"))
			must(t, err)
			m.ID = next
			must(t, writeMeta(path("b.lun.json"), m))
		},
	}
	for name, leave := range left {
		t.Run(name, func(t *testing.T) {
			must(t, os.RemoveAll(path("")))
			e := newEngine(t, Options{StateDir: dir})
			do(t, e, pool, lun.OpenLUN{Name: "a", LUN: shape})
			v := vol(t, e, "a")
			must(t, v.WriteAt(ctx, data, 8192, true))
			leave(v.Info().ID)
			must(t, e.Rename(ctx, "p", "a", "b", next))
			if i := v.Info(); vol(t, e, "b") != v || i.Name != "b" || i.ID != next {
				t.Errorf("it is %+v", i)
			}
			must(t, v.WriteAt(ctx, data, 0, true))
			must(t, e.Rename(ctx, "p", "a", "b", next)) // was done
			do(t, e, lun.GrowLUN{Name: "b", From: 1 << 20, To: 2 << 20}, lun.CloseLUN{Name: "b"}, lun.OpenLUN{Name: "a", LUN: shape})
			must(t, e.Rename(ctx, "p", "a", "b", next)) // a is another since
			if a := vol(t, e, "a").Info(); a.Name != "a" || a.ID == next {
				t.Errorf("the new one is %+v", a)
			}
			do(t, e, lun.CloseLUN{Name: "a"})
			must(t, e.Rename(ctx, "p", "b", "c", next))
			if r := e.Retained(); len(r) != 2 || r[1].Name != "c" || r[1].Used != 8192 || r[1].Size != 2<<20 {
				t.Errorf("retained is %+v", r)
			}
			do(t, e, lun.OpenLUN{Name: "c", LUN: lun.LUN{Pool: "p", Size: 2 << 20, Block: 4096}})
			p := make([]byte, 4096)
			must(t, vol(t, e, "c").ReadAt(ctx, p, 8192))
			if !bytes.Equal(p, data) || vol(t, e, "c").Info().ID != next {
				t.Error("it is another")
			}
			vol(t, e, "c").Settle()
			wants(t, e.Rename(ctx, "p", "c", "a", next), "it exists")
			wants(t, e.Rename(ctx, "p", "none", "x", next), lun.ErrUnknown.Error())
			wants(t, e.Rename(ctx, "none", "c", "x", next), "pool none is not in service")
			wants(t, e.Rename(ctx, "p", "c", "../x", next), "cannot be a file's")
			faults, err := e.Check(ctx, "c", func(int64) {})
			if err != nil || len(faults) > 0 {
				t.Errorf("%v, %v", faults, err)
			}
		})
	}
}

// TestRenameWithoutData: metadata get no name that data have not.
func TestRenameWithoutData(t *testing.T) {
	dir := t.TempDir()
	e := newEngine(t, Options{})
	do(t, e, openPool(dir, 1<<20), openLUN("a", 1<<20, 4096))
	id := vol(t, e, "a").Info().ID
	do(t, e, lun.CloseLUN{Name: "a"})
	must(t, os.Rename(filepath.Join(dir, "a.lun"), filepath.Join(dir, "away")))
	wants(t, e.Rename(t.Context(), "main", "a", "b", id), "no such file")
	must(t, os.Rename(filepath.Join(dir, "away"), filepath.Join(dir, "a.lun")))
	must(t, e.Rename(t.Context(), "main", "a", "b", id))
	do(t, e, openLUN("b", 1<<20, 4096))
	if is := vol(t, e, "b").Info().ID; is != id {
		t.Errorf("it was %x and is %x", id, is)
	}
}

// TestRenameHoldsNobodyUp: while the disk does not answer to a rename, volumes are had.
func TestRenameHoldsNobodyUp(t *testing.T) {
	dir := t.TempDir()
	e := newEngine(t, Options{})
	do(t, e, openPool(dir, 1<<30), openLUN("a", 1<<20, 4096), openLUN("copy", 1<<20, 4096), lun.CloseLUN{Name: "copy"})
	p := e.pool("main")
	to := p.meta("copy")
	m, err := readMeta[lunMeta](to)
	must(t, err)
	text, err := os.ReadFile(to)
	must(t, err)
	// Readers of a pipe wait until somebody writes. The second one finds another pipe.
	first, second := to, filepath.Join(dir, "second")
	must(t, os.Remove(first))
	must(t, errors.Join(syscall.Mkfifo(first, 0o600), syscall.Mkfifo(second, 0o600)))
	done := make(chan error, 1)
	go func() { done <- e.Rename(t.Context(), "main", "gone", "copy", m.ID) }()
	answer := func(f *os.File) {
		_, err := f.Write(text)
		must(t, errors.Join(err, f.Close()))
	}
	f, err := os.OpenFile(first, os.O_WRONLY, 0) // a reader is there
	must(t, errors.Join(err, os.Rename(second, to)))
	answer(f)
	f, err = os.OpenFile(to, os.O_WRONLY, 0)
	must(t, err)
	seen := make(chan struct{})
	go func() { defer close(seen); _, _ = e.Volume("a") }()
	select {
	case <-seen:
	case <-time.After(5 * time.Second):
		t.Error("a volume is waited for until the disk answers")
	}
	answer(f)
	must(t, <-done)
}
