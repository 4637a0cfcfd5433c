package raw

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/internal/nettest"
	"ripstop/internal/reconcile"
	"ripstop/lun"
)

var _ reconcile.Target[lun.State, lun.Step] = (*Engine)(nil)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir, os.Getenv(childSeed)))
	}
	if slices.Contains(os.Args, "-test.fuzzworker") { // in the namespaces of its parent already
		os.Exit(m.Run())
	}
	nettest.Main(m)
}

func newEngine(t testing.TB, o Options) *Engine {
	t.Helper()
	e := New(slog.New(slog.DiscardHandler), o)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return e
}

// do carries out steps that shall work.
func do(t testing.TB, e *Engine, steps ...lun.Step) {
	t.Helper()
	for _, s := range steps {
		if err := e.Do(t.Context(), s); err != nil {
			t.Fatalf("%v: %v", s, err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants checks an error's text, "" for none.
func wants(t testing.TB, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("error is %v, want %q", err, want)
	}
}

func vol(t testing.TB, e *Engine, name string) *volume {
	t.Helper()
	v, err := e.Volume(name)
	must(t, err)
	return v.(*volume)
}

func openPool(dir string, size int64) lun.Step {
	return lun.OpenPool{Name: "main", Pool: lun.Pool{Kind: lun.Raw, Path: dir, Size: size, Overcommit: 4}}
}

func openLUN(name string, size int64, block int) lun.Step {
	return lun.OpenLUN{Name: name, LUN: lun.LUN{Pool: "main", Size: size, Block: block}}
}

// verify compares a volume's bitmap with the holes of its file and the pool's
// account, which must hold this LUN and what is retained, and nothing else.
func verify(t testing.TB, e *Engine, names ...string) {
	t.Helper()
	sums := map[*pool]int64{}
	for _, name := range names {
		v := vol(t, e, name)
		var b bitmap
		blocks := up(v.size.Load()) / blockSize
		b.grow(blocks)
		must(t, v.file.Data(v.size.Load(), func(off, end int64) { b.set(off/blockSize, up(end)/blockSize, true) }))
		for i := int64(0); i < blocks; i++ {
			if b.mapped(i) != v.bitmap.mapped(i) {
				t.Fatalf("LUN %s block %d: the file says mapped %t, the bitmap %t", name, i, b.mapped(i), v.bitmap.mapped(i))
			}
		}
		if n := b.count(0, blocks) * blockSize; n != v.used.Load() {
			t.Fatalf("LUN %s: %d bytes mapped, %d accounted", name, n, v.used.Load())
		}
		st, err := os.Stat(v.pool.data(name))
		must(t, err)
		// A file system may count its own blocks of the extent tree, too.
		if disk := st.Sys().(*syscall.Stat_t).Blocks * 512; disk < v.used.Load() || disk > v.used.Load()+256<<10 {
			t.Fatalf("LUN %s: %d bytes on disk, %d accounted", name, disk, v.used.Load())
		}
		sums[v.pool] += v.used.Load()
	}
	for p, sum := range sums {
		for _, r := range p.retained {
			sum += r.used
		}
		if p.used.Load() != sum {
			t.Fatalf("pool %s: %d accounted, its LUNs hold %d", p.name, p.used.Load(), sum)
		}
	}
}

// TestLife: data and identity stay when a LUN leaves and comes back, and when
// the engine ends and another begins.
func TestLife(t *testing.T) {
	state := t.TempDir()
	dir := filepath.Join(state, "pools", "main") // its parent does not exist either
	var resized []string
	e := newEngine(t, Options{StateDir: state, OnResize: func(name string) { resized = append(resized, name) }})
	want := lun.State{
		Pools: map[string]lun.Pool{"main": {Kind: lun.Raw, Path: dir, Size: 1 << 20, Overcommit: 4}},
		LUNs:  map[string]lun.LUN{"data": {Pool: "main", Size: 1 << 20, Block: 4096}, "pool": {Pool: "main", Size: 5 * 512, Block: 512}},
	}
	for range 2 { // the second time there is nothing to do
		have, err := e.Observe(t.Context())
		must(t, err)
		do(t, e, lun.Diff(want, have)...)
	}
	if have, err := e.Observe(t.Context()); err != nil || len(lun.Diff(want, have)) != 0 {
		t.Fatalf("still differs: %v, %v", lun.Diff(want, have), err)
	}
	v := vol(t, e, "data")
	info := v.Info()
	page := bytes.Repeat([]byte("ripstop!"), 512)
	must(t, v.WriteAt(t.Context(), page, 8192, true))
	do(t, e, lun.GrowLUN{Name: "data", From: 1 << 20, To: 2 << 20}, lun.GrowLUN{Name: "data", From: 1 << 20, To: 2 << 20})
	if fmt.Sprint(resized) != "[data]" {
		t.Errorf("told of growing %v, want data once", resized)
	}
	do(t, e, lun.CloseLUN{Name: "data"}, lun.CloseLUN{Name: "data"})
	if err := v.ReadAt(t.Context(), page, 0); !errors.Is(err, lun.ErrClosed) {
		t.Errorf("a closed volume reads: %v", err)
	}
	if err := v.WriteAt(t.Context(), page, 0, false); !errors.Is(err, lun.ErrClosed) {
		t.Errorf("a closed volume writes: %v", err)
	}
	if s := e.Stats().Pools[0]; s.Used != 4096 || s.Retained != 4096 || s.Provisioned != 5*512 || s.Limit != 4<<20 {
		t.Errorf("pool with a LUN out of service: %+v", s)
	}
	must(t, e.Close())

	e = newEngine(t, Options{})
	do(t, e, openPool(dir, 1<<20), openLUN("data", 2<<20, 4096))
	got, back := make([]byte, 4096), vol(t, e, "data")
	must(t, back.ReadAt(t.Context(), got, 8192))
	if !bytes.Equal(got, page) || back.Info().ID != info.ID || back.Info().ID == [16]byte{} || back.Info().Size != 2<<20 {
		t.Errorf("came back as %+v, was %+v; data equal %t", back.Info(), info, bytes.Equal(got, page))
	}
	if s := e.Stats(); s.Pools[0].Retained != 0 || len(s.LUNs) != 1 || s.LUNs[0].Used != 4096 || s.LUNs[0].Pool != "main" {
		t.Errorf("stats %+v", s)
	}
	verify(t, e, "data")
}

func TestPoolErrors(t *testing.T) {
	base := t.TempDir()
	at := func(name string) string { return filepath.Join(base, name) }
	write := func(path, text string) {
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	write(at("file"), "")
	write(at("damaged/pool.json"), "{")
	write(at("thin/pool.json"), `{"format": 1, "kind": "thin"}`)
	write(at("newer/pool.json"), `{"format": 2, "uuid": "00000000000000000000000000000001", "created": "2026-11-01T00:00:00Z"}`)
	must(t, os.Mkdir(at("readonly"), 0o700))
	must(t, unix.Mount("tmpfs", at("readonly"), "tmpfs", unix.MS_RDONLY, ""))
	t.Cleanup(func() { must(t, unix.Unmount(at("readonly"), 0)) })
	other := newEngine(t, Options{})
	do(t, other, openPool(at("taken"), 1<<20))
	tests := []struct{ name, path, want string }{
		{"no parent", at("a/b"), "open pool main: " + at("a") + " does not exist: mount its file system or make the directory"},
		{"a file", at("file"), "not a directory"},
		{"damaged", at("damaged"), "pool.json: damaged: "},
		{"another kind", at("thin"), "pool.json is of a pool of kind thin: write `kind: thin`, or choose another directory"},
		{"newer", at("newer"), "format 2 is newer than 1: run a newer ripstop"},
		{"read-only", at("readonly"), "read-only file system: mount the file system for writing"},
		{"read-only parent", at("readonly/p"), "read-only file system: mount the file system for writing"},
		{"taken", at("taken"), at("taken") + " is in use by another pool or another ripstop: stop that one"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := newEngine(t, Options{StateDir: t.TempDir()})
			wants(t, e.Do(t.Context(), openPool(tt.path, 1<<20)), tt.want)
			if s, err := e.Observe(t.Context()); err != nil || len(s.Pools) != 0 {
				t.Errorf("in service: %v, %v", s, err)
			}
		})
	}
	for err, want := range map[error]string{
		unix.EACCES: "permission denied: let the user of ripstop write there",
		unix.ENOSPC: "no space left on device: free space on the file system",
		unix.EFBIG:  "file too large: the file system does not allow files of this size",
	} {
		wants(t, wrap("open pool main", fmt.Errorf("x: %w", err)), want)
	}
}

func TestLUNErrors(t *testing.T) {
	const meta = `{"format": 1, "id": "00000000000000000000000000000001", "block": 4096, "size": 1048576, "created": "2026-11-01T00:00:00Z"}`
	tests := []struct {
		name, data, meta string
		step             lun.Step
		want             string
		open             bool // it is in service all the same
	}{
		{name: "data without metadata", data: "precious", step: openLUN("l", 1<<20, 4096), want: "l.lun holds data, but its metadata"},
		{name: "a crash left an empty file", data: "empty", step: openLUN("l", 1<<20, 4096), open: true},
		{name: "metadata without data", meta: meta, step: openLUN("l", 1<<20, 4096), want: "its data"},
		{name: "shorter", data: "precious", meta: meta, step: openLUN("l", 1<<20, 4096), want: "has 8 bytes of 1048576, the rest of the data is gone"},
		{name: "longer", data: "long", meta: meta, step: openLUN("l", 1<<20, 4096), open: true},
		{name: "damaged", data: "long", meta: meta[:50], step: openLUN("l", 1<<20, 4096), want: "l.lun.json: damaged: "},
		{name: "grown in the file", data: "long", meta: meta, step: openLUN("l", 2<<20, 4096), open: true},
		{name: "shrunk", data: "long", meta: meta, step: openLUN("l", 1<<19, 4096), want: "does not shrink to 512KiB", open: true},
		{name: "other blocks", data: "long", meta: meta, step: openLUN("l", 1<<20, 512), want: "its blocks have 4096 bytes", open: true},
		{name: "promised", step: openLUN("l", 5<<20, 4096), want: "would have 5242880 bytes, and it promises at most 4194304 (size 1048576, overcommit 4)"},
		{name: "no pool", step: lun.OpenLUN{Name: "l", LUN: lun.LUN{Pool: "none", Size: 512, Block: 512}}, want: "open LUN l: pool none is not in service"},
		{name: "odd size", step: openLUN("l", 1000, 512), want: "size 1000 is not a positive multiple of block 512"},
		{name: "odd block", step: openLUN("l", 1024, 1024), want: "block 1024 is neither 512 nor 4096"},
		{name: "name", step: openLUN("../l", 512, 512), want: `name "../l" cannot be a file's`},
		{name: "refused", step: lun.Refuse{Of: "lun/l", Why: "because"}, want: "because"},
		{name: "grow what is not there", step: lun.GrowLUN{Name: "l", To: 512}, want: "grow LUN l: it is not in service"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "l.lun")
			if tt.data != "" {
				must(t, os.WriteFile(path, []byte(strings.TrimPrefix(strings.TrimPrefix(tt.data, "empty"), "long")), 0o600))
			}
			if tt.data == "long" {
				must(t, os.Truncate(path, 3<<20))
			}
			if tt.meta != "" {
				must(t, os.WriteFile(path+".json", []byte(tt.meta), 0o600))
			}
			e := newEngine(t, Options{})
			do(t, e, openPool(dir, 1<<20))
			for range 2 { // an error is the same when tried again
				wants(t, e.Do(t.Context(), tt.step), tt.want)
			}
			if _, err := e.Volume("l"); (err == nil) != tt.open {
				t.Errorf("in service: %v", err)
			}
			if data, err := os.ReadFile(path); tt.data == "precious" && (err != nil || string(data) != "precious") {
				t.Errorf("data are now %q, %v", data, err)
			}
		})
	}
}

// TestOtherPool: a LUN whose data lie in one pool is not made empty in another.
func TestOtherPool(t *testing.T) {
	e := newEngine(t, Options{})
	fast := lun.Pool{Path: t.TempDir(), Size: 1 << 20, Overcommit: 1}
	do(t, e, openPool(t.TempDir(), 1<<20), lun.OpenPool{Name: "fast", Pool: fast}, openLUN("l", 1<<20, 4096))
	step := lun.OpenLUN{Name: "l", LUN: lun.LUN{Pool: "fast", Size: 1 << 20, Block: 4096}}
	wants(t, e.Do(t.Context(), lun.ClosePool{Name: "main"}), "close pool main: LUN l is in service in it")
	do(t, e, lun.CloseLUN{Name: "l"})
	wants(t, e.Do(t.Context(), step), "open LUN l: its data are in pool main")
	wants(t, e.Do(t.Context(), lun.SetPool{Name: "none"}), "set pool none: it is not in service")
	do(t, e, openLUN("l", 1<<20, 4096))
	wants(t, e.Do(t.Context(), lun.SetPool{Name: "main", To: lun.Pool{Size: 1 << 10, Overcommit: 1}}), "promises at most 1024")
	do(t, e, lun.CloseLUN{Name: "l"}, lun.ClosePool{Name: "main"}, lun.ClosePool{Name: "main"})
}

func FuzzMeta(f *testing.F) {
	f.Add([]byte(`{"format": 1, "id": "00000000000000000000000000000001", "block": 512, "size": 1024, "created": "2026-11-01T00:00:00Z"}`))
	f.Add([]byte(`{"format": 1, "uuid": "00000000000000000000000000000001", "created": "2026-11-01T00:00:00Z"}`))
	f.Add([]byte(`{"format":1,"id":"0","block":3,"size":-1}{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := decode[lunMeta](data); err == nil {
			again(t, m)
			if m.Size <= 0 || m.Size%int64(m.Block) != 0 || m.ID == (id{}) {
				t.Errorf("accepted %+v", m)
			}
		}
		if m, err := decode[poolMeta](data); err == nil {
			again(t, m)
		}
	})
}

// again: what was accepted is the same after writing and reading it.
func again[M interface{ check() error }](t *testing.T, m M) {
	t.Helper()
	first, err := json.Marshal(m)
	must(t, err)
	n, err := decode[M](first)
	must(t, err)
	if second, err := json.Marshal(n); err != nil || !bytes.Equal(first, second) {
		t.Errorf("wrote %s, then %s, %v", first, second, err)
	}
}
