package bgp

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"ripstop/vpn"
)

// Neighbors is what each neighbor is doing, by name.
func (d *Driver) Neighbors(ctx context.Context) ([]vpn.NeighborStats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.engine == nil {
		return nil, nil
	}
	peers, err := d.engine.peers(ctx, true)
	if err != nil {
		return nil, err
	}
	var out []vpn.NeighborStats
	for _, name := range slices.Sorted(maps.Keys(d.have.Neighbors)) {
		n := d.have.Neighbors[name]
		s := vpn.NeighborStats{Name: name, Address: n.Address, ASN: n.ASN, Session: d.session(n)}
		if p := peers[n.Address]; p != nil {
			fill(&s, p, n.BFD > 0)
		}
		if d.speaksEVPN(n) {
			s.PrefixesSent = len(d.have.Prefixes)
		}
		s.PrefixesReceived = d.engine.fives[n.Address]
		for _, v := range d.last.verdicts {
			if v.Neighbor == name && v.Accepted {
				s.Accepted++
			}
			if v.Neighbor == name && v.Used {
				s.Used++
			}
		}
		out = append(out, s)
	}
	return out, nil
}

// speaksEVPN tells whether a neighbor that has a session takes routes of EVPN.
func (d *Driver) speaksEVPN(n vpn.Neighbor) bool {
	d.told.Lock()
	defer d.told.Unlock()
	s := d.sessions[n.Address]
	return s != nil && s.state == bgp.BGP_FSM_ESTABLISHED && d.engine.speaker.EVPN && slices.Contains(s.speaks, bgp.RF_EVPN)
}

func fill(s *vpn.NeighborStats, p *api.Peer, bfd bool) {
	s.Resets = int(p.GetState().GetFlops())
	if s.Session.State == vpn.Established {
		s.RouterID = p.GetState().GetRouterId()
		s.Graceful = slices.ContainsFunc(p.GetState().GetRemoteCap(), func(c *api.Capability) bool { return c.GetGracefulRestart() != nil })
		s.Hold = time.Duration(p.GetTimers().GetState().GetNegotiatedHoldTime()) * time.Second
	}
	for _, a := range p.GetAfiSafis() {
		s.Received += int(a.GetState().GetReceived())
		s.Sent += int(a.GetState().GetAdvertised())
	}
	if bfd {
		s.BFD = strings.ToLower(strings.TrimPrefix(p.GetState().GetBfdState().GetSessionState().String(), "BFD_SESSION_STATE_"))
	}
}

// Routes is what became of every learned path at the latest look at the kernel.
func (d *Driver) Routes() []vpn.Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := slices.Clone(d.last.verdicts)
	for i, v := range out {
		if err := d.last.failures[vpn.Destination{Table: v.Table, Prefix: v.Prefix}]; v.Used && err != nil {
			out[i].Used, out[i].Why = false, fmt.Sprintf("the kernel refused it: %v", err)
		}
	}
	return out
}
