package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ripstop/internal/disktest"
	"ripstop/internal/reconcile"
	"ripstop/lun"
	"ripstop/lun/thin"
)

var _ reconcile.Target[lun.State, lun.Step] = (*Engine)(nil)

func newEngine(t *testing.T, o Options) *Engine {
	t.Helper()
	e := New(slog.New(slog.DiscardHandler), o)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

func main(path string, size int64) lun.Pool {
	return lun.Pool{Kind: lun.Thin, Path: path, Size: size, Overcommit: 4}
}

// become does all that makes the engine's state the wanted one.
func become(t *testing.T, e *Engine, want lun.State) {
	t.Helper()
	have, err := e.Observe(t.Context())
	must(t, err)
	for _, s := range lun.Diff(want, have) {
		must(t, e.Do(t.Context(), s))
	}
	have, err = e.Observe(t.Context())
	must(t, err)
	if !maps.Equal(have.Pools, want.Pools) || !maps.Equal(have.LUNs, want.LUNs) {
		t.Fatalf("has  %+v\nwant %+v", have, want)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wants(t *testing.T, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %q", err, text)
	}
}

func volumeOf(t *testing.T, e *Engine, name string) lun.Volume {
	t.Helper()
	v, err := e.Volume(name)
	must(t, err)
	return v
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i%251)
	}
	return b
}

// TestLife: a LUN keeps its data when it or its pool leaves and comes back, also
// in another engine, and is grown, counted and deleted.
func TestLife(t *testing.T) {
	ctx, state := t.Context(), t.TempDir()
	var resized []string
	e := newEngine(t, Options{StateDir: state, OnResize: func(l string) { resized = append(resized, l) }})
	path := filepath.Join(state, "pools", "main")
	want := lun.State{
		Pools: map[string]lun.Pool{"main": main(path, 8<<20)},
		LUNs:  map[string]lun.LUN{"a": {Pool: "main", Size: 4 << 20, Block: 4096}, "b": {Pool: "main", Size: 1 << 20, Block: 512}},
	}
	become(t, e, want)
	a := volumeOf(t, e, "a")
	id := a.Info().ID
	data := pattern(256<<10, 3)
	must(t, a.WriteAt(ctx, data, 128<<10, true))
	if s := e.Stats(); s.Pools[0].Used != 256<<10 || s.Pools[0].Provisioned != 5<<20 || s.Pools[0].Limit != 32<<20 || s.LUNs[0].Used != 256<<10 {
		t.Errorf("stats are %+v", s)
	}
	if u := a.(lun.Gauge).Usage(); u != (lun.Usage{PoolSize: 8 << 20, PoolUsed: 256 << 10, Used: 256 << 10}) {
		t.Errorf("usage is %+v", u)
	}
	want.LUNs["a"] = lun.LUN{Pool: "main", Size: 6 << 20, Block: 4096}
	want.Pools["main"] = main(path, 16<<20)
	become(t, e, want)
	if len(resized) != 1 || resized[0] != "a" {
		t.Errorf("resized are %v", resized)
	}

	delete(want.LUNs, "a")
	become(t, e, want)
	if err := a.ReadAt(ctx, data, 0); !errors.Is(err, lun.ErrClosed) {
		t.Errorf("out of service it reads %v", err)
	}
	if r := e.Retained(); len(r) != 1 || r[0].Name != "a" || r[0].Used != 256<<10 || r[0].Size != 6<<20 || r[0].ID != id {
		t.Errorf("retained is %+v", r)
	}
	if s := e.Stats(); s.Pools[0].Retained != 256<<10 {
		t.Errorf("stats are %+v", s)
	}
	become(t, e, lun.State{})

	other := newEngine(t, Options{StateDir: state})
	want.LUNs["a"] = lun.LUN{Pool: "main", Size: 6 << 20, Block: 4096}
	become(t, other, want)
	got := make([]byte, len(data))
	must(t, volumeOf(t, other, "a").ReadAt(ctx, got, 128<<10))
	if !bytes.Equal(got, data) || volumeOf(t, other, "a").Info().ID != id {
		t.Error("the data or the identifier are not what they were")
	}
	if faults, err := other.Check(ctx, "a", func(int64) {}); err != nil || len(faults) != 0 {
		t.Errorf("check: %v, %v", faults, err)
	}

	_, err := other.Delete(ctx, "a")
	wants(t, err, "in service")
	delete(want.LUNs, "a")
	become(t, other, want)
	pool, err := other.Pool("main")
	must(t, err)
	must(t, pool.Snapshot(ctx, "s", "a"))
	if _, err = other.Delete(ctx, "a"); !errors.Is(err, thin.ErrHasSnapshots) {
		t.Errorf("delete with a snapshot: %v", err)
	}
	must(t, pool.Delete(ctx, "a@s"))
	if d, err := other.Delete(ctx, "a"); err != nil || d != (lun.Deleted{ID: id, Pool: "main", Freed: 256 << 10}) {
		t.Errorf("deleted %+v, %v", d, err)
	}
	if _, err = other.Delete(ctx, "a"); !errors.Is(err, lun.ErrUnknown) {
		t.Errorf("deleted again: %v", err)
	}
}

// TestRefusals: what cannot be is told, and leaves everything as it is.
func TestRefusals(t *testing.T) {
	ctx, state := t.Context(), t.TempDir()
	e := newEngine(t, Options{StateDir: state})
	path, twin := filepath.Join(state, "main"), filepath.Join(state, "twin")
	want := lun.State{
		Pools: map[string]lun.Pool{"main": main(path, 8<<20), "twin": main(twin, 8<<20)},
		LUNs:  map[string]lun.LUN{"a": {Pool: "main", Size: 4 << 20, Block: 4096}},
	}
	become(t, e, want)
	file := filepath.Join(state, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	raw := filepath.Join(state, "raw")
	must(t, os.Mkdir(raw, 0o700))
	must(t, os.WriteFile(filepath.Join(raw, "pool.json"), []byte(`{"format":1,"uuid":"0123"}`), 0o600))
	open := func(p lun.Pool) lun.Step { return lun.OpenPool{Name: "x", Pool: p} }
	lunOf := func(name, pool string, size int64, block int) lun.Step {
		return lun.OpenLUN{Name: name, LUN: lun.LUN{Pool: pool, Size: size, Block: block}}
	}
	small := main(path, 1<<20)
	small.Overcommit = 1
	tests := []struct {
		step lun.Step
		text string
	}{
		{open(main(path, 1<<20)), "open pool x: pool " + path + ": " + path + " is in use by another pool or another ripstop"},
		{open(main(file, 1<<20)), "neither a directory nor a block device"},
		{open(main("/nonexistent/dir/pool", 1<<20)), "/nonexistent/dir does not exist: mount its file system or make the directory"},
		{open(main(raw, 1<<20)), "it is of a pool of kind raw: write `kind: raw`"},
		{open(lun.Pool{Kind: lun.Raw, Path: path}), `kind "raw" is not thin`},
		{lun.OpenPool{Name: "main", Pool: main(twin, 1<<20)}, "it is in service at " + path},
		{lun.SetPool{Name: "none"}, "set pool none: it is not in service"},
		{lun.SetPool{Name: "main", To: small}, "pool main: its LUNs would have 4194304 bytes, and it promises at most 1048576"},
		{lun.ClosePool{Name: "main"}, "close pool main: LUN a is in service in it"},
		{lunOf("b", "none", 1<<20, 4096), "pool none is not in service"},
		{lunOf("b", "main", 1<<20, 1024), "block 1024 is neither 512 nor 4096"},
		{lunOf("b", "main", 1000, 512), "size 1000 is not a positive multiple"},
		{lunOf("b", "main", 32<<20, 512), "pool main: its LUNs would have"},
		{lunOf("b@c", "main", 1<<20, 512), "a name with an @ is a snapshot's"},
		{lunOf(strings.Repeat("n", 256), "main", 1<<20, 512), "a name has 1 to 255 bytes"},
		{lunOf("a", "twin", 4<<20, 4096), "its data are in pool main and not in twin: write `pool: main`"},
		{lunOf("a", "main", 1<<20, 4096), "does not shrink"},
		{lunOf("a", "main", 4<<20, 512), "its blocks have 4096 bytes"},
		{lun.GrowLUN{Name: "b", To: 1}, "grow LUN b: it is not in service"},
		{lun.GrowLUN{Name: "a", To: 1 << 30}, "pool main: its LUNs would have"},
		{lun.Refuse{Of: "lun/a", Why: "because"}, "because"},
	}
	for _, tt := range tests {
		wants(t, e.Do(ctx, tt.step), tt.text)
	}
	become(t, e, want)
	must(t, e.Do(ctx, lun.OpenPool{Name: "main", Pool: want.Pools["main"]}))
	must(t, e.Do(ctx, lun.ClosePool{Name: "gone"}))
	must(t, e.Do(ctx, lun.CloseLUN{Name: "gone"}))
	_, err := e.Check(ctx, "gone", func(int64) {})
	wants(t, err, "check LUN gone")
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := e.Do(gone, lun.CloseLUN{Name: "a"}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestSizes: data get all of a pool's size, small or large, and nothing more;
// deleting and unmapping work when it is full.
func TestSizes(t *testing.T) {
	for _, size := range []int64{1 << 20, 10<<20 + 4096, 64 << 20} {
		ctx, state := t.Context(), t.TempDir()
		e := newEngine(t, Options{StateDir: state})
		become(t, e, lun.State{
			Pools: map[string]lun.Pool{"main": main(filepath.Join(state, "main"), size)},
			LUNs:  map[string]lun.LUN{"a": {Pool: "main", Size: 2 * whole(size), Block: 4096}},
		})
		v := volumeOf(t, e, "a")
		chunk := pattern(chunkSize, 7)
		var n int64
		var err error
		for ; err == nil; n++ {
			err = v.WriteAt(ctx, chunk, n*chunkSize, false)
		}
		if n--; !errors.Is(err, lun.ErrNoSpace) || n*chunkSize != whole(size) {
			t.Errorf("a pool of %d took %d: %v", size, n*chunkSize, err)
		}
		must(t, v.Flush(ctx))
		must(t, v.Unmap(ctx, 0, chunkSize))
		must(t, v.Flush(ctx))
		must(t, v.WriteAt(ctx, chunk, n*chunkSize, true))
	}
}

// TestThick: a thick LUN can be filled whatever others take, and what is kept for
// it is given to nobody else until it is thin.
func TestThick(t *testing.T) {
	ctx, state := t.Context(), t.TempDir()
	e := newEngine(t, Options{StateDir: state})
	thick := lun.LUN{Pool: "main", Size: 2 << 20, Block: 4096, Thick: true}
	want := lun.State{
		Pools: map[string]lun.Pool{"main": main(filepath.Join(state, "main"), 8<<20)},
		LUNs:  map[string]lun.LUN{"a": thick, "b": {Pool: "main", Size: 8 << 20, Block: 4096}},
	}
	become(t, e, want)
	chunk := pattern(chunkSize, 7)
	fill := func(name string, at int64) (n int64) {
		v := volumeOf(t, e, name)
		for ; at < v.Info().Size; at += chunkSize {
			if err := v.WriteAt(ctx, chunk, at, false); errors.Is(err, lun.ErrNoSpace) {
				return n
			} else if err != nil {
				t.Fatal(err)
			}
			n += chunkSize
		}
		return n
	}
	taken := fill("b", 0)
	if taken < 5<<20 || taken > 6<<20 {
		t.Errorf("besides a thick LUN of 2 MiB, %d of 8 MiB could be taken", taken)
	}
	if n := fill("a", 0); n != 2<<20 {
		t.Errorf("the thick LUN took %d", n)
	}
	thick.Size = 4 << 20
	wants(t, e.Do(ctx, lun.GrowLUN{Name: "a", From: 2 << 20, To: thick.Size}), "no space left")
	wants(t, e.Do(ctx, lun.OpenLUN{Name: "c", LUN: thick}), "no space left")
	if _, ok := e.Keeps("c"); ok {
		t.Error("a refused LUN is there")
	}
	must(t, volumeOf(t, e, "a").Unmap(ctx, 0, 2<<20))
	must(t, volumeOf(t, e, "a").Flush(ctx))
	if n := fill("b", taken); n > 64<<10 {
		t.Errorf("%d of what is kept were taken by others", n)
	}
	want.LUNs["a"] = lun.LUN{Pool: "main", Size: 3 << 20, Block: 4096}
	become(t, e, want)
	if n := fill("b", taken); n < 1<<20 {
		t.Errorf("of what is kept no more others took %d", n)
	}
	if got := e.Stats().LUNs[0].Thick; got {
		t.Error("it is thick still")
	}
}

// TestServe: pools are tended from when the task runs or they are opened, whichever
// is later, until they are closed or the task ends.
func TestServe(t *testing.T) {
	state := t.TempDir()
	e := newEngine(t, Options{StateDir: state})
	want := lun.State{
		Pools: map[string]lun.Pool{"early": main(filepath.Join(state, "early"), 8<<20)},
		LUNs:  map[string]lun.LUN{"a": {Pool: "early", Size: 8 << 20, Block: 4096}},
	}
	become(t, e, want)
	ctx, end := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error)
	go func() { done <- e.Serve(ctx, func() { close(ready) }) }()
	<-ready
	want.Pools["late"] = main(filepath.Join(state, "late"), 8<<20)
	want.LUNs["b"] = lun.LUN{Pool: "late", Size: 8 << 20, Block: 4096}
	become(t, e, want)
	for _, name := range []string{"a", "b"} {
		v := volumeOf(t, e, name)
		for i := range int64(2000) {
			must(t, v.WriteAt(t.Context(), pattern(4096, byte(i)), i%2000*4096, false))
		}
	}
	must(t, e.Reopen(t.Context(), "late", false))
	delete(want.LUNs, "a")
	delete(want.Pools, "early")
	become(t, e, want)
	end()
	must(t, <-done)
	must(t, volumeOf(t, e, "b").WriteAt(t.Context(), pattern(4096, 1), 0, true))
}

// TestDevice: a pool on a block device has the data that log, map and reserve
// leave, and nobody else gets the device.
func TestDevice(t *testing.T) {
	ctx, state, path := t.Context(), t.TempDir(), disktest.Loop(t, 128<<20)
	e := newEngine(t, Options{StateDir: state})
	wants(t, e.Do(ctx, lun.OpenPool{Name: "main", Pool: main(path, 127<<20)}), "the device has 134217728 bytes, of which log, map and reserve leave")
	wants(t, e.Do(ctx, lun.OpenPool{Name: "main", Pool: main(disktest.Loop(t, 1<<20), 1<<20)}), "choose a larger one")
	most := layoutOf(127<<20).fits(128<<20) &^ (1<<20 - 1)
	want := lun.State{
		Pools: map[string]lun.Pool{"main": main(path, most)},
		LUNs:  map[string]lun.LUN{"a": {Pool: "main", Size: most, Block: 4096}},
	}
	become(t, e, want)
	wants(t, newEngine(t, Options{}).Do(ctx, lun.OpenPool{Name: "main", Pool: main(path, most)}), "the device is in use")
	v := volumeOf(t, e, "a")
	for at := int64(0); at < most; at += 1 << 20 {
		must(t, v.WriteAt(ctx, pattern(1<<20, byte(at>>20)), at, false))
	}
	must(t, v.Flush(ctx))
	must(t, e.Reopen(ctx, "main", false))
	if s := e.Stats(); s.Pools[0].Used != most || s.Pools[0].Size != most {
		t.Errorf("stats are %+v", s.Pools[0])
	}
	if faults, err := e.Check(ctx, "a", func(int64) {}); err != nil || len(faults) != 0 {
		t.Errorf("check: %v, %v", faults, err)
	}
}

// TestForeign: a pool of a newer format, a part of a copy and data without their
// pool are left as they are.
func TestForeign(t *testing.T) {
	ctx := t.Context()
	made := t.TempDir()
	e := newEngine(t, Options{})
	become(t, e, lun.State{Pools: map[string]lun.Pool{"main": main(made, 8<<20)}})
	become(t, e, lun.State{})
	data, err := os.ReadFile(filepath.Join(made, "pool.data"))
	must(t, err)
	record, err := os.ReadFile(filepath.Join(made, "pool.json"))
	must(t, err)
	newer := bytes.Clone(data)
	for _, at := range []int{0, 32 << 10} {
		super := newer[at : at+512]
		binary.LittleEndian.PutUint32(super[8:], 9)
		binary.LittleEndian.PutUint32(super[508:], crc32.Checksum(super[:508], crc32.MakeTable(crc32.Castagnoli)))
	}
	tests := []struct {
		name, text   string
		data, record []byte
	}{
		{"newer", "it has format 9, and this is format", newer, record},
		{"newer record", "format 9 is newer", data, bytes.Replace(record, []byte(`"format": 1`), []byte(`"format": 9`), 1)},
		{"half", "it is a part of a copy: copy all of it", data[:len(data)/2&^4095], record},
		{"no data", "pool.data is gone: put it back", nil, record},
		{"foreign", "holds something that is no pool", bytes.Repeat([]byte("x"), 1<<20), nil},
	}
	for _, tt := range tests {
		dir := t.TempDir()
		for name, b := range map[string][]byte{"pool.data": tt.data, "pool.json": tt.record} {
			if b != nil {
				must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
			}
		}
		wants(t, e.Do(ctx, lun.OpenPool{Name: tt.name, Pool: main(dir, 8<<20)}), tt.text)
		if b, err := os.ReadFile(filepath.Join(dir, "pool.data")); tt.data != nil && (err != nil || !bytes.Equal(b, tt.data)) {
			t.Errorf("%s: the data are not as they were: %v", tt.name, err)
		}
	}
}
