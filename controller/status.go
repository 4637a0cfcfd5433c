package controller

import (
	"errors"
	"slices"
	"strings"
	"time"

	"ripstop/internal/reconcile"
)

// Condition is how an object stands.
type Condition string

// The conditions.
const (
	Ready   Condition = "ready"   // observed is as desired
	Pending Condition = "pending" // not tried yet
	Failed  Condition = "failed"  // tried, and Reason says why not; it is tried again
	Blocked Condition = "blocked" // something that it needs is missing
	Waiting Condition = "waiting" // observed is as desired, and somebody else has to do his part; Reason says who
)

// Object is one object and how it stands.
type Object struct {
	ID        string // kind/name, as in port/lab/web
	Condition Condition
	Since     time.Time // when the condition began
	Desired   string    // one line; empty when it is not wanted
	Observed  string    // one line; empty when it does not exist
	Reason    string    // why it is not ready
	Drifted   int       // how often it was changed by others and put right
}

// Kind is the first part of the ID.
func (o Object) Kind() string { kind, _, _ := strings.Cut(o.ID, "/"); return kind }

// Name is the ID without its kind.
func (o Object) Name() string { _, name, _ := strings.Cut(o.ID, "/"); return name }

// Status is every object at one moment. It is a copy.
type Status struct {
	Passes  int
	Objects []Object // in the order of the parts, sorted inside
	Errs    []string // what could not be observed or committed; belongs to no object
}

// Well tells whether this host has done everything and everything could be
// observed. An object that waits for others is well: no change here would help it.
func (s Status) Well() bool {
	return len(s.Errs) == 0 && !slices.ContainsFunc(s.Objects, Object.unwell)
}

// Waits tells whether an object waits for somebody else.
func (s Status) Waits() bool {
	return slices.ContainsFunc(s.Objects, func(o Object) bool { return o.Condition == Waiting })
}

func (o Object) unwell() bool { return o.Condition != Ready && o.Condition != Waiting }

// Unwell gives the objects that are neither ready nor waiting for others.
func (s Status) Unwell() []Object {
	var bad []Object
	for _, o := range s.Objects {
		if o.unwell() {
			bad = append(bad, o)
		}
	}
	return bad
}

// book turns the result of a pass into the status after it. Conditions that go
// on keep their Since; old gives those and the drift counts.
func book(old Status, r Result, problems []Problem, failed map[string]error, now time.Time) Status {
	s := Status{Passes: old.Passes + 1}
	before := map[string]Object{}
	for _, o := range old.Objects {
		before[o.ID] = o
	}
	for _, err := range r.errs {
		s.Errs = append(s.Errs, err.Error())
	}
	state := fates(r.Outcomes, failed)
	for _, v := range r.views {
		s.Objects = append(s.Objects, v.book(state)...)
	}
	for _, p := range problems {
		s.block(p)
	}
	for i, o := range s.Objects {
		was, known := before[o.ID]
		s.Objects[i].Drifted = was.Drifted
		s.Objects[i].Since = now
		if known && was.Condition == o.Condition {
			s.Objects[i].Since = was.Since
		}
	}
	return s
}

// book gives the objects of one view, sorted. What was taken away is gone.
func (v *view) book(state map[string]fate) []Object {
	var objects []Object
	for id := range v.objects() {
		o := Object{ID: id, Desired: v.desired[id], Observed: v.observed[id], Condition: Ready}
		f := state[id]
		_, wanted := v.desired[id]
		switch {
		case f.err != nil:
			o.Condition, o.Reason = Failed, f.err.Error()
		case f.done && !wanted:
			continue
		case f.done:
			o.Observed = o.Desired
		case wanted && v.waiting[id] != "":
			o.Condition, o.Reason = Waiting, v.waiting[id]
		case !wanted:
			o.Condition, o.Reason = Pending, "is not in the file and still there"
		}
		objects = append(objects, o)
	}
	slices.SortFunc(objects, func(a, b Object) int { return strings.Compare(a.ID, b.ID) })
	return objects
}

// block marks the object of a problem, or adds it when nothing of it is wanted.
func (s *Status) block(p Problem) {
	for i, o := range s.Objects {
		if o.ID == p.Object {
			s.Objects[i].Condition, s.Objects[i].Reason = Blocked, p.Err.Error()
			return
		}
	}
	s.Objects = append(s.Objects, Object{ID: p.Object, Condition: Blocked, Reason: p.Err.Error()})
}

// wantedAnew tells whether an object is wanted otherwise than it was before, and nobody has
// touched it.
func (r Result) wantedAnew(was Object) bool {
	for _, v := range r.views {
		if want, ok := v.desired[was.ID]; ok {
			return want != was.Desired && v.observed[was.ID] == was.Observed
		}
	}
	return false
}

// fate is what the steps of one object came to.
type fate struct {
	done bool
	err  error
}

// fates looks at the steps that there are: what failed before and has none left is
// well again, whatever its backoff.
func fates(outcomes []reconcile.Outcome, failed map[string]error) map[string]fate {
	f := map[string]fate{}
	for _, o := range outcomes {
		id := o.Step.Object()
		switch {
		case errors.Is(o.Err, reconcile.ErrWaits):
			f[id] = fate{err: failed[id]}
		case o.Err != nil:
			f[id] = fate{err: o.Err}
		case f[id].err == nil:
			f[id] = fate{done: true}
		}
	}
	return f
}
