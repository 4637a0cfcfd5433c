package raw

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/lun"
)

// TestDelete: only a LUN out of service goes, and its room comes back.
func TestDelete(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	e := newEngine(t, Options{})
	do(t, e, openPool(dir, 1<<20), openLUN("data", 1<<20, 4096), openLUN("kept", 1<<20, 4096))
	id := vol(t, e, "data").Info().ID
	must(t, vol(t, e, "data").WriteAt(t.Context(), make([]byte, 64<<10), 0, true))
	must(t, vol(t, e, "kept").WriteAt(t.Context(), make([]byte, 4096), 0, true))
	_, err := e.Delete(t.Context(), "data")
	wants(t, err, "delete LUN data: it is in service")
	_, err = e.Delete(t.Context(), "../p/data")
	wants(t, err, "cannot be a file's")
	do(t, e, lun.CloseLUN{Name: "data"})
	if r := e.Retained(); len(r) != 1 || r[0].Name != "data" || r[0].Pool != "main" || r[0].Used != 64<<10 || r[0].ID != id || r[0].Size != 1<<20 {
		t.Errorf("retained %+v", r)
	}
	d, err := e.Delete(t.Context(), "data")
	if err != nil || d != (lun.Deleted{ID: id, Pool: "main", Freed: 64 << 10}) {
		t.Errorf("deleted %+v, %v", d, err)
	}
	if s := e.Stats().Pools[0]; s.Used != 4096 || s.Retained != 0 || len(e.Retained()) != 0 {
		t.Errorf("pool afterwards %+v", s)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*data*")); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	if _, err = e.Delete(t.Context(), "data"); !errors.Is(err, lun.ErrUnknown) {
		t.Errorf("a second time: %v", err)
	}
	verify(t, e, "kept")
}

// TestDeleteInAPoolThatCloses: nothing is said to be deleted in a pool that went out
// of service meanwhile, and nothing is.
func TestDeleteInAPoolThatCloses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "p")
	e := newEngine(t, Options{})
	do(t, e, openPool(dir, 1<<20), openLUN("data", 1<<20, 4096), lun.CloseLUN{Name: "data"})
	p := e.pool("main")
	do(t, e, lun.ClosePool{Name: "main"})
	if d, err := e.deleteIn(p, "data"); !errors.Is(err, lun.ErrUnknown) {
		t.Errorf("deleted %+v, %v", d, err)
	}
	do(t, e, openPool(dir, 1<<20))
	if r := e.Retained(); len(r) != 1 {
		t.Errorf("retained %+v", r)
	}
}

// TestDeleteGoesOn: a crash between the two files leaves what a second call takes.
func TestDeleteGoesOn(t *testing.T) {
	for _, suffix := range []string{metaSuffix, dataSuffix} {
		dir := filepath.Join(t.TempDir(), "p")
		e := newEngine(t, Options{})
		do(t, e, openPool(dir, 1<<20), openLUN("data", 1<<20, 4096))
		must(t, vol(t, e, "data").WriteAt(t.Context(), make([]byte, 4096), 0, true))
		do(t, e, lun.CloseLUN{Name: "data"})
		must(t, os.Remove(filepath.Join(dir, "data"+suffix)))
		if _, err := e.Delete(t.Context(), "data"); err != nil {
			t.Errorf("without %s: %v", suffix, err)
		}
		if s := e.Stats().Pools[0]; s.Used != 0 {
			t.Errorf("without %s: %d bytes are still used", suffix, s.Used)
		}
		do(t, e, openLUN("data", 1<<20, 4096)) // as new
	}
}

func TestCheck(t *testing.T) {
	page := bytes.Repeat([]byte{7}, 8192)
	tests := []struct {
		name   string
		damage func(t *testing.T, e *Engine, v *volume, f *faulty)
		want   string // "" for a healthy LUN
	}{
		{"healthy", func(*testing.T, *Engine, *volume, *faulty) {}, ""},
		{"metadata gone", func(t *testing.T, _ *Engine, v *volume, _ *faulty) { must(t, os.Remove(v.pool.meta("l"))) }, "no such file"},
		{"metadata damaged", func(t *testing.T, _ *Engine, v *volume, _ *faulty) {
			must(t, os.WriteFile(v.pool.meta("l"), []byte("{"), 0o600))
		}, "damaged"},
		{"another LUN's metadata", func(t *testing.T, e *Engine, v *volume, _ *faulty) {
			do(t, e, openLUN("m", 1<<20, 512))
			b, err := os.ReadFile(v.pool.meta("m"))
			must(t, err)
			must(t, os.WriteFile(v.pool.meta("l"), b, 0o600))
		}, "is another LUN's"},
		{"data cut short", func(t *testing.T, _ *Engine, v *volume, _ *faulty) {
			must(t, os.Truncate(v.pool.data("l"), 512<<10))
		}, "the rest of the data is gone"},
		{"unreadable", func(_ *testing.T, _ *Engine, _ *volume, f *faulty) { f.read = unix.EIO }, "the data at byte 16896 cannot be read: input/output error"},
		{"a flush failed", func(t *testing.T, _ *Engine, v *volume, f *faulty) {
			f.sync = unix.EIO
			wants(t, v.Flush(t.Context()), "data may be lost")
			f.sync = nil
		}, "it takes no more writes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, v, f := faultyLUN(t, filepath.Join(t.TempDir(), "p"))
			must(t, v.WriteAt(t.Context(), page, 16384, false))
			tt.damage(t, e, v, f)
			faults, err := e.Check(t.Context(), "l", func(int64) {})
			must(t, err)
			if got := strings.Join(faults, "\n"); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
				t.Errorf("found %q, want %q", got, tt.want)
			}
			if v.failed.Load() != nil { // closing says it once more
				wants(t, e.Do(t.Context(), lun.CloseLUN{Name: "l"}), "data may be lost")
			}
		})
	}
	e, _, _ := faultyLUN(t, filepath.Join(t.TempDir(), "p"))
	if _, err := e.Check(t.Context(), "other", func(int64) {}); !errors.Is(err, lun.ErrClosed) {
		t.Errorf("a LUN that is not in service: %v", err)
	}
}
