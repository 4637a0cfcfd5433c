package bgp

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"

	"ripstop/vpn"
)

// Fabric is the host's switches, as far as EVPN has to know them.
type Fabric interface {
	// News is another number when the stations may be others than before. It costs
	// little.
	News(ctx context.Context) (uint64, error)
	// Stations is this host's, in VNIs of which EVPN tells.
	Stations(ctx context.Context) ([]vpn.Station, error)
	// Told is what the switches know of other hosts, whoever told it.
	Told(ctx context.Context) (vpn.Told, error)
	// Tell changes that. What VNIs that are gone are told is no error.
	Tell(ctx context.Context, add, gone vpn.Told) error
}

const (
	// listen is how often the switches are asked for news: what a station's move costs
	// at most before others are told.
	listen = 100 * time.Millisecond
	// settle is how long changes of paths pile up before the switches are told.
	settle = 20 * time.Millisecond
)

// evpn is what the latest look at EVPN left.
type evpn struct {
	roaming  vpn.Roaming
	claims   map[vpn.Claim]bool // that are announced
	told     vpn.Told
	known    bool // told is what the switches know
	restless map[vpn.StationKey]bool
}

// ServeEVPN keeps what the switches know of other hosts' stations, and what other hosts
// know of this one's, until ctx is cancelled.
func (d *Driver) ServeEVPN(ctx context.Context, ready func()) error {
	ready()
	if d.opts.Fabric == nil {
		<-ctx.Done()
		return nil
	}
	ticks := time.NewTicker(listen)
	defer ticks.Stop()
	again := time.NewTicker(resync)
	defer again.Stop()
	last, failed := uint64(0), false
	for {
		due := failed
		select {
		case <-ctx.Done():
			return nil
		case <-d.roused:
			due = true
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settle):
			}
		case <-again.C:
			due = true
			d.doubt()
		case <-ticks.C:
		}
		if !d.tells() {
			continue
		}
		news, err := d.opts.Fabric.News(ctx)
		if err == nil && !due && news == last {
			continue
		}
		if err = errors.Join(err, d.syncEVPN(ctx)); err != nil && ctx.Err() == nil {
			d.log.Warn("EVPN incomplete", "error", err)
		}
		last, failed = news, err != nil
	}
}

// doubt has the next look begin with what the switches know.
func (d *Driver) doubt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.evpn.known = false
}

// tells tells whether there is anything to do.
func (d *Driver) tells() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.have.Networks) > 0 || !d.evpn.told.Empty() || len(d.evpn.claims) > 0
}

// syncEVPN announces what this host has, and tells the switches what others have.
func (d *Driver) syncEVPN(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.opts.Fabric
	if d.engine == nil && d.failed {
		return nil // the speaker stands still, and what it told stays
	}
	if err := d.bury(ctx); err != nil {
		return err
	}
	if !d.evpn.known {
		told, err := f.Told(ctx)
		if err != nil {
			return err
		}
		d.evpn.told, d.evpn.known = told, true
	}
	var paths []vpn.StationPath
	floods := map[vpn.Flood]bool{}
	if d.engine != nil {
		var err error
		if paths, floods, err = d.engine.stations(d.have); err != nil {
			return err
		}
	}
	local, err := f.Stations(ctx)
	if err != nil {
		return err
	}
	local = slices.DeleteFunc(local, func(s vpn.Station) bool { _, ok := d.have.Networks[s.VNI]; return !ok })
	claims, want := d.evpn.roaming.Settle(d.have.Networks, local, paths, time.Now())
	want.Floods = floods
	d.noteRestless()
	errs := []error{d.claim(claims)}
	add, gone := vpn.DiffTold(want, d.evpn.told)
	if d.settling() > 0 {
		gone = vpn.NewTold() // others have still to say again what they said
	}
	if add.Empty() && gone.Empty() {
		return errors.Join(errs...)
	}
	if err := f.Tell(ctx, add, gone); err != nil {
		d.evpn.known = false
		return errors.Join(append(errs, err)...)
	}
	keep(d.evpn.told.Stations, add.Stations, gone.Stations)
	keep(d.evpn.told.Addresses, add.Addresses, gone.Addresses)
	keep(d.evpn.told.Floods, add.Floods, gone.Floods)
	return errors.Join(errs...)
}

// bury forgets what neighbors announced that were silent for the hold time. They are
// dead and do not restart, as gobgp believes of all that can, and what is sent to their
// stations is lost.
func (d *Driver) bury(ctx context.Context) error {
	if d.engine == nil || !d.engine.speaker.EVPN {
		return nil
	}
	var errs []error
	for _, n := range d.have.Neighbors {
		d.told.Lock()
		s := d.sessions[n.Address]
		dead := s != nil && s.dead && s.state != bgp.BGP_FSM_ESTABLISHED
		if s != nil {
			s.dead = s.dead && !dead && s.state == bgp.BGP_FSM_ESTABLISHED // which is what ends just now
		}
		d.told.Unlock()
		if dead {
			errs = append(errs, d.engine.del(ctx, n.Address), d.engine.add(ctx, n, false))
		}
	}
	return errors.Join(errs...)
}

func keep[K comparable, V any](have, add, gone map[K]V) {
	for k := range gone {
		delete(have, k)
	}
	maps.Copy(have, add)
}

// noteRestless logs the stations that move without end.
func (d *Driver) noteRestless() {
	now := map[vpn.StationKey]bool{}
	for _, key := range d.evpn.roaming.Restless() {
		now[key] = true
		if !d.evpn.restless[key] {
			d.log.Warn("station left alone: it is on two hosts, or in a loop", "vni", key.VNI, "mac", key.MAC)
		}
	}
	d.evpn.restless = now
}

// claim announces what is claimed now and withdraws what was.
func (d *Driver) claim(claims map[vpn.Claim]bool) error {
	if d.engine == nil {
		return nil
	}
	place := func(c vpn.Claim) vpn.Claim { return vpn.Claim{StationKey: c.StationKey, IP: c.IP} }
	now := map[vpn.Claim]bool{} // by what is the same route
	var add, gone []*apiutil.Path
	var errs []error
	take := func(to *[]*apiutil.Path, c vpn.Claim, n vpn.Network, withdraw bool) {
		p, err := d.engine.station(c, n, withdraw)
		if err != nil {
			errs = append(errs, err)
			return
		}
		*to = append(*to, p)
	}
	for c := range claims {
		now[place(c)] = true
		if !d.evpn.claims[c] {
			take(&add, c, d.have.Networks[c.VNI], false)
		}
	}
	for c := range d.evpn.claims {
		if n, ok := d.have.Networks[c.VNI]; !now[place(c)] {
			if !ok {
				continue // it went with its network
			}
			take(&gone, c, n, true)
		}
	}
	err := errors.Join(append(errs, d.engine.send(add, gone))...)
	if err == nil {
		d.evpn.claims = claims
	}
	return err
}

// rd tells this host's routes of a VLAN from all others' (RFC 7432, 7.9).
func (e *engine) rd(n vpn.Network) (bgp.RouteDistinguisherInterface, error) {
	return bgp.NewRouteDistinguisherIPAddressAS(e.speaker.RouterID, n.VLAN)
}

// communities is the route target, made of the autonomous system and the VNI (RFC 8365,
// 5.1.2.1, as FRR makes it), and the encapsulation.
func (e *engine) communities(vni uint32) []bgp.ExtendedCommunityInterface {
	return []bgp.ExtendedCommunityInterface{
		bgp.NewTwoOctetAsSpecificExtended(bgp.EC_SUBTYPE_ROUTE_TARGET, uint16(e.speaker.ASN), vni, true),
		bgp.NewEncapExtended(bgp.TUNNEL_TYPE_VXLAN),
	}
}

// network announces the route of type 3 that has others flood to this host. With a
// withdrawal go all routes of stations.
func (e *engine) network(vni uint32, n vpn.Network, withdraw bool) error {
	rd, err := e.rd(n)
	if err != nil {
		return err
	}
	if withdraw {
		if err := e.withdrawStations(rd); err != nil {
			return err
		}
	}
	route, err := bgp.NewEVPNMulticastEthernetTagRoute(rd, 0, n.VTEP)
	if err != nil {
		return err
	}
	id, err := bgp.NewIngressReplTunnelID(n.VTEP)
	if err != nil {
		return err
	}
	path, err := pathTo(route, n.VTEP, withdraw, e.communities(vni), bgp.NewPathAttributePmsiTunnel(bgp.PMSI_TUNNEL_TYPE_INGRESS_REPL, false, vni, id))
	if err != nil {
		return err
	}
	if withdraw {
		return e.send(nil, []*apiutil.Path{path})
	}
	return e.send([]*apiutil.Path{path}, nil)
}

// station is a route of type 2.
func (e *engine) station(c vpn.Claim, n vpn.Network, withdraw bool) (*apiutil.Path, error) {
	rd, err := e.rd(n)
	if err != nil {
		return nil, err
	}
	esi := bgp.EthernetSegmentIdentifier{Type: bgp.ESI_ARBITRARY, Value: make([]byte, 9)}
	route, err := bgp.NewEVPNMacIPAdvertisementRoute(rd, esi, 0, c.MAC.String(), c.IP, []uint32{c.VNI})
	if err != nil {
		return nil, err
	}
	with := e.communities(c.VNI)
	if c.Seq > 0 || c.Fixed {
		with = append(with, bgp.NewMacMobilityExtended(c.Seq, c.Fixed))
	}
	return pathTo(route, n.VTEP, withdraw, with)
}

// pathTo is an EVPN route of this host.
func pathTo(route *bgp.EVPNNLRI, vtep netip.Addr, withdraw bool, with []bgp.ExtendedCommunityInterface, more ...bgp.PathAttributeInterface) (*apiutil.Path, error) {
	reach, err := bgp.NewPathAttributeMpReachNLRI(bgp.RF_EVPN, []bgp.PathNLRI{{NLRI: route}}, vtep)
	if err != nil {
		return nil, err
	}
	path := &apiutil.Path{Family: bgp.RF_EVPN, Nlri: route, Withdrawal: withdraw}
	path.Attrs = append([]bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), reach, bgp.NewPathAttributeExtendedCommunities(with)}, more...)
	return path, nil
}

// send announces and withdraws many routes at once: each on its own waits for gobgp.
func (e *engine) send(add, gone []*apiutil.Path) error {
	var err error
	if len(add) > 0 {
		var answers []apiutil.AddPathResponse
		answers, err = e.srv.AddPath(apiutil.AddPathRequest{Paths: add})
		for _, a := range answers {
			err = cmp.Or(err, a.Error)
		}
	}
	if len(gone) > 0 {
		err = errors.Join(err, e.srv.DeletePath(apiutil.DeletePathRequest{Paths: gone}))
	}
	return err
}

// withdrawStations takes back the routes of all stations of a network.
func (e *engine) withdrawStations(rd bgp.RouteDistinguisherInterface) error {
	var own []*apiutil.Path
	err := e.routes(func(r *bgp.EVPNNLRI, p *apiutil.Path) {
		if m, ok := r.RouteTypeData.(*bgp.EVPNMacIPAdvertisementRoute); ok && !p.PeerAddress.IsValid() && m.RD.String() == rd.String() {
			own = append(own, p)
		}
	})
	if err != nil || len(own) == 0 {
		return err
	}
	return e.srv.DeletePath(apiutil.DeletePathRequest{Paths: own})
}

// routes goes through all EVPN routes.
func (e *engine) routes(yield func(*bgp.EVPNNLRI, *apiutil.Path)) error {
	return e.srv.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: bgp.RF_EVPN}, func(n bgp.NLRI, all []*apiutil.Path) {
		route, ok := n.(*bgp.EVPNNLRI)
		for _, p := range all {
			if ok && !p.Withdrawal {
				yield(route, p)
			}
		}
	})
}

// stations is what neighbors say of other hosts' stations in this host's VNIs, and who
// gets what is for all. What no host can be or have is left out.
func (e *engine) stations(b vpn.BGP) ([]vpn.StationPath, map[vpn.Flood]bool, error) {
	neighbors := map[netip.Addr]bool{}
	for _, n := range b.Neighbors {
		neighbors[n.Address] = true
	}
	var paths []vpn.StationPath
	floods := map[vpn.Flood]bool{}
	err := e.routes(func(r *bgp.EVPNNLRI, p *apiutil.Path) {
		if !neighbors[p.PeerAddress] {
			return
		}
		switch route := r.RouteTypeData.(type) {
		case *bgp.EVPNMulticastEthernetTagRoute:
			f := floodOf(p)
			if foreign(b.Networks, f.VNI, f.VTEP) {
				floods[f] = true
			}
		case *bgp.EVPNMacIPAdvertisementRoute:
			if s, ok := stationOf(route, p); ok && foreign(b.Networks, s.VNI, s.VTEP) {
				paths = append(paths, s)
			}
		}
	})
	return paths, floods, err
}

// foreign tells whether a VTEP can be another host's of one of the networks.
func foreign(networks map[uint32]vpn.Network, vni uint32, vtep netip.Addr) bool {
	n, ok := networks[vni]
	return ok && vtep.IsValid() && vtep != n.VTEP && vtep.Is4() == n.VTEP.Is4() &&
		!vtep.IsUnspecified() && !vtep.IsMulticast() && !vtep.IsLoopback() && !vtep.IsLinkLocalUnicast()
}

// floodOf is who gets what is for all by a route of type 3 (RFC 7432, 11; RFC 8365, 5.1.3).
func floodOf(p *apiutil.Path) vpn.Flood {
	f := vpn.Flood{VTEP: hop(p)}
	for _, a := range p.Attrs {
		pmsi, ok := a.(*bgp.PathAttributePmsiTunnel)
		if !ok || pmsi.TunnelType != bgp.PMSI_TUNNEL_TYPE_INGRESS_REPL {
			continue
		}
		f.VNI = pmsi.Label
		if id, ok := pmsi.TunnelID.(*bgp.IngressReplTunnelID); ok {
			f.VTEP = id.Value.Unmap()
		}
	}
	return f
}

// stationOf reads a route of type 2.
func stationOf(r *bgp.EVPNMacIPAdvertisementRoute, p *apiutil.Path) (vpn.StationPath, bool) {
	var s vpn.StationPath
	if len(r.MacAddress) != len(s.MAC) || len(r.Labels) == 0 {
		return s, false
	}
	s.VNI, s.VTEP, s.MAC = r.Labels[0], hop(p), vpn.MAC(r.MacAddress)
	if s.MAC == (vpn.MAC{}) || s.MAC[0]&1 != 0 {
		return s, false
	}
	if r.IPAddressLength > 0 && r.IPAddress.IsValid() {
		if s.IP = r.IPAddress.Unmap(); s.IP.IsUnspecified() || s.IP.IsMulticast() || s.IP.IsLoopback() {
			return s, false
		}
	}
	for _, a := range p.Attrs {
		all, ok := a.(*bgp.PathAttributeExtendedCommunities)
		if !ok {
			continue
		}
		for _, c := range all.Value {
			if m, ok := c.(*bgp.MacMobilityExtended); ok {
				s.Seq, s.Fixed = m.Sequence, m.IsSticky
			}
		}
	}
	return s, true
}

// hop is a path's next hop.
func hop(p *apiutil.Path) netip.Addr {
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeMpReachNLRI:
			return a.Nexthop.Unmap()
		case *bgp.PathAttributeNextHop:
			return a.Value.Unmap()
		}
	}
	return netip.Addr{}
}
