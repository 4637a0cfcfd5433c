package raw

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"ripstop/lun"
)

// faulty is a data file that fails on request.
type faulty struct {
	file
	mu                       sync.Mutex
	read, write, sync, punch error
	direct                   error // of SetDirect
}

func (f *faulty) get(err *error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return *err
}

func (f *faulty) ReadAt(p []byte, off int64) (int, error) {
	if err := f.get(&f.read); err != nil {
		return 512, err
	}
	return f.file.ReadAt(p, off)
}

// WriteAt writes half before it fails.
func (f *faulty) WriteAt(p []byte, off int64) (int, error) {
	if err := f.get(&f.write); err != nil {
		n, _ := f.file.WriteAt(p[:len(p)/2], off)
		return n, err
	}
	return f.file.WriteAt(p, off)
}

func (f *faulty) SetDirect(on bool) error {
	if err := f.get(&f.direct); err != nil && on {
		return err
	}
	return f.file.SetDirect(on)
}

func (f *faulty) Datasync() error {
	return errors.Join(f.get(&f.sync), f.file.Datasync())
}

func (f *faulty) Punch(off, n int64) error {
	if err := f.get(&f.punch); err != nil {
		return err
	}
	return f.file.Punch(off, n)
}

func faultyLUN(t *testing.T, dir string) (*Engine, *volume, *faulty) {
	t.Helper()
	e := newEngine(t, Options{})
	do(t, e, openPool(dir, 1<<20), openLUN("l", 1<<20, 512))
	v := vol(t, e, "l")
	f := &faulty{file: v.file}
	v.file = f
	return e, v, f
}

func TestFaults(t *testing.T) {
	ctx := t.Context()
	page := bytes.Repeat([]byte{9}, 8192)
	tests := []struct {
		name   string
		err    error
		is     error
		medium bool
	}{
		{"bad medium", unix.EIO, unix.EIO, true},
		{"file system full", unix.ENOSPC, lun.ErrNoSpace, false},
		{"quota", unix.EDQUOT, lun.ErrNoSpace, false},
		{"file system became read-only", unix.EROFS, lun.ErrReadOnly, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, v, f := faultyLUN(t, t.TempDir())
			f.write = tt.err
			err := v.WriteAt(ctx, page, 512, false)
			var medium *lun.MediumError
			if !errors.Is(err, tt.is) || errors.As(err, &medium) != tt.medium {
				t.Errorf("write: %v", err)
			}
			if tt.medium && medium.Offset != 512+4096 {
				t.Errorf("bad from byte %d, want %d", medium.Offset, 512+4096)
			}
			if v.used.Load() != 0 {
				t.Errorf("a failed write keeps %d bytes", v.used.Load())
			}
			verify(t, e, "l")
			f.punch = unix.EIO
			if err := v.WriteAt(ctx, page, 0, false); err == nil || v.used.Load() != 8192 {
				t.Errorf("without a hole the room stays taken: %v, %d bytes", err, v.used.Load())
			}
			f.write, f.punch = nil, nil
			must(t, v.WriteAt(ctx, page, 512, true))
		})
	}
}

// TestAFailedFlushShows is what a pass sees of a LUN that takes no more writes.
func TestAFailedFlushShows(t *testing.T) {
	var told []string
	e := newEngine(t, Options{OnFault: func(name string) { told = append(told, name) }})
	dir := t.TempDir()
	do(t, e, openPool(dir, 1<<20), openLUN("l", 1<<20, 512))
	v := vol(t, e, "l")
	f := &faulty{file: v.file}
	v.file = f
	want, err := e.Observe(t.Context())
	must(t, err)
	f.sync = unix.EIO
	for range 2 {
		if err := v.Flush(t.Context()); err == nil {
			t.Error("a flush that failed says nothing")
		}
	}
	have, err := e.Observe(t.Context())
	must(t, err)
	steps := lun.Diff(want, have)
	if len(steps) != 1 || steps[0].Object() != "lun/l" {
		t.Fatalf("steps: %v", steps)
	}
	err = e.Do(t.Context(), steps[0])
	for _, part := range []string{"flush LUN l: ", unix.EIO.Error(), "takes no more writes", "look at the disk"} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("no %q in %v", part, err)
		}
	}
	if s := e.Stats().LUNs[0]; s.Fault != have.LUNs["l"].Fault || s.Fault == "" || len(told) != 1 || told[0] != "l" {
		t.Errorf("stats say %q, told of %v", s.Fault, told)
	}
	f.sync = nil
	if err := e.Do(t.Context(), lun.CloseLUN{Name: "l"}); err == nil {
		t.Error("closed as if all were well")
	}
	do(t, e, openLUN("l", 1<<20, 512))
	have, err = e.Observe(t.Context())
	must(t, err)
	if steps := lun.Diff(want, have); len(steps) != 0 {
		t.Errorf("put back into service: %v", steps)
	}
}

func TestReadFault(t *testing.T) {
	e, v, f := faultyLUN(t, t.TempDir())
	p := make([]byte, 8192)
	must(t, v.WriteAt(t.Context(), p, 0, false))
	f.read = unix.EIO
	for _, err := range []error{v.ReadAt(t.Context(), p, 4096), v.CompareAndWrite(t.Context(), p, p, 4096)} {
		var medium *lun.MediumError
		if !errors.As(err, &medium) || medium.Offset != 4096+512 || !errors.Is(err, unix.EIO) {
			t.Errorf("read: %v", err)
		}
	}
	f.read = nil
	must(t, os.Truncate(v.pool.data("l"), 4096)) // somebody cuts the file behind our back
	var medium *lun.MediumError
	if err := v.ReadAt(t.Context(), p, 0); !errors.As(err, &medium) || medium.Offset != 4096 {
		t.Errorf("read of a cut file: %v", err)
	}
	must(t, os.Truncate(v.pool.data("l"), 1<<20))
	f.punch = unix.EOPNOTSUPP // no holes: the content is zeros and the room stays taken
	must(t, v.WriteAt(t.Context(), bytes.Repeat([]byte{1}, 8192), 0, false))
	must(t, v.Unmap(t.Context(), 0, 8192))
	must(t, v.ReadAt(t.Context(), p, 0))
	if !bytes.Equal(p, make([]byte, 8192)) || v.used.Load() != 8192 {
		t.Errorf("unmap without holes: used %d", v.used.Load())
	}
	f.punch = unix.EIO
	if err := v.Unmap(t.Context(), 0, 8192); !errors.As(err, &medium) || v.used.Load() != 8192 {
		t.Errorf("unmap: %v", err)
	}
	f.punch = nil
	must(t, v.Unmap(t.Context(), 0, 1<<20))
	verify(t, e, "l")
}

// TestFailStop: after a failed flush nothing is written or flushed until the
// LUN is opened anew; reads go on.
func TestFailStop(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	e, v, f := faultyLUN(t, dir)
	p := bytes.Repeat([]byte{5}, 512)
	must(t, v.WriteAt(ctx, p, 0, false))
	f.sync = unix.EIO
	if err := v.Flush(ctx); !errors.Is(err, unix.EIO) {
		t.Errorf("flush: %v", err)
	}
	f.sync = nil
	for i, err := range []error{
		v.Flush(ctx), v.sync(), v.WriteAt(ctx, p, 0, false), v.WriteAt(ctx, p, 0, true), v.Unmap(ctx, 0, 512),
		v.WriteZeroes(ctx, 0, 512), v.CompareAndWrite(ctx, p, p, 0),
	} {
		if !errors.Is(err, lun.ErrReadOnly) || !errors.Is(err, unix.EIO) {
			t.Errorf("operation %d after a failed flush: %v", i, err)
		}
	}
	must(t, v.ReadAt(ctx, p, 0))
	if !v.Info().ReadOnly || !e.Stats().LUNs[0].ReadOnly {
		t.Error("the volume does not say that it is read-only")
	}
	if err := e.Do(ctx, lun.CloseLUN{Name: "l"}); !errors.Is(err, lun.ErrReadOnly) {
		t.Errorf("close hides the failed flush: %v", err)
	}
	do(t, e, openLUN("l", 1<<20, 512))
	must(t, vol(t, e, "l").WriteAt(ctx, p, 0, true))
}
