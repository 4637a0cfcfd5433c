package vswitch

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Driver is one dataplane: it sees and changes the switches that it forwards for.
type Driver interface {
	// Observe is what ripstop made on this dataplane, canonical.
	Observe(ctx context.Context) (State, error)
	// Do carries out one step. A step that has been done already succeeds.
	Do(ctx context.Context, step Step) error
	// Commit writes what the steps of a pass have in common, once.
	Commit(ctx context.Context) error
}

// Mux is a Driver over several: each step goes to the dataplane of its switch.
type Mux struct {
	drivers map[Dataplane]Driver
}

// NewMux is a Mux over drivers.
func NewMux(drivers map[Dataplane]Driver) *Mux { return &Mux{drivers: maps.Clone(drivers)} }

// NoSwitchError says that a step names a switch that does not exist (yet): its
// AddSwitch failed, or somebody removed it meanwhile.
type NoSwitchError struct {
	Name string
}

// Error is what, why and what to do.
func (e *NoSwitchError) Error() string {
	return fmt.Sprintf("switch %q: it does not exist: it is made by the next pass", e.Name)
}

// Observe merges what all drivers see. A switch that two of them claim is an
// error: no step could be right for it.
func (m *Mux) Observe(ctx context.Context) (State, error) {
	all := State{Switches: map[string]Switch{}}
	for _, plane := range m.planes() {
		s, err := m.drivers[plane].Observe(ctx)
		if err != nil {
			return State{}, fmt.Errorf("observe dataplane %s: %w", plane, err)
		}
		for name, sw := range s.Switches {
			if other, ok := all.Switches[name]; ok {
				return State{}, fmt.Errorf("switch %q: it is on dataplane %s and on %s: remove one of them with ripstop stopped",
					name, other.Dataplane, sw.Dataplane)
			}
			all.Switches[name] = sw
		}
	}
	return all, nil
}

// Do hands the step to its switch's dataplane.
func (m *Mux) Do(ctx context.Context, step Step) error {
	d, ok := m.drivers[step.Engine()]
	if !ok {
		return fmt.Errorf("%s: dataplane %q is not available on this host: choose another, or auto", step.Object(), step.Engine())
	}
	return d.Do(ctx, step)
}

// Commit commits to every driver, whatever becomes of the others.
func (m *Mux) Commit(ctx context.Context) error {
	var errs []error
	for _, plane := range m.planes() {
		if err := m.drivers[plane].Commit(ctx); err != nil {
			errs = append(errs, fmt.Errorf("commit dataplane %s: %w", plane, err))
		}
	}
	return errors.Join(errs...)
}

// FDB merges the entries of all drivers that are Inspectors.
func (m *Mux) FDB(ctx context.Context) ([]FDBEntry, error) {
	var all []FDBEntry
	for _, plane := range m.planes() {
		i, ok := m.drivers[plane].(Inspector)
		if !ok {
			continue
		}
		list, err := i.FDB(ctx)
		if err != nil {
			return nil, fmt.Errorf("read the FDB of dataplane %s: %w", plane, err)
		}
		all = append(all, list...)
	}
	return all, nil
}

// Counters merges the counters of all drivers that are Inspectors.
func (m *Mux) Counters(ctx context.Context) (Counters, error) {
	var all Counters
	for _, plane := range m.planes() {
		i, ok := m.drivers[plane].(Inspector)
		if !ok {
			continue
		}
		c, err := i.Counters(ctx)
		if err != nil {
			return Counters{}, fmt.Errorf("read the counters of dataplane %s: %w", plane, err)
		}
		all.Ports, all.VLANs = append(all.Ports, c.Ports...), append(all.VLANs, c.VLANs...)
	}
	return all, nil
}

// Trace asks the dataplane that has the port.
func (m *Mux) Trace(ctx context.Context, port string, frame []byte) (Trace, error) {
	for _, plane := range m.planes() {
		d, ok := m.drivers[plane].(Tracer)
		if !ok {
			continue
		}
		t, err := d.Trace(ctx, port, frame)
		var missing *NoPortError
		if errors.As(err, &missing) {
			continue
		}
		return t, err
	}
	return Trace{}, &NoPortError{Name: port}
}

// LoopDetector is a Driver that sends probes to ports with loop detection.
type LoopDetector interface {
	// DetectLoops sends one round of them and tells whether, since the last call,
	// ports were shut or have opened again. A round each third of a second finds a
	// loop within a second.
	DetectLoops(ctx context.Context) (changed bool, err error)
}

// DetectLoops has every driver do it that can.
func (m *Mux) DetectLoops(ctx context.Context) (changed bool, err error) {
	var errs []error
	for _, plane := range m.planes() {
		d, ok := m.drivers[plane].(LoopDetector)
		if !ok {
			continue
		}
		other, err := d.DetectLoops(ctx)
		changed = changed || other
		errs = append(errs, err)
	}
	return changed, errors.Join(errs...)
}

func (m *Mux) planes() []Dataplane { return slices.Sorted(maps.Keys(m.drivers)) }
