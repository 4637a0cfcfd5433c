package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/internal/disk"
	"ripstop/internal/disktest"
	"ripstop/lun"
	"ripstop/lun/thin"
)

var _ thin.File = (*File)(nil)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// start opens path and makes a pool in it when there is none.
func start(t testing.TB, path string, o Options) (*File, *thin.Pool) {
	t.Helper()
	f, err := Open(path, o)
	must(t, err)
	if f.Fresh() {
		must(t, thin.Format(f, 1<<20))
	}
	p, err := thin.Open(t.Context(), f, thin.Options{Limit: 64 << 20, Slab: 4 << 20})
	must(t, err)
	return f, p
}

func stop(t testing.TB, f *File, p *thin.Pool) {
	t.Helper()
	must(t, p.Close())
	must(t, f.Close())
}

// TestPool: a pool in a directory keeps its data, whichever way they go and
// wherever the caller's memory lies.
func TestPool(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pool")
	memory := bytes.Repeat([]byte{7}, 256<<10+1)
	for i, direct := range []bool{true, false, true} {
		f, p := start(t, dir, Options{Direct: direct})
		if f.IsDevice() || f.Fresh() != (i == 0) {
			t.Errorf("open %d: a device: %v, fresh: %v", i, f.IsDevice(), f.Fresh())
		}
		if i == 0 {
			_, err := p.Create(t.Context(), "v", 8<<20, 512)
			must(t, err)
		}
		v, err := p.Volume("v")
		must(t, err)
		if i > 0 {
			got := make([]byte, len(memory))[1:]
			must(t, v.ReadAt(t.Context(), got, 0))
			if !bytes.Equal(got, memory[1:]) {
				t.Errorf("open %d: other data", i)
			}
		}
		memory[5000] = byte(i)
		must(t, v.WriteAt(t.Context(), memory[1:], 0, true))
		stop(t, f, p)
	}
	var m meta
	data, err := os.ReadFile(filepath.Join(dir, "pool.json"))
	must(t, err)
	must(t, json.Unmarshal(data, &m))
	if m.Kind != "thin" || len(m.ID) != 32 || m.Epoch != 3 || m.Generation < 6 || m.Block != 4096 || m.Chunk != 65536 {
		t.Errorf("pool.json: %s", data)
	}
}

// TestOlderCopy: a copy of the data that was put back is noticed.
func TestOlderCopy(t *testing.T) {
	dir := t.TempDir()
	f, p := start(t, dir, Options{})
	stop(t, f, p)
	data := filepath.Join(dir, dataName)
	older, err := os.ReadFile(data)
	must(t, err)
	f, p = start(t, dir, Options{})
	stop(t, f, p)
	must(t, os.WriteFile(data, older, 0o600))
	f, err = Open(dir, Options{})
	must(t, err)
	if _, err := thin.Open(t.Context(), f, thin.Options{}); !errors.Is(err, thin.ErrStale) {
		t.Errorf("open: %v", err)
	}
	must(t, f.Close())
	must(t, os.Remove(filepath.Join(dir, "pool.json"))) // somebody says that it is the right one
	f, p = start(t, dir, Options{})
	stop(t, f, p)
}

func write(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text), 0o600))
}

func TestRefused(t *testing.T) {
	tests := []struct {
		name  string
		setup func(t *testing.T, dir string)
		want  string
	}{
		{"a file", func(t *testing.T, dir string) {
			must(t, os.Remove(dir))
			write(t, dir, "")
		}, "it is neither a directory nor a block device: name one of them"},
		{"no parent", func(t *testing.T, dir string) { must(t, os.RemoveAll(filepath.Dir(dir))) },
			"does not exist: mount its file system or make the directory"},
		{"a raw pool", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "pool.json"), `{"format": 1, "uuid": "00"}`)
		}, "it is of a pool of kind raw: write `kind: raw`, or choose another directory"},
		{"another kind", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "pool.json"), `{"format": 1, "kind": "thick"}`)
		}, `it is of a pool of kind "thick": run the ripstop that made it`},
		{"a newer format", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "pool.json"), `{"format": 2, "kind": "thin", "new": true}`)
		}, "format 2 is newer than 1: run the ripstop that made it"},
		{"damaged", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "pool.json"), `{`) }, "it is damaged"},
		{"half a record", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "pool.json"), `{"format": 1, "kind": "thin", "block": 512}`)
		}, "do not exist"},
		{"data gone", func(t *testing.T, dir string) {
			f, p := start(t, dir, Options{})
			stop(t, f, p)
			must(t, os.Remove(filepath.Join(dir, dataName)))
		}, "is gone: put it back, or move pool.json away to begin anew"},
		{"foreign data", func(t *testing.T, dir string) { write(t, filepath.Join(dir, dataName), "mine") },
			"holds something that is no pool"},
		{"data that are no file", func(t *testing.T, dir string) { must(t, os.Mkdir(filepath.Join(dir, dataName), 0o700)) },
			"is not a file: move it away"},
		{"in use", func(t *testing.T, dir string) {
			f, p := start(t, dir, Options{})
			t.Cleanup(func() { stop(t, f, p) })
		}, "is in use by another pool or another ripstop: stop that one, or choose another directory"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "parent", "pool")
			must(t, os.MkdirAll(dir, 0o700))
			tt.setup(t, dir)
			f, err := Open(dir, Options{})
			if err == nil {
				must(t, f.Close())
			}
			if err == nil || !strings.HasPrefix(err.Error(), "pool "+dir+": ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// TestOtherData: the record of one pool beside the data of another.
func TestOtherData(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	for _, dir := range []string{a, b} {
		f, p := start(t, dir, Options{})
		stop(t, f, p)
	}
	must(t, os.Rename(filepath.Join(a, dataName), filepath.Join(b, dataName)))
	f, err := Open(b, Options{})
	must(t, err)
	defer f.Close()
	if _, err := thin.Open(t.Context(), f, thin.Options{}); err == nil || !strings.Contains(err.Error(), "put together what belongs together") {
		t.Errorf("open: %v", err)
	}
}

// TestCutWhileMaking: whatever a crash leaves of the making of a pool, the next
// one makes it.
func TestCutWhileMaking(t *testing.T) {
	for name, setup := range map[string]func(t *testing.T, dir string){
		"no data": func(t *testing.T, dir string) {
			f, err := Open(dir, Options{})
			must(t, err)
			must(t, f.Close())
			must(t, os.Remove(filepath.Join(dir, dataName)))
		},
		"data without a super": func(t *testing.T, dir string) {
			f, err := Open(dir, Options{})
			must(t, err)
			must(t, f.Grow(1<<20))
			_, err = f.WriteAt(bytes.Repeat([]byte{1}, 4096), 64<<10)
			must(t, err)
			must(t, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "a", "b")
			must(t, os.MkdirAll(dir, 0o700))
			setup(t, dir)
			f, p := start(t, dir, Options{})
			if !f.Fresh() {
				t.Error("not fresh")
			}
			stop(t, f, p)
		})
	}
}

func TestParents(t *testing.T) {
	f, p := start(t, filepath.Join(t.TempDir(), "a", "b"), Options{Parents: true})
	stop(t, f, p)
}

// onTmpfs runs fn with a tmpfs of its own, mounted in this thread's own mount
// namespace, with the options of mount(2).
func onTmpfs(t *testing.T, flags uintptr, data string, fn func(dir string)) {
	t.Helper()
	dir := t.TempDir()
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
		err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
		}
		if err == nil {
			err = unix.Mount("tmpfs", dir, "tmpfs", flags, data)
		}
		if err == nil {
			fn(dir)
		}
		ended <- err
	}()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	onTmpfs(t, unix.MS_RDONLY, "", func(dir string) {
		_, err := Open(dir, Options{})
		if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "mount the file system for writing") {
			t.Errorf("got %v", err)
		}
	})
}

// TestFullFileSystem: what finds no room leaves the file as it was, and a tmpfs
// is used through its page cache.
func TestFullFileSystem(t *testing.T) {
	onTmpfs(t, 0, "size=8m", func(dir string) {
		f, err := Open(dir, Options{Direct: true})
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		if err := f.Grow(4 << 20); err != nil {
			t.Error(err)
		}
		if err := f.Grow(16 << 20); !errors.Is(err, lun.ErrNoSpace) {
			t.Errorf("grow: %v", err)
		}
		if n, err := f.Size(); n != 4<<20 || err != nil {
			t.Errorf("%d bytes, %v", n, err)
		}
		if err := f.Grow(6 << 20); err != nil {
			t.Error(err)
		}
		if err := errors.Join(f.Punch(4<<20, 1<<20), f.Fill(4<<20, 1<<20), f.Punch(0, 6<<20)); err != nil {
			t.Error(err)
		}
		full := unix.Statfs_t{}
		if err := unix.Statfs(dir, &full); err != nil {
			t.Error(err)
		}
		write(t, filepath.Join(dir, "other"), strings.Repeat("x", int(full.Bavail)*int(full.Bsize)))
		if err := f.Fill(0, 6<<20); !errors.Is(err, lun.ErrNoSpace) {
			t.Errorf("fill: %v", err)
		}
	})
}

// TestRing: many accesses at the same time through the ring, each verified.
func TestRing(t *testing.T) {
	ring := disktest.Ring(t, 64)
	f, p := start(t, t.TempDir(), Options{Direct: true, Ring: ring})
	defer stop(t, f, p)
	if !f.Direct() {
		t.Fatal("no O_DIRECT here: set TMPDIR to another file system")
	}
	v, err := p.Create(t.Context(), "v", 8<<20, 4096)
	must(t, err)
	const lanes, n = 8, 64 << 10
	for range 2 { // the second time with intents
		for at := int64(0); at < 8<<20; at += 1 << 20 {
			must(t, v.WriteAt(t.Context(), make([]byte, 1<<20), at, true))
		}
	}
	var group sync.WaitGroup
	var taken atomic.Int64
	for lane := range lanes {
		group.Go(func() {
			b, ended := disk.Aligned(n), make(chan bool, 1)
			done := func(ok bool) { ended <- ok }
			for i := range 200 {
				off := int64(lane)<<20 + int64(i*7%16)*n
				for k := range b {
					b[k] = byte(i + k + lane)
				}
				if v.StartWriteAt(b, off, done) && <-ended {
					taken.Add(1)
				} else if err := v.WriteAt(t.Context(), b, off, false); err != nil {
					t.Error(err)
				}
				clear(b)
				if v.StartReadAt(b, off, done) && <-ended {
					taken.Add(1)
				} else if err := v.ReadAt(t.Context(), b, off); err != nil {
					t.Error(err)
				}
				if b[0] != byte(i+lane) || b[n-1] != byte(i+n-1+lane) {
					t.Errorf("lane %d: other data at %d", lane, off)
				}
			}
		})
	}
	group.Wait()
	if taken.Load() < lanes*300 {
		t.Errorf("%d of %d accesses took the ring", taken.Load(), lanes*400)
	}
}
