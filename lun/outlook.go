package lun

import (
	"maps"
	"slices"
	"time"
)

// Fill is how full a pool is at one moment.
type Fill struct {
	Pool string
	Size int64 // bytes that may be used
	Used int64 // bytes that are used, or kept for thick LUNs
}

// Thresholds are the parts of a pool, in percent, at which somebody is told that
// it fills.
var Thresholds = [...]int{80, 90, 95}

// rearm is how far a pool must fall below a threshold until it is told of anew,
// in percent.
const rearm = 1

// Alarm is a threshold that a pool has crossed.
type Alarm struct {
	Fill
	Threshold int  // percent
	Over      bool // upwards
}

// How a forecast is made: from the growth in a window that slides along, if the
// pool still grows.
const (
	forecastWindow = time.Hour
	forecastRecent = 5 * time.Minute      // a pool that has not grown in it is idle
	forecastStep   = 10 * time.Second     // between samples that are kept
	forecastLeast  = time.Minute          // of looking, until anything is said
	forecastMost   = 365 * 24 * time.Hour // what is farther away is not said
)

// Outlook follows how pools fill: which thresholds they are over, and when they
// will be full. The zero value has seen nothing. It is not safe for concurrent use.
type Outlook struct {
	pools map[string]*trend
}

type trend struct {
	samples []sample // oldest first
	level   int      // thresholds that it is over
	size    int64
}

type sample struct {
	at   time.Time
	used int64
}

// Note takes what all pools in service use now, and gives the thresholds that they
// crossed since the last time.
func (o *Outlook) Note(now time.Time, fills []Fill) []Alarm {
	seen := map[string]*trend{}
	var alarms []Alarm
	for _, f := range fills {
		t := o.pools[f.Pool]
		if t == nil {
			t = &trend{}
		}
		seen[f.Pool] = t
		t.note(now, f)
		alarms = append(alarms, t.alarms(f)...)
	}
	o.pools = seen
	return alarms
}

func (t *trend) note(now time.Time, f Fill) {
	t.size = f.Size
	if n := len(t.samples); n > 1 && now.Sub(t.samples[n-2].at) < forecastStep {
		t.samples = t.samples[:n-1] // whoever asks often does not change what is kept
	}
	t.samples = append(t.samples, sample{now, f.Used})
	old := slices.IndexFunc(t.samples, func(s sample) bool { return now.Sub(s.at) <= forecastWindow })
	t.samples = slices.Delete(t.samples, 0, old)
}

func (t *trend) alarms(f Fill) (out []Alarm) {
	is := 0
	for i, percent := range Thresholds {
		if i < t.level {
			percent -= rearm
		}
		if f.Size > 0 && float64(f.Used) >= float64(f.Size)*float64(percent)/100 {
			is++
		}
	}
	for ; t.level < is; t.level++ {
		out = append(out, Alarm{f, Thresholds[t.level], true})
	}
	for ; t.level > is; t.level-- {
		out = append(out, Alarm{f, Thresholds[t.level-1], false})
	}
	return out
}

// Level is the highest threshold that a pool is over, in percent; 0 is none.
func (o *Outlook) Level(pool string) int {
	t := o.pools[pool]
	if t == nil || t.level == 0 {
		return 0
	}
	return Thresholds[t.level-1]
}

// Pools is the names of all pools that were noted last, sorted.
func (o *Outlook) Pools() []string { return slices.Sorted(maps.Keys(o.pools)) }

// Full is when a pool will be full if it goes on filling as it did in the last
// hour; false where it is idle or shrinks, is full already, or was not watched for
// a minute.
func (o *Outlook) Full(pool string) (time.Time, bool) {
	t := o.pools[pool]
	if t == nil || len(t.samples) < 2 {
		return time.Time{}, false
	}
	first, last := t.samples[0], t.samples[len(t.samples)-1]
	recent := t.samples[slices.IndexFunc(t.samples, func(s sample) bool { return last.at.Sub(s.at) <= forecastRecent })]
	took, grown, left := last.at.Sub(first.at), last.used-first.used, t.size-last.used
	if took < forecastLeast || grown <= 0 || last.used <= recent.used || left <= 0 {
		return time.Time{}, false
	}
	wait := float64(left) / float64(grown) * float64(took)
	if wait > float64(forecastMost) {
		return time.Time{}, false
	}
	return last.at.Add(time.Duration(wait)), true
}
