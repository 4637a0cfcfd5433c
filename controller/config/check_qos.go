package config

import (
	"time"

	"ripstop/vswitch"
)

// What a port's limit can be, bits a second. With less, one frame that is made of
// segments would take seconds.
const (
	leastLimit = 64_000
	mostLimit  = 1_000_000_000_000
)

// checkLimit is the most traffic of a port.
func (c *checker) checkLimit(l *rawPortLimit) vswitch.Limit {
	if l == nil {
		return vswitch.Limit{}
	}
	if !l.Send.given && !l.Receive.given {
		c.errorf(l.spot, "says neither send nor receive: write at least one of them")
	}
	out := vswitch.Limit{Send: c.bits(l.Send), Burst: time.Duration(l.Burst.v)}
	if out.Receive = uint64(l.Receive.v); l.Receive != l.Send { // else it was looked at
		out.Receive = c.bits(l.Receive)
	}
	return out
}

func (c *checker) bits(v value[rate]) uint64 {
	if v.ok && (v.v < leastLimit || v.v > mostLimit) {
		c.errorf(v.spot, "is not in 64kbit/s–1Tbit/s")
	}
	return uint64(v.v)
}

// qos is what a LUN or target is promised and allowed.
func (c *checker) qos(q *rawQoS) QoS {
	p := QoS{Shares: int(q.Shares.v)}
	if l := q.Limit; l != nil {
		p.Limit, p.Burst = c.rate(l.spot, l.IOPS, l.Bandwidth), time.Duration(l.Burst.v)
	}
	if r := q.Reservation; r != nil {
		p.Reservation = c.rate(r.spot, r.IOPS, r.Bandwidth)
		if l := p.Limit; l.IOPS != 0 && p.Reservation.IOPS > l.IOPS || l.Bandwidth != 0 && p.Reservation.Bandwidth > l.Bandwidth {
			c.errorf(r.spot, "the reservation is more than the limit at %s and can never be used: lower the one or raise the other", q.Limit.spot)
		}
	}
	return p
}

func (c *checker) rate(at spot, n value[iops], bandwidth value[rate]) Rate {
	if !n.given && !bandwidth.given {
		c.errorf(at, "says neither iops nor bandwidth: write at least one of them")
	}
	// The file's rates are bits, a volume's are whole bytes.
	return Rate{IOPS: int64(n.v), Bandwidth: (int64(bandwidth.v) + 7) / 8}
}

// checkShared refuses a policy of a target for a LUN that another target serves,
// too: of an access to the LUN nobody could tell whose it is.
func (c *checker) checkShared(targets []*rawTarget) {
	first := map[name]*rawTarget{}
	for _, t := range targets {
		for _, ref := range t.LUNs.all() {
			other := first[ref.v.lun()]
			if ref.ok && other != nil && other != t && (t.promises() || other.promises()) {
				c.errorf(ref.spot, "LUN %q is also in %s at %s, and what a target is promised holds for LUNs of its own: promise it to the LUN instead, or leave it out of one of the two",
					ref.v.lun(), other.path, other.spot)
			}
			first[ref.v.lun()] = t
		}
	}
}

func (q *rawQoS) promises() bool { return q.Limit != nil || q.Reservation != nil || q.Shares.given }
