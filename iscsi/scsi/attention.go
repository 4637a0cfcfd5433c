package scsi

import (
	"math/bits"
	"sync/atomic"
)

// attention is a unit attention condition. The order is that of SAM-5 5.14: the
// lowest is reported first.
type attention uint

const (
	attnPowerOn attention = iota
	attnTargetReset
	attnUnitReset
	attnCleared
	attnModeChanged
	attnResPreempted
	attnResReleased
	attnRegPreempted
	attnCapacity
	attnLUNs
)

var attentionCodes = [...]uint16{
	attnPowerOn:      codePowerOn,
	attnTargetReset:  codeTargetReset,
	attnUnitReset:    codeUnitReset,
	attnCleared:      codeCleared,
	attnModeChanged:  codeModeChanged,
	attnResPreempted: codeResPreempted,
	attnResReleased:  codeResReleased,
	attnRegPreempted: codeRegPreempted,
	attnCapacity:     codeCapacityChanged,
	attnLUNs:         codeLUNsChanged,
}

// attentions is the queue of one session at one unit, a set of conditions: one
// that waits already is not queued again.
type attentions struct{ pending atomic.Uint32 }

func (q *attentions) add(a attention)    { q.pending.Or(1 << a) }
func (q *attentions) remove(a attention) { q.pending.And(^uint32(1 << a)) }
func (q *attentions) empty() bool        { return q.pending.Load() == 0 }

// take removes the condition that is reported first.
func (q *attentions) take() (*sense, bool) {
	for {
		set := q.pending.Load()
		if set == 0 {
			return nil, false
		}
		if q.pending.CompareAndSwap(set, set&(set-1)) {
			code := attentionCodes[bits.TrailingZeros32(set)]
			return &sense{key: keyUnitAttention, code: code}, true
		}
	}
}
