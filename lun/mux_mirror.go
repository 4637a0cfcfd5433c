package lun

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// legSuffix is of a leg that has not the LUN's own name, and of the records of both.
const legSuffix = "~leg"

// ErrMirrored says that a LUN is in two pools.
var ErrMirrored = errors.New("the LUN is mirrored")

// Mirrors has a Mux keep mirrors. It is for before pools are opened.
func (m *Mux) Mirrors(o MirrorOptions) { m.options = o }

// mirrorOf is the mirror of a LUN in service, nil without one.
func (m *Mux) mirrorOf(name string) *Mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mirrors[name]
}

func (m *Mux) allMirrors() map[string]*Mirror {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.mirrors)
}

// freeOfMirror refuses what a mirrored LUN does not bear.
func (m *Mux) freeOfMirror(name string) error {
	if m.mirrorOf(name) == nil {
		return nil
	}
	return fmt.Errorf("LUN %s: %w: name one pool of it in the file, `pool:` instead of `pools:`, and do it then", name, ErrMirrored)
}

func (m *Mux) witnessOf(name string) (*witness, error) {
	if m.options.Load == nil {
		return nil, nil
	}
	b, err := m.options.Load(name)
	if err != nil {
		return nil, err
	}
	return decodeWitness(b)
}

// closeMirror takes a mirror out of service, and legs that are without one.
func (m *Mux) closeMirror(ctx context.Context, name string) error {
	if mir := m.mirrorOf(name); mir != nil {
		if err := mir.close(ctx); err != nil {
			return err
		}
	}
	var errs []error
	for _, n := range []string{name, name + legSuffix} {
		if e := m.ofLUN(n); e != nil {
			errs = append(errs, e.Do(ctx, CloseLUN{n}))
		}
	}
	m.mu.Lock()
	delete(m.mirrors, name)
	m.mu.Unlock()
	return errors.Join(errs...)
}

// growMirror makes the legs larger that are there, and then the LUN.
func (m *Mux) growMirror(ctx context.Context, mir *Mirror, s GrowLUN) error {
	v := mir.view.Load()
	for _, l := range v.in(written) {
		e := m.ofPool(l.pool)
		if e == nil {
			return fmt.Errorf("pool %s is not in service", l.pool)
		}
		if err := e.Do(ctx, GrowLUN{l.name(), s.From, s.To}); err != nil {
			return err
		}
	}
	mir.resize(s.To)
	return nil
}

// ofLegs has every leg that is there do a step.
func (m *Mux) ofLegs(ctx context.Context, mir *Mirror, step func(name string) Step) error {
	for _, l := range mir.view.Load().in(written) {
		if e := m.ofPool(l.pool); e != nil {
			if err := e.Do(ctx, step(l.name())); err != nil {
				return fmt.Errorf("its leg in pool %s: %w", l.pool, err)
			}
		}
	}
	return nil
}

// doMirror carries out a step of a mirror; ok is false for any other.
func (m *Mux) doMirror(ctx context.Context, step Step) (ok bool, err error) {
	switch s := step.(type) {
	case OpenLUN:
		is, err := m.mirrored(ctx, s)
		if err == nil && is {
			err = m.openMirror(ctx, s)
		}
		return is, wrapStep("open LUN "+s.Name, err)
	case GrowLUN:
		if mir := m.mirrorOf(s.Name); mir != nil {
			return true, wrapStep("grow LUN "+s.Name, m.growMirror(ctx, mir, s))
		}
	case ReserveLUN:
		if mir := m.mirrorOf(s.Name); mir != nil {
			return true, wrapStep("reserve room for LUN "+s.Name, m.ofLegs(ctx, mir, func(name string) Step { return ReserveLUN{name, s.Size, s.Thick} }))
		}
	case CloseLUN:
		if m.mirrorOf(s.Name) != nil || m.ofLUN(s.Name+legSuffix) != nil {
			return true, wrapStep("close LUN "+s.Name, m.closeMirror(ctx, s.Name))
		}
	case AddLeg:
		return true, wrapStep("mirror LUN "+s.Name+" in pool "+s.Pool, m.addLeg(ctx, s))
	case DropLeg:
		return true, wrapStep("have LUN "+s.Name+" leave pool "+s.Pool, m.dropLeg(ctx, s))
	case ReturnLeg:
		if mir := m.mirrorOf(s.Name); mir != nil {
			return true, wrapStep("LUN "+s.Name, m.returnLeg(ctx, mir, s.Pool))
		}
		return true, fmt.Errorf("LUN %s, leg in pool %s: %w", s.Name, s.Pool, errNoMirror)
	case OrderLegs:
		if mir := m.mirrorOf(s.Name); mir != nil {
			return true, wrapStep("read LUN "+s.Name+" from pool "+s.First, mir.order(s.First))
		}
		return true, nil
	}
	return false, nil
}

func wrapStep(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

// seenMirrors puts one LUN in the place of the legs of each mirror.
func (m *Mux) seenMirrors(all State) {
	for name, mir := range m.allMirrors() {
		legs := map[string]LUN{}
		for _, n := range []string{name, name + legSuffix} {
			if l, ok := all.LUNs[n]; ok {
				legs[l.Pool] = l
				delete(all.LUNs, n)
			}
		}
		i := mir.Info()
		out := LUN{Size: i.Size, Block: i.BlockSize, Thick: true}
		for k, s := range mir.stats() {
			l := legs[s.Pool]
			if k == 0 {
				out.Pool = s.Pool
			} else {
				out.Mirror = s.Pool
			}
			switch s.State {
			case LegAway:
				out.Away, out.Why = s.Pool, s.Reason
			case LegSyncing:
				out.Syncing = s.Pool
				out.Thick = out.Thick && l.Thick
			default:
				out.Thick = out.Thick && l.Thick
				if i.ReadOnly {
					out.Fault = l.Fault
				}
			}
		}
		all.LUNs[name] = out
	}
}

// mirrorStats puts one LUN in the place of the legs of each mirror.
func (m *Mux) mirrorStats(all []LUNStats) []LUNStats {
	for name, mir := range m.allMirrors() {
		legs := map[string]LUNStats{}
		all = slices.DeleteFunc(all, func(l LUNStats) bool {
			mine := l.Name == name || l.Name == name+legSuffix
			if mine {
				legs[l.Pool] = l
			}
			return mine
		})
		stats := mir.stats()
		if len(stats) == 0 {
			continue
		}
		out := legs[stats[0].Pool]
		for i := range stats {
			l := legs[stats[i].Pool]
			stats[i].Used = l.Used
			if stats[i].State == LegInSync && out.Used == 0 {
				out = l
			}
		}
		out.Info, out.Pool, out.Legs = mir.Info(), stats[0].Pool, stats
		if !out.ReadOnly {
			out.Fault = ""
		}
		all = append(all, out)
	}
	return all
}

// retainedMirrors has a LUN of which there is only the leg that has not its name go by
// that, and hides legs of LUNs in service.
func (m *Mux) retainedMirrors(all []LUNStats) []LUNStats {
	mirrors := m.allMirrors()
	own := map[string]bool{}
	for _, l := range all {
		own[l.Name] = true
	}
	return slices.DeleteFunc(all, func(l LUNStats) bool {
		of, is := strings.CutSuffix(l.Name, legSuffix)
		return mirrors[of] != nil || is && own[of]
	})
}

// Home is the pools of a mirrored LUN in service, first one that has everything.
func (m *Mux) Home(name string) []string {
	mir := m.mirrorOf(name)
	if mir == nil {
		return nil
	}
	var pools []string
	for _, s := range mir.stats() {
		if s.State == LegInSync && (len(pools) == 0 || !mir.view.Load().whole(mir.legOf(pools[0]))) {
			pools = append([]string{s.Pool}, pools...)
		} else {
			pools = append(pools, s.Pool)
		}
	}
	return pools
}
