package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ripstop/lun"
)

// scheduler makes and deletes the snapshots that schedules ask for. It is a
// target of reconcile.Run.
type scheduler struct{ drivers *drivers }

// Observe is the scheduled snapshots of the LUNs in service.
func (s scheduler) Observe(ctx context.Context) (lun.Schedules, error) {
	out := lun.Schedules{Of: map[string]lun.Schedule{}, Now: time.Now()}
	have, err := s.drivers.lun.Observe(ctx)
	if err != nil {
		return out, err
	}
	made := lun.Scheduled(s.drivers.lun.Snapshots())
	for name := range have.LUNs {
		out.Of[name] = lun.Schedule{Made: made[name]}
	}
	return out, nil
}

// Do carries out one step.
func (s scheduler) Do(ctx context.Context, step lun.ScheduleStep) error {
	switch x := step.(type) {
	case lun.BeginSchedule:
		if _, err := s.drivers.lun.Volume(x.LUN); err != nil {
			return fmt.Errorf("%w: its own condition says why", err)
		}
		return nil
	case lun.TakeSnapshot:
		err := s.drivers.lun.Snapshot(ctx, x.Name, x.LUN)
		if errors.Is(err, lun.ErrExists) {
			return nil
		}
		return err
	case lun.DropSnapshot:
		_, err := s.drivers.deleteSnapshot(ctx, x.LUN+"@"+x.Name)
		if errors.Is(err, lun.ErrUnknown) {
			return nil
		}
		return err
	}
	return fmt.Errorf("do %T: no such step of a schedule", step)
}
