// Package reconcile is the machinery under every subsystem: a wanted state, an
// observed state of the same type, a pure difference between them, and a target
// that carries the difference out.
//
//	want ─┐
//	      ├─► diff ─► steps ─► Target.Do ─► outcomes
//	have ─┘                        │
//	  ▲                            ▼
//	  └────── Target.Observe ◄── the world
//
// It knows nothing of networks or disks.
//
// # Caveats
//
// Run never retries: after a failed step the rest of that object's steps are
// left for the next pass, which observes anew. Backoff belongs to the caller.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Step is one change of the world, small enough to fail alone.
type Step interface {
	// String is the change as the command that an operator would type,
	// one command a line.
	String() string
	// Object names what the step changes as "kind/name", for example
	// "port/lab/web". After a failed step, later steps of the same object wait.
	Object() string
	// Removes tells whether the step takes something away. Removals of all
	// subsystems run before additions, in the reverse order of subsystems.
	Removes() bool
	// Disturbs says what traffic or I/O the step interrupts, empty when none.
	Disturbs() string
}

// Routine is a Step that time makes due. That there is one says nothing of a
// change by somebody else.
type Routine interface {
	Step
	Routine()
}

// Follower is a Step that may come of a change of what its object is computed from: then
// Follows says of what, and that there is one says nothing of a change by somebody else.
type Follower interface {
	Step
	Follows() string
}

// Closing is a Step that comes after everything, what takes things away as well, and
// waits while it has failed at one of some objects.
type Closing interface {
	Step
	After() []string
}

// Target is the world of one subsystem: a kernel, a store, or a simulation.
type Target[S any, A Step] interface {
	// Observe reads the whole state; it changes nothing.
	Observe(ctx context.Context) (S, error)
	// Do carries out one step. It is idempotent: a step that has been done
	// already succeeds.
	Do(ctx context.Context, step A) error
}

// Committer is a Target that gathers what its steps have in common (flood
// lists, reloads) and writes it once, after the last step of a pass. A commit
// error belongs to no object.
type Committer interface {
	Commit(ctx context.Context) error
}

// ErrWaits is the outcome of a step that was not tried because an earlier step
// of the same object failed, or one that it follows.
var ErrWaits = errors.New("waits for an earlier step that failed")

// Outcome is what became of one step.
type Outcome struct {
	Step Step
	Err  error // nil when done
}

// Run carries out steps in order and tells what became of each. Objects in
// failed are left alone, and an object joins failed with its first error.
func Run[S any, A Step](ctx context.Context, t Target[S, A], steps []A, failed map[string]error) []Outcome {
	out := make([]Outcome, 0, len(steps))
	for _, s := range steps {
		if waits(s, failed) {
			out = append(out, Outcome{s, ErrWaits})
			continue
		}
		err := ctx.Err()
		if err == nil {
			err = t.Do(ctx, s)
		}
		if err != nil {
			failed[s.Object()] = err
		}
		out = append(out, Outcome{s, err})
	}
	return out
}

// waits tells whether a step has to wait for one that failed.
func waits(s Step, failed map[string]error) bool {
	objects := []string{s.Object()}
	if c, ok := s.(Closing); ok {
		objects = append(objects, c.After()...)
	}
	return slices.ContainsFunc(objects, func(o string) bool { _, ok := failed[o]; return ok })
}

// Commit writes what the target gathered, when it gathers.
func Commit(ctx context.Context, target any) error {
	c, ok := target.(Committer)
	if !ok {
		return nil
	}
	if err := c.Commit(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}
