package qos

import (
	"time"

	"ripstop/lun"
)

const (
	// least is how much of a rate may always be saved: less than timers and initiators are late by
	// would make limits lower than they say.
	least = 50 * time.Millisecond
	// late is the same of a reservation: who catches up on it keeps the others out.
	late = 10 * time.Millisecond
	// each is what an access costs besides its bytes, in bytes: about what a disk
	// that does 256 KiB at a time needs for the way there.
	each = 32 << 10
)

// clock is the time up to which a rate is used, in nanoseconds: by the generic
// cell rate algorithm (ITU-T I.371) as a virtual schedule, one for accesses and
// one for bytes.
type clock struct {
	accesses, bytes int64
}

// ready is the time from which an access may begin, 0 where the rate sets none.
func (c *clock) ready(r lun.Rate) int64 {
	at := int64(0)
	if r.IOPS != 0 {
		at = c.accesses
	}
	if r.Bandwidth != 0 {
		at = max(at, c.bytes)
	}
	return at
}

// take moves the clock on by an access of n bytes that begins now; save is how
// long a rate may go unused without being lost.
func (c *clock) take(r lun.Rate, now, save, n int64) {
	if r.IOPS != 0 {
		c.accesses = max(c.accesses, now-save) + int64(time.Second)/r.IOPS
	}
	if r.Bandwidth != 0 {
		c.bytes = max(c.bytes, now-save) + nanoseconds(n, r.Bandwidth)
	}
}

// giveBack undoes take for an access that did not take place.
func (c *clock) giveBack(r lun.Rate, n int64) {
	if r.IOPS != 0 {
		c.accesses -= int64(time.Second) / r.IOPS
	}
	if r.Bandwidth != 0 {
		c.bytes -= nanoseconds(n, r.Bandwidth)
	}
}

// nanoseconds is how long n bytes take. A single access is at most some MiB, so
// nothing overflows.
func nanoseconds(n, rate int64) int64 {
	return int64(float64(n) / float64(rate) * float64(time.Second))
}
