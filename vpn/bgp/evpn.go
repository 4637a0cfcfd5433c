package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	roster    vpn.Roster[routeID]
	of        *engine // whose routes the roster has
	look      bool    // the switches' stations may be others than those of the roster
	announced map[vpn.StationKey][]vpn.Claim
	told      vpn.Told
	known     bool // told is what the switches know
	owed      owed
	conflicts map[vpn.Conflict]string
	disputes  uint64 // of the roster, when conflicts were read
}

// owed is what was decided, and may not be told yet.
type owed struct {
	claims, stations map[vpn.StationKey]bool
	addresses        map[vpn.AddressKey]bool
}

// ServeEVPN keeps what the switches know of other hosts' stations, and what other hosts
// know of this one's, until ctx is cancelled.
func (d *Driver) ServeEVPN(ctx context.Context, ready func()) error {
	ready()
	ticks := time.NewTicker(listen)
	defer ticks.Stop()
	again := time.NewTicker(resync)
	defer again.Stop()
	last, failed := uint64(0), false
	for {
		due, look := failed, failed
		select {
		case <-ctx.Done():
			return nil
		case <-d.roused:
			due, look = true, true
		case <-d.heard:
			due = true
		case <-again.C:
			due, look = true, true
			d.doubt()
		case <-ticks.C:
		}
		if !d.tells() {
			continue
		}
		if due {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(settle):
			}
		}
		news, err := d.news(ctx)
		if err == nil && !due && news == last {
			continue
		}
		if err = errors.Join(err, d.syncEVPN(ctx, look || news != last)); err != nil && ctx.Err() == nil {
			d.log.Warn("EVPN incomplete", "error", err)
		}
		last, failed = news, err != nil
	}
}

func (d *Driver) news(ctx context.Context) (uint64, error) {
	if d.opts.Fabric == nil {
		return 0, nil
	}
	return d.opts.Fabric.News(ctx)
}

// doubt has the next look begin with all that gobgp and the switches know.
func (d *Driver) doubt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.evpn.known = false
}

// tells tells whether there is anything to do.
func (d *Driver) tells() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.engine != nil && d.engine.speaker.EVPN || len(d.have.Networks) > 0 || !d.evpn.told.Empty() || len(d.evpn.announced) > 0
}

// syncEVPN announces what this host has, and tells the switches what others have. What
// it costs is by what changed, unless it begins in doubt. With look it asks the switches
// for their stations.
func (d *Driver) syncEVPN(ctx context.Context, look bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, e := d.opts.Fabric, &d.evpn
	e.look = e.look || look
	if d.engine == nil && d.failed {
		return nil // the speaker stands still, and what it told stays
	}
	if err := errors.Join(d.bury(ctx), d.listen(), d.limit(ctx)); err != nil {
		return err
	}
	if f == nil {
		return nil
	}
	doubt := !e.known
	if doubt {
		told, err := f.Told(ctx)
		if err != nil {
			return err
		}
		e.told, e.known = told, true
	}
	if e.look {
		local, err := f.Stations(ctx)
		if err != nil {
			return err
		}
		e.roster.House(local)
		e.look = false
	}
	e.roster.Serve(d.have.Networks)
	e.owed.add(e.roster.Settle(time.Now()))
	if doubt {
		e.owed.all(&e.roster, e.told, e.announced)
	}
	d.noteConflicts()
	return errors.Join(d.claim(), d.tell(ctx))
}

// listen brings what gobgp told since to the roster: in doubt, all that it has.
func (d *Driver) listen() error {
	e := &d.evpn
	if e.of != d.engine {
		e.roster.Keep(func(routeID) bool { return false })
		e.of = d.engine
	}
	if d.engine == nil {
		return nil
	}
	for _, p := range d.engine.take() {
		d.engine.hear(&e.roster, p)
	}
	if e.known {
		return nil
	}
	return d.engine.hearAll(&e.roster)
}

// tell brings to the switches what is owed to them.
func (d *Driver) tell(ctx context.Context) error {
	e := &d.evpn
	want := e.roster.Told()
	add, gone := vpn.NewTold(), vpn.NewTold()
	vpn.DiffOf(e.owed.stations, want.Stations, e.told.Stations, add.Stations, gone.Stations)
	vpn.DiffOf(e.owed.addresses, want.Addresses, e.told.Addresses, add.Addresses, gone.Addresses)
	floods := vpn.Told{Floods: want.Floods}
	more, less := vpn.DiffTold(floods, vpn.Told{Floods: e.told.Floods})
	add.Floods, gone.Floods = more.Floods, less.Floods
	if d.settling() > 0 {
		gone = vpn.NewTold() // others have still to say again what they said
	}
	if !add.Empty() || !gone.Empty() {
		if err := d.opts.Fabric.Tell(ctx, add, gone); err != nil {
			e.known = false
			return err
		}
	}
	for key := range add.Stations {
		e.look = e.look || e.roster.Here(key) // not any more
	}
	e.look = e.look || e.roster.Open()
	keep(e.told.Stations, add.Stations, gone.Stations)
	keep(e.told.Addresses, add.Addresses, gone.Addresses)
	keep(e.told.Floods, add.Floods, gone.Floods)
	maps.DeleteFunc(e.owed.stations, func(k vpn.StationKey, _ bool) bool { return want.Stations[k] == e.told.Stations[k] })
	maps.DeleteFunc(e.owed.addresses, func(k vpn.AddressKey, _ bool) bool {
		mac, ok := want.Addresses[k]
		was, had := e.told.Addresses[k]
		return ok == had && mac == was
	})
	return nil
}

func (o *owed) add(stations map[vpn.StationKey]bool, addresses map[vpn.AddressKey]bool) {
	if o.claims == nil {
		o.claims, o.stations, o.addresses = map[vpn.StationKey]bool{}, map[vpn.StationKey]bool{}, map[vpn.AddressKey]bool{}
	}
	maps.Copy(o.claims, stations)
	maps.Copy(o.stations, stations)
	maps.Copy(o.addresses, addresses)
}

// all owes everything that there is on either side.
func (o *owed) all(r *vpn.Roster[routeID], told vpn.Told, announced map[vpn.StationKey][]vpn.Claim) {
	for _, t := range []vpn.Told{r.Told(), told} {
		for key := range t.Stations {
			o.stations[key] = true
		}
		for a := range t.Addresses {
			o.addresses[a] = true
		}
	}
	for key := range announced {
		o.claims[key] = true
	}
	for key := range r.Claimed() {
		o.claims[key] = true
	}
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

// noteConflicts logs what is new of what hosts disagree about, and has it be observed.
func (d *Driver) noteConflicts() {
	e := &d.evpn
	if e.disputes == e.roster.Disputes() {
		return
	}
	was := e.conflicts
	e.conflicts, e.disputes = e.roster.Conflicts(), e.roster.Disputes()
	for c, what := range e.conflicts {
		if _, known := was[c]; !known {
			d.log.Warn("EVPN conflict", "vni", c.VNI, "what", what)
		}
	}
	d.opts.OnChange()
}

// disputed is what hosts disagree about, by VNI. Where stations are may be another place
// than when a conflict began.
func (e *evpn) disputed() map[uint32][]string {
	out := map[uint32][]string{}
	for c, what := range e.roster.Conflicts() {
		out[c.VNI] = append(out[c.VNI], what)
	}
	for _, all := range out {
		slices.Sort(all)
	}
	return out
}

// claim announces what is claimed now and withdraws what was. What gobgp refuses of a
// station is owed on, and holds up nothing of the others.
func (d *Driver) claim() error {
	e := &d.evpn
	if d.engine == nil {
		return nil
	}
	if e.announced == nil {
		e.announced = map[vpn.StationKey][]vpn.Claim{}
	}
	var add, gone []route
	var errs []error
	take := func(to *[]route, c vpn.Claim, n vpn.Network, withdraw bool) {
		p, err := d.engine.station(c, n, withdraw)
		if err != nil {
			errs = append(errs, err)
			return
		}
		*to = append(*to, route{c.StationKey, p})
	}
	for key := range e.owed.claims {
		n, ok := d.have.Networks[key.VNI]
		if !ok {
			continue // what was announced went with its network
		}
		now, was := e.roster.Claims(key), e.announced[key]
		for _, c := range now {
			if !slices.Contains(was, c) {
				take(&add, c, n, false)
			}
		}
		for _, c := range was {
			if !slices.ContainsFunc(now, func(o vpn.Claim) bool { return o.IP == c.IP }) { // else it is the same route
				take(&gone, c, n, true)
			}
		}
	}
	// Where stations are comes before which addresses they have: frames for them wait.
	slices.SortStableFunc(add, func(a, b route) int { return cmp.Compare(addressBits(a.Path), addressBits(b.Path)) })
	refused, err := d.engine.offer(add)
	if err = errors.Join(append(errs, err, d.engine.send(nil, pathsOf(gone)))...); err != nil {
		return err
	}
	owed := map[vpn.StationKey]bool{}
	for key, why := range refused {
		if e.roster.Outbid(key) {
			owed[key] = true // with a higher number
		}
		errs = append(errs, fmt.Errorf("station %s of VNI %d: %w", key.MAC, key.VNI, why))
	}
	for key := range e.owed.claims {
		if refused[key] != nil {
			continue
		}
		if delete(e.announced, key); len(e.roster.Claims(key)) > 0 {
			e.announced[key] = e.roster.Claims(key)
		}
	}
	e.owed.claims = owed
	return errors.Join(errs...)
}

// route is what is said of a station.
type route struct {
	vpn.StationKey
	*apiutil.Path
}

func pathsOf(all []route) []*apiutil.Path {
	out := make([]*apiutil.Path, len(all))
	for i, r := range all {
		out[i] = r.Path
	}
	return out
}

// offer announces routes of stations and says which gobgp refused: where a neighbor's
// route of the station with the same route target has as high a number, it takes none
// but one with a higher.
func (e *engine) offer(all []route) (refused map[vpn.StationKey]error, err error) {
	if len(all) == 0 {
		return nil, nil
	}
	answers, err := e.srv.AddPath(apiutil.AddPathRequest{Paths: pathsOf(all)})
	if len(answers) < len(all) {
		return nil, err
	}
	refused = map[vpn.StationKey]error{}
	for i, a := range answers {
		if a.Error != nil {
			refused[all[i].StationKey] = a.Error
		}
	}
	return refused, nil
}

func addressBits(p *apiutil.Path) uint8 {
	return p.Nlri.(*bgp.EVPNNLRI).RouteTypeData.(*bgp.EVPNMacIPAdvertisementRoute).IPAddressLength
}

// unclaim notes that nothing is announced any more of a network, or of all.
func (e *evpn) unclaim(gone func(vni uint32) bool) {
	for key := range e.announced {
		if gone(key.VNI) {
			delete(e.announced, key)
			e.owed.claims[key] = true
		}
	}
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
	if withdraw {
		// Without a route target, with which gobgp refuses to take back what others
		// have outnumbered.
		return pathTo(route, n.VTEP, true, nil)
	}
	with := e.communities(c.VNI)
	if c.Seq > 0 || c.Fixed {
		with = append(with, bgp.NewMacMobilityExtended(c.Seq, c.Fixed))
	}
	return pathTo(route, n.VTEP, false, with)
}

// pathTo is an EVPN route of this host.
func pathTo(route *bgp.EVPNNLRI, vtep netip.Addr, withdraw bool, with []bgp.ExtendedCommunityInterface, more ...bgp.PathAttributeInterface) (*apiutil.Path, error) {
	reach, err := bgp.NewPathAttributeMpReachNLRI(bgp.RF_EVPN, []bgp.PathNLRI{{NLRI: route}}, vtep)
	if err != nil {
		return nil, err
	}
	path := &apiutil.Path{Family: bgp.RF_EVPN, Nlri: route, Withdrawal: withdraw}
	path.Attrs = append([]bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0), reach}, more...)
	if len(with) > 0 {
		path.Attrs = append(path.Attrs, bgp.NewPathAttributeExtendedCommunities(with))
	}
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
			p.Attrs = slices.DeleteFunc(p.Attrs, func(a bgp.PathAttributeInterface) bool { return a.GetType() == bgp.BGP_ATTR_TYPE_EXTENDED_COMMUNITIES }) // as in station
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
