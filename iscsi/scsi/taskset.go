package scsi

import "sync"

// Task attributes, as they stand in a SCSI Command PDU (RFC 7143 section
// 11.3.1). Untagged commands are treated as simple ones, ACA is refused.
const (
	attrOrdered     = 2
	attrHeadOfQueue = 3
	attrACA         = 4
)

// taskSet is the commands of a unit that have begun and not ended, in the order
// of their beginning. Who may not start yet is dormant (SAM-5 8.6):
//
//	simple         starts unless an older ordered or head of queue command is there
//	ordered        starts when it is the oldest
//	head of queue  starts at once, unless an older one that runs alone is there
//	alone          as ordered, whatever its attribute (WRITE ATOMIC)
type taskSet struct {
	mu       sync.Mutex
	ended    sync.Cond // something left the set
	newest   *command
	oldest   *command
	barriers int // ordered and head of queue commands in the set
	dormant  int // commands that wait for their turn
	size     int // commands in the set
	most     int // that there ever were
	draining int // commands that wait for all others
}

func (s *taskSet) init() { s.ended.L = &s.mu }

// enter puts c into the set and tells whether it may start.
func (s *taskSet) enter(c *command) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.older, c.newer = s.newest, nil
	if s.newest != nil {
		s.newest.newer = c
	} else {
		s.oldest = c
	}
	s.newest = c
	s.size++
	s.most = max(s.most, s.size)
	if c.isBarrier() {
		s.barriers++
	}
	return s.mayStart(c)
}

// mayStart tells whether no older command stands before c.
func (s *taskSet) mayStart(c *command) bool {
	switch {
	case c.ctx.aborted.Load():
		return true
	case c.task.Attr == attrHeadOfQueue && !c.op.alone:
		return !s.held(c)
	case c.task.Attr == attrOrdered || c.op.alone:
		return c.older == nil
	case s.barriers == 0:
		return true
	}
	for o := c.older; o != nil; o = o.older {
		if o.isBarrier() {
			return false
		}
	}
	return true
}

// held tells whether an older command runs alone, which even the head of the
// queue does not enter.
func (s *taskSet) held(c *command) bool {
	if s.barriers == 0 {
		return false
	}
	for o := c.older; o != nil; o = o.older {
		if o.op.alone {
			return true
		}
	}
	return false
}

func (c *command) isBarrier() bool {
	return c.op.alone || c.task.Attr == attrOrdered || c.task.Attr == attrHeadOfQueue
}

// await calls c.turn once c may start: at once, or when what stands before it
// has left.
func (s *taskSet) await(c *command) {
	s.mu.Lock()
	if !s.mayStart(c) {
		c.waits = true
		s.dormant++
		if s.draining > 0 {
			s.ended.Broadcast()
		}
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	c.turn()
}

// leave takes c out and wakes whom it kept waiting.
func (s *taskSet) leave(c *command) {
	s.mu.Lock()
	if c.newer == nil {
		s.newest = c.older
	} else {
		c.newer.older = c.older
	}
	if c.older == nil {
		s.oldest = c.newer
	} else {
		c.older.newer = c.newer
	}
	c.older, c.newer = nil, nil
	s.size--
	if c.isBarrier() {
		s.barriers--
	}
	if c.ctx.aborted.Load() || s.draining > 0 {
		s.ended.Broadcast()
	}
	awake := s.wakeLocked()
	s.mu.Unlock()
	start(awake)
}

// wakeLocked collects the dormant commands that may start now, linked by queued.
func (s *taskSet) wakeLocked() (first *command) {
	if s.dormant == 0 {
		return nil
	}
	last := &first
	for c := s.oldest; c != nil; c = c.newer {
		if c.waits && s.mayStart(c) {
			c.waits = false
			s.dormant--
			*last, last = c, &c.queued
		}
	}
	return first
}

func start(awake *command) {
	for c := awake; c != nil; {
		next := c.queued
		c.queued = nil
		c.turn()
		c = next
	}
}

// abort ends the commands that match, but self, and returns when they have:
// none of them touches the medium afterwards. It returns early when self is
// aborted while it waits. The result is the attachments that lost a command.
func (s *taskSet) abort(self *command, match func(*command) bool) map[*attachment]struct{} {
	lost := s.mark(self, match)
	s.wait(self, match)
	return lost
}

// mark ends the commands that are there and match, but self, without waiting
// for it.
func (s *taskSet) mark(self *command, match func(*command) bool) map[*attachment]struct{} {
	s.mu.Lock()
	lost := map[*attachment]struct{}{}
	for c := s.newest; c != nil; c = c.older {
		if c != self && match(c) {
			c.ctx.abort()
			lost[c.at] = struct{}{}
		}
	}
	s.ended.Broadcast() // one of them may be waiting here itself
	awake := s.wakeLocked()
	s.mu.Unlock()
	start(awake)
	return lost
}

// wait returns when no aborted command that matches is left.
func (s *taskSet) wait(self *command, match func(*command) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.lingers(self, match) {
		s.ended.Wait()
	}
}

// drain returns when no command but self has started and not ended, or when
// self is aborted. Who wants all of the medium has closed the door before.
func (s *taskSet) drain(self *command) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining++
	for !self.ctx.aborted.Load() && s.busy(self) {
		s.ended.Wait()
	}
	s.draining--
}

func (s *taskSet) busy(self *command) bool {
	for c := s.newest; c != nil; c = c.older {
		if c != self && !c.waits {
			return true
		}
	}
	return false
}

// lingers tells whether an aborted command that matches is still there.
func (s *taskSet) lingers(self *command, match func(*command) bool) bool {
	if self != nil && self.ctx.aborted.Load() {
		return false
	}
	for c := s.newest; c != nil; c = c.older {
		if c != self && c.ctx.aborted.Load() && match(c) {
			return true
		}
	}
	return false
}
