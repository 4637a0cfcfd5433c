package lun

import (
	"fmt"
	"math"
)

// Limit is the most bytes that may be promised of the pool.
func (p Pool) Limit() int64 {
	l := float64(p.Size) * p.Overcommit
	if l >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(l)
}

// Promise tells whether a pool of this name and shape may promise the bytes in
// all.
func (p Pool) Promise(name string, total int64) error {
	if total <= p.Limit() {
		return nil
	}
	return fmt.Errorf("pool %s: its LUNs would have %d bytes, and it promises at most %d (size %d, overcommit %g): "+
		"give the pool more size or overcommit, or the LUNs less",
		name, total, p.Limit(), p.Size, p.Overcommit)
}
