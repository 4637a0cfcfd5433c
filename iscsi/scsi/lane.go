package scsi

import "sync"

// laneDepth is how many commands of one unit may wait for their medium at the
// same time. Each takes a thread of the process while it does; a medium that
// hangs must not take them all.
const laneDepth = 64

// lane runs the commands of a unit that have to wait, each in a goroutine, and
// further ones in the order in which they came.
type lane struct {
	mu      sync.Mutex
	running int
	first   *command // linked by queued
	last    *command

	background sync.WaitGroup // what runs for no command
}

// submit has c carried out.
func (l *lane) submit(c *command) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running < laneDepth {
		l.running++
		go c.work() // no closure: that would be an allocation each time
		return
	}
	if l.first == nil {
		l.first = c
	} else {
		l.last.queued = c
	}
	l.last = c
}

// start runs work in a goroutine of its own.
func (l *lane) start(work func()) { l.background.Go(work) }

// next gives what is to be run after a command ended, nil for nothing.
func (l *lane) next() *command {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.first
	if c == nil {
		l.running--
		return nil
	}
	l.first, c.queued = c.queued, nil
	return c
}
