package bgp

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"ripstop/internal/link"
	"ripstop/vpn"
)

const (
	// gather is how long changes of paths pile up before the kernel gets them, and
	// the least time between two looks at it.
	gather = 50 * time.Millisecond
	// resync is how long the kernel goes unobserved when nothing wakes.
	resync = 30 * time.Second
	// limitRest is how long a neighbor that announced too much is left alone.
	limitRest = 5 * time.Minute
)

// result is what the latest look found.
type result struct {
	verdicts []vpn.Verdict
	failures map[vpn.Destination]error
}

// Serve keeps the kernel's routes as neighbors announce them until ctx is
// cancelled. Then sessions end so that neighbors may keep this host's routes.
func (d *Driver) Serve(ctx context.Context, ready func()) error {
	changes := link.Watch(ctx, d.log)
	ready()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return d.leave(context.WithoutCancel(ctx))
		case <-changes:
		case <-d.wake:
		case <-timer.C:
		}
		select {
		case <-ctx.Done():
			return d.leave(context.WithoutCancel(ctx))
		case <-time.After(gather):
		}
		next, err := d.sync(ctx)
		if err != nil {
			d.log.Warn("learned routes incomplete", "error", err)
		}
		timer.Reset(next)
	}
}

// leave ends the sessions and keeps the routes.
func (d *Driver) leave(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.engine == nil {
		return nil
	}
	e := d.engine
	d.engine, d.failed = nil, true // it runs no more and its routes stay
	if err := e.stop(ctx, true); err != nil {
		d.log.Warn("BGP sessions", "error", err)
	}
	return nil
}

// sync makes the kernel's routes what the neighbors announce, and says when to
// look again.
func (d *Driver) sync(ctx context.Context) (next time.Duration, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.engine == nil || d.have.Speaker == nil {
		return resync, nil
	}
	next = d.forgive(ctx)
	d.restartStuck(ctx)
	names := map[netip.Addr]string{}
	for name, n := range d.have.Neighbors {
		names[n.Address] = name
	}
	paths, err := d.engine.paths(names)
	if err != nil {
		return next, err
	}
	seen, err := look(d.kernel)
	if err != nil {
		return next, err
	}
	if d.have.L3 != nil && seen.l3 != nil { // else it is about to be made
		more, err := d.engine.prefixes(names)
		if err != nil {
			return next, err
		}
		paths = append(paths, more...)
	}
	around := vpn.NewAround(seen.others)
	around.Under(d.underlay())
	chosen := d.have.Select(paths, around)
	want := chosen.Routes
	d.last = result{chosen.Verdicts, map[vpn.Destination]error{}}
	var routers *routers
	if d.have.L3 != nil && seen.l3 != nil {
		if routers, err = routersOf(d.kernel, seen.l3, *d.have.L3, chosen.Routers); err == nil {
			err = routers.set()
		}
		if err != nil {
			return next, err
		}
	}
	for dest, ways := range want {
		if have, ok := seen.own[dest]; ok && slices.Equal(have, ways) {
			continue
		}
		if err := seen.put(d.kernel, dest, ways); err != nil {
			d.last.failures[dest] = err
		}
	}
	if wait := d.settling(); wait > 0 {
		return min(next, wait), errors.Join(slices.Collect(maps.Values(d.last.failures))...)
	}
	for dest := range seen.own {
		if _, ok := want[dest]; !ok {
			if err := seen.del(d.kernel, dest); err != nil {
				d.last.failures[dest] = err
			}
		}
	}
	if routers != nil {
		err = routers.clear()
	}
	return next, errors.Join(append(slices.Collect(maps.Values(d.last.failures)), err)...)
}

// underlay is the addresses of other hosts to which VXLAN and tunnels send.
func (d *Driver) underlay() []netip.Addr {
	var out []netip.Addr
	for f := range d.evpn.told.Floods {
		out = append(out, f.VTEP)
	}
	if d.opts.Underlay != nil {
		out = append(out, d.opts.Underlay()...)
	}
	return out
}

// settling is how long routes of an earlier daemon have still to be announced
// again, 0 when all neighbors have sent what they have.
func (d *Driver) settling() time.Duration {
	left := time.Until(d.settles)
	if left <= 0 {
		return 0
	}
	if len(d.have.Neighbors) == 0 {
		return left // they come in the next steps
	}
	d.told.Lock()
	defer d.told.Unlock()
	for _, n := range d.have.Neighbors {
		if s := d.sessions[n.Address]; s == nil || !s.whole(n, d.engine.speaker.EVPN) {
			return left
		}
	}
	d.settles = time.Time{}
	return 0
}

// forgive lets those try again that announced too much some time ago, and says
// when the next one may.
func (d *Driver) forgive(ctx context.Context) time.Duration {
	next := resync
	var again []netip.Addr
	d.told.Lock()
	for a, s := range d.sessions {
		if !s.limits {
			continue
		}
		left := limitRest - time.Since(s.shut)
		if left > 0 {
			next = min(next, left)
			continue
		}
		s.limits, s.crowded = false, ""
		again = append(again, a)
	}
	d.told.Unlock()
	for _, a := range again {
		if err := d.engine.enable(ctx, a); err != nil {
			d.log.Warn("BGP neighbor not tried again", "neighbor", a, "error", err)
		}
	}
	return next
}

// sweep removes all learned routes.
func (d *Driver) sweep() error {
	seen, err := look(d.kernel)
	if err != nil {
		return err
	}
	var errs []error
	for dest := range seen.own {
		errs = append(errs, seen.del(d.kernel, dest))
	}
	d.last = result{}
	return errors.Join(append(errs, d.opts.unmark())...)
}
