package controller

import "time"

// The first and the longest wait before a failed object is tried again.
const (
	backoffMin = time.Second
	backoffMax = time.Minute
)

// backoff remembers which objects failed and when each is tried again.
type backoff map[string]retry

type retry struct {
	err   error
	wait  time.Duration
	last  time.Time
	until time.Time
}

// fail notes a failure: each further one doubles the wait.
func (b backoff) fail(object string, err error, now time.Time) {
	wait := min(max(b[object].wait*2, backoffMin), backoffMax)
	b[object] = retry{err: err, wait: wait, last: now, until: now.Add(wait)}
}

// waiting gives the objects that are not to be tried yet.
func (b backoff) waiting(now time.Time) map[string]error {
	w := map[string]error{}
	for object, r := range b {
		if now.Before(r.until) {
			w[object] = r.err
		}
	}
	return w
}

// next is when the first object is due, ok false when none waits.
func (b backoff) next() (first time.Time, ok bool) {
	for _, r := range b {
		if !ok || r.until.Before(first) {
			first, ok = r.until, true
		}
	}
	return first, ok
}

// hasten lets every object be tried again after the first wait: something
// happened, and it may be what was missing.
func (b backoff) hasten() {
	for object, r := range b {
		if soon := r.last.Add(backoffMin); soon.Before(r.until) {
			r.until = soon
			b[object] = r
		}
	}
}
