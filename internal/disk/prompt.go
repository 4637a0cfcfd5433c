package disk

import (
	"sync/atomic"
	"time"
)

// Luck tells whether it is worth to look into the page cache first: a look in
// vain slows a read through the ring by a quarter. After a row of misses
// only one read in eight looks, until one hits. Its zero value looks.
type Luck struct{ misses atomic.Uint32 }

const badLuck = 16 // misses in a row

// Worth tells whether to look.
func (l *Luck) Worth() bool {
	n := l.misses.Load()
	return n < badLuck || l.misses.Add(1)%8 == 0
}

// Note tells what a look gave.
func (l *Luck) Note(hit bool) {
	if hit {
		if l.misses.Load() != 0 {
			l.misses.Store(0)
		}
		return
	}
	if l.misses.Load() < badLuck {
		l.misses.Add(1)
	}
}

const (
	slowWrite = 10 * time.Millisecond  // longer than a copy, and than a time slice of another process
	slowFor   = 100 * time.Millisecond // without writes at once after a slow one
)

// Brake keeps writes into the page cache away from who must not wait, while the
// kernel makes writers wait. No file system promises that such a copy never
// waits: ext4 knows no RWF_NOWAIT for it, and the kernel holds back who makes
// pages dirty faster than the disk takes them. Its zero value is off.
type Brake struct {
	until atomic.Int64 // nanoseconds since 1970; 0 is off
}

// On tells whether writes shall stay away.
func (b *Brake) On() bool {
	until := b.until.Load()
	if until == 0 {
		return false
	}
	if time.Now().UnixNano() < until {
		return true
	}
	b.until.CompareAndSwap(until, 0)
	return false
}

// Note tells how long a write took.
func (b *Brake) Note(took time.Duration) {
	if took > slowWrite {
		b.Pull(slowFor)
	}
}

// Pull sets the brake for a time.
func (b *Brake) Pull(d time.Duration) { b.until.Store(time.Now().Add(d).UnixNano()) }
