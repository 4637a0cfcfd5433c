package bgp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/osrg/gobgp/v4/api"
	"github.com/osrg/gobgp/v4/pkg/apiutil"
	"github.com/osrg/gobgp/v4/pkg/packet/bgp"
	"github.com/osrg/gobgp/v4/pkg/server"

	"ripstop/vpn"
)

const (
	port = 179
	// retry is the time between two attempts to reach a neighbor.
	retry = 3 * time.Second
	// rest is how long a neighbor whose session ended is not spoken with.
	rest = 2 * time.Second
	// deferral is how long after a restart a first session waits for what other
	// neighbors announce (RFC 4724 section 4.1) until the host announces its own.
	deferral = 10 * time.Second
	// stationsLimit is how many stations' routes a neighbor may announce for each
	// prefix of its limit.
	stationsLimit = 10
	// stopping is how long the end of all sessions may take.
	stopping = 10 * time.Second
)

// engine is one running gobgp server.
type engine struct {
	srv     *server.BgpServer
	speaker vpn.Speaker
	cancel  context.CancelFunc // of its events
	inside  []string           // neighbors between which routes are reflected

	mu      sync.Mutex             // guards changed and stale
	stale   bool                   // gobgp has told of others than learned
	changed []*apiutil.Path        // of EVPN, as gobgp told
	by      map[routeID]netip.Addr // who announced what, of EVPN
	counts  map[netip.Addr]int     // of these by neighbor
	fives   map[netip.Addr]int     // of these those of type 5

	learned []vpn.Path            // of type 5, as they were read
	names   map[netip.Addr]string // with which they were read
	read    time.Time
}

// start makes gobgp listen. Its events call onPeer, onEOR and onPaths.
func start(ctx context.Context, log *slog.Logger, s vpn.Speaker, on callbacks) (*engine, error) {
	level := &slog.LevelVar{}
	level.Set(slog.LevelDebug)
	srv := server.NewBgpServer(server.LoggerOption(log, level))
	go srv.Serve()
	e := &engine{srv: srv, speaker: s, by: map[routeID]netip.Addr{}, counts: map[netip.Addr]int{}, fives: map[netip.Addr]int{}}
	err := srv.StartBgp(ctx, &api.StartBgpRequest{Global: &api.Global{
		Asn: s.ASN, RouterId: s.RouterID.String(), ListenPort: port, ListenAddresses: wildcards(), UseMultiplePaths: s.Multipath > 1,
	}})
	if errors.Is(err, syscall.EADDRINUSE) {
		err = fmt.Errorf("%w: another BGP daemon runs in this network namespace: stop it", err)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen on TCP port %d: %w", port, err), e.stop(ctx, false))
	}
	events, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.cancel = cancel
	err = srv.WatchEvent(events, server.WatchEventMessageCallbacks{
		OnPeerUpdate: func(m *apiutil.WatchEventMessage_PeerEvent, _ time.Time) { on.peer(m) },
		OnPathEor:    func(p *apiutil.Path, _ time.Time) { on.eor(p.PeerAddress, p.Family) },
		OnBestPath:   func(all []*apiutil.Path, _ time.Time) { on.paths(e.note(all)) },
	}, server.WatchPeer(), server.WatchEor(false), server.WatchBestPath(false))
	if err == nil {
		err = e.export(ctx, nil)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start BGP: %w", err), e.stop(ctx, false))
	}
	return e, nil
}

// callbacks is what the engine tells. They must not call it.
type callbacks struct {
	peer  func(*apiutil.WatchEventMessage_PeerEvent)
	eor   func(netip.Addr, bgp.Family)
	paths func(stations, others bool)
}

// wildcards is the addresses to listen on; a kernel without IPv6 has one.
func wildcards() []string {
	if _, err := os.Stat("/proc/net/if_inet6"); err != nil {
		return []string{"0.0.0.0"}
	}
	return []string{"0.0.0.0", "::"}
}

// stop ends all sessions: with a notification, or gracefully, so that neighbors
// which can keep the routes.
func (e *engine) stop(ctx context.Context, graceful bool) error {
	if e.cancel != nil {
		e.cancel()
	}
	done := make(chan error, 1)
	go func() {
		err := e.srv.StopBgp(ctx, &api.StopBgpRequest{AllowGracefulRestart: graceful})
		e.srv.Stop() // BFD; the rest has stopped
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(stopping):
		return fmt.Errorf("stop BGP: sessions have not ended after %s", stopping)
	}
}

// add begins to speak with a neighbor.
func (e *engine) add(ctx context.Context, n vpn.Neighbor, restarting bool) error {
	return e.srv.AddPeer(ctx, &api.AddPeerRequest{Peer: e.peer(n, restarting)})
}

// update changes what can be changed while the session goes on.
func (e *engine) update(ctx context.Context, n vpn.Neighbor) error {
	if _, err := e.srv.UpdatePeer(ctx, &api.UpdatePeerRequest{Peer: e.peer(n, false)}); err != nil {
		return err
	}
	return e.enable(ctx, n.Address)
}

// enable lets a neighbor try again that was shut for announcing too much.
func (e *engine) enable(ctx context.Context, a netip.Addr) error {
	return e.srv.EnablePeer(ctx, &api.EnablePeerRequest{Address: a.String()})
}

func (e *engine) del(ctx context.Context, a netip.Addr) error {
	return e.srv.DeletePeer(ctx, &api.DeletePeerRequest{Address: a.String()})
}

// peer is a neighbor in gobgp's words.
func (e *engine) peer(n vpn.Neighbor, restarting bool) *api.Peer {
	graceful := e.speaker.Restart > 0
	family := apiFamily(n.Address)
	p := &api.Peer{
		Conf:           &api.PeerConf{NeighborAddress: n.Address.String(), PeerAsn: n.ASN, AuthPassword: string(n.Password)},
		Transport:      &api.Transport{PassiveMode: n.Passive},
		RouteReflector: &api.RouteReflector{RouteReflectorClient: n.Client},
		Timers: &api.Timers{Config: &api.TimersConfig{
			HoldTime: uint64(n.Hold / time.Second), KeepaliveInterval: uint64(max(n.Hold/3/time.Second, 1)),
			ConnectRetry: uint64(retry / time.Second), IdleHoldTimeAfterReset: uint64(rest / time.Second),
		}},
		AfiSafis: []*api.AfiSafi{{
			Config:            &api.AfiSafiConfig{Family: family, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: graceful}},
			PrefixLimits:      &api.PrefixLimit{Family: family, MaxPrefixes: n.PrefixLimit},
		}},
	}
	if e.speaker.EVPN {
		evpn := &api.Family{Afi: api.Family_AFI_L2VPN, Safi: api.Family_SAFI_EVPN}
		p.AfiSafis = append(p.AfiSafis, &api.AfiSafi{
			Config:            &api.AfiSafiConfig{Family: evpn, Enabled: true},
			MpGracefulRestart: &api.MpGracefulRestart{Config: &api.MpGracefulRestartConfig{Enabled: graceful}},
		})
	}
	if n.Source.IsValid() {
		p.Transport.LocalAddress = n.Source.String()
	}
	if graceful {
		p.GracefulRestart = &api.GracefulRestart{
			Enabled: true, RestartTime: uint32(e.speaker.Restart / time.Second), DeferralTime: uint32(deferral / time.Second), LocalRestarting: restarting,
		}
	}
	if n.Hops > 0 {
		p.TtlSecurity = &api.TtlSecurity{Enabled: true, TtlMin: 256 - uint32(n.Hops)}
	}
	if n.Multihop > 0 && n.ASN != e.speaker.ASN {
		p.EbgpMultihop = &api.EbgpMultihop{Enabled: true, MultihopTtl: uint32(n.Multihop)}
	}
	if n.BFD > 0 {
		us := uint32(n.BFD / time.Microsecond)
		p.Bfd = &api.BfdPeerConfig{Enabled: true, DesiredMinimumTxInterval: us, RequiredMinimumReceive: us, DetectionMultiplier: 3}
	}
	return p
}

func apiFamily(a netip.Addr) *api.Family {
	f := &api.Family{Afi: api.Family_AFI_IP, Safi: api.Family_SAFI_UNICAST}
	if a.Is6() {
		f.Afi = api.Family_AFI_IP6
	}
	return f
}

func family(a netip.Addr) bgp.Family {
	if a.Is6() {
		return bgp.RF_IPv6_UC
	}
	return bgp.RF_IPv4_UC
}

// export says what neighbors are told: what the host announces itself and, where
// it reflects routes, everything to those of its own autonomous system. So no
// host becomes the way between two of its neighbors.
func (e *engine) export(ctx context.Context, neighbors map[string]vpn.Neighbor) error {
	accept := &api.Actions{RouteAction: api.RouteAction_ROUTE_ACTION_ACCEPT}
	policy := &api.Policy{Name: "own", Statements: []*api.Statement{{
		Name: "own", Conditions: &api.Conditions{RouteType: api.Conditions_ROUTE_TYPE_LOCAL}, Actions: accept,
	}}}
	var inside []string
	reflects := false
	for _, n := range neighbors {
		if n.ASN == e.speaker.ASN {
			inside = append(inside, netip.PrefixFrom(n.Address, n.Address.BitLen()).String())
			reflects = reflects || n.Client
		}
	}
	slices.Sort(inside)
	r := &api.SetPoliciesRequest{Policies: []*api.Policy{policy}}
	if reflects {
		r.DefinedSets = []*api.DefinedSet{{DefinedType: api.DefinedType_DEFINED_TYPE_NEIGHBOR, Name: "inside", List: inside}}
		policy.Statements = append(policy.Statements, &api.Statement{
			Name: "inside", Conditions: &api.Conditions{NeighborSet: &api.MatchSet{Name: "inside", Type: api.MatchSet_TYPE_ANY}}, Actions: accept,
		})
	}
	if err := e.srv.SetPolicies(ctx, r); err != nil {
		return err
	}
	if err := e.srv.SetPolicyAssignment(ctx, &api.SetPolicyAssignmentRequest{Assignment: &api.PolicyAssignment{
		Name: "global", Direction: api.PolicyDirection_POLICY_DIRECTION_EXPORT, DefaultAction: api.RouteAction_ROUTE_ACTION_REJECT,
		Policies: []*api.Policy{{Name: policy.Name}},
	}}); err != nil {
		return err
	}
	if was := e.inside; !reflects && len(was) == 0 || reflects && slices.Equal(was, inside) {
		return nil
	}
	e.inside = nil
	if reflects {
		e.inside = inside
	}
	return e.srv.ResetPeer(ctx, &api.ResetPeerRequest{Address: "all", Soft: true, Direction: api.ResetPeerRequest_DIRECTION_OUT})
}

// announce tells all neighbors of a prefix, or withdraws it. An unspecified next
// hop becomes the session's own address.
func (e *engine) announce(p netip.Prefix, withdraw bool) error {
	nlri, err := bgp.NewIPAddrPrefix(p)
	if err != nil {
		return err
	}
	path := &apiutil.Path{Family: family(p.Addr()), Nlri: nlri, Withdrawal: withdraw}
	path.Attrs = []bgp.PathAttributeInterface{bgp.NewPathAttributeOrigin(0)}
	if p.Addr().Is4() {
		hop, err := bgp.NewPathAttributeNextHop(netip.IPv4Unspecified())
		if err != nil {
			return err
		}
		path.Attrs = append(path.Attrs, hop)
	} else {
		reach, err := bgp.NewPathAttributeMpReachNLRI(path.Family, []bgp.PathNLRI{{NLRI: nlri}}, netip.IPv6Unspecified())
		if err != nil {
			return err
		}
		path.Attrs = append(path.Attrs, reach)
	}
	if withdraw {
		return e.srv.DeletePath(apiutil.DeletePathRequest{Paths: []*apiutil.Path{path}})
	}
	answers, err := e.srv.AddPath(apiutil.AddPathRequest{Paths: []*apiutil.Path{path}})
	for _, a := range answers {
		err = cmp.Or(err, a.Error)
	}
	return err
}

// peers is every neighbor as gobgp has it; told has what was sent counted, too.
func (e *engine) peers(ctx context.Context, told bool) (map[netip.Addr]*api.Peer, error) {
	out := map[netip.Addr]*api.Peer{}
	err := e.srv.ListPeer(ctx, &api.ListPeerRequest{EnableAdvertised: told}, func(p *api.Peer) {
		if a, err := netip.ParseAddr(p.GetConf().GetNeighborAddress()); err == nil {
			out[a] = p
		}
	})
	return out, err
}

// paths is all learned paths, those of one prefix together and in order of preference.
func (e *engine) paths(names map[netip.Addr]string) ([]vpn.Path, error) {
	var out []vpn.Path
	for _, f := range []bgp.Family{bgp.RF_IPv4_UC, bgp.RF_IPv6_UC} {
		err := e.srv.ListPath(apiutil.ListPathRequest{TableType: api.TableType_TABLE_TYPE_GLOBAL, Family: f}, func(n bgp.NLRI, all []*apiutil.Path) {
			prefix, err := netip.ParsePrefix(n.String())
			if err != nil {
				return
			}
			for _, p := range all {
				if name, ok := names[p.PeerAddress]; ok && !p.Withdrawal {
					out = append(out, pathOf(prefix, name, p, e.speaker.ASN))
				}
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// pathOf reads a path's attributes.
func pathOf(prefix netip.Prefix, name string, p *apiutil.Path, own uint32) vpn.Path {
	out := vpn.Path{Prefix: prefix.Masked(), Neighbor: name, LocalPref: 100, External: p.PeerASN != own, Stale: p.Stale}
	for _, a := range p.Attrs {
		switch a := a.(type) {
		case *bgp.PathAttributeNextHop:
			out.NextHop = a.Value.Unmap()
		case *bgp.PathAttributeMpReachNLRI:
			out.NextHop = a.Nexthop
		case *bgp.PathAttributeOrigin:
			out.Origin = a.Value
		case *bgp.PathAttributeMultiExitDisc:
			out.MED = a.Value
		case *bgp.PathAttributeLocalPref:
			out.LocalPref = a.Value
		case *bgp.PathAttributeAsPath:
			for _, segment := range a.Value {
				out.ASPath = append(out.ASPath, segment.GetAS()...)
				out.ASLength += segment.ASLen()
			}
		}
	}
	return out
}
