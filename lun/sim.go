package lun

import (
	"context"
	"fmt"
	"maps"
	"sync"
)

// Sim is a target of reconcile.Run that has pools and LUNs in memory only. It
// refuses what an engine refuses: a LUN without its pool, a pool that closes
// under its LUNs, and whatever Refuse says. It is safe for concurrent use.
type Sim struct {
	mu    sync.Mutex
	state State
}

// NewSim is a Sim that has in service what have holds.
func NewSim(have State) *Sim { return &Sim{state: have.Clone()} }

// Observe is a copy of the state.
func (s *Sim) Observe(context.Context) (State, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Clone(), nil
}

// Do carries out one step.
func (s *Sim) Do(_ context.Context, step Step) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return step.apply(&s.state)
}

// Clone is a copy that shares nothing with s.
func (s State) Clone() State {
	c := State{Pools: map[string]Pool{}, LUNs: map[string]LUN{}}
	maps.Copy(c.Pools, s.Pools)
	maps.Copy(c.LUNs, s.LUNs)
	return c
}

func (s OpenPool) apply(st *State) error {
	st.Pools[s.Name] = s.Pool
	return nil
}

func (s SetPool) apply(st *State) error {
	st.Pools[s.Name] = s.To
	return nil
}

func (s ClosePool) apply(st *State) error {
	for name, l := range st.LUNs {
		if l.Pool == s.Name || l.Mirror == s.Name && l.Away != s.Name {
			return fmt.Errorf("close pool %s: LUN %s is in service in it", s.Name, name)
		}
	}
	delete(st.Pools, s.Name)
	return nil
}

func (s OpenLUN) apply(st *State) error {
	_, ok := st.Pools[s.LUN.Pool]
	if _, other := st.Pools[s.LUN.Mirror]; !ok && !other {
		return fmt.Errorf("open LUN %s: pool %s is not in service", s.Name, s.LUN.Pool)
	}
	st.LUNs[s.Name] = s.LUN
	return nil
}

func (s GrowLUN) apply(st *State) error {
	l, ok := st.LUNs[s.Name]
	if !ok {
		return fmt.Errorf("grow LUN %s: it is not in service", s.Name)
	}
	l.Size = s.To
	st.LUNs[s.Name] = l
	return nil
}

func (s ReserveLUN) apply(st *State) error {
	l, ok := st.LUNs[s.Name]
	if !ok {
		return fmt.Errorf("reserve room for LUN %s: it is not in service", s.Name)
	}
	l.Thick = s.Thick
	st.LUNs[s.Name] = l
	return nil
}

func (s SwitchLUN) apply(st *State) error {
	l, ok := st.LUNs[s.Name]
	if !ok || l.Ready != s.To {
		return fmt.Errorf("switch LUN %s: it is not ready in pool %s", s.Name, s.To)
	}
	l.Pool, l.Ready = s.To, ""
	st.LUNs[s.Name] = l
	return nil
}

func (s CloseLUN) apply(st *State) error {
	delete(st.LUNs, s.Name)
	return nil
}

func (s Refuse) apply(*State) error { return s.Err() }
