package crypt

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"

	"ripstop/internal/disk"
	"ripstop/lun"
)

const (
	// promptMost is the bytes of an access that is encrypted where nobody may wait:
	// some 50 µs.
	promptMost = 64 << 10
	// asideLeast is from how many bytes on what was read is decrypted in a goroutine
	// of its own: one goroutine ends all transfers of a ring.
	asideLeast = 16 << 10
)

// Volume is a LUN in the clear over what its engine keeps of it.
type Volume struct {
	lun.Volume // what lies on the disk
	x          *xts
	tried      disk.Luck // of TryWriteAt: what it refuses was encrypted in vain
	flights    sync.Pool // *flight

	// What the engine's volume can do, nil where it cannot.
	tryRead, tryWrite     func(p []byte, off int64) (bool, error)
	startRead, startWrite func(p []byte, off int64, done func(ok bool)) bool
	usage                 func() lun.Usage
}

var (
	_ lun.Prompt = (*Volume)(nil)
	_ lun.Queue  = (*Volume)(nil)
	_ lun.Gauge  = (*Volume)(nil)

	_ lun.Comparer = (*Volume)(nil)
)

func newVolume(v lun.Volume, x *xts) *Volume {
	out := &Volume{Volume: v, x: x, flights: sync.Pool{New: newFlight}}
	if v, ok := v.(lun.Prompt); ok {
		out.tryRead, out.tryWrite = v.TryReadAt, v.TryWriteAt
	}
	if v, ok := v.(lun.Queue); ok {
		out.startRead, out.startWrite = v.StartReadAt, v.StartWriteAt
	}
	if v, ok := v.(lun.Gauge); ok {
		out.usage = v.Usage
	}
	return out
}

// Usage is all zeros where the engine does not count it.
func (v *Volume) Usage() lun.Usage {
	if v.usage == nil {
		return lun.Usage{}
	}
	return v.usage()
}

// whole refuses what is not of whole units, before it is encrypted.
func (v *Volume) whole(off, n int64) error {
	if unit := int64(v.x.unit); off < 0 || (off|n)&(unit-1) != 0 {
		return fmt.Errorf("%d bytes at %d: %w", n, off, lun.ErrRange)
	}
	return nil
}

// ReadAt decrypts where it read to.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	if err := v.whole(off, int64(len(p))); err != nil {
		return err
	}
	if err := v.Volume.ReadAt(ctx, p, off); err != nil {
		return err
	}
	v.x.decrypt(p, off)
	return nil
}

// WriteAt writes a copy of p, encrypted.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	if err := v.whole(off, int64(len(p))); err != nil {
		return err
	}
	b := buffers.get(len(p))
	defer buffers.put(b)
	v.x.encrypt(b.p, p, off)
	return v.Volume.WriteAt(ctx, b.p, off, fua)
}

// CompareAndWrite compares in the clear: blocks of zeros may lie on the disk as
// holes or encrypted. What was compared is then what the engine compares with: when
// that has changed meanwhile, all of it is done again.
func (v *Volume) CompareAndWrite(ctx context.Context, old, data []byte, off int64) error {
	if len(old) != len(data) {
		return fmt.Errorf("compare and write %d and %d bytes: %w", len(old), len(data), lun.ErrRange)
	}
	if err := v.whole(off, int64(len(old))); err != nil {
		return err
	}
	is, clear, next := buffers.get(len(old)), buffers.get(len(old)), buffers.get(len(old))
	defer func() { buffers.put(is); buffers.put(clear); buffers.put(next) }()
	v.x.encrypt(next.p, data, off)
	for {
		if err := v.Volume.ReadAt(ctx, is.p, off); err != nil {
			return err
		}
		copy(clear.p, is.p)
		v.x.decrypt(clear.p, off)
		if !bytes.Equal(clear.p, old) {
			at := 0
			for clear.p[at] == old[at] {
				at++
			}
			return &lun.Miscompare{Offset: int64(at)}
		}
		err := v.Volume.CompareAndWrite(ctx, is.p, next.p, off)
		var changed *lun.Miscompare
		if !errors.As(err, &changed) {
			return err
		}
	}
}

// ChangedSince compares what lies on the disk: with one key, what is equal there is
// equal in the clear.
func (v *Volume) ChangedSince(ctx context.Context, since lun.Volume, off, n int64, yield func(off, n int64, changed bool) bool) error {
	c, ok := v.Volume.(lun.Comparer)
	s, sealed := since.(*Volume)
	if !ok || !sealed {
		return fmt.Errorf("compare LUN %s with %s: their pools cannot", v.Info().Name, since.Info().Name)
	}
	return c.ChangedSince(ctx, s.Volume, off, n, yield)
}

// TryReadAt decrypts what was in memory.
func (v *Volume) TryReadAt(p []byte, off int64) (bool, error) {
	if v.tryRead == nil || len(p) > promptMost || v.whole(off, int64(len(p))) != nil {
		return false, nil
	}
	ok, err := v.tryRead(p, off)
	if ok && err == nil {
		v.x.decrypt(p, off)
	}
	return ok, err
}

// TryWriteAt writes a copy of p, encrypted.
func (v *Volume) TryWriteAt(p []byte, off int64) (bool, error) {
	if v.tryWrite == nil || len(p) > promptMost || v.whole(off, int64(len(p))) != nil || !v.tried.Worth() {
		return false, nil
	}
	b := buffers.get(len(p))
	defer buffers.put(b)
	v.x.encrypt(b.p, p, off)
	ok, err := v.tryWrite(b.p, off)
	v.tried.Note(ok)
	return ok, err
}
