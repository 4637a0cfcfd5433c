package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ripstop/lun"
)

// album is the snapshots of one LUN in memory; full is what making one says.
type album struct {
	mu    sync.Mutex
	made  []string
	full  error
	tries int
}

func (a *album) Observe(context.Context) (lun.Schedules, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return lun.Schedules{Now: time.Now(), Of: map[string]lun.Schedule{"data": {Made: slices.Clone(a.made)}, "other": {Made: []string{"auto-20000101T000000Z"}}}}, nil
}

func (a *album) Do(_ context.Context, step lun.ScheduleStep) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch s := step.(type) {
	case lun.TakeSnapshot:
		a.tries++
		if a.full != nil {
			return a.full
		}
		a.made = append(a.made, s.Name)
	case lun.DropSnapshot:
		a.made = slices.DeleteFunc(a.made, func(m string) bool { return m == s.Name })
	}
	return nil
}

func (a *album) set(full error) (made []string, tries int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.full, tries, a.tries = full, a.tries, 0
	return slices.Clone(a.made), tries
}

// TestSchedulesRunByTheClock: nothing but time makes the snapshots, each at its
// hour; one that fails is a condition, is tried again with backoff, and is no drift.
func TestSchedulesRunByTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // whose clock begins at 2000-01-01 00:00 UTC
		a := &album{}
		w := newWorld()
		c := w.controller()
		c.parts = append(c.parts, Bind(Subsystem[lun.Schedules, lun.ScheduleStep]{
			Name: "snapshots", Pick: func(d Desired) lun.Schedules { return d.Schedules },
			Diff: lun.DiffSchedules, Describe: lun.Schedules.Describe, Fit: lun.Schedules.Under,
		}, a))
		source := func() (Desired, []Problem) {
			return Desired{Schedules: lun.Schedules{Of: map[string]lun.Schedule{"data": {Every: time.Hour, Keep: 3}}}}, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		time.Sleep(10 * time.Minute)
		if rep := c.Apply(ctx, source, GoBack); rep.Error() != nil || len(rep.Outcomes) != 1 {
			t.Fatalf("apply: %v, %v", rep.Outcomes, rep.Error())
		}
		go c.Run(ctx)

		time.Sleep(3*time.Hour - 9*time.Minute) // to 03:01
		synctest.Wait()
		made, _ := a.set(errors.New("disk on fire"))
		if got, want := strings.Join(made, " "), "auto-20000101T010000Z auto-20000101T020000Z auto-20000101T030000Z"; got != want {
			t.Errorf("at 03:01: %s, want %s", got, want)
		}
		o := c.Status().Objects[0]
		if want := "3 of 3 kept, last 2000-01-01T03:00:00Z, next 2000-01-01T04:00:00Z"; o.ID != "schedule/data" || o.Observed != want || o.Condition != Ready {
			t.Errorf("status: %+v, want %s", o, want)
		}

		time.Sleep(time.Hour) // to 04:01, with a minute of failures
		synctest.Wait()
		o = c.Status().Objects[0]
		if made, tries := a.set(nil); len(made) != 3 || tries < 5 || tries > 8 || o.Condition != Failed || o.Reason != "disk on fire" {
			t.Errorf("while it fails: %d made, %d tries, %+v", len(made), tries, o)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		o = c.Status().Objects[0]
		made, _ = a.set(nil)
		if last := made[len(made)-1]; len(made) != 3 || !strings.HasPrefix(last, "auto-20000101T0401") && !strings.HasPrefix(last, "auto-20000101T0402") {
			t.Errorf("after it healed: %v", made)
		}
		if o.Condition != Ready || o.Drifted != 0 {
			t.Errorf("after it healed: %+v", o)
		}

		if rep := c.Apply(ctx, Nothing, Keep); len(rep.Status.Objects) != 0 {
			t.Errorf("without the schedule: %v", rep.Status.Objects)
		}
		if left, _ := a.set(nil); fmt.Sprint(left) != fmt.Sprint(made) {
			t.Errorf("a schedule that goes leaves %v of %v", left, made)
		}
		cancel()
		synctest.Wait()
	})
}

// TestHasten retries what waits long a moment after something happened, and not
// more often than that.
func TestHasten(t *testing.T) {
	b, now := backoff{}, time.Now()
	for range 5 {
		b.fail("port/lab/up", errors.New("no interface"), now)
	}
	if first, _ := b.next(); first.Sub(now) != 16*backoffMin {
		t.Fatalf("after five failures it waits %v", first.Sub(now))
	}
	b.hasten()
	if first, _ := b.next(); first.Sub(now) != backoffMin {
		t.Errorf("after an event it waits %v, want %v", first.Sub(now), backoffMin)
	}
	b.fail("port/lab/up", errors.New("no interface"), now)
	if first, _ := b.next(); first.Sub(now) != 32*backoffMin {
		t.Errorf("after a further failure it waits %v", first.Sub(now))
	}
}
