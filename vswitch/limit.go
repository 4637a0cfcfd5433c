package vswitch

import (
	"cmp"
	"fmt"
	"time"
)

// DefaultBurst is the burst of a limit that says none. A TCP connection that loses
// a whole window waits 200 ms (the least retransmission timeout of Linux); a burst
// longer than that lets it make up for the time, so that it has all of the limit.
const DefaultBurst = 250 * time.Millisecond

// Limit is the most traffic of a port, each direction for itself, in bits of
// Ethernet frames a second, without preamble and check sequence. What is over it
// is dropped and counted.
type Limit struct {
	Send    uint64        // from the port into the switch, 0 is no limit
	Receive uint64        // from the switch to the port, 0 is no limit
	Burst   time.Duration // how long a port that was idle may be ahead of its limit; 0 is DefaultBurst
}

func (l Limit) canonical() Limit {
	if l.Burst == DefaultBurst || !l.Any() {
		l.Burst = 0
	}
	return l
}

// Any tells whether there is a limit in some direction.
func (l Limit) Any() bool { return l.Send != 0 || l.Receive != 0 }

// Time is the burst in force.
func (l Limit) Time() time.Duration { return cmp.Or(l.Burst, DefaultBurst) }

// String is empty for the zero value.
func (l Limit) String() string {
	var s string
	switch {
	case !l.Any():
		return ""
	case l.Send == l.Receive:
		s = "limit " + bitRate(l.Send)
	case l.Receive == 0:
		s = "limit send " + bitRate(l.Send)
	case l.Send == 0:
		s = "limit receive " + bitRate(l.Receive)
	default:
		s = "limit send " + bitRate(l.Send) + " receive " + bitRate(l.Receive)
	}
	if l.Burst != 0 {
		s += fmt.Sprintf(" burst %v", l.Burst)
	}
	return s
}

// bitRate is a rate as the file has it.
func bitRate(bits uint64) string {
	for _, u := range []struct {
		times uint64
		word  string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if bits >= u.times && bits%u.times == 0 {
			return fmt.Sprintf("%d%sbit/s", bits/u.times, u.word)
		}
	}
	return fmt.Sprintf("%dbit/s", bits)
}

// tightens says what of the port's traffic is dropped from now on.
func (l Limit) tightens(from Limit, port string) []string {
	less := func(a, b uint64) bool { return a != 0 && (b == 0 || a < b) }
	var out []string
	if less(l.Send, from.Send) {
		out = append(out, fmt.Sprintf("drops what %s sends over %s", port, bitRate(l.Send)))
	}
	if less(l.Receive, from.Receive) {
		out = append(out, fmt.Sprintf("drops what %s would receive over %s", port, bitRate(l.Receive)))
	}
	return out
}
