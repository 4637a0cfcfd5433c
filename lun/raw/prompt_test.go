package raw

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ripstop/internal/disk"
	"ripstop/lun"
)

// promptLUN has its first half mapped, with threes.
func promptLUN(t testing.TB, block int) (*Engine, *volume) {
	t.Helper()
	e := newEngine(t, Options{})
	do(t, e, openPool(t.TempDir(), 16<<20), openLUN("l", 4<<20, block))
	v := vol(t, e, "l")
	must(t, v.WriteAt(t.Context(), bytes.Repeat([]byte{3}, 2<<20), 0, false))
	if !knowsNowait(t) {
		v.file = near{v.file}
	}
	return e, v
}

// knowsNowait tells whether the tests' file system has RWF_NOWAIT: a tmpfs, for
// one, has not, and there every read is left to ReadAt.
func knowsNowait(t testing.TB) bool {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("at hand")
	must(t, err)
	_, err = unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, 1)}, 0, unix.RWF_NOWAIT)
	if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		t.Fatal(err)
	}
	return err == nil
}

// near stands for a data file whose file system has RWF_NOWAIT, all of it in
// memory.
type near struct{ file }

// hostFile is the file of the host under a volume.
func hostFile(v *volume) *disk.File {
	if n, ok := v.file.(near); ok {
		return n.file.(*disk.File)
	}
	return v.file.(*disk.File)
}

func (n near) TryReadAt(p []byte, off int64) bool {
	k, err := n.ReadAt(p, off)
	return err == nil && k == len(p)
}

func try(t *testing.T, verb func([]byte, int64) (bool, error), p []byte, off int64) bool {
	t.Helper()
	done, err := verb(p, off)
	if err != nil {
		t.Fatal(err)
	}
	return done
}

// TestPrompt: what has nothing to wait for is done, and all else is left alone.
func TestPrompt(t *testing.T) {
	e, v := promptLUN(t, 512)
	fours := bytes.Repeat([]byte{4}, 8192)
	tests := []struct {
		name  string
		n     int
		off   int64
		write bool
	}{
		{"mapped blocks", 8192, 4096, true},
		{"the last mapped block", 4096, 2<<20 - 4096, true},
		{"over two regions", 8192, 1<<20 - 4096, true},
		{"a part of a block", 512, 4096, false},
		{"blocks out of step", 4096, 512, false},
		{"half mapped", 8192, 2<<20 - 4096, false},
		{"not mapped", 4096, 3 << 20, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			was, got := make([]byte, tt.n), make([]byte, tt.n)
			must(t, v.ReadAt(t.Context(), was, tt.off))
			want := was
			if tt.write {
				want = fours[:tt.n]
			}
			if done := try(t, v.TryWriteAt, fours[:tt.n], tt.off); done != tt.write {
				t.Errorf("written at once: %v", done)
			}
			must(t, v.ReadAt(t.Context(), got, tt.off))
			if !bytes.Equal(got, want) {
				t.Error("wrong content after it")
			}
			clear(got)
			if !try(t, v.TryReadAt, got, tt.off) || !bytes.Equal(got, want) {
				t.Error("not at hand after it was read")
			}
		})
	}
	verify(t, e, "l")
}

// TestPromptRefuses: what is wrong is left to ReadAt and WriteAt to say.
func TestPromptRefuses(t *testing.T) {
	e, v := promptLUN(t, 4096)
	f := &faulty{file: v.file}
	v.file = f
	page := make([]byte, 4096)
	refused := func(what string, p []byte, off int64) {
		t.Helper()
		if try(t, v.TryReadAt, p, off) || try(t, v.TryWriteAt, p, off) {
			t.Errorf("%s: done at once", what)
		}
	}
	refused("before the start", page, -4096)
	refused("over the end", page, 4<<20)
	refused("out of step", page, 512)
	refused("half a block", page[:512], 0)
	refused("too long", make([]byte, promptMax+4096), 0)
	must(t, v.Unmap(t.Context(), 0, 4096))
	if !try(t, v.TryReadAt, page, 4096) || try(t, v.TryWriteAt, page, 0) {
		t.Error("a hole takes a write at once")
	}
	f.sync = unix.EIO
	if err := v.Flush(t.Context()); err == nil {
		t.Fatal("the flush did not fail")
	}
	if try(t, v.TryWriteAt, page, 4096) {
		t.Error("written after a failed flush")
	}
	if err := e.Do(t.Context(), lun.CloseLUN{Name: "l"}); !errors.Is(err, lun.ErrReadOnly) {
		t.Fatal(err)
	}
	if try(t, v.TryReadAt, page, 4096) {
		t.Error("read of a closed LUN")
	}
}

func TestPromptFaults(t *testing.T) {
	_, v := promptLUN(t, 4096)
	f := &faulty{file: v.file}
	v.file = f
	page := make([]byte, 8192)
	for err, is := range map[error]error{unix.EIO: unix.EIO, unix.ENOSPC: lun.ErrNoSpace, unix.EROFS: lun.ErrReadOnly} {
		f.write = err
		if done, got := v.TryWriteAt(page, 4096); !done || !errors.Is(got, is) {
			t.Errorf("%v: done %v, %v", err, done, got)
		}
	}
	f.write = nil
	if !try(t, v.TryWriteAt, page, 4096) {
		t.Error("the region stays locked after a fault")
	}
}

// TestPromptWaitsForNobody: a region that somebody has alone takes no write at
// once, and every region is free again after the refusal.
func TestPromptWaitsForNobody(t *testing.T) {
	_, v := promptLUN(t, 4096)
	p := make([]byte, 8192)
	for _, region := range []int{0, 1} {
		v.stripes[region].Lock()
		if try(t, v.TryWriteAt, p, 1<<20-4096) {
			t.Errorf("written into region %d under its owner", region)
		}
		v.stripes[region].Unlock()
	}
	if v.stripes.tryShare(0, 17<<20) {
		t.Error("shared more regions than a few")
	}
	if !try(t, v.TryWriteAt, p, 1<<20-4096) {
		t.Error("a region stayed locked")
	}
	v.stripes.all((*sync.RWMutex).Lock) // or this waits for ever
	v.stripes.all((*sync.RWMutex).Unlock)
}

// TestPromptCold: after its pages have left the memory, a read at once is
// refused or right.
func TestPromptCold(t *testing.T) {
	_, v := promptLUN(t, 4096)
	must(t, v.Flush(t.Context()))
	must(t, hostFile(v).Control(func(fd int) error { return unix.Fadvise(fd, 0, 0, unix.FADV_DONTNEED) }))
	want, got := bytes.Repeat([]byte{3}, 4096), make([]byte, 4096)
	for off := int64(0); off < 2<<20; off += 4096 {
		clear(got)
		if try(t, v.TryReadAt, got, off) && !bytes.Equal(got, want) {
			t.Errorf("wrong data at %d", off)
		}
		must(t, v.ReadAt(t.Context(), got, off))
		if !bytes.Equal(got, want) {
			t.Errorf("wrong data at %d after waiting", off)
		}
	}
}

// TestBrakedWrite: while the brake is on, writes go the long way.
func TestBrakedWrite(t *testing.T) {
	_, v := promptLUN(t, 4096)
	v.brake.Pull(time.Hour)
	if try(t, v.TryWriteAt, make([]byte, 4096), 0) {
		t.Error("written at once")
	}
	must(t, v.WriteAt(t.Context(), make([]byte, 4096), 0, false))
}

// TestPromptAllocatesNothing, nor do accesses that wait.
func TestPromptAllocatesNothing(t *testing.T) {
	_, v := promptLUN(t, 4096)
	ctx, p := t.Context(), make([]byte, 4096)
	for name, do := range map[string]func() error{
		"try read":  func() error { _, err := v.TryReadAt(p, 4096); return err },
		"try write": func() error { _, err := v.TryWriteAt(p, 4096); return err },
		"read":      func() error { return v.ReadAt(ctx, p, 4096) },
		"write":     func() error { return v.WriteAt(ctx, p, 4096, false) },
	} {
		if n := testing.AllocsPerRun(1000, func() { must(t, do()) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
