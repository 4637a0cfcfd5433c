package main

import (
	"fmt"
	"sync"
	"time"

	"ripstop/lun"
)

// poolKinds asks disks of what kind the pools on them are. A pass asks, so a disk that
// hangs is waited for once, and not at all while that lasts.
type poolKinds struct {
	look func(path string) (string, error)

	mu    sync.Mutex
	asked map[string]*question // by path
}

type question struct {
	since time.Time
	done  chan struct{} // closed when there is an answer
	kind  string
	err   error
}

func newPoolKinds(look func(path string) (string, error)) *poolKinds {
	return &poolKinds{look: look, asked: map[string]*question{}}
}

// of is the kind of the pool at a path, "" where there is none.
func (k *poolKinds) of(path string) (string, error) {
	k.mu.Lock()
	q := k.asked[path]
	if q == nil {
		q = &question{since: time.Now(), done: make(chan struct{})}
		k.asked[path] = q
		go k.answer(path, q)
	}
	k.mu.Unlock()
	select {
	case <-q.done:
		return q.kind, q.err
	case <-time.After(diskWait - time.Since(q.since)):
		return "", fmt.Errorf("%s: %w: look at it", path, lun.ErrHangs)
	}
}

func (k *poolKinds) answer(path string, q *question) {
	q.kind, q.err = k.look(path)
	k.mu.Lock()
	delete(k.asked, path)
	k.mu.Unlock()
	close(q.done)
}
