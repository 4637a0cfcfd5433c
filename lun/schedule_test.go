package lun

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// keeper is one LUN's snapshots in memory, and a clock.
type keeper struct {
	made []string // all of them, a person's too, in order
	now  time.Time
}

func (k *keeper) have() Schedules {
	var all []SnapshotStats
	for _, m := range k.made {
		all = append(all, SnapshotStats{Info: Info{Name: "data@" + m}})
	}
	s := Schedules{Of: map[string]Schedule{"data": {}}, Now: k.now}
	for name, made := range Scheduled(all) {
		s.Of[name] = Schedule{Made: made}
	}
	return s
}

// pass does what the schedule asks and gives the commands, once; a second look
// must ask for nothing.
func (k *keeper) pass(t *testing.T, x Schedule) string {
	t.Helper()
	want := Schedules{Of: map[string]Schedule{"data": x}}
	var did []string
	for _, s := range DiffSchedules(want, k.have()) {
		did = append(did, s.String())
		switch s := s.(type) {
		case TakeSnapshot:
			if slices.Contains(k.made, s.Name) {
				t.Fatalf("%s: it is there", s)
			}
			k.made = append(k.made, s.Name)
		case DropSnapshot:
			if !slices.Contains(k.made, s.Name) {
				t.Fatalf("%s: it is not there", s)
			}
			k.made = slices.DeleteFunc(k.made, func(m string) bool { return m == s.Name })
		}
	}
	if again := DiffSchedules(want, k.have()); len(again) > 0 {
		t.Fatalf("after %v it asks for %v", did, again)
	}
	return strings.Join(did, "; ")
}

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", "2026-11-"+text)
	if err != nil {
		panic(err)
	}
	return t
}

// TestSchedule walks a clock over one LUN with `every: 1h, keep: 2`.
func TestSchedule(t *testing.T) {
	k := &keeper{made: []string{"monday", "auto-pilot"}} // a person's
	x := Schedule{Every: time.Hour, Keep: 2}
	steps := []struct {
		now, want string
		held      []string
	}{
		{now: "26 10:30:00", want: "ripstop lun snapshot data auto-20261126T103000Z"}, // at once
		{now: "26 10:30:01", want: ""},
		{now: "26 10:59:59", want: ""},
		{now: "26 11:00:00", want: "ripstop lun snapshot data auto-20261126T110000Z"},
		{now: "26 11:00:01", want: ""},
		{now: "26 10:59:00", want: ""}, // the clock was put back a little
		{now: "26 12:00:07", want: "ripstop lun snapshot data auto-20261126T120007Z; ripstop lun delete data@auto-20261126T103000Z"},
		// Missed hours are made up for once.
		{now: "27 09:15:00", want: "ripstop lun snapshot data auto-20261127T091500Z; ripstop lun delete data@auto-20261126T110000Z"},
		{now: "27 09:16:00", want: ""},
		// The clock goes a day back, over what is there: the oldest made go, not those with the earliest names.
		{now: "26 12:00:07", want: "ripstop lun snapshot data auto-20261126T120008Z; ripstop lun delete data@auto-20261126T120007Z"},
		{now: "26 12:00:08", want: ""},
		{now: "26 13:00:00", want: "ripstop lun snapshot data auto-20261126T130000Z; ripstop lun delete data@auto-20261127T091500Z"},
		// What a target serves stays, and goes when it is let go of.
		{now: "26 14:00:00", held: []string{"auto-20261126T120008Z"}, want: "ripstop lun snapshot data auto-20261126T140000Z"},
		{now: "26 15:00:00", held: []string{"auto-20261126T120008Z"}, want: "ripstop lun snapshot data auto-20261126T150000Z; ripstop lun delete data@auto-20261126T130000Z"},
		{now: "26 15:10:00", want: "ripstop lun delete data@auto-20261126T120008Z"},
	}
	for _, s := range steps {
		k.now, x.Held = at(s.now), s.held
		if got := k.pass(t, x); got != s.want {
			t.Fatalf("at %s: %q, want %q", s.now, got, s.want)
		}
	}
	if want := []string{"monday", "auto-pilot", "auto-20261126T140000Z", "auto-20261126T150000Z"}; !slices.Equal(k.made, want) {
		t.Errorf("left: %v, want %v", k.made, want)
	}
	x.Keep = 1
	if got, want := k.pass(t, x), "ripstop lun delete data@auto-20261126T140000Z"; got != want {
		t.Errorf("keep 1: %q, want %q", got, want)
	}
}

// TestScheduleOverAnyClock: whatever the clock does, after each pass exactly the
// newest made stay, nobody else's snapshot goes, and one is made for each
// interval that passed, or was entered, and no more.
func TestScheduleOverAnyClock(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		x := Schedule{Every: time.Duration(1+r.IntN(7200)) * time.Second, Keep: 1 + r.IntN(5)}
		k := &keeper{now: at("26 10:30:00")}
		var order []string // of the schedule's making
		persons := 0
		for range 100 {
			switch r.IntN(10) {
			case 0: // a jump
				k.now = k.now.Add(time.Duration(r.Int64N(int64(2000*time.Hour))) - 1000*time.Hour)
			case 1:
				k.made, persons = append(k.made, fmt.Sprintf("mine-%d", persons)), persons+1
			default:
				k.now = k.now.Add(time.Duration(r.Int64N(int64(x.Every))))
			}
			before := slices.Clone(k.made)
			k.pass(t, x)
			taken := 0
			for _, m := range k.made {
				if strings.HasPrefix(m, ScheduledPrefix) && !slices.Contains(before, m) {
					order, taken = append(order, m), taken+1
				}
			}
			left := k.have().Of["data"].Made
			if want := order[max(0, len(order)-x.Keep):]; !slices.Equal(left, want) || taken > 1 {
				t.Fatalf("seed %d at %s: %d taken, left %v, want %v", seed, k.now, taken, left, want)
			}
			if last, _ := scheduledAt(left[len(left)-1]); k.now.Sub(last).Abs() > 2*x.Every+2*time.Second {
				t.Fatalf("seed %d: at %s, every %s, the last is of %s", seed, k.now, x.Every, last)
			}
		}
		if got := len(k.made) - len(k.have().Of["data"].Made); got != persons {
			t.Fatalf("seed %d: %d of a person's %d snapshots are left", seed, got, persons)
		}
	}
}

// What an unopened pool has is not seen, and is not nothing.
func TestScheduleOfALUNOutOfService(t *testing.T) {
	want := Schedules{Of: map[string]Schedule{"data": {Every: time.Hour, Keep: 2}}}
	have := Schedules{Of: map[string]Schedule{"logs": {}}, Now: at("26 10:30:00")}
	got := fmt.Sprint(DiffSchedules(want, have))
	if got != "[# LUN data: a snapshot every 1h, 2 of them kept]" || len(have.Under(want).Describe()) != 0 {
		t.Error(got)
	}
}

func TestScheduleDescribes(t *testing.T) {
	now := at("26 18:31:00")
	want := Schedules{Of: map[string]Schedule{"data": {Every: time.Hour, Keep: 1, Held: []string{"auto-20261126T170000Z", "monday"}}}}
	have := Schedules{Now: now, Of: map[string]Schedule{
		"data": {Made: []string{"auto-20261126T170000Z", "auto-20261126T180000Z"}}, "logs": {Made: []string{"auto-20261126T180000Z"}},
	}}
	if got := want.Describe()["schedule/data"]; got != "every 1h, keep 1" {
		t.Error(got)
	}
	seen := have.Under(want).Describe()
	const line = "2 of 1 kept, last 2026-11-26T18:00:00Z, next 2026-11-26T19:00:00Z, a target serves auto-20261126T170000Z"
	if seen["schedule/data"] != line || len(seen) != 1 {
		t.Errorf("%q, want %q alone", seen, line)
	}
	if got := want.Next(now); !got.Equal(at("26 19:00:00")) {
		t.Error(got)
	}
	for d, text := range map[time.Duration]string{time.Hour: "1h", 90 * time.Minute: "1h30m", 10 * time.Second: "10s", time.Minute: "1m", 3610 * time.Second: "1h0m10s"} {
		if got := durationText(d); got != text {
			t.Errorf("%s is %q", d, got)
		}
	}
}

// TestScheduleSpares: what a schedule on trial may delete, though the former one does not.
func TestScheduleSpares(t *testing.T) {
	of := func(every time.Duration, keep int, held ...string) Schedules {
		return Schedules{Of: map[string]Schedule{"data": {Every: every, Keep: keep, Held: held}}}
	}
	none, made := Schedules{}, []string{"auto-20261101T000000Z", "auto-20261101T010000Z"}
	for _, x := range []struct {
		name       string
		is, former Schedules
		made       []string
		want       string // "" is that all stay
	}{
		{"the same", of(time.Hour, 24, made[0]), of(time.Hour, 24, made[0]), made, ""},
		{"more", of(2*time.Hour, 25), of(time.Hour, 24), made, ""},
		{"fewer", of(time.Hour, 2), of(time.Hour, 24), made, "LUN data: of 24 snapshots that stay 22 would be deleted"},
		{"sooner", of(time.Minute, 24), of(time.Hour, 24), made, "LUN data: a snapshot each 1m would soon replace those of each 1h"},
		{"none any more", none, of(time.Hour, 24), made, ""},
		{"the first", of(time.Hour, 1), none, nil, ""},
		{"after another one", of(time.Hour, 1), none, made, "LUN data: 2 snapshots of a schedule are left from before, and this one might delete them"},
		{"a target less", of(time.Hour, 24), of(time.Hour, 24, made[0]), made, "LUN data: its schedule might delete the snapshot auto-20261101T000000Z, which no target would serve"},
		{"a target of what is not there", of(time.Hour, 24), of(time.Hour, 24, "auto-20261101T090000Z"), made, ""},
	} {
		got := ""
		if err := x.is.Spares(x.former, map[string][]string{"data": x.made}); err != nil {
			got = err.Error()
		}
		if got != x.want {
			t.Errorf("%s: %q, want %q", x.name, got, x.want)
		}
	}
}
