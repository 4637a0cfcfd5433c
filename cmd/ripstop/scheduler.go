package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"ripstop/lun"
)

// patience is how long a pass waits for a snapshot to be made or deleted, which
// takes milliseconds. A disk that hangs shall not hold up the repair of networks.
const patience = 5 * time.Second

// scheduler makes and deletes the snapshots that schedules ask for. It is a
// target of reconcile.Run.
type scheduler struct {
	lun  snapshotLUNs
	drop func(ctx context.Context, snapshot string) (lun.Deleted, error)

	mu      sync.Mutex
	waiting map[string]chan error // by LUN: what has not ended yet
}

// snapshotLUNs is what a scheduler needs of the engines.
type snapshotLUNs interface {
	Observe(ctx context.Context) (lun.State, error)
	Volume(name string) (lun.Volume, error)
	Snapshots() []lun.SnapshotStats
	Snapshot(ctx context.Context, name string, luns ...string) error
}

func newScheduler(d *drivers) *scheduler {
	return &scheduler{lun: d.lun, drop: d.deleteSnapshot, waiting: map[string]chan error{}}
}

// Observe is the scheduled snapshots of the LUNs in service.
func (s *scheduler) Observe(ctx context.Context) (lun.Schedules, error) {
	out := lun.Schedules{Of: map[string]lun.Schedule{}, Now: time.Now()}
	have, err := s.lun.Observe(ctx)
	if err != nil {
		return out, err
	}
	made := lun.Scheduled(s.lun.Snapshots())
	for name := range have.LUNs {
		out.Of[name] = lun.Schedule{Made: made[name]}
	}
	return out, nil
}

// Do carries out one step, or begins it and says that it takes long: then the
// next try waits for the same.
func (s *scheduler) Do(ctx context.Context, step lun.ScheduleStep) error {
	switch x := step.(type) {
	case lun.BeginSchedule:
		if _, err := s.lun.Volume(x.LUN); err != nil {
			return fmt.Errorf("%w: its own condition says why", err)
		}
		return nil
	case lun.TakeSnapshot:
		return s.patiently(ctx, x.LUN, lun.ErrExists, func(ctx context.Context) error { return s.lun.Snapshot(ctx, x.Name, x.LUN) })
	case lun.DropSnapshot:
		return s.patiently(ctx, x.LUN, lun.ErrUnknown, func(ctx context.Context) error {
			_, err := s.drop(ctx, x.LUN+"@"+x.Name)
			return err
		})
	}
	return fmt.Errorf("do %T: no such step of a schedule", step)
}

// patiently does something to a LUN. If what was done to it before has not ended
// yet, it tells what came of that instead: the next pass sees what is left to do.
// The error done says that it has been done already.
func (s *scheduler) patiently(ctx context.Context, name string, done error, do func(context.Context) error) error {
	s.mu.Lock()
	ended, before := s.waiting[name]
	if !before {
		ended = make(chan error, 1)
		s.waiting[name] = ended
		go func() { ended <- do(context.WithoutCancel(ctx)) }()
	}
	s.mu.Unlock()
	if before && len(ended) == 0 { // to wait for it once is enough
		return late(name)
	}
	select {
	case err := <-ended:
		s.mu.Lock()
		delete(s.waiting, name)
		s.mu.Unlock()
		if errors.Is(err, done) {
			return nil
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(patience):
		return late(name)
	}
}

func late(name string) error {
	return fmt.Errorf("LUN %s: its snapshot takes longer than %s: look at the disk of its pool; it goes on when that answers", name, patience)
}
