package reconcile

import (
	"context"
	"errors"
	"fmt"
	"testing"
)

type step struct{ object, command string }

func (s step) String() string   { return s.command }
func (s step) Object() string   { return s.object }
func (s step) Removes() bool    { return false }
func (s step) Disturbs() string { return "" }

// world does every step but those in broken.
type world struct {
	broken map[string]error
	done   []string
	commit error
}

func (w *world) Observe(context.Context) (int, error) { return len(w.done), nil }

func (w *world) Do(_ context.Context, s step) error {
	if err := w.broken[s.command]; err != nil {
		return err
	}
	w.done = append(w.done, s.command)
	return nil
}

func (w *world) Commit(context.Context) error { return w.commit }

func TestRun(t *testing.T) {
	bad := errors.New("no such device")
	w := &world{broken: map[string]error{"b1": bad}}
	failed := map[string]error{"port/c": errors.New("in backoff")}
	steps := []step{{"port/a", "a1"}, {"port/b", "b1"}, {"port/b", "b2"}, {"port/c", "c1"}, {"port/a", "a2"}}
	out := Run(t.Context(), Target[int, step](w), steps, failed)
	want := []error{nil, bad, ErrWaits, ErrWaits, nil}
	for i, o := range out {
		if o.Step.String() != steps[i].command || !errors.Is(o.Err, want[i]) {
			t.Errorf("outcome %d is %s: %v, want %v", i, o.Step, o.Err, want[i])
		}
	}
	if got := fmt.Sprint(w.done); got != "[a1 a2]" {
		t.Errorf("done: %s", got)
	}
	if failed["port/b"] != bad || len(failed) != 2 {
		t.Errorf("failed: %v", failed)
	}
}

// closing is a step that follows others.
type closing struct {
	step
	after []string
}

func (c closing) After() []string { return c.after }

type anyWorld struct{ *world }

func (w anyWorld) Do(ctx context.Context, s Step) error {
	return w.world.Do(ctx, step{s.Object(), s.String()})
}

func TestClosing(t *testing.T) {
	w := &world{broken: map[string]error{"b1": errors.New("no such host")}}
	steps := []Step{step{"peer/b", "b1"}, closing{step{"tunnel/x", "x1"}, []string{"peer/a", "peer/b"}}, closing{step{"tunnel/y", "y1"}, []string{"peer/a"}}}
	out := Run[int, Step](t.Context(), anyWorld{w}, steps, map[string]error{})
	if !errors.Is(out[1].Err, ErrWaits) || out[2].Err != nil || fmt.Sprint(w.done) != "[y1]" {
		t.Errorf("outcomes %v, done %v", out, w.done)
	}
}

func TestRunStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := &world{}
	out := Run(ctx, Target[int, step](w), []step{{"port/a", "a1"}}, map[string]error{})
	if !errors.Is(out[0].Err, context.Canceled) || len(w.done) != 0 {
		t.Errorf("after cancel: %v, done %v", out[0].Err, w.done)
	}
}

func TestCommit(t *testing.T) {
	bad := errors.New("map is full")
	if err := Commit(t.Context(), &world{commit: bad}); !errors.Is(err, bad) || err.Error() != "commit: map is full" {
		t.Errorf("Commit = %v", err)
	}
	if err := Commit(t.Context(), &world{}); err != nil {
		t.Errorf("Commit = %v", err)
	}
	if err := Commit(t.Context(), struct{}{}); err != nil {
		t.Errorf("Commit of a target that gathers nothing = %v", err)
	}
}
