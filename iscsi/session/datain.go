package session

import "iter"

// Segment is the part of a command's data-in that one PDU carries.
type Segment struct {
	Offset, Len int  // bytes
	Final       bool // the burst ends here
	Last        bool // the data end here
}

// Segments cuts n bytes of data-in into PDUs of at most maxRecv bytes, rounded
// down to 4 so that only the last needs padding, and bursts of at most maxBurst.
func Segments(n, maxRecv, maxBurst int) iter.Seq[Segment] {
	maxRecv &^= 3
	return func(yield func(Segment) bool) {
		burstEnd := maxBurst
		for off := 0; off < n; {
			if off == burstEnd {
				burstEnd += maxBurst
			}
			end := min(off+maxRecv, burstEnd, n)
			if !yield(Segment{off, end - off, end == n || end == burstEnd, end == n}) {
				return
			}
			off = end
		}
	}
}

// Residual compares the bytes that the initiator expected with those that the
// command moved, or would have with room enough.
func Residual(expected, actual int) (bytes uint32, over, under bool) {
	if actual > expected {
		return uint32(min(actual-expected, 1<<32-1)), true, false
	}
	return uint32(expected - actual), false, actual < expected
}
