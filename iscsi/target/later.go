package target

import "sync"

// later is the commands of a connection that are about to go on beside it. Its
// reader has them begin together once it has no further input at hand, or is about
// to wait for something else: then a device may pass all of them to the kernel in
// one system call.
type later struct {
	mu          sync.Mutex
	first, last *task
	n           int
}

const laterMost = 16 // commands; the first one does not wait for more than that

// put adds a task and gives how many there are now.
func (l *later) put(t *task) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == 0 {
		l.first = t
	} else {
		l.last.next = t
	}
	l.last = t
	l.n++
	return l.n
}

// take empties the list.
func (l *later) take() (first *task, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first, n = l.first, l.n
	l.first, l.last, l.n = nil, nil, 0
	return first, n
}

// startLater has a task begin with the next ones.
func (c *conn) startLater(t *task) {
	if c.later.put(t) >= laterMost {
		c.startAll()
	}
}

// startAll has the tasks begin that are to, before somebody waits: in their units
// others may stand behind them. It never waits.
func (c *conn) startAll() {
	t, n := c.later.take()
	if n > 1 {
		c.srv.opts.Plug()
		defer c.srv.opts.Unplug()
	}
	for t != nil {
		next := t.next // before the task may end, and be used again
		t.next = nil
		t.Start()
		t = next
	}
}

// lock takes mu for the reader. Who holds it may be waiting for the initiator to
// take what is written: then what is to begin does not wait for that, too.
func (c *conn) lock() {
	if !c.mu.TryLock() {
		c.startAll()
		c.mu.Lock()
	}
}

// catchUp begins and writes everything that is due, for the reader. What devices
// completed meanwhile, while the thread was at work, wakes nobody who waits
// afterwards: it is due as well.
func (c *conn) catchUp() error {
	c.startAll()
	if !c.wire.brisk() {
		return c.flush()
	}
	for more := true; more; {
		more = c.reap() && c.finished.any() // others' answers are not worth to wait for
		if err := c.flush(); err != nil {
			return err
		}
	}
	return nil
}
