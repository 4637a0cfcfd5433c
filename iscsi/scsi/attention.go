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
	attnPreviousConflict
	attnModeChanged
	attnResPreempted
	attnResReleased
	attnRegPreempted
	attnCapacity
	attnInquiry
	attnLUNs
	attnThreshold // the first of thresholds; the others follow
)

var attentionCodes = [...]uint16{
	attnPowerOn:          codePowerOn,
	attnTargetReset:      codeTargetReset,
	attnUnitReset:        codeUnitReset,
	attnCleared:          codeCleared,
	attnPreviousConflict: codePreviousConflict,
	attnModeChanged:      codeModeChanged,
	attnResPreempted:     codeResPreempted,
	attnResReleased:      codeResReleased,
	attnRegPreempted:     codeRegPreempted,
	attnCapacity:         codeCapacityChanged,
	attnInquiry:          codeInquiryChanged,
	attnLUNs:             codeLUNsChanged,
	attnThreshold:        codeThreshold,
	attnThreshold + 1:    codeThreshold,
	attnThreshold + attention(len(thresholds)-1): codeThreshold,
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
			return firstOf(set), true
		}
	}
}

// peek is what take would remove.
func (q *attentions) peek() (*sense, bool) {
	set := q.pending.Load()
	if set == 0 {
		return nil, false
	}
	return firstOf(set), true
}

// firstOf is the sense data of the first condition in a set. Of a threshold it
// says where the mode page describes it (SBC-3 4.7.3.7).
func firstOf(set uint32) *sense {
	a := attention(bits.TrailingZeros32(set))
	s := &sense{key: keyUnitAttention, code: attentionCodes[a]}
	if a >= attnThreshold {
		s.info, s.valid = descriptorsAt+8*uint64(a-attnThreshold), true
	}
	return s
}

// report is the condition that ends a command. UA_INTLCK decides whether it is
// over with that, or waits for REQUEST SENSE (SPC-4 7.5.8).
func (a *attachment) report() (*sense, bool) {
	if a.attentions.empty() {
		return nil, false
	}
	if a.unit.mode.has(modeKeepAttention) {
		return a.attentions.peek()
	}
	return a.attentions.take()
}

// conflicted is what a RESERVATION CONFLICT leaves behind.
func (a *attachment) conflicted() {
	if a.unit.mode.has(modeConflictAttention) {
		a.attentions.add(attnPreviousConflict)
	}
}
