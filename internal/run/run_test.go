package run

import (
	"context"
	"errors"
	"testing"
)

func until(ctx context.Context, ready func()) error {
	ready()
	<-ctx.Done()
	return nil
}

func TestCancelEndsAll(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	g := Start(ctx, Task{"a", until}, Task{"b", until})
	if !g.Ready(ctx) {
		t.Fatal("not ready")
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Errorf("Wait after cancel = %v, want nil", err)
	}
}

func TestOneErrorEndsAll(t *testing.T) {
	bad := errors.New("bad")
	fail := func(context.Context, func()) error { return bad }
	g := Start(t.Context(), Task{"a", until}, Task{"b", fail})
	if g.Ready(t.Context()) {
		t.Error("ready although b failed")
	}
	if err := g.Wait(); !errors.Is(err, bad) || err.Error() != "b: bad" {
		t.Errorf("Wait = %v, want b: bad", err)
	}
}

func TestEndingAloneIsAnError(t *testing.T) {
	g := Start(t.Context(), Task{"a", func(context.Context, func()) error { return nil }})
	if err := g.Wait(); err == nil || err.Error() != "a: ended by itself" {
		t.Errorf("Wait = %v", err)
	}
}

func TestReadyGivesUpWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g := Start(t.Context(), Task{"a", func(ctx context.Context, _ func()) error { <-ctx.Done(); return nil }})
	if g.Ready(ctx) {
		t.Error("ready although the task never was")
	}
	g.cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
}
