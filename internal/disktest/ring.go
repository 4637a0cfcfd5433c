package disktest

import (
	"context"
	"errors"
	"testing"

	"ripstop/internal/uring"
)

// Ring is a ring that serves until everything that the test made after it is
// closed.
func Ring(t testing.TB, depth int) *uring.Ring {
	t.Helper()
	r, err := uring.New(depth)
	must(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- r.Serve(ctx, func() { close(ready) }) }()
	<-ready
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, r.Close()); err != nil {
			t.Errorf("ring: %v", err)
		}
	})
	return r
}
