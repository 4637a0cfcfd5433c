package qos

import (
	"context"
	"sync/atomic"
	"time"
)

// request is an access that waits for its turn, or one that was started and is
// under way.
//
//	queued ─► launched ─► begun ─► over            the engine ended it later
//	                 └──► ended ─► over            it ended before it had begun to be waited for
type request struct {
	next  *request
	s     *Scheduler
	f     *flow
	pool  *pool // that it is under way in
	n     int64
	since int64 // when it began to wait
	begun bool  // its turn has come

	turn chan struct{} // of one that waits in a goroutine

	// Of one that nobody waits for:
	start  func(p []byte, off int64, done func(ok bool)) bool
	p      []byte
	off    int64
	done   func(ok bool)
	landed func(ok bool) // made once, so that an access allocates nothing
	ok     bool
	state  atomic.Int32
}

const (
	launched = iota
	begun
	ended
)

// before puts what is linked behind r before rest.
func (r *request) before(rest *request) *request {
	if r == nil {
		return rest
	}
	last := r
	for last.next != nil {
		last = last.next
	}
	last.next = rest
	return r
}

// fresh is a request of f. The caller holds the lock.
func (s *Scheduler) fresh(f *flow, n int64) *request {
	r := s.spare
	if r == nil {
		r = &request{s: s, turn: make(chan struct{}, 1)}
		r.landed = r.land
	} else {
		s.spare = r.next
	}
	r.next, r.f, r.n, r.begun = nil, f, n, false
	return r
}

// retire keeps r for another access. The caller holds the lock.
func (s *Scheduler) retire(r *request) {
	r.f, r.pool, r.start, r.p, r.done = nil, nil, nil, nil, nil
	r.next, s.spare = s.spare, r
}

// wait puts r at the end of its queue.
func (f *flow) wait(r *request, now int64) {
	r.since = now
	if f.head == nil {
		f.head = r
		f.goIn()
	} else {
		f.tail.next = r
	}
	f.tail = r
	f.delayed++
	if at := f.ready(); at > now {
		r.s.wakeAt(at)
	}
}

// leave takes the first request out of the queue to begin now.
func (f *flow) leave(now int64) *request {
	r := f.head
	f.head, r.next = r.next, nil
	if f.head == nil {
		f.goOut()
	}
	r.begun, r.pool = true, f.charge(now, r.n)
	f.waited += time.Duration(now - r.since)
	return r
}

// drop takes r out of the middle of the queue; false when its turn has come.
func (f *flow) drop(r *request) bool {
	if r.begun {
		return false
	}
	var before *request
	for at := f.head; at != r; at = at.next {
		before = at
	}
	if before == nil {
		f.head = r.next
	} else {
		before.next = r.next
	}
	if f.tail == r {
		f.tail = before
	}
	if f.head == nil {
		f.goOut()
	}
	r.next = nil
	return true
}

// enter waits in this goroutine until an access of n bytes may begin.
func (s *Scheduler) enter(ctx context.Context, f *flow, n int64) (*pool, error) {
	s.mu.Lock()
	now := s.clock()
	if f.credit > 0 {
		f.credit--
		f.pool.flying++
		f.pool.bytes += n
		p := f.pool
		s.mu.Unlock()
		return p, nil
	}
	if f.mayBegin(now) {
		p := f.charge(now, n)
		s.mu.Unlock()
		return p, nil
	}
	r := s.fresh(f, n)
	f.wait(r, now)
	s.mu.Unlock()
	var err error
	select {
	case <-r.turn:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && !f.drop(r) {
		err = nil // its turn has come: the access says what it thinks of ctx
		s.mu.Unlock()
		<-r.turn
		s.mu.Lock()
	}
	p := r.pool
	s.retire(r)
	return p, err
}

// leave ends an access of n bytes, and lets the next ones begin.
func (s *Scheduler) leave(p *pool, n int64) {
	s.mu.Lock()
	free := s.free(p, n)
	s.mu.Unlock()
	s.launch(free)
}

func (s *Scheduler) free(p *pool, n int64) *request {
	p.flying--
	p.bytes -= n
	return s.choose(p, s.clock())
}

// begin starts an access, now or when its turn comes. It is false where start is
// and where it would have begun now.
func (s *Scheduler) begin(f *flow, start func(p []byte, off int64, done func(ok bool)) bool, p []byte, off int64, done func(ok bool)) bool {
	s.mu.Lock()
	now := s.clock()
	r := s.fresh(f, int64(len(p)))
	r.start, r.p, r.off, r.done = start, p, off, done
	if !f.mayBegin(now) {
		f.wait(r, now)
		s.mu.Unlock()
		return true
	}
	r.begun, r.pool = true, f.charge(now, r.n)
	s.mu.Unlock()
	r.state.Store(launched)
	if start(p, off, r.landed) {
		if !r.state.CompareAndSwap(launched, begun) {
			s.launch(r.over())
		}
		return true
	}
	s.mu.Lock()
	f.giveBack(r.n)
	free := s.free(r.pool, r.n)
	s.retire(r)
	s.mu.Unlock()
	s.launch(free)
	return false
}

// launch has accesses begin whose turn has come. An engine may end one before
// it says that it has begun it, and others may be next then: they join the end
// of what is launched here, so that nothing calls itself.
func (s *Scheduler) launch(r *request) {
	for r != nil {
		next := r.next
		r.next = nil
		if r.start == nil {
			r.turn <- struct{}{} // it has room for one
			r = next
			continue
		}
		r.state.Store(launched)
		switch {
		case !r.start(r.p, r.off, r.landed):
			next = next.before(r.refused())
		case !r.state.CompareAndSwap(launched, begun):
			next = next.before(r.over())
		}
		r = next
	}
}

// land is what the engine calls when an access is over.
func (r *request) land(ok bool) {
	r.ok = ok
	if !r.state.CompareAndSwap(launched, ended) {
		r.s.launch(r.over())
	}
}

// over ends an access that nobody waited for.
func (r *request) over() *request {
	s, done, ok := r.s, r.done, r.ok
	s.mu.Lock()
	free := s.free(r.pool, r.n)
	s.retire(r)
	s.mu.Unlock()
	done(ok)
	return free
}

// refused ends an access that the engine wants somebody to wait for. Its turn is
// kept for him.
func (r *request) refused() *request {
	s, done := r.s, r.done
	s.mu.Lock()
	r.f.credit++
	free := s.free(r.pool, r.n)
	s.retire(r)
	s.mu.Unlock()
	done(false)
	return free
}
