package uring

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Ring is one io_uring. It is safe for concurrent use.
type Ring struct {
	q     *queues
	event *os.File // readable when something has completed

	reaping sync.Mutex // held by who takes completions out

	mu         sync.Mutex
	idle       sync.Cond // transfers have ended
	serving    bool
	submitting bool     // somebody hands entries to the kernel, and goes on until none is left
	queued     uint32   // entries that are not yet handed over
	plugged    int      // who is about to hand over what is queued
	flying     int      // transfers that have begun and not ended
	slots      []slot   // by the kernel's user_data
	free       []uint32 // slots
	files      []*File  // of the kernel's table, nil for a free place
}

// slot is a transfer. It keeps the buffer while the kernel has its address.
type slot struct {
	p    []byte
	file *File
	done func(ok bool)
}

// File is a file in the ring's table.
type File struct {
	ring   *Ring
	index  uint32
	flying int // under the ring's lock
	closed bool
}

const maxFiles = 4096

// places is the length of the table of files: the kernel gives none that is
// longer than the process may have files (io_uring/rsrc.c, io_sqe_files_register).
func places() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, os.NewSyscallError("getrlimit", err)
	}
	return int(min(limit.Cur, maxFiles)), nil
}

// New makes a ring that carries up to depth transfers, a power of two of at
// most 4096, while Serve runs.
func New(depth int) (*Ring, error) {
	n, err := places()
	if err != nil {
		return nil, err
	}
	q, err := setup(uint32(depth), setupSubmitAll|setupCoopTask)
	if err != nil {
		return nil, err
	}
	r := &Ring{q: q, slots: make([]slot, depth), files: make([]*File, n)}
	r.idle.L = &r.mu
	for i := range r.slots {
		r.free = append(r.free, uint32(i))
	}
	if err := r.prepare(); err != nil {
		return nil, errors.Join(err, q.close())
	}
	return r, nil
}

// prepare registers what the kernel shall know of: the event and a table of files.
func (r *Ring) prepare() error {
	if err := r.q.makeFiles(uint32(len(r.files))); err != nil {
		return err
	}
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	r.event = os.NewFile(uintptr(fd), "eventfd")
	if err := r.q.setEventfd(int32(fd)); err != nil {
		return errors.Join(err, r.event.Close())
	}
	return nil
}

// Register makes a file known. The descriptor may be closed afterwards.
func (r *Ring) Register(fd int) (*File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, f := range r.files {
		if f != nil {
			continue
		}
		if err := r.q.setFile(uint32(i), int32(fd)); err != nil {
			return nil, err
		}
		r.files[i] = &File{ring: r, index: uint32(i)}
		return r.files[i], nil
	}
	return nil, errors.New("register a file: the ring has no place for another")
}

// Close waits for the transfers that have begun and takes the file out.
func (f *File) Close() error {
	r := f.ring
	r.mu.Lock()
	defer r.mu.Unlock()
	if f.closed {
		return os.ErrClosed
	}
	f.closed = true
	for f.flying > 0 {
		r.idle.Wait()
	}
	r.files[f.index] = nil
	return r.q.setFile(f.index, -1)
}

// Read fills p from off. It is false, and done will not be called, where the
// ring is full, does not serve, or the file is closed. Else done is called from
// Serve's goroutine or Reap's, one at a time; ok tells that all of p has been filled, and if not, p may
// hold anything. p belongs to the kernel until then; done must not wait.
func (f *File) Read(p []byte, off int64, done func(ok bool)) bool {
	return f.start(opRead, p, off, done)
}

// Write is Read's counterpart; without ok any part of p may have been written.
func (f *File) Write(p []byte, off int64, done func(ok bool)) bool {
	return f.start(opWrite, p, off, done)
}

func (f *File) start(op uint8, p []byte, off int64, done func(ok bool)) bool {
	r := f.ring
	r.mu.Lock()
	if !r.serving || f.closed || len(r.free) == 0 || len(p) == 0 {
		r.mu.Unlock()
		return false
	}
	last := len(r.free) - 1
	i := r.free[last]
	r.free = r.free[:last]
	r.slots[i] = slot{p: p, file: f, done: done}
	r.flying++
	f.flying++
	tail := r.q.sqTail.Load()
	r.q.sqes[tail&r.q.sqMask] = sqe{
		opcode: op, flags: sqeFixedFile, fd: int32(f.index), off: uint64(off),
		addr: uint64(uintptr(unsafe.Pointer(&p[0]))), length: uint32(len(p)), userData: uint64(i),
	}
	r.q.sqTail.Store(tail + 1)
	r.queued++
	if r.plugged > 0 {
		r.mu.Unlock()
		return true
	}
	r.submitLocked()
	return true
}

// Plug has transfers wait for Unplug, which hands all of them to the kernel with
// one system call: for a disk that is one request to begin, where each by itself
// costs twice the processor time. It holds up everybody's transfers, so that
// nothing in between may wait.
func (r *Ring) Plug() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plugged++
}

// Unplug is the end of Plug, which it must follow.
func (r *Ring) Unplug() {
	r.mu.Lock()
	r.plugged--
	r.submitLocked()
}

// submitLocked hands over what is queued, unless somebody does so already; it
// lets go of the lock. There is room for every slot in both queues.
func (r *Ring) submitLocked() {
	if r.submitting {
		r.mu.Unlock()
		return
	}
	r.submitting = true
	var back []uint32
	for r.queued > 0 {
		n := r.queued
		r.queued = 0
		r.mu.Unlock()
		err := r.q.enter(n)
		r.mu.Lock()
		if err != nil {
			back = r.takeBack(back)
		}
	}
	r.submitting = false
	r.mu.Unlock()
	for _, i := range back {
		r.end(i, -1)
	}
}

// takeBack takes what the kernel did not want out of the submission queue.
func (r *Ring) takeBack(slots []uint32) []uint32 {
	head, tail := r.q.sqHead.Load(), r.q.sqTail.Load()
	for ; head != tail; tail-- {
		slots = append(slots, uint32(r.q.sqes[(tail-1)&r.q.sqMask].userData))
	}
	r.q.sqTail.Store(head)
	r.queued = 0
	return slots
}

// end ends the transfer in slot i, which moved n bytes, or none where n < 0.
func (r *Ring) end(i uint32, n int32) {
	r.mu.Lock()
	s := r.slots[i]
	r.slots[i] = slot{}
	r.free = append(r.free, i)
	r.flying--
	s.file.flying--
	if r.flying == 0 || s.file.closed {
		r.idle.Broadcast()
	}
	r.mu.Unlock()
	s.done(int(n) == len(s.p))
}

// Serve ends transfers until ctx is cancelled, and then those that are still
// under way; new ones are refused meanwhile and afterwards. It calls ready when
// the ring takes transfers.
func (r *Ring) Serve(ctx context.Context, ready func()) error {
	r.setServing(true)
	stop := context.AfterFunc(ctx, func() { r.setServing(false) })
	defer stop()
	ready()
	var count [8]byte
	for r.reapAll(); r.wanted(); r.reapAll() {
		if _, err := r.event.Read(count[:]); err != nil {
			return err
		}
	}
	return nil
}

// setServing also wakes Serve, as a completion would.
func (r *Ring) setServing(on bool) {
	r.mu.Lock()
	r.serving = on
	r.mu.Unlock()
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	r.event.Write(one[:]) // fails only when the counter is at its end, and then Serve wakes anyway
}

// wanted tells whether Serve has something to wait for.
func (r *Ring) wanted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.serving || r.flying > 0
}

// Reap ends what has completed, unless somebody does so already. It spares the
// way through Serve to whom a completion has woken: the kernel tells of a
// transfer in the thread that submitted it, and wakes that from interruptible
// waits (IORING_SETUP_COOP_TASKRUN). It tells whether it ended anything.
func (r *Ring) Reap() bool {
	if r.q.cqHead.Load() == r.q.cqTail.Load() || !r.reaping.TryLock() {
		return false
	}
	defer r.reaping.Unlock()
	return r.reap()
}

func (r *Ring) reapAll() {
	r.reaping.Lock()
	defer r.reaping.Unlock()
	r.reap()
}

// reap ends what has completed, and tells whether that was anything. reaping is held.
func (r *Ring) reap() bool {
	first := r.q.cqHead.Load()
	head := first
	for head != r.q.cqTail.Load() {
		c := r.q.cqes[head&r.q.cqMask]
		head++
		r.q.cqHead.Store(head)
		r.end(uint32(c.userData), c.res)
	}
	return head != first
}

// Close lets go of the ring. Serve must have ended.
func (r *Ring) Close() error {
	return errors.Join(r.q.close(), r.event.Close())
}
