package raw

import "sync"

const regionSize = 1 << 20 // bytes under one stripe; 256 blocks, so 4 whole words of the bitmap

// stripes are the locks of a volume's regions, region i under lock i modulo
// their number. Who maps or unmaps blocks, or compares, holds the regions
// alone; who writes mapped blocks shares them; who reads needs none.
type stripes [64]sync.RWMutex

// each calls do for the locks of n bytes at off, n > 0, always in the same
// order, so that two callers never wait for each other.
func (s *stripes) each(off, n int64, do func(*sync.RWMutex)) {
	const size = int64(len(s))
	first := off / regionSize
	count := (off+n-1)/regionSize - first + 1
	if count == 1 { // of nearly every access
		do(&s[first%size])
		return
	}
	for i := range size {
		if (i-first%size+size)%size < count {
			do(&s[i])
		}
	}
}

// tryShare shares the regions of n bytes at off, n > 0, if nobody has one of
// them alone. It takes them only when they are few.
func (s *stripes) tryShare(off, n int64) bool {
	const size, few = int64(len(s)), 16
	first, last := off/regionSize, (off+n-1)/regionSize
	if last-first >= few {
		return false
	}
	for i := first; i <= last; i++ {
		if !s[i%size].TryRLock() {
			for i--; i >= first; i-- {
				s[i%size].RUnlock()
			}
			return false
		}
	}
	return true
}

// all calls do for every lock.
func (s *stripes) all(do func(*sync.RWMutex)) {
	for i := range s {
		do(&s[i])
	}
}

// syncer makes callers that wait for stable storage at the same time share one
// sync of the file.
type syncer struct {
	running sync.Mutex // held during a sync
	mu      sync.Mutex
	next    *batch // the sync that has not begun, nil when nobody waits for one
}

type batch struct {
	done chan struct{}
	err  error // valid when done is closed
}

// wait returns after a sync that began after the call.
func (s *syncer) wait(sync func() error) error {
	s.mu.Lock()
	b := s.next
	if b != nil {
		s.mu.Unlock()
		<-b.done
		return b.err
	}
	b = &batch{done: make(chan struct{})}
	s.next = b
	s.mu.Unlock()

	s.running.Lock()
	defer s.running.Unlock()
	s.mu.Lock()
	s.next = nil
	s.mu.Unlock()
	b.err = sync()
	close(b.done)
	return b.err
}
