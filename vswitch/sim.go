package vswitch

import (
	"context"
	"sync"
)

// Sim is a Driver whose switches are in memory only. It is safe for concurrent
// use.
type Sim struct {
	// Fault, when set, is asked before each step; its error is the step's. Set
	// it before the Sim is used by others.
	Fault func(Step) error

	mu      sync.Mutex
	state   State
	commits int
}

// NewSim is a Sim with the switches that have names.
func NewSim(have State) *Sim { return &Sim{state: have.Canonical()} }

// Observe is a copy of the state.
func (s *Sim) Observe(context.Context) (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Canonical(), nil
}

// Do carries out one step; a port or gateway of a switch that does not exist is
// an error, as in a kernel.
func (s *Sim) Do(_ context.Context, step Step) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Fault != nil {
		if err := s.Fault(step); err != nil {
			return err
		}
	}
	if r, ok := step.(Refuse); ok {
		return r.Err()
	}
	if err := s.standsOn(step); err != nil {
		return err
	}
	step.apply(s.state.Switches)
	return nil
}

// Commit counts.
func (s *Sim) Commit(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	return nil
}

// Commits is how often Commit was called.
func (s *Sim) Commits() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.commits
}

func (s *Sim) standsOn(step Step) error {
	var name string
	switch v := step.(type) {
	case AddPort:
		name = v.Switch
	case SetPort:
		name = v.Switch
	case AddGateway:
		name = v.Switch
	case SetGateway:
		name = v.Switch
	default:
		return nil
	}
	if _, ok := s.state.Switches[name]; !ok {
		return &NoSwitchError{name}
	}
	return nil
}
