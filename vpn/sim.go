package vpn

import (
	"context"
	"sync"
)

// Sim is a target of reconcile.Run that has tunnels in memory only. It is safe
// for concurrent use.
type Sim struct {
	mu    sync.Mutex
	state State
}

// NewSim is a Sim that has what have holds.
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
	step.apply(s.state.Tunnels)
	s.state.Reach = reached(s.state.Reach, step)
	s.state.Clamped = clamped(s.state.Clamped, step)
	s.state.Guards = guard(s.state.Guards, step)
	return nil
}
