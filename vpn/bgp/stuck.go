package bgp

import (
	"context"
	"errors"
	"time"

	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
)

// patience is how long a session may take to come out of a state.
type patience map[bgp.FSMState]time.Duration

// usual is the patience with a session's beginning. Where both sides connect at one time
// and each holds on to another connection, gobgp waits on without a timer: it knows a hold
// time only after a first session, and may read what nobody writes to. Its own time for an
// OPEN is four minutes, in which it takes no other connection: a neighbor whose ttl-security
// has been mended would wait for as long, since the kernel dropped the OPEN of the first.
var usual = patience{bgp.BGP_FSM_OPENSENT: 30 * time.Second, bgp.BGP_FSM_OPENCONFIRM: 10 * time.Second}

// late tells whether a session's beginning takes too long. The caller holds told.
func (s *session) late(with patience) bool {
	most, ok := with[s.state]
	return ok && time.Since(s.since) >= most
}

// hurry has the next look come soon when a session is late.
func (d *Driver) hurry() {
	d.told.Lock()
	defer d.told.Unlock()
	for _, s := range d.sessions {
		if s.late(d.opts.patience) {
			nudge(d.wake)
			return
		}
	}
}

// restartStuck begins sessions anew that do not come out of their beginning.
func (d *Driver) restartStuck(ctx context.Context) {
	for name, n := range d.have.Neighbors {
		d.told.Lock()
		s := d.sessions[n.Address]
		stuck := s != nil && s.late(d.opts.patience)
		if stuck {
			*s = session{why: s.why}
		}
		d.told.Unlock()
		if !stuck {
			continue
		}
		d.log.Info("BGP session begins anew", "neighbor", n.Address)
		if err := errors.Join(d.engine.del(ctx, n.Address), d.engine.add(ctx, n, time.Now().Before(d.settles))); err != nil {
			d.log.Warn("BGP neighbor not tried again", "neighbor", name, "error", err)
		}
	}
}
