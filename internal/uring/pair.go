package uring

import (
	"os"
	"runtime"
	"sync"
	"unsafe"
)

// Pair carries two writes at once for somebody who waits for both in one system
// call. It is safe for concurrent use; one call waits for another.
type Pair struct {
	mu sync.Mutex
	q  *queues // nil when it is closed
	fd int
}

// NewPair makes one for a descriptor, which the caller keeps open.
func NewPair(fd int) (*Pair, error) {
	q, err := setup(2, setupSubmitAll|setupCoopTask)
	if err != nil {
		return nil, err
	}
	return &Pair{q: q, fd: fd}, nil
}

// Write writes p at one place and r at another, in any order. Without true any part
// of both may have been written, and nothing is under way.
func (w *Pair) Write(p []byte, at int64, r []byte, to int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.q
	if q == nil || len(p) == 0 || len(r) == 0 {
		return false
	}
	tail := q.sqTail.Load()
	for i, b := range [2][]byte{p, r} {
		q.sqes[(tail+uint32(i))&q.sqMask] = sqe{
			opcode: opWrite, fd: int32(w.fd), off: uint64([2]int64{at, to}[i]), addr: uint64(uintptr(unsafe.Pointer(&b[0]))),
			length: uint32(len(b)), userData: uint64(i),
		}
	}
	q.sqTail.Store(tail + 2)
	_ = q.enterWait(2, 2) // what it took is seen from its head
	begun := q.sqHead.Load() - tail
	q.sqTail.Store(tail + begun) // what the kernel did not want is taken back
	ok := begun == 2
	for head := q.cqHead.Load(); begun > 0; {
		if head == q.cqTail.Load() {
			if q.enterWait(0, 1) != nil {
				runtime.Gosched()
			}
			continue
		}
		c := q.cqes[head&q.cqMask]
		ok = ok && int(c.res) == len([2][]byte{p, r}[c.userData])
		head++
		begun--
		q.cqHead.Store(head)
	}
	runtime.KeepAlive(p)
	runtime.KeepAlive(r)
	return ok
}

// Close waits for a call that is under way; those that follow are false.
func (w *Pair) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.q == nil {
		return os.ErrClosed
	}
	q := w.q
	w.q = nil
	return q.close()
}
