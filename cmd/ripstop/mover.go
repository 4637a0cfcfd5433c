package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"ripstop/controller"
	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/internal/run"
	"ripstop/lun"
)

// moveEvery is how often a move looks for what it waits for, such as a pool that is
// out of service.
const moveEvery = time.Second

var (
	errCancelled = errors.New("it was cancelled")
	errEnded     = errors.New("it was ended before")
	errNotYet    = errors.New("something it needs is out of service") // it waits, and does not fail
	errUnsure    = errors.New("nobody knows which record of it is on stable storage")
	errStops     = errors.New("the daemon stops: the move goes on when it runs again")
)

// movement is a move in this process, until its record is gone.
type movement struct {
	mark    string
	decided chan struct{} // closed when it is known where the LUN is
	err     error         // valid then: why it stays
	cancel  chan struct{} // closed to end it

	close, end sync.Once
}

func newMovement(mark string) *movement {
	return &movement{mark: mark, decided: make(chan struct{}), cancel: make(chan struct{})}
}

// decide says where the LUN is; the first word counts.
func (x *movement) decide(err error) {
	x.end.Do(func() {
		x.err = err
		close(x.decided)
	})
}

// movement is that of a LUN, made where there is none.
func (d *daemon) movement(name, mark string) *movement {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.moving[name] == nil {
		d.moving[name] = newMovement(mark)
	}
	return d.moving[name]
}

// moves carries out the moves that are recorded, those of an earlier process too.
//
//	copying ─► all is in both pools ─► done: the record says that the LUN is the copy
//	   │                                 └─► switch, in a pass ─► delete what is left ─► no record
//	   └── failed or cancelled ─► undoing ─► delete the copy ─► no record
func (d *daemon) moves() run.Task {
	return run.Task{Name: "moves of LUNs", Run: func(ctx context.Context, ready func()) error {
		ready()
		var group sync.WaitGroup
		defer func() {
			if err := within(diskWait, "moves of LUNs", func() error { group.Wait(); return nil }); err != nil {
				d.log.Warn("moves have not ended", "error", err)
			}
		}()
		busy := map[string]bool{}
		over := make(chan string)
		for {
			for name := range d.made().Moves {
				if !busy[name] {
					busy[name] = true
					group.Go(func() {
						d.carryOut(ctx, name)
						select {
						case over <- name:
						case <-ctx.Done():
						}
					})
				}
			}
			select {
			case <-ctx.Done():
				return nil
			case name := <-over:
				delete(busy, name)
			case <-d.moveWake:
			}
		}
	}}
}

// carryOut works on a move until its record is gone.
func (d *daemon) carryOut(ctx context.Context, name string) {
	x := d.movement(name, "")
	defer x.decide(errStops)
	told, cancel := "", x.cancel
	for {
		over, err := d.carryOn(ctx, name, x)
		if over || ctx.Err() != nil {
			return
		}
		if err != nil && err.Error() != told {
			told = err.Error()
			d.log.Warn("a move waits", "lun", name, "because", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(moveEvery):
		case <-cancel:
			cancel = nil // it has been heard
		}
	}
}

// carryOn does what is next. It is called again after a while unless all is over.
func (d *daemon) carryOn(ctx context.Context, name string, x *movement) (over bool, err error) {
	m, ok := d.made().Moves[name]
	if !ok {
		return true, nil
	}
	switch m.Phase {
	case beside.Copying:
		err = d.copyLUN(ctx, name, m, x)
		if ctx.Err() != nil || errors.Is(err, errNotYet) {
			return false, err
		}
		if err == nil {
			defer x.decide(nil)
			return d.finishMove(ctx, name)
		}
		d.log.Warn("a LUN stays in its pool", "lun", name, "pool", m.From, "not in", m.To, "because", err)
		defer x.decide(err)
		m.Phase = beside.Undoing
		d.change.Lock()
		err := d.save(d.made().WithMove(name, m))
		d.change.Unlock()
		if err != nil {
			return false, err
		}
		return d.undoMove(ctx, name, m)
	case beside.Undoing:
		defer x.decide(errEnded)
		return d.undoMove(ctx, name, m)
	}
	defer x.decide(nil)
	return d.finishMove(ctx, name)
}

// undoMove deletes the copy of a LUN that stays where it is.
func (d *daemon) undoMove(ctx context.Context, name string, m beside.Move) (over bool, err error) {
	over, err = d.drivers.lun.EndMove(context.WithoutCancel(ctx), name, m.To)
	if err != nil || !over {
		return false, err
	}
	err = d.forgetMove(name)
	return err == nil, err
}

// finishMove deletes what a LUN left in its former pool.
func (d *daemon) finishMove(ctx context.Context, name string) (over bool, err error) {
	over, err = d.drivers.lun.TidyMoved(context.WithoutCancel(ctx), name)
	if err != nil || !over {
		return false, err
	}
	err = d.forgetMove(name)
	return err == nil, err
}

// forgetMove takes away the record of a move that is over. The next one has another
// movement.
func (d *daemon) forgetMove(name string) error {
	d.change.Lock()
	defer d.change.Unlock()
	if err := d.save(d.made().WithoutMove(name)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.moving, name)
	return nil
}

// copyLUN copies a LUN and decides that it is the copy. An error means that it stays.
func (d *daemon) copyLUN(ctx context.Context, name string, m beside.Move, x *movement) error {
	select {
	case <-x.cancel:
		return errCancelled
	default:
	}
	_, err := d.drivers.lun.Volume(name)
	if err != nil || !d.drivers.lun.HasPool(m.To) {
		return fmt.Errorf("move LUN %s to pool %s: %w", name, m.To, errNotYet)
	}
	v, err := d.drivers.lun.BeginMove(ctx, name, m.To, m.Alone)
	if err != nil {
		return err
	}
	copying, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-x.cancel:
			stop(errCancelled)
		case <-copying.Done():
		}
	}()
	o, end := d.work.begin("move", name, x.mark, v.Size())
	defer end()
	for {
		if err := v.Run(copying, o.done.Store); err != nil {
			return fmt.Errorf("move LUN %s to pool %s: %w", name, m.To, err)
		}
		if err := d.carryKey(copying, name); err != nil {
			return fmt.Errorf("move LUN %s: %w", name, err)
		}
		err := d.commitMove(copying, name, v)
		if errors.Is(err, lun.ErrDiffers) {
			continue
		}
		if err = d.insist(ctx, name, v, err); err == nil {
			d.moved(ctx, name)
		}
		return err
	}
}

// carryKey copies the sealed key of a LUN, and waits for pools that are busy: what was
// copied is not given up for that.
func (d *daemon) carryKey(ctx context.Context, name string) error {
	for {
		err := d.drivers.lun.CarryKey(ctx, name)
		if !errors.Is(err, lun.ErrHangs) {
			return err
		}
		d.log.Warn("a move waits", "lun", name, "because", err)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(moveEvery):
		}
	}
}

// moved has a LUN be where it is recorded to be. Accesses that a disk which hangs keeps
// hold this up, and nothing else.
func (d *daemon) moved(ctx context.Context, name string) {
	d.drivers.lun.Moved(name)
	d.change.Lock()
	defer d.change.Unlock()
	d.apply(context.WithoutCancel(ctx), d.config(), d.made(), controller.Keep)
}

// commitMove makes the copy the LUN: from the record on, after any crash.
func (d *daemon) commitMove(ctx context.Context, name string, v *lun.Move) error {
	d.change.Lock()
	defer d.change.Unlock()
	if err := context.Cause(ctx); err != nil {
		return fmt.Errorf("move LUN %s: %w", name, err)
	}
	if err := d.serveNoSnapshots(ctx, name); err != nil {
		return fmt.Errorf("move LUN %s: %w", name, err)
	}
	if err := d.drivers.lun.CommitMove(ctx, name); err != nil {
		return fmt.Errorf("move LUN %s: %w", name, err)
	}
	return d.recordMoved(name, v)
}

// insist records until it is known what is recorded. That long both are the LUN.
func (d *daemon) insist(ctx context.Context, name string, v *lun.Move, err error) error {
	for errors.Is(err, errUnsure) {
		d.log.Error("a move cannot be recorded", "lun", name, "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(moveEvery):
		}
		d.change.Lock()
		err = d.recordMoved(name, v)
		d.change.Unlock()
	}
	return err
}

// recordMoved keeps that the LUN is the copy. The caller holds d.change.
func (d *daemon) recordMoved(name string, v *lun.Move) error {
	former := d.made()
	next := former.Moved(name, d.config(), v.ID())
	if err := d.save(next); err != nil {
		if back := d.save(former); back != nil {
			return fmt.Errorf("%w: %w", errUnsure, errors.Join(err, back))
		}
		v.Revoke()
		return fmt.Errorf("move LUN %s: %w", name, err)
	}
	d.drivers.lun.Decided(name)
	m := next.Moves[name]
	d.log.Info("LUN moved", "lun", name, "from", m.From, "pool", m.To)
	return nil
}

// stale says of which LUNs c does not know that they were moved.
func (d *daemon) stale(c *config.Config) []string {
	var out []string
	all := d.made().Stale(c)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		out = append(out, fmt.Sprintf("LUN %s: its data are in pool %s, into which it was moved, and the file says pool %s: write `pool: %s`", name, all[name].Is, all[name].Said, all[name].Is))
	}
	return out
}
