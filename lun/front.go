package lun

import (
	"context"
	"sync"
	"sync/atomic"
)

// front is a LUN as its users see it: the same one for as long as it is in
// service, also when a move has put its data elsewhere. An access takes one way
// from its begin to its end:
//
//	user ─► front ─► way ─► volume
//	                  └───► Move ─► both volumes
type front struct {
	name string
	id   [16]byte
	now  atomic.Pointer[way]
	held atomic.Pointer[hold] // while no change may begin; nil else
}

// hold keeps changes of LUNs from beginning until it is over.
type hold struct{ over chan struct{} }

// way is where accesses go.
type way struct {
	users  atomic.Int64 // accesses on it, and 1 until it is left
	empty  chan struct{}
	closed sync.Once

	volume Volume
	prompt Prompt // nil where the volume cannot
	queue  Queue
	gauge  Gauge
	move   *Move // that gets what changes the LUN; nil without one
}

var (
	_ Prompt = (*front)(nil)
	_ Queue  = (*front)(nil)
	_ Gauge  = (*front)(nil)
)

func newFront(name string, v Volume) *front {
	f := &front{name: name, id: v.Info().ID}
	f.now.Store(newWay(v, nil))
	return f
}

func newWay(v Volume, m *Move) *way {
	w := &way{volume: v, move: m, empty: make(chan struct{})}
	w.users.Store(1)
	w.prompt, _ = v.(Prompt)
	w.queue, _ = v.(Queue)
	w.gauge, _ = v.(Gauge)
	return w
}

// settler is a Volume that can wait for the accesses that are under way.
type settler interface{ Settle() }

// turn has accesses take another way, and returns when none is on the old one.
func (f *front) turn(to *way) {
	old := f.now.Swap(to)
	old.leave()
	<-old.empty
	if s, ok := old.volume.(settler); ok {
		s.Settle() // what was begun and nobody waits for
	}
}

func (f *front) enter() *way {
	for {
		w := f.now.Load()
		w.users.Add(1)
		if f.now.Load() == w {
			return w
		}
		w.leave()
	}
}

// change is enter for what changes the LUN, which waits while it is held.
func (f *front) change(ctx context.Context) (*way, error) {
	for {
		h := f.held.Load()
		if h == nil {
			return f.enter(), nil
		}
		select {
		case <-h.over:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (w *way) leave() {
	if w.users.Add(-1) == 0 {
		w.closed.Do(func() { close(w.empty) }) // who comes too late leaves at once
	}
}

// Info is the LUN as it is now.
func (f *front) Info() Info {
	w := f.enter()
	defer w.leave()
	i := w.volume.Info()
	i.Name, i.ID = f.name, f.id
	return i
}

// Usage is all zeros where the engine does not count it.
func (f *front) Usage() Usage {
	w := f.enter()
	defer w.leave()
	if w.gauge == nil {
		return Usage{}
	}
	return w.gauge.Usage()
}

// ReadAt fills p from off.
func (f *front) ReadAt(ctx context.Context, p []byte, off int64) error {
	w := f.enter()
	defer w.leave()
	return w.volume.ReadAt(ctx, p, off)
}

// Extents tells what is mapped.
func (f *front) Extents(ctx context.Context, off, n int64, yield func(off, n int64, mapped bool) bool) error {
	w := f.enter()
	defer w.leave()
	return w.volume.Extents(ctx, off, n, yield)
}

// WriteAt writes p at off.
func (f *front) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	w, err := f.change(ctx)
	if err != nil {
		return err
	}
	defer w.leave()
	if w.move != nil {
		return w.move.writeBoth(ctx, off, p, fua)
	}
	return w.volume.WriteAt(ctx, p, off, fua)
}

// Unmap makes n bytes at off read as zeros and gives their space back.
func (f *front) Unmap(ctx context.Context, off, n int64) error {
	w, err := f.change(ctx)
	if err != nil {
		return err
	}
	defer w.leave()
	if w.move != nil {
		return w.move.change(ctx, off, n, func(ctx context.Context, v Volume) error { return v.Unmap(ctx, off, n) })
	}
	return w.volume.Unmap(ctx, off, n)
}

// WriteZeroes makes n bytes at off read as zeros.
func (f *front) WriteZeroes(ctx context.Context, off, n int64) error {
	w, err := f.change(ctx)
	if err != nil {
		return err
	}
	defer w.leave()
	if w.move != nil {
		return w.move.change(ctx, off, n, func(ctx context.Context, v Volume) error { return v.WriteZeroes(ctx, off, n) })
	}
	return w.volume.WriteZeroes(ctx, off, n)
}

// CompareAndWrite writes data at off if old stands there.
func (f *front) CompareAndWrite(ctx context.Context, old, data []byte, off int64) error {
	w, err := f.change(ctx)
	if err != nil {
		return err
	}
	defer w.leave()
	if w.move != nil {
		first := true
		return w.move.both(ctx, off, data, func(ctx context.Context, v Volume, data []byte) error {
			if first {
				first = false
				return v.CompareAndWrite(ctx, old, data, off)
			}
			return v.WriteAt(ctx, data, off, false) // the comparison has been made
		})
	}
	return w.volume.CompareAndWrite(ctx, old, data, off)
}

// Flush puts everything acknowledged before it on stable storage.
func (f *front) Flush(ctx context.Context) error {
	w := f.enter()
	defer w.leave()
	if w.move != nil {
		return w.move.flushBoth(ctx)
	}
	return w.volume.Flush(ctx)
}

// TryReadAt fills p from off if that is all in memory.
func (f *front) TryReadAt(p []byte, off int64) (bool, error) {
	w := f.enter()
	defer w.leave()
	if w.prompt == nil {
		return false, nil
	}
	return w.prompt.TryReadAt(p, off)
}

// TryWriteAt is false during a move, too, and while the LUN is held.
func (f *front) TryWriteAt(p []byte, off int64) (bool, error) {
	if f.held.Load() != nil {
		return false, nil
	}
	w := f.enter()
	defer w.leave()
	if w.prompt == nil || w.move != nil {
		return false, nil
	}
	return w.prompt.TryWriteAt(p, off)
}

// StartReadAt begins a ReadAt.
func (f *front) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	w := f.enter()
	defer w.leave()
	return w.queue != nil && w.queue.StartReadAt(p, off, done)
}

// StartWriteAt is false during a move, too, and while the LUN is held.
func (f *front) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	if f.held.Load() != nil {
		return false
	}
	w := f.enter()
	defer w.leave()
	return w.queue != nil && w.move == nil && w.queue.StartWriteAt(p, off, done)
}
