package backup

import (
	"fmt"
	"time"
)

// Rules is how many backups of a LUN stay. Of a day, a week or a month it is the newest.
// Without any rule all stay.
type Rules struct {
	Last    int // the newest
	Daily   int // days that have one, in UTC
	Weekly  int // ISO weeks that have one
	Monthly int // months that have one
}

func (r Rules) empty() bool { return r == Rules{} }

// keep tells which of times, newest first, stay.
func (r Rules) keep(times []time.Time) []bool {
	out := make([]bool, len(times))
	if r.empty() {
		for i := range out {
			out[i] = true
		}
		return out
	}
	for i := range min(r.Last, len(times)) {
		out[i] = true
	}
	for _, rule := range []struct {
		n      int
		period func(t time.Time) string
	}{
		{r.Daily, func(t time.Time) string { return t.Format(time.DateOnly) }},
		{r.Weekly, func(t time.Time) string { y, w := t.ISOWeek(); return fmt.Sprint(y, w) }},
		{r.Monthly, func(t time.Time) string { return t.Format("2006-01") }},
	} {
		have, last := 0, ""
		for i, t := range times {
			p := rule.period(t.UTC())
			if p == last {
				continue
			}
			last = p
			if have++; have > rule.n {
				break
			}
			out[i] = true
		}
	}
	return out
}
