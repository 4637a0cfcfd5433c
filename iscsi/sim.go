package iscsi

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Sim is a target of reconcile.Run that has targets in memory only. It is safe
// for concurrent use.
type Sim struct {
	mu    sync.Mutex
	state State
}

// NewSim is a Sim that serves what have holds.
func NewSim(have State) *Sim { return &Sim{state: have.Clone()} }

// Observe is a copy of the state.
func (s *Sim) Observe(context.Context) (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Clone(), nil
}

// Do carries out one step; it always succeeds.
func (s *Sim) Do(_ context.Context, step Step) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	step.apply(s.state.Targets)
	return nil
}

// Clone is a copy that shares nothing with s.
func (s State) Clone() State {
	c := State{Targets: make(map[string]Target, len(s.Targets))}
	for name, t := range s.Targets {
		c.Targets[name] = t.clone()
	}
	return c
}

func (t Target) clone() Target {
	c := Target{
		Portals:    slices.Clone(t.Portals),
		LUNs:       maps.Clone(t.LUNs),
		Initiators: make(map[string]Initiator, len(t.Initiators)),
	}
	for name, i := range t.Initiators {
		c.Initiators[name] = i.clone()
	}
	if t.Any != nil {
		i := t.Any.clone()
		c.Any = &i
	}
	return c
}

func (i Initiator) clone() Initiator {
	return Initiator{
		CHAP: i.CHAP.clone(), Mutual: i.Mutual.clone(), LUNs: slices.Clone(i.LUNs),
		Places: slices.Clone(i.Places), Addresses: slices.Clone(i.Addresses), // of values that never change
	}
}

func (c *CHAP) clone() *CHAP {
	if c == nil {
		return nil
	}
	d := *c
	return &d
}
