package scsi

import (
	"context"
	"sync"
	"time"
)

// lifetime is the context of what a unit does on its own: it ends when the
// unit is closed.
type lifetime struct {
	once sync.Once
	done chan struct{}
}

func (l *lifetime) end() { l.once.Do(func() { close(l.done) }) }

// Deadline is none.
func (l *lifetime) Deadline() (deadline time.Time, ok bool) { return time.Time{}, false }

// Done closes with the unit.
func (l *lifetime) Done() <-chan struct{} { return l.done }

// Err is context.Canceled once the unit is closed.
func (l *lifetime) Err() error {
	select {
	case <-l.done:
		return context.Canceled
	default:
		return nil
	}
}

// Value is none.
func (l *lifetime) Value(any) any { return nil }

// Close ends what the unit does on its own, and returns when that has ended.
// An operation of SANITIZE that is kept goes on with the next unit over the
// device. No session may use the unit any more.
func (u *Unit) Close() {
	u.life.end()
	u.lane.background.Wait()
}
