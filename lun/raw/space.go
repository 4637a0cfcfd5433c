package raw

import (
	"context"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Unmap makes holes of the whole blocks in the range and zeros of the rest.
func (v *volume) Unmap(ctx context.Context, off, n int64) error {
	return v.pieces(ctx, off, n, func(off, n int64) error {
		v.stripes.each(off, n, (*sync.RWMutex).Lock)
		defer v.stripes.each(off, n, (*sync.RWMutex).Unlock)
		return v.unmap(off, off+n)
	})
}

// WriteZeroes writes zeros where blocks are mapped; a fallocate would leave
// blocks that take space and look like holes when the LUN is opened anew.
func (v *volume) WriteZeroes(ctx context.Context, off, n int64) error {
	return v.pieces(ctx, off, n, func(off, n int64) error {
		v.stripes.each(off, n, (*sync.RWMutex).RLock)
		if !v.rough(off, n) {
			defer v.stripes.each(off, n, (*sync.RWMutex).RUnlock)
			return v.zero(off, off+n)
		}
		v.stripes.each(off, n, (*sync.RWMutex).RUnlock)
		v.stripes.each(off, n, (*sync.RWMutex).Lock)
		defer v.stripes.each(off, n, (*sync.RWMutex).Unlock)
		return v.zero(off, off+n)
	})
}

// pieces does a change piece by piece, so that no lock is held for long.
func (v *volume) pieces(ctx context.Context, off, n int64, do func(off, n int64) error) error {
	if err := errors.Join(v.check(ctx, off, n), v.writable()); err != nil {
		return err
	}
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		step := min(n, pieceSize-off%pieceSize)
		if err := do(off, step); err != nil {
			return err
		}
		off, n = off+step, n-step
	}
	return nil
}

//	off        from                  to       end
//	 ├─ zeros ──┼──────── hole ───────┼─ zeros ─┤
//	    ┊ 4 KiB ┊       ┊       ┊     ┊       ┊
//
// A last block that the LUN's end cuts short counts as whole.
func (v *volume) unmap(off, end int64) error {
	from, to := up(off), down(end)
	if end == v.size.Load() {
		to = up(end)
	}
	if from >= to {
		return v.zero(off, end)
	}
	if err := v.zero(off, from); err != nil {
		return err
	}
	if err := v.punch(from, to); err != nil {
		return err
	}
	return v.zero(to, end)
}

// punch makes a hole of whole blocks and gives their room back. A file system
// without holes keeps the room and writes zeros.
func (v *volume) punch(from, to int64) error {
	if v.closed.Load() {
		return v.fault("unmap", from, os.ErrClosed)
	}
	n := v.bitmap.count(from/blockSize, to/blockSize) * blockSize
	if n == 0 {
		return nil
	}
	err := v.file.Punch(from, to-from)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return v.zero(from, min(to, v.size.Load()))
	}
	if err != nil {
		return v.fault("unmap", from, err)
	}
	v.bitmap.set(from/blockSize, to/blockSize, false)
	v.used.Add(-n)
	v.pool.release(n)
	return nil
}

// zero writes zeros where the bytes from off to end are mapped.
func (v *volume) zero(off, end int64) error {
	var zeros []byte
	for off < end {
		n, mapped := v.bitmap.run(off/blockSize, up(end)/blockSize)
		stop := min(end, down(off)+n*blockSize)
		for mapped && off < stop {
			if zeros == nil {
				zeros = make([]byte, min(end-off, 256<<10))
			}
			part := min(stop-off, int64(len(zeros)))
			if err := v.put(zeros[:part], off); err != nil {
				return err
			}
			off += part
		}
		off = stop
	}
	return nil
}

// Extents looks at a piece at a time and yields with no lock held.
func (v *volume) Extents(ctx context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error {
	if err := v.check(ctx, off, n); err != nil {
		return err
	}
	var runs []extent // of the piece; its last is joined with the next piece's first
	for end := off + n; off < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		stop := min(end, off-off%pieceSize+pieceSize)
		runs = v.extents(runs, off, stop)
		off = stop
		for len(runs) > 1 || len(runs) == 1 && off == end {
			if !yield(runs[0].off, runs[0].n, runs[0].mapped) {
				return nil
			}
			runs = runs[1:]
		}
	}
	return nil
}

type extent struct {
	off, n int64
	mapped bool
}

// extents appends the runs from off to end, the first to an equal one before it.
func (v *volume) extents(runs []extent, off, end int64) []extent {
	v.stripes.each(off, end-off, (*sync.RWMutex).RLock)
	defer v.stripes.each(off, end-off, (*sync.RWMutex).RUnlock)
	for off < end {
		n, mapped := v.bitmap.run(off/blockSize, up(end)/blockSize)
		stop := min(end, down(off)+n*blockSize)
		if last := len(runs) - 1; last >= 0 && runs[last].mapped == mapped {
			runs[last].n += stop - off
		} else {
			runs = append(runs, extent{off, stop - off, mapped})
		}
		off = stop
	}
	return runs
}
