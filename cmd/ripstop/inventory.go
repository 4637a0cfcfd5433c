package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	v1 "ripstop/api/v1"
	"ripstop/controller"
	"ripstop/controller/beside"
	"ripstop/controller/config"
	"ripstop/internal/hist"
	"ripstop/iscsi"
	"ripstop/lun"
	"ripstop/vpn"
	"ripstop/vswitch"
)

// inventory answers get: what the drivers observe, in the API's words.
type inventory struct {
	drivers *drivers
	host    controller.Host
	config  func() *config.Config
	made    func() beside.Objects
	status  func() controller.Status
}

func (i inventory) switches(ctx context.Context) ([]v1.Switch, error) {
	s, err := i.drivers.vswitch.Observe(ctx)
	if err != nil {
		return nil, err
	}
	var all []v1.Switch
	for _, name := range slices.Sorted(maps.Keys(s.Switches)) {
		sw := s.Switches[name]
		all = append(all, v1.Switch{Name: name, Dataplane: string(sw.Dataplane), Ports: len(sw.Ports), Gateways: len(sw.Gateways)})
	}
	return all, nil
}

// vlans lists the VLANs of the file, which alone knows their names.
func (i inventory) vlans(ctx context.Context) ([]v1.VLAN, error) {
	counters, err := i.drivers.vswitch.Counters(ctx)
	if err != nil {
		return nil, err
	}
	c, _ := i.made().Merge(i.config())
	var all []v1.VLAN
	for _, name := range slices.Sorted(maps.Keys(c.VLANs)) {
		v := c.VLANs[name]
		out := v1.VLAN{Name: name, ID: int(v.ID), Switch: v.Switch, Gateway: texts(v.Gateways), Switches: carrying(c, name)}
		for _, x := range counters.VLANs {
			if x.VLAN == v.ID {
				out.Frames, out.Bytes = out.Frames+x.Frames, out.Bytes+x.Bytes
			}
		}
		all = append(all, out)
	}
	return all, nil
}

// carrying lists the switches with a port in a VLAN.
func carrying(c *config.Config, vlan string) []string {
	in := []string{}
	for _, name := range slices.Sorted(maps.Keys(c.Switches)) {
		for _, p := range c.Switches[name].Ports {
			if p.VLAN == vlan || p.Native == vlan || slices.Contains(p.Trunk, vlan) {
				in = append(in, name)
				break
			}
		}
	}
	return in
}

func (i inventory) ports(ctx context.Context) ([]v1.Port, error) {
	s, err := i.drivers.vswitch.Observe(ctx)
	if err != nil {
		return nil, err
	}
	counters, err := i.drivers.vswitch.Counters(ctx)
	if err != nil {
		return nil, err
	}
	seen := map[string]vswitch.PortCounters{}
	for _, c := range counters.Ports {
		seen[c.Switch+"/"+c.Port] = c
	}
	file := i.config()
	var all []v1.Port
	for name, sw := range s.Switches {
		inner, why, spans := controller.InnerMTU(file, i.host, name)
		for port, p := range sw.Ports {
			out := portOf(name, port, p, seen[name+"/"+port])
			if spans && out.MTU != 0 && carriesAny(p, spanning(sw)) {
				if out.Why = why; out.MTU != inner {
					out.Why = fmt.Sprintf("chosen; VLANs that span hosts carry %s", why)
				}
			}
			if _, ok := file.Switches[name].Ports[port]; !ok {
				out.Origin = v1.FromVerb
			}
			all = append(all, out)
		}
	}
	slices.SortFunc(all, func(a, b v1.Port) int { return cmp.Or(cmp.Compare(a.Switch, b.Switch), cmp.Compare(a.Name, b.Name)) })
	return all, nil
}

// spanning is the VLANs of a switch that span hosts.
func spanning(sw vswitch.Switch) (ids []uint16) {
	for _, p := range sw.Ports {
		if p.Kind == vswitch.VXLAN {
			ids = append(ids, p.PVID)
		}
	}
	return ids
}

func carriesAny(p vswitch.Port, ids []uint16) bool {
	return slices.ContainsFunc(ids, func(id uint16) bool { return p.PVID == id || slices.Contains(p.Tagged, id) })
}

func portOf(sw, name string, p vswitch.Port, c vswitch.PortCounters) v1.Port {
	out := v1.Port{
		Name: name, Switch: sw, Kind: string(p.Kind), Device: cmp.Or(p.Device, name), Netns: p.Netns, Addresses: texts(p.Addresses),
		PVID: int(p.PVID), Origin: v1.FromFile, Tagged: []int{}, Isolated: p.Isolated, Down: p.Down,
		RxFrames: c.RxFrames, RxBytes: c.RxBytes, TxFrames: c.TxFrames, TxBytes: c.TxBytes, Drops: c.Drops,
		VLANDrops: map[int]map[string]uint64{}, Security: securityOf(p.Security), Shut: c.Shut,
		MTU:    p.MTU,
		Groups: []string{}, Limit: v1.PortLimit{Send: p.Limit.Send, Receive: p.Limit.Receive},
	}
	if p.MTU == 0 && p.Kind != vswitch.Device {
		out.MTU = vswitch.DefaultMTU
	}
	if p.Limit.Any() {
		out.Limit.Burst = p.Limit.Time().Seconds()
	}
	for _, f := range p.Filters {
		out.Groups = append(out.Groups, f.Groups...)
	}
	slices.Sort(out.Groups)
	out.Groups = slices.Compact(out.Groups)
	for vid, lost := range c.VLANDrops {
		out.VLANDrops[int(vid)] = lost
	}
	for _, v := range p.Tagged {
		out.Tagged = append(out.Tagged, int(v))
	}
	if out.Drops == nil {
		out.Drops = map[string]uint64{}
	}
	return out
}

func securityOf(s vswitch.Security) v1.PortSecurity {
	out := v1.PortSecurity{
		AllowedMACs: []string{}, AllowedIPs: texts(s.AllowedIPs), MACLimit: cmp.Or(s.MACLimit, vswitch.DefaultMACLimit),
		Broadcast: s.Storm.Broadcast, Multicast: s.Storm.Multicast, UnknownUnicast: s.Storm.UnknownUnicast,
		BPDUGuard: s.BPDUGuard, LoopDetection: s.LoopDetection, Trusted: s.Trusted,
	}
	for _, m := range s.AllowedMACs {
		out.AllowedMACs = append(out.AllowedMACs, m.String())
	}
	return out
}

func (i inventory) fdb(ctx context.Context) ([]v1.FDB, error) {
	entries, err := i.drivers.vswitch.FDB(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]v1.FDB, len(entries))
	for n, e := range entries {
		all[n] = v1.FDB{Switch: e.Switch, VLAN: int(e.VLAN), MAC: e.MAC.String(), Port: e.Port, Static: e.Static, Age: e.Age.Seconds()}
	}
	return all, nil
}

func (i inventory) tunnels(ctx context.Context) ([]v1.Tunnel, error) {
	stats, err := i.drivers.vpn.Stats(ctx)
	if err != nil {
		return nil, err
	}
	have, err := i.drivers.vpn.Observe(ctx)
	if err != nil {
		return nil, err
	}
	var all []v1.Tunnel
	for _, t := range stats {
		all = append(all, v1.Tunnel{
			Name: t.Name, Engine: string(t.Engine), PublicKey: t.PublicKey.String(), Listen: int(t.Listen), MTU: t.MTU, Why: t.Why,
			Addresses: texts(have.Tunnels[t.Name].Addresses), Peers: len(t.Peers),
		})
	}
	return all, nil
}

func (i inventory) peers(ctx context.Context) ([]v1.Peer, error) {
	stats, err := i.drivers.vpn.Stats(ctx)
	if err != nil {
		return nil, err
	}
	file := i.config()
	var all []v1.Peer
	for _, t := range stats {
		for _, p := range t.Peers {
			out := v1.Peer{
				Name: p.Name, Tunnel: t.Name, PublicKey: p.PublicKey.String(), AllowedIPs: texts(p.AllowedIPs),
				RxBytes: int64(p.RxBytes), TxBytes: int64(p.TxBytes), Passes: p.Passes, Drops: int64(p.Drops), Origin: v1.FromFile,
			}
			if _, named := file.Tunnels[t.Name].Peers[p.Name]; !named {
				out.Origin = v1.FromVerb
			}
			if p.Endpoint.IsValid() {
				out.Endpoint = p.Endpoint.String()
			}
			if !p.LastHandshake.IsZero() {
				out.Handshake = &p.LastHandshake
			}
			all = append(all, out)
		}
	}
	return all, nil
}

func (i inventory) routes(ctx context.Context) ([]v1.Route, error) {
	have, err := i.drivers.vpn.Observe(ctx)
	if err != nil {
		return nil, err
	}
	var all []v1.Route
	for _, name := range slices.Sorted(maps.Keys(have.Tunnels)) {
		for _, p := range have.Tunnels[name].Routes {
			all = append(all, v1.Route{Prefix: p.String(), Table: vpn.Main, Device: name, Via: "tunnel " + name, State: v1.RouteUsed})
		}
	}
	for _, r := range i.drivers.bgp.Routes() {
		all = append(all, learnedOf(r))
	}
	return all, nil
}

// learnedOf is what became of a path that a neighbor announced.
func learnedOf(r vpn.Verdict) v1.Route {
	out := v1.Route{
		Prefix: r.Prefix.String(), Table: r.Table, Via: "neighbor " + r.Neighbor, NextHop: r.NextHop.String(), ASPath: r.ASPath,
		State: v1.RouteRefused, Why: r.Why, Stale: r.Stale,
	}
	switch {
	case r.Used:
		out.State = v1.RouteUsed
	case r.Accepted:
		out.State = v1.RouteAccepted
	}
	if r.VNI != 0 {
		out.VNI, out.Router, out.Via = r.VNI, r.RouterMAC.String(), out.Via+" by EVPN"
	}
	var devices []string
	for _, w := range r.Ways {
		devices = append(devices, w.Device)
	}
	out.Device = strings.Join(devices, ",")
	return out
}

func (i inventory) neighbors(ctx context.Context) ([]v1.Neighbor, error) {
	stats, err := i.drivers.bgp.Neighbors(ctx)
	if err != nil {
		return nil, err
	}
	var all []v1.Neighbor
	for _, n := range stats {
		all = append(all, v1.Neighbor{
			Name: n.Name, Address: n.Address.String(), ASN: n.ASN, State: n.Session.State, Since: sometime(n.Session.Since), Why: n.Session.Reason,
			RouterID: n.RouterID, Hold: n.Hold.Seconds(), Sent: n.Sent, Received: n.Received, Accepted: n.Accepted, Used: n.Used,
			PrefixesSent: n.PrefixesSent, PrefixesGot: n.PrefixesReceived, Flaps: n.Resets, BFD: n.BFD, GracefulRestart: n.Graceful,
		})
	}
	return all, nil
}

func (i inventory) pools(ctx context.Context) ([]v1.Pool, error) {
	have, err := i.drivers.lun.Observe(ctx)
	if err != nil {
		return nil, err
	}
	fills := i.drivers.accounts
	fills.look(time.Now())
	var all []v1.Pool
	for _, p := range i.drivers.lun.Stats().Pools {
		all = append(all, v1.Pool{
			Scrubbed: sometime(p.Scrubbed), Bad: p.Bad, Accepted: p.Accepted, Unhealed: p.Unhealed,
			Snapshots: p.Snapshots, Reserved: p.Reserved, Threshold: fills.level(p.Name), Full: fills.full(p.Name),
			Name: p.Name, Kind: string(p.Kind), Fault: p.Fault, Path: have.Pools[p.Name].Path, Size: p.Size, Used: p.Used,
			Provisioned: p.Provisioned, Overcommit: have.Pools[p.Name].Overcommit,
			Cache: cacheWord(have.Pools[p.Name].Direct),
		})
	}
	return all, nil
}

// sometime is nil for never.
func sometime(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func cacheWord(direct bool) string {
	if direct {
		return "direct"
	}
	return "writeback"
}

func (i inventory) luns(ctx context.Context) ([]v1.LUN, error) {
	serving, err := i.drivers.iscsi.Observe(ctx)
	if err != nil {
		return nil, err
	}
	at := servedBy(serving)
	file, made := i.config(), i.made()
	promised, err := i.drivers.qos.Observe(ctx)
	if err != nil {
		return nil, err
	}
	totals, delays := i.drivers.iscsi.Totals(), i.drivers.qos.Delays()
	schedules := i.schedules(file, time.Now())
	copied, err := i.copied(ctx, time.Now())
	if err != nil {
		return nil, err
	}
	var all []v1.LUN
	for _, l := range i.drivers.lun.Stats().LUNs {
		origin := v1.Retained // the file let go of it a moment ago
		if _, ok := file.LUNs[l.Name]; ok {
			origin = v1.FromFile
		} else if _, ok := made.LUNs[l.Name]; ok {
			origin = v1.FromVerb
		}
		out, passed := lunOf(l, origin, at[l.Name]), totals.LUNs[l.Name]
		out.QoS = qosOf(promised, delays, l.Name)
		out.IO = ioOf(&passed)
		out.Schedule, out.Copy = schedules[l.Name], copied[l.Name]
		if m, ok := made.Moves[l.Name]; ok {
			out.Move = &v1.Move{From: m.From, Pool: m.To, Phase: string(m.Phase)}
		}
		all = append(all, out)
	}
	for _, l := range i.drivers.lun.Retained() {
		all = append(all, lunOf(l, v1.Retained, nil))
	}
	slices.SortStableFunc(all, func(a, b v1.LUN) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

// schedules is how the file's schedules stand, by LUN.
func (i inventory) schedules(file *config.Config, now time.Time) map[string]*v1.Schedule {
	out := map[string]*v1.Schedule{}
	made := lun.Scheduled(i.drivers.lun.Snapshots())
	for name, l := range file.LUNs {
		if l.Snapshots.Every > 0 {
			s := lun.Schedule{Every: l.Snapshots.Every, Keep: l.Snapshots.Keep, Made: made[name]}
			out[name] = &v1.Schedule{Every: s.Interval(), Keep: s.Keep, Kept: len(s.Made), Last: sometime(s.Last()), Next: s.Next(now)}
		}
	}
	for _, o := range i.status().Objects {
		if s := out[o.Name()]; s != nil && o.Kind() == "schedule" && o.Condition != controller.Ready {
			s.Failed = o.Reason
		}
	}
	return out
}

func lunOf(l lun.LUNStats, origin v1.Origin, at []string) v1.LUN {
	targets := append([]string{}, at...)
	slices.Sort(targets)
	var legs []v1.Leg
	for _, s := range l.Legs {
		legs = append(legs, v1.Leg{Pool: s.Pool, State: string(s.State), Since: s.Since.UTC(), Left: s.Left, Used: s.Used, Reason: s.Reason})
	}
	return v1.LUN{
		Legs: legs,
		Name: l.Name, Pool: l.Pool, Size: l.Size, Used: l.Used, Block: l.BlockSize, Thick: l.Thick, Encrypted: l.Encrypted, Exclusive: l.Exclusive, Shared: l.Shared,
		ID: hex.EncodeToString(l.ID[:]), Origin: origin, Fault: l.Fault, Targets: targets,
	}
}

// qosOf is what a LUN was promised, nil without a promise in its pool.
func qosOf(all lun.QoS, delays map[string]lun.Delay, name string) *v1.QoS {
	s, ok := all.Of(name)
	if !ok {
		return nil
	}
	waits := delays[name]
	return &v1.QoS{
		Limit: v1.Rate(s.Limit), Burst: s.Burst.Seconds(), Reservation: v1.Rate(s.Reservation), Shares: cmp.Or(s.Shares, lun.DefaultShares),
		Target: s.Target, Delayed: waits.Accesses, Waited: waits.Waited.Seconds(),
	}
}

// servedBy is where targets serve LUNs and snapshots, as IQN:NUMBER.
func servedBy(s iscsi.State) map[string][]string {
	at := map[string][]string{}
	for iqn, t := range s.Targets {
		for number, name := range t.LUNs {
			at[name] = append(at[name], fmt.Sprintf("%s:%d", iqn, number))
		}
	}
	return at
}

func (i inventory) targets(ctx context.Context) ([]v1.Target, error) {
	serving, err := i.drivers.iscsi.Observe(ctx)
	if err != nil {
		return nil, err
	}
	totals := i.drivers.iscsi.Totals()
	var all []v1.Target
	for _, iqn := range slices.Sorted(maps.Keys(serving.Targets)) {
		t, total := serving.Targets[iqn], totals.Targets[iqn]
		out := v1.Target{
			Name: iqn, LUNs: map[int]string{}, Portals: []string{}, Initiators: slices.Sorted(maps.Keys(t.Initiators)),
			Sessions: total.Sessions, Logins: total.Logins, Refused: total.Refused, DigestErrors: total.DigestErrors,
			IO: ioOf(&total.Stats),
		}
		if t.Any != nil {
			out.Initiators = append(out.Initiators, "any")
		}
		for _, p := range t.Portals {
			out.Portals = append(out.Portals, p.String())
		}
		for number, name := range t.LUNs {
			out.LUNs[int(number)] = name
		}
		all = append(all, out)
	}
	return all, nil
}

func (i inventory) sessions(context.Context) ([]v1.Session, error) {
	var all []v1.Session
	for _, s := range i.drivers.iscsi.Sessions() {
		out := v1.Session{
			Initiator: s.Initiator, Target: s.Target, Portal: s.Portal.String(), Remote: s.Remote.String(), Since: s.Since,
			ISID: hex.EncodeToString(s.ISID[:]), LUNs: []int{}, DigestErrors: s.DigestErrors, IO: ioOf(&s.Stats),
		}
		for _, n := range s.LUNs {
			out.LUNs = append(out.LUNs, int(n))
		}
		all = append(all, out)
	}
	return all, nil
}

// ioOf is what was counted in the API's words.
func ioOf(s *iscsi.Stats) v1.IO {
	return v1.IO{
		Commands: s.Commands(), Reads: s.Reads, Writes: s.Writes, Others: s.Others,
		ReadBytes: s.ReadBytes, WrittenBytes: s.WrittenBytes, R2Ts: s.R2Ts, Depth: s.Depth, MaxDepth: s.MaxDepth,
		Errors: v1.IOErrors{
			CheckCondition: s.CheckConditions, UnitAttention: s.UnitAttentions, ReservationConflict: s.Conflicts,
			Busy: s.Busy, TaskSetFull: s.Full, TaskAborted: s.Aborted,
		},
		ReadLatencyNs: latencyOf(&s.ReadLatency), WriteLatencyNs: latencyOf(&s.WriteLatency),
	}
}

func latencyOf(s *hist.Snapshot) v1.Latency {
	return v1.Latency{
		Count: s.Count(), Mean: int64(s.Mean()), Max: int64(s.Max),
		P50: int64(s.Quantile(0.5)), P99: int64(s.Quantile(0.99)), P999: int64(s.Quantile(0.999)),
	}
}

func texts[T fmt.Stringer](all []T) []string {
	out := make([]string, len(all))
	for i, x := range all {
		out[i] = x.String()
	}
	return out
}
