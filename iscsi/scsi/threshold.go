package scsi

import "encoding/binary"

// Gauge is a Device that knows how full the pool is that it takes its space
// from. It is asked for each command, so it must be cheap.
type Gauge interface {
	Device
	Usage() Usage
}

// Usage is space in bytes at one moment. A PoolSize of 0 means that it is not
// known.
type Usage struct {
	PoolSize int64 // that LUNs may use
	PoolUsed int64 // that LUNs use
	Used     int64 // that this one uses
}

// thresholds are the soft thresholds of a pool, in percent of its size.
var thresholds = [...]int64{80, 90, 95}

// rearm is how far usage must fall below a threshold before it is reported
// anew, in percent of the size: who writes and unmaps at the edge is told once.
const rearm = 1

// usage is what the device says of its space.
func (u *Unit) usage() (Usage, bool) {
	g, ok := u.dev.(Gauge)
	if !ok {
		return Usage{}, false
	}
	now := g.Usage()
	return now, now.PoolSize > 0
}

// level is how many thresholds the usage is over, for a unit that was over
// before of them.
func (u Usage) level(before int32) int32 {
	percent := float64(u.PoolUsed) / float64(u.PoolSize) * 100
	var n int32
	for i, t := range thresholds {
		if int32(i) < before {
			t -= rearm
		}
		if percent >= float64(t) {
			n++
		}
	}
	return n
}

// watchPool tells all nexuses of thresholds that were crossed upwards since
// the last command (SBC-3 4.7.3.7). Only a command can carry the news, so each
// looks and nothing need wake it.
func (u *Unit) watchPool() {
	now, ok := u.usage()
	if !ok {
		return
	}
	before := u.level.Load()
	level := now.level(before)
	if level == before || !u.level.CompareAndSwap(before, level) || !u.mode.has(modeThresholds) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for i := before; i < level; i++ {
		u.notifyLocked(attnThreshold+attention(i), func(*attachment) bool { return true })
	}
}

// thresholdExponent is the unit of counts, a threshold set: 2^11 blocks.
const thresholdExponent = 11

// sets is bytes in threshold sets.
func (c *command) sets(n int64) uint32 {
	return uint32(min(max(n, 0)/(c.bs<<thresholdExponent), 0xffffffff))
}

// descriptorsAt is where the threshold descriptors of the page begin.
const descriptorsAt = 16

// thresholdPage is the logical block provisioning mode page (SBC-3 6.5.7):
// thresholds on what the pool still has, not to be changed from here.
func thresholdPage(c *command, b []byte) bool {
	const enabled, decreasing, available = 0x80, 0x00, 0x01
	now, ok := c.unit.usage()
	if !ok {
		return false
	}
	for i, percent := range thresholds {
		d := b[descriptorsAt+8*i:]
		d[0], d[1] = enabled|decreasing, available
		binary.BigEndian.PutUint32(d[4:], c.sets(now.PoolSize/100*(100-percent)))
	}
	return true
}
