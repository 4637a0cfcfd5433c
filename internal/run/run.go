// Package run is the life of a process: tasks that run until their context is
// cancelled, started together, stopped together.
//
//	Group ─┬─ task ─ ready ─┐
//	       ├─ task ─ ready ─┼─► Ready (READY=1 to the service manager)
//	       └─ task ─ ready ─┘
//	         first error or cancel ─► all are cancelled ─► Wait
//
// # Caveats
//
// A task that panics takes the process down: recovering is the task's own
// matter, where it knows what a panic may leave half done.
package run

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Task is something that runs for the life of the process.
type Task struct {
	Name string
	// Run works until ctx is cancelled and then returns nil. It calls ready
	// once, as soon as others may rely on it.
	Run func(ctx context.Context, ready func()) error
}

// Group runs tasks until one fails or its context is cancelled.
type Group struct {
	cancel context.CancelFunc
	wait   sync.WaitGroup
	ready  []chan struct{}
	ended  chan struct{} // closed when every task has ended
	mu     sync.Mutex
	errs   []error
}

// Start starts the tasks under ctx.
func Start(ctx context.Context, tasks ...Task) *Group {
	ctx, cancel := context.WithCancel(ctx)
	g := &Group{cancel: cancel, ended: make(chan struct{})}
	for _, t := range tasks {
		ready := make(chan struct{})
		g.ready = append(g.ready, ready)
		g.wait.Add(1)
		go g.run(ctx, t, ready)
	}
	go func() { g.wait.Wait(); close(g.ended) }()
	return g
}

func (g *Group) run(ctx context.Context, t Task, ready chan struct{}) {
	defer g.wait.Done()
	err := t.Run(ctx, sync.OnceFunc(func() { close(ready) }))
	if err == nil && ctx.Err() == nil {
		err = errors.New("ended by itself")
	}
	if err != nil {
		g.mu.Lock()
		g.errs = append(g.errs, fmt.Errorf("%s: %w", t.Name, err))
		g.mu.Unlock()
	}
	// Whatever ends one task ends them all; after a cancel this changes nothing.
	g.cancel()
}

// Ready waits until every task is ready; false when ctx or a task ended first.
func (g *Group) Ready(ctx context.Context) bool {
	for _, r := range g.ready {
		select {
		case <-r:
		case <-g.ended:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// Ended is closed when every task has ended.
func (g *Group) Ended() <-chan struct{} { return g.ended }

// Wait waits for all tasks and joins their errors.
func (g *Group) Wait() error {
	<-g.ended
	g.cancel()
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(g.errs...)
}
