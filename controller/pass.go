package controller

import (
	"context"
	"errors"
	"slices"

	"ripstop/internal/reconcile"
)

// Result is what one pass found and did.
type Result struct {
	Outcomes []reconcile.Outcome
	views    []*view
	errs     []error // of observing and committing; they belong to no object
}

// Err joins everything that went wrong in the pass.
func (r Result) Err() error {
	errs := slices.Clone(r.errs)
	for _, o := range r.Outcomes {
		if o.Err != nil && !errors.Is(o.Err, reconcile.ErrWaits) {
			errs = append(errs, o.Err)
		}
	}
	return errors.Join(errs...)
}

// target is what one pass is to come to.
type target struct {
	desired  Desired
	problems []Problem
}

// look observes every part. A part that cannot be observed is left out: without
// knowing what there is, nothing of it is changed. What could not be resolved
// is not desired, but if it runs, it goes on.
func look(ctx context.Context, parts []Part, t target) Result {
	blocked := map[string]bool{}
	for _, p := range t.problems {
		blocked[p.Object] = true
	}
	var r Result
	for _, p := range parts {
		v, err := p.observe(ctx, t.desired)
		if err != nil {
			r.errs = append(r.errs, err)
			continue
		}
		v.steps = slices.DeleteFunc(v.steps, func(s reconcile.Step) bool { return s.Removes() && blocked[s.Object()] })
		r.views = append(r.views, v)
	}
	return r
}

// plan is the steps of all parts in the order in which pass does them.
func (r Result) plan() []reconcile.Step {
	var steps, removals []reconcile.Step
	for _, v := range r.views {
		up, down := v.split()
		steps = append(steps, up...)
		removals = slices.Concat(down, removals)
	}
	return append(steps, removals...)
}

// pass is the whole flow, once: observe, compare, do, commit. Objects in failed
// are left alone, and those that fail join it.
func pass(ctx context.Context, parts []Part, t target, failed map[string]error) Result {
	r := look(ctx, parts, t)
	down := make([][]reconcile.Step, len(r.views))
	for i, v := range r.views {
		var up []reconcile.Step
		up, down[i] = v.split()
		r.Outcomes = append(r.Outcomes, v.run(ctx, up, failed)...)
		// What a later part builds on must stand before the later part's steps run.
		r.commit(ctx, parts, v.part)
	}
	for i, v := range slices.Backward(r.views) {
		if len(down[i]) == 0 {
			continue
		}
		r.Outcomes = append(r.Outcomes, v.run(ctx, down[i], failed)...)
		r.commit(ctx, parts, v.part)
	}
	return r
}

func (r *Result) commit(ctx context.Context, parts []Part, name string) {
	for _, p := range parts {
		if p.name != name {
			continue
		}
		if err := p.commit(ctx); err != nil {
			r.errs = append(r.errs, err)
		}
	}
}
