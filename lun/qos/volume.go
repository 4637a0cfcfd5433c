package qos

import (
	"context"
	"sync/atomic"

	"ripstop/lun"
)

// Volume is a LUN in service whose accesses wait for their turn. Without a policy
// it is the engine's volume, one comparison further away.
type Volume struct {
	lun.Volume
	s    *Scheduler
	flow atomic.Pointer[flow] // nil without a policy

	// What the engine's volume can do, nil where it cannot.
	tryRead, tryWrite     func(p []byte, off int64) (bool, error)
	startRead, startWrite func(p []byte, off int64, done func(ok bool)) bool
	usage                 func() lun.Usage
}

var (
	_ lun.Prompt = (*Volume)(nil)
	_ lun.Queue  = (*Volume)(nil)
	_ lun.Gauge  = (*Volume)(nil)
)

// Volume gives the LUN or snapshot of that name, which is v in its engine. It is
// the same one for the same v.
func (s *Scheduler) Volume(name string, v lun.Volume) *Volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	if have := s.volumes[name]; have != nil && have.Volume == v {
		return have
	}
	out := &Volume{Volume: v, s: s}
	if v, ok := v.(lun.Prompt); ok {
		out.tryRead, out.tryWrite = v.TryReadAt, v.TryWriteAt
	}
	if v, ok := v.(lun.Queue); ok {
		out.startRead, out.startWrite = v.StartReadAt, v.StartWriteAt
	}
	if v, ok := v.(lun.Gauge); ok {
		out.usage = v.Usage
	}
	out.flow.Store(s.flowOf(name))
	s.volumes[name] = out
	return out
}

// Keep forgets the volumes of which in is false: they are out of service.
func (s *Scheduler) Keep(in func(name string) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range s.volumes {
		if !in(name) {
			delete(s.volumes, name)
		}
	}
}

// Delays is what waiting cost, by LUN.
func (s *Scheduler) Delays() map[string]lun.Delay {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]lun.Delay, len(s.flows))
	for name, f := range s.flows {
		out[name] = lun.Delay{Accesses: f.delayed, Waited: f.waited}
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

// ReadAt waits for its turn.
func (v *Volume) ReadAt(ctx context.Context, p []byte, off int64) error {
	return v.turn(ctx, int64(len(p)), func() error { return v.Volume.ReadAt(ctx, p, off) })
}

// WriteAt waits for its turn.
func (v *Volume) WriteAt(ctx context.Context, p []byte, off int64, fua bool) error {
	return v.turn(ctx, int64(len(p)), func() error { return v.Volume.WriteAt(ctx, p, off, fua) })
}

// Unmap waits for its turn, as an access without bytes.
func (v *Volume) Unmap(ctx context.Context, off, n int64) error {
	return v.turn(ctx, 0, func() error { return v.Volume.Unmap(ctx, off, n) })
}

// WriteZeroes waits for its turn, as an access without bytes.
func (v *Volume) WriteZeroes(ctx context.Context, off, n int64) error {
	return v.turn(ctx, 0, func() error { return v.Volume.WriteZeroes(ctx, off, n) })
}

// CompareAndWrite waits for its turn.
func (v *Volume) CompareAndWrite(ctx context.Context, old, data []byte, off int64) error {
	return v.turn(ctx, int64(len(data)), func() error { return v.Volume.CompareAndWrite(ctx, old, data, off) })
}

// turn does an access in its turn.
func (v *Volume) turn(ctx context.Context, n int64, access func() error) error {
	f := v.flow.Load()
	if f == nil {
		return access()
	}
	p, err := v.s.enter(ctx, f, n)
	if err != nil {
		return err
	}
	defer v.s.leave(p, n)
	return access()
}

// TryReadAt is false also where it is not its turn.
func (v *Volume) TryReadAt(p []byte, off int64) (bool, error) { return v.try(v.tryRead, p, off) }

// TryWriteAt is false also where it is not its turn.
func (v *Volume) TryWriteAt(p []byte, off int64) (bool, error) { return v.try(v.tryWrite, p, off) }

func (v *Volume) try(access func([]byte, int64) (bool, error), p []byte, off int64) (bool, error) {
	if access == nil {
		return false, nil
	}
	f := v.flow.Load()
	if f == nil {
		return access(p, off)
	}
	s, n := v.s, int64(len(p))
	s.mu.Lock()
	now := s.clock()
	if !f.mayBegin(now) {
		s.mu.Unlock()
		return false, nil
	}
	in := f.charge(now, n)
	s.mu.Unlock()
	ok, err := access(p, off)
	s.mu.Lock()
	if !ok && err == nil {
		f.giveBack(n)
	}
	free := s.free(in, n)
	s.mu.Unlock()
	s.launch(free)
	return ok, err
}

// StartReadAt begins when its turn comes.
func (v *Volume) StartReadAt(p []byte, off int64, done func(ok bool)) bool {
	return v.start(v.startRead, p, off, done)
}

// StartWriteAt begins when its turn comes.
func (v *Volume) StartWriteAt(p []byte, off int64, done func(ok bool)) bool {
	return v.start(v.startWrite, p, off, done)
}

func (v *Volume) start(access func([]byte, int64, func(bool)) bool, p []byte, off int64, done func(ok bool)) bool {
	if access == nil {
		return false
	}
	if f := v.flow.Load(); f != nil {
		return v.s.begin(f, access, p, off, done)
	}
	return access(p, off, done)
}
