package lun

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Schedules is the snapshots that are made by time, by LUN, wanted or observed.
// A schedule's snapshots are told from a person's by their names alone, so it
// needs no record of its own and follows the data to another host.
type Schedules struct {
	Of  map[string]Schedule // observed: of every LUN in service, and no other
	Now time.Time           // observed: when it was looked at
}

// Schedule is when snapshots of one LUN are made, and which there are.
type Schedule struct {
	Every time.Duration // whole seconds; due at the multiples of it since 0001-01-01 UTC
	Keep  int           // how many of them stay, from 1 on
	Held  []string      // of Made: targets serve them, so they stay

	Made []string // observed: names of scheduled snapshots, in the order in which they were made
}

const (
	// ScheduledPrefix begins the names of a schedule's snapshots, and no others.
	ScheduledPrefix = "auto-"
	scheduledLayout = ScheduledPrefix + "20060102T150405Z"
)

// ScheduledName is the name of a snapshot that is made at t.
func ScheduledName(t time.Time) string { return t.UTC().Format(scheduledLayout) }

// scheduledAt is when a snapshot of this name was made; ok is false for a name
// that is not a schedule's.
func scheduledAt(name string) (t time.Time, ok bool) {
	t, err := time.Parse(scheduledLayout, name)
	return t, err == nil
}

// IsScheduled tells whether a snapshot of this name is a schedule's.
func IsScheduled(name string) bool { _, ok := scheduledAt(name); return ok }

// Scheduled gives the schedules' snapshots among all, by LUN and in order.
func Scheduled(all []SnapshotStats) map[string][]string {
	of := map[string][]string{}
	for _, s := range all {
		name, snapshot, _ := SplitSnapshot(s.Name)
		if _, ok := scheduledAt(snapshot); ok {
			of[name] = append(of[name], snapshot)
		}
	}
	return of
}

// Under is what was observed of the LUNs that want has schedules for, under
// these: what other LUNs have is nobody's concern.
func (s Schedules) Under(want Schedules) Schedules {
	out := Schedules{Of: map[string]Schedule{}, Now: s.Now}
	for name, w := range want.Of {
		if have, ok := s.Of[name]; ok {
			w.Made = have.Made
			out.Of[name] = w
		}
	}
	return out
}

// Next is the first moment after now at which a snapshot is due, zero without
// schedules.
func (s Schedules) Next(now time.Time) time.Time {
	var first time.Time
	for _, x := range s.Of {
		if at := x.Next(now); first.IsZero() || at.Before(first) {
			first = at
		}
	}
	return first
}

// Next is the first moment after now at which a snapshot is due.
func (s Schedule) Next(now time.Time) time.Time { return now.Truncate(s.Every).Add(s.Every).UTC() }

// Last is when the newest of Made was made, zero without any.
func (s Schedule) Last() time.Time {
	if len(s.Made) == 0 {
		return time.Time{}
	}
	last, _ := scheduledAt(s.Made[len(s.Made)-1])
	return last
}

// Interval is Every as the file has it.
func (s Schedule) Interval() string { return durationText(s.Every) }

// due tells whether a snapshot is to be made now: the last one is of an earlier
// interval. So what was missed is made once. A last one from the future, made
// before the clock was put back, counts for one interval and not for good.
func (s Schedule) due(now time.Time) bool {
	if len(s.Made) == 0 {
		return true
	}
	last := s.Last()
	return last.Before(now.Truncate(s.Every)) || last.After(now.Add(s.Every))
}

// name is for a snapshot that is made now: a second later for each that is
// there, where the clock was put back.
func (s Schedule) name(now time.Time) string {
	for slices.Contains(s.Made, ScheduledName(now)) {
		now = now.Add(time.Second)
	}
	return ScheduledName(now)
}

// excess is the oldest of those made beyond what stays when more come. The order
// is that of their making, which no clock changes.
func (s Schedule) excess(more int) []string {
	n := max(0, len(s.Made)+more-s.Keep)
	return s.Made[:min(n, len(s.Made))]
}

// DiffSchedules is the steps that bring snapshots to what the schedules say: for
// each LUN what is too much already, then what is due, and after it what that
// makes too much. So a snapshot goes only when its successor is there. Nothing
// is deleted of a LUN without a schedule, or that a target serves. What snapshots
// a LUN out of service has is not known, so nothing is due before it is back.
func DiffSchedules(want, have Schedules) []ScheduleStep {
	var out []ScheduleStep
	for _, name := range slices.Sorted(maps.Keys(want.Of)) {
		w := want.Of[name]
		seen, ok := have.Of[name]
		if !ok {
			out = append(out, BeginSchedule{name, w.Every, w.Keep})
			continue
		}
		w.Made = seen.Made
		drop := func(snapshots []string) {
			for _, s := range snapshots {
				if !slices.Contains(w.Held, s) {
					out = append(out, DropSnapshot{name, s})
				}
			}
		}
		over := w.excess(0)
		drop(over)
		if w.due(have.Now) {
			out = append(out, TakeSnapshot{name, w.name(have.Now)})
			drop(w.excess(1)[len(over):])
		}
	}
	return out
}

// Spares is why snapshots that stay under the former schedules may be gone once these were
// in force for a while; nil when none may. made is those that there are, by LUN.
func (s Schedules) Spares(former Schedules, made map[string][]string) error {
	for _, name := range slices.Sorted(maps.Keys(s.Of)) {
		is := s.Of[name]
		was, ok := former.Of[name]
		switch {
		case !ok && len(made[name]) > 0:
			return fmt.Errorf("LUN %s: %d snapshots of a schedule are left from before, and this one might delete them", name, len(made[name]))
		case ok && is.Keep < was.Keep:
			return fmt.Errorf("LUN %s: of %d snapshots that stay %d would be deleted", name, was.Keep, was.Keep-is.Keep)
		case ok && is.Every < was.Every:
			return fmt.Errorf("LUN %s: a snapshot each %s would soon replace those of each %s", name, is.Interval(), was.Interval())
		}
		for _, held := range was.Held {
			if !slices.Contains(is.Held, held) && slices.Contains(made[name], held) {
				return fmt.Errorf("LUN %s: its schedule might delete the snapshot %s, which no target would serve", name, held)
			}
		}
	}
	return nil
}

// Describe is one line for each schedule, by "schedule/LUN".
func (s Schedules) Describe() map[string]string {
	out := make(map[string]string, len(s.Of))
	for name, x := range s.Of {
		out["schedule/"+name] = x.describe(s.Now)
	}
	return out
}

func (s Schedule) describe(now time.Time) string {
	if now.IsZero() {
		return fmt.Sprintf("every %s, keep %d", durationText(s.Every), s.Keep)
	}
	text := fmt.Sprintf("%d of %d kept", len(s.Made), s.Keep)
	if last := s.Last(); !last.IsZero() {
		text += ", last " + last.Format(time.RFC3339)
	}
	text += ", next " + s.Next(now).Format(time.RFC3339)
	held := slices.DeleteFunc(slices.Clone(s.excess(0)), func(m string) bool { return !slices.Contains(s.Held, m) })
	if len(held) > 0 {
		text += ", a target serves " + strings.Join(held, " and ")
	}
	return text
}

// durationText is d without the zeros at the end: 1h and not 1h0m0s.
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// ScheduleStep is one change of scheduled snapshots. The set is closed:
// BeginSchedule, TakeSnapshot and DropSnapshot.
type ScheduleStep interface {
	fmt.Stringer
	// Object is "schedule/LUN".
	Object() string
	// Removes tells whether the step destroys a snapshot.
	Removes() bool
	// Disturbs is empty.
	Disturbs() string
	// Routine marks what time makes due, and nobody's hand.
	Routine()
}

// BeginSchedule changes nothing. It is an error as long as the LUN is out of
// service.
type BeginSchedule struct {
	LUN   string
	Every time.Duration
	Keep  int
}

// TakeSnapshot makes a snapshot of a LUN; one of that name is no error.
type TakeSnapshot struct {
	LUN, Name string
}

// DropSnapshot destroys a snapshot of a LUN; one that is gone is no error.
type DropSnapshot struct {
	LUN, Name string
}

// String is a comment.
func (s BeginSchedule) String() string {
	return fmt.Sprintf("# LUN %s: a snapshot every %s, %d of them kept", s.LUN, durationText(s.Every), s.Keep)
}

// String is the command of ripstop.
func (s TakeSnapshot) String() string { return "ripstop lun snapshot " + s.LUN + " " + s.Name }

// String is the command of ripstop.
func (s DropSnapshot) String() string { return "ripstop lun delete " + s.LUN + "@" + s.Name }

// Object is "schedule/LUN".
func (s BeginSchedule) Object() string { return "schedule/" + s.LUN }

// Object is "schedule/LUN".
func (s TakeSnapshot) Object() string { return "schedule/" + s.LUN }

// Object is "schedule/LUN".
func (s DropSnapshot) Object() string { return "schedule/" + s.LUN }

// Removes is false.
func (BeginSchedule) Removes() bool { return false }

// Removes is false.
func (TakeSnapshot) Removes() bool { return false }

// Removes is true.
func (DropSnapshot) Removes() bool { return true }

// Disturbs is empty.
func (BeginSchedule) Disturbs() string { return "" }

// Disturbs is empty.
func (TakeSnapshot) Disturbs() string { return "" }

// Disturbs is empty: what a target serves stays.
func (DropSnapshot) Disturbs() string { return "" }

// Routine marks the step.
func (BeginSchedule) Routine() {}

// Routine marks the step.
func (TakeSnapshot) Routine() {}

// Routine marks the step.
func (DropSnapshot) Routine() {}
