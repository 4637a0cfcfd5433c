package controller

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"ripstop/internal/reconcile"
)

// Part is one subsystem with its types closed over: how its state is seen, what
// the difference is, and who carries steps out.
type Part struct {
	name    string
	observe func(ctx context.Context, d Desired) (*view, error)
	commit  func(ctx context.Context) error
}

// view is what one pass knows of one part.
type view struct {
	part     string
	desired  map[string]string // object to its line
	observed map[string]string
	waiting  map[string]string // object to what it waits for
	steps    []reconcile.Step
	run      func(ctx context.Context, steps []reconcile.Step, failed map[string]error) []reconcile.Outcome
}

// Subsystem is what a subsystem's root offers the controller: a pure diff and a
// line for each object.
type Subsystem[S any, A reconcile.Step] struct {
	Name     string
	Pick     func(Desired) S
	Diff     func(want, have S) []A
	Describe func(S) map[string]string
	Fit      func(have, want S) S           // what of the observed concerns the wanted; nil is all
	Waiting  func(have S) map[string]string // what objects that are as desired wait for, by object; nil is nothing
}

// Bind joins a subsystem with the target that does its steps.
func Bind[S any, A reconcile.Step](s Subsystem[S, A], target reconcile.Target[S, A]) Part {
	observe := func(ctx context.Context, d Desired) (*view, error) {
		have, err := target.Observe(ctx)
		if err != nil {
			return nil, fmt.Errorf("observe %s: %w", s.Name, err)
		}
		want := s.Pick(d)
		if s.Fit != nil {
			have = s.Fit(have, want)
		}
		v := &view{part: s.Name, desired: s.Describe(want), observed: s.Describe(have)}
		if s.Waiting != nil {
			v.waiting = s.Waiting(have)
		}
		for _, step := range s.Diff(want, have) {
			v.steps = append(v.steps, step)
		}
		v.run = func(ctx context.Context, steps []reconcile.Step, failed map[string]error) []reconcile.Outcome {
			mine := make([]A, len(steps))
			for i, step := range steps {
				mine[i] = step.(A)
			}
			return reconcile.Run(ctx, target, mine, failed)
		}
		return v, nil
	}
	return Part{
		name:    s.Name,
		observe: observe,
		commit:  func(ctx context.Context) error { return reconcile.Commit(ctx, target) },
	}
}

// split parts a view's steps into those done on the way up, in the order of the
// parts, and the removals done on the way down, in reverse order: a LUN closes
// after its target has let go of it, a new gateway stands before a portal moves
// to it. A removal that makes room for a step of the same part (the same
// object, or the same name elsewhere, as a port that moves between switches)
// keeps its place. What closes comes last of all.
func (v *view) split() (up, down []reconcile.Step) {
	wanted := map[string]bool{}
	for _, s := range v.steps {
		if !s.Removes() {
			wanted[base(s.Object())] = true
		}
	}
	for _, s := range v.steps {
		_, closes := s.(reconcile.Closing)
		if closes || s.Removes() && !wanted[base(s.Object())] {
			down = append(down, s)
			continue
		}
		up = append(up, s)
	}
	return up, down
}

// base is the last part of an object's name: web of port/lab/web.
func base(object string) string {
	return object[strings.LastIndexByte(object, '/')+1:]
}

// objects lists every object of a view, wanted or there.
func (v *view) objects() map[string]bool {
	all := map[string]bool{}
	for o := range maps.Keys(v.desired) {
		all[o] = true
	}
	for o := range maps.Keys(v.observed) {
		all[o] = true
	}
	return all
}
