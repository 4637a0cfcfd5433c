package scsi

import (
	"context"
	"sync"
	"sync/atomic"
)

// taskContext is the transport's context, and ends too when task management
// aborts the command. It lies in the Task, so a command that nobody waits for
// costs no allocation: Done makes its channel when it is first asked for.
// It must not be kept after the device call that it was passed to.
type taskContext struct {
	context.Context
	aborted atomic.Bool

	mu   sync.Mutex
	done chan struct{}
	stop func() bool // detaches from the transport's context
}

func (c *taskContext) begin(parent context.Context) {
	c.Context = parent
	c.aborted.Store(false)
}

// end detaches from the parent; what was waiting for Done is let go.
func (c *taskContext) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		return
	}
	c.stop()
	c.closeLocked()
	c.done, c.stop = nil, nil
}

func (c *taskContext) abort() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.aborted.Store(true)
	if c.done != nil {
		c.closeLocked()
	}
}

func (c *taskContext) closeLocked() {
	select {
	case <-c.done:
	default:
		close(c.done)
	}
}

// Err is context.Canceled once the command is aborted.
func (c *taskContext) Err() error {
	if c.aborted.Load() {
		return context.Canceled
	}
	return c.Context.Err()
}

// Done closes when the command is aborted or the transport's context ends.
func (c *taskContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done != nil {
		return c.done
	}
	done := make(chan struct{})
	c.done = done
	c.stop = context.AfterFunc(c.Context, func() { c.parentEnded(done) })
	if c.aborted.Load() {
		c.closeLocked()
	}
	return done
}

// parentEnded closes done if it still is this command's.
func (c *taskContext) parentEnded(done chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == done {
		c.closeLocked()
	}
}
