package bgp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"ripstop/vpn"
)

// routeID is an EVPN route, and with several paths at once the neighbor that announced
// it: what gobgp's next word about it replaces.
type routeID struct {
	rd    [8]byte
	tag   uint32
	mac   vpn.MAC
	ip    netip.Addr
	flood bool   // of type 3, else of type 2
	bits  int    // of type 5: one more than the prefix has
	other string // of another type, all of it
	peer  netip.Addr
}

// note keeps what gobgp tells of EVPN for the next take, and tells of which routes it
// was: those of stations and of who gets what is for all, and all others.
func (e *engine) note(all []*apiutil.Path) (stations, others bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range all {
		others = others || !ofStations(p)
		if p.Family == bgp.RF_EVPN {
			stations = true
			e.stale = e.stale || !ofStations(p)
			e.changed = append(e.changed, p)
		}
	}
	return stations, others
}

func ofStations(p *apiutil.Path) bool {
	n, ok := p.Nlri.(*bgp.EVPNNLRI)
	return ok && (n.RouteType == bgp.EVPN_ROUTE_TYPE_MAC_IP_ADVERTISEMENT || n.RouteType == bgp.EVPN_INCLUSIVE_MULTICAST_ETHERNET_TAG)
}

// take is what gobgp told since the last time, in its order.
func (e *engine) take() []*apiutil.Path {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.changed
	e.changed = nil
	return all
}

// id is a path's; ok is false for what has none.
func (e *engine) id(p *apiutil.Path) (id routeID, ok bool) {
	n, ok := p.Nlri.(*bgp.EVPNNLRI)
	if !ok {
		return id, false
	}
	if e.speaker.Multipath > 1 {
		id.peer = p.PeerAddress
	}
	var rd bgp.RouteDistinguisherInterface
	switch r := n.RouteTypeData.(type) {
	case *bgp.EVPNMacIPAdvertisementRoute:
		rd, id.tag, id.ip = r.RD, r.ETag, r.IPAddress
		copy(id.mac[:], r.MacAddress)
	case *bgp.EVPNMulticastEthernetTagRoute:
		rd, id.tag, id.ip, id.flood = r.RD, r.ETag, r.IPAddress, true
	case *bgp.EVPNIPPrefixRoute:
		rd, id.tag, id.ip, id.bits = r.RD, r.ETag, r.IPPrefix, int(r.IPPrefixLength)+1
	default:
		id.other = n.String()
		return id, true
	}
	raw, err := rd.Serialize()
	copy(id.rd[:], raw)
	return id, err == nil
}

// hear has the roster know what gobgp says of a route: which path is the best, or that
// there is none any more.
func (e *engine) hear(r *vpn.Roster[routeID], p *apiutil.Path) {
	id, ok := e.id(p)
	if !ok {
		return
	}
	e.count(id, p)
	if p.Withdrawal || !p.PeerAddress.IsValid() {
		r.Retract(id)
		return
	}
	switch route := p.Nlri.(*bgp.EVPNNLRI).RouteTypeData.(type) {
	case *bgp.EVPNMulticastEthernetTagRoute:
		r.SayFlood(id, floodOf(p))
	case *bgp.EVPNMacIPAdvertisementRoute:
		if s, ok := stationOf(route, p); ok {
			r.Say(id, s)
		} else {
			r.Retract(id)
		}
	}
}

// hearAll has the roster know all routes as they are, and no others.
func (e *engine) hearAll(r *vpn.Roster[routeID]) error {
	said := map[routeID]bool{}
	err := e.routes(func(_ *bgp.EVPNNLRI, p *apiutil.Path) {
		if id, ok := e.id(p); ok && p.Best && p.PeerAddress.IsValid() {
			said[id] = true
			e.hear(r, p)
		}
	})
	if err != nil {
		return err
	}
	r.Keep(func(id routeID) bool { return said[id] })
	for id, by := range e.by {
		if !said[id] {
			e.uncount(id, by)
		}
	}
	return nil
}

// count has counts be right after what gobgp said of a route.
func (e *engine) count(id routeID, p *apiutil.Path) {
	if by, ok := e.by[id]; ok {
		e.uncount(id, by)
	}
	if !p.Withdrawal && p.PeerAddress.IsValid() {
		e.by[id] = p.PeerAddress
		e.counts[p.PeerAddress]++
		if id.bits > 0 {
			e.fives[p.PeerAddress]++
		}
	}
}

func (e *engine) uncount(id routeID, by netip.Addr) {
	delete(e.by, id)
	e.counts[by]--
	if id.bits > 0 {
		e.fives[by]--
	}
}

// limit ends the session of a neighbor that announces more EVPN routes, or prefixes by
// EVPN, than it may. In
// gobgp such a limit would cost a walk through all routes with each message. Counted are
// those that are the best of their kind: a neighbor has others at most where another one
// announces the same.
func (d *Driver) limit(ctx context.Context) error {
	if d.engine == nil {
		return nil
	}
	var errs []error
	for _, n := range d.have.Neighbors {
		crowd := ""
		switch {
		case d.engine.fives[n.Address] > int(n.PrefixLimit):
			crowd = fmt.Sprintf("%d prefixes by EVPN: raise prefix-limit", n.PrefixLimit)
		case d.engine.counts[n.Address] > int(n.PrefixLimit)*stationsLimit:
			crowd = fmt.Sprintf("%d EVPN routes: raise prefix-limit, of which this is %d times", n.PrefixLimit*stationsLimit, stationsLimit)
		default:
			continue
		}
		d.told.Lock()
		s := d.of(n.Address)
		fresh := s.crowded == ""
		if fresh {
			s.limits, s.crowded, s.shut = true, crowd, time.Now()
		}
		d.told.Unlock()
		if fresh {
			d.log.Warn("BGP neighbor announces too many EVPN routes", "neighbor", n.Address, "limit", n.PrefixLimit)
			errs = append(errs, d.engine.srv.DisablePeer(ctx, &api.DisablePeerRequest{Address: n.Address.String()}))
			d.awake()
		}
	}
	return errors.Join(errs...)
}
