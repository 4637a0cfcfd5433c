// Package controller is the one place where the whole flow is visible: a file
// becomes what is desired, every subsystem is observed, the difference is a
// plan, the plan is done, and what came of it is the status.
//
//	config ─► Resolve ─► Desired ─┐
//	                              ├─► Diff ─► plan ─► pass ─► Status
//	parts ─► observe ─► view ─────┘                    │
//	  ▲                                                ▼
//	  └──── wake (events, timers, apply) ◄── the next pass observes anew
//
// Events never carry data: they wake the loop, and the loop looks at the world.
// So start, change, drift and repair are the same few lines.
//
// # Caveats
//
// Passes are strictly one after another; Apply and Plan wait for a pass that
// runs.
package controller

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"ripstop/internal/reconcile"
)

const (
	// resync is how long the world goes unobserved when nothing wakes the loop.
	resync = 30 * time.Second
	// gather is how long the loop lets events pile up before it looks.
	gather = 50 * time.Millisecond
	// rest is how many times its own length a pass is followed by quiet before
	// events lead to the next one, restMax at most: whoever changes an interface
	// of its own without end has a tenth of a processor and not all of it.
	rest    = 9
	restMax = 5 * time.Second
	// heal is how long until what a problem blocks is looked at again.
	heal = 5 * time.Second
	// settle is how many passes a change may take until a pass finds nothing
	// to do: one does it, one verifies, and moves between objects take one more.
	settle = 5
)

// Controller keeps a host as its file says.
type Controller struct {
	log   *slog.Logger
	parts []Part
	wake  <-chan struct{}

	pass    sync.Mutex // held for the length of a pass; guards what follows
	source  Source
	blocked bool    // whether the last resolution left problems
	desired Desired // as it was resolved last
	back    backoff

	mu     sync.Mutex // guards status alone, so that reading it never waits for a pass
	status Status
}

// Source is a configuration, resolved anew for each pass: a secret file that
// appears heals what waited for it.
type Source func() (Desired, []Problem)

// Nothing desires nothing: with it, Apply takes everything down.
func Nothing() (Desired, []Problem) { return Desired{}, nil }

// New makes a controller of parts in the order in which they build on each
// other. Each receive from wake makes it look at the world.
func New(log *slog.Logger, wake <-chan struct{}, parts ...Part) *Controller {
	return &Controller{log: log, parts: parts, wake: wake, source: Nothing, back: backoff{}}
}

// Status is every object as of the last pass.
func (c *Controller) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.status
	s.Objects = slices.Clone(s.Objects)
	s.Errs = slices.Clone(s.Errs)
	return s
}

// Run keeps the world as desired until ctx is cancelled.
func (c *Controller) Run(ctx context.Context) error {
	timer := time.NewTimer(resync)
	defer timer.Stop()
	var rested time.Time
	for {
		timer.Reset(c.due())
		woken := false
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		case <-c.wake:
			woken = true
			if !pause(ctx, max(gather, time.Until(rested))) {
				return nil
			}
		}
		c.pass.Lock()
		began := time.Now()
		if woken {
			c.back.hasten()
		}
		if ctx.Err() == nil {
			c.converge(ctx, false)
		}
		rested = time.Now().Add(min(rest*time.Since(began), restMax))
		c.pass.Unlock()
	}
}

// due is how long to wait for the next pass when nothing wakes it.
func (c *Controller) due() time.Duration {
	c.pass.Lock()
	defer c.pass.Unlock()
	longest := resync
	if c.blocked {
		longest = heal
	}
	if first, ok := c.back.next(); ok {
		longest = min(max(time.Until(first), 0), longest)
	}
	if first := c.desired.due(time.Now()); !first.IsZero() {
		longest = min(time.Until(first), longest)
	}
	return longest
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Plan tells what Apply would do for source, and does nothing.
func (c *Controller) Plan(ctx context.Context, source Source) ([]reconcile.Step, []Problem, error) {
	c.pass.Lock()
	defer c.pass.Unlock()
	desired, problems := source()
	r := look(ctx, c.parts, target{desired, problems})
	return r.plan(), problems, errors.Join(r.errs...)
}

// Report is what Apply did.
type Report struct {
	Outcomes   []reconcile.Outcome
	Status     Status // after it; after going back, when it went back
	RolledBack bool
	Unwell     []Object // what did not become ready, before going back
	// Left is what the last look at the world found to differ still from what is
	// desired now. After going back it is the proof: nothing, where Status has no Errs.
	Left []reconcile.Step
}

// Mode says what Apply does about objects that do not become ready.
type Mode int

// The modes.
const (
	Keep   Mode = iota // leave them to be tried again
	GoBack             // put the former configuration back
)

// Apply makes what source gives the desired state and carries it out. With
// GoBack, a source with problems that did not exist before is refused and
// nothing is touched; and when an object fails that did not fail before, the
// former source is put back.
func (c *Controller) Apply(ctx context.Context, source Source, mode Mode) Report {
	c.pass.Lock()
	defer c.pass.Unlock()
	former, was := c.source, c.Status()
	if mode == GoBack {
		if bad := blockers(was, source); len(bad) > 0 {
			return Report{Status: was, RolledBack: true, Unwell: bad}
		}
	}
	c.source, c.back = source, backoff{}
	var rep Report
	rep.Outcomes, rep.Left = c.converge(ctx, true)
	rep.Status = c.Status()
	rep.Unwell = worse(was, rep.Status)
	if mode == GoBack && (len(rep.Unwell) > 0 || len(rep.Status.Errs) > len(was.Errs)) {
		c.source, c.back = former, backoff{}
		// Going back is not cut short by whoever asked for the change and went away.
		_, rep.Left = c.converge(context.WithoutCancel(ctx), true)
		rep.Status, rep.RolledBack = c.Status(), true
	}
	return rep
}

// blockers gives what source cannot resolve and what was not so before.
func blockers(was Status, source Source) []Object {
	var s Status
	_, problems := source()
	for _, p := range problems {
		s.block(p)
	}
	return worse(was, s)
}

// worse gives the objects that are unwell now and were not unwell for the same
// reason before.
func worse(before, now Status) []Object {
	was := map[string]string{}
	for _, o := range before.Unwell() {
		was[o.ID] = o.Reason
	}
	return slices.DeleteFunc(now.Unwell(), func(o Object) bool {
		reason, ok := was[o.ID]
		return ok && reason == o.Reason
	})
}

// converge passes until a pass changes nothing, which is also the proof that
// what was done is what is observed. Left is what that pass found to be done.
func (c *Controller) converge(ctx context.Context, asked bool) (all []reconcile.Outcome, left []reconcile.Step) {
	desired, problems := c.source()
	c.blocked, c.desired = len(problems) > 0, desired
	for range settle {
		now := time.Now()
		failed := c.back.waiting(now)
		known := len(failed)
		r := pass(ctx, c.parts, target{desired, problems}, failed)
		all, left = append(all, r.Outcomes...), r.plan()
		if ctx.Err() != nil {
			return all, left // what was cut short says nothing about the world
		}
		c.forget(r, failed)
		c.record(r, book(c.Status(), r, problems, failed, now), asked, now)
		if !changed(r.Outcomes) {
			return all, left
		}
		// A new failure may only have waited for what this pass did.
		if asked && len(failed) > known {
			c.back = backoff{}
		}
	}
	c.log.Warn("the world does not settle", "passes", settle, "last", last(all))
	return all, left
}

func changed(outcomes []reconcile.Outcome) bool {
	return slices.ContainsFunc(outcomes, func(o reconcile.Outcome) bool { return o.Err == nil })
}

func last(outcomes []reconcile.Outcome) string {
	if len(outcomes) == 0 {
		return ""
	}
	return outcomes[len(outcomes)-1].Step.String()
}

// record logs what a pass did, keeps what failed for later, and publishes the
// status after it.
func (c *Controller) record(r Result, s Status, asked bool, now time.Time) {
	before := map[string]Object{}
	for _, o := range c.Status().Objects {
		before[o.ID] = o
	}
	drifted := map[string]bool{}
	for _, o := range r.Outcomes {
		id := o.Step.Object()
		was, known := before[id]
		follows := c.follows(r, was, o.Step)
		drift := !asked && known && !was.unwell() && follows == "" && !routine(o.Step)
		switch {
		case errors.Is(o.Err, reconcile.ErrWaits):
			continue
		case o.Err != nil:
			// Drift is counted when it is seen, also if it is not put right at once.
			drifted[id] = drifted[id] || drift
			c.back.fail(id, o.Err, now)
			c.log.Error("step failed", "object", id, "step", oneLine(o.Step), "error", o.Err)
			continue
		case drift:
			drifted[id] = true
			c.log.Warn("drift put right", "object", id, "step", oneLine(o.Step))
		case !asked && follows != "":
			c.log.Info("step done", "object", id, "step", oneLine(o.Step), "why", "follows "+follows)
		default:
			c.log.Info("step done", "object", id, "step", oneLine(o.Step))
		}
		delete(c.back, id)
	}
	for _, err := range r.errs {
		c.log.Error("pass incomplete", "error", err)
	}
	for i, o := range s.Objects {
		if drifted[o.ID] {
			s.Objects[i].Drifted++
		}
	}
	c.mu.Lock()
	c.status = s
	c.mu.Unlock()
}

// forget drops the failures of objects of which nothing is left to be done: what
// was wrong has gone.
func (c *Controller) forget(r Result, failed map[string]error) {
	if len(r.views) < len(c.parts) {
		return // a part was not observed: what it holds is not known
	}
	alive := map[string]bool{}
	for _, v := range r.views {
		for _, s := range v.steps {
			alive[s.Object()] = true
		}
	}
	for id := range c.back {
		if !alive[id] {
			delete(c.back, id)
			delete(failed, id)
		}
	}
}

func routine(s reconcile.Step) bool { _, ok := s.(reconcile.Routine); return ok }

// follows is what has changed that an object is computed from, so that a step brings it
// after; "" when nothing has, or somebody has touched the object as well.
func (c *Controller) follows(r Result, was Object, s reconcile.Step) string {
	if f, ok := s.(reconcile.Follower); ok && f.Follows() != "" {
		return f.Follows()
	}
	if r.wantedAnew(was) {
		return cmp.Or(c.desired.Follows[was.ID], "what it is computed from")
	}
	return ""
}

func oneLine(s reconcile.Step) string { return strings.ReplaceAll(s.String(), "\n", " && ") }

// Error says what did not become ready, one object a line.
func (r Report) Error() error {
	if len(r.Unwell) == 0 && len(r.Status.Errs) == 0 {
		return nil
	}
	var errs []error
	for _, o := range r.Unwell {
		errs = append(errs, fmt.Errorf("%s: %s", o.ID, o.Reason))
	}
	for _, e := range r.Status.Errs {
		errs = append(errs, errors.New(e))
	}
	return errors.Join(errs...)
}
