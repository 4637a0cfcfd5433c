package controller

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"

	"ripstop/controller/config"
	"ripstop/iscsi"
	"ripstop/lun"
	"ripstop/vpn"
	"ripstop/vswitch"
)

// Host is what Resolve asks of the machine; every function may do I/O.
type Host struct {
	StateDir   string                                    // absolute; relative file names are under it
	Dataplane  func(switchName string) vswitch.Dataplane // what auto means here
	Works      func(vswitch.Dataplane) error             // why a dataplane does not work here, nil when it does
	PoolKind   func(path string) (lun.Kind, error)       // what the pool at a path is; of a new one, what it becomes
	ReadSecret func(path string) (string, error)         // a CHAP secret's or pre-shared key's file
	PrivateKey func(path string) (vpn.Secret, error)     // read, or made when absent
	LookupUser func(name string) (uid string, err error) // decimal uid of a user name

	VNIFree func(vpn.L3VNI) error // who else has what the host would route in, nil when nobody has

	// TunnelMTU is the MTU that a tunnel gets from its own MTU, addresses, and its peers'
	// endpoints, and Carries the one of the ways to other hosts: and how it comes about.
	TunnelMTU func(name string, t vpn.Tunnel) (mtu int, why string)
	Carries   func(from netip.Addr, to []netip.Addr) (mtu int, why string)
}

// Problem is an object that cannot be what the file asks, and why.
type Problem struct {
	Object string // "kind/name", as reconcile.Step names objects
	Err    error
}

// resolver gathers the problems of one Resolve.
type resolver struct {
	host     Host
	cfg      *config.Config
	problems []Problem

	policies map[string]*vswitch.Policy // by VLAN and groups
	spanned  map[uint32]string          // VNI to the switch on which it leaves the host
	networks map[uint32]vpn.Network     // of which EVPN tells
	clamped  map[string]string          // devices that are narrower than what the host forwards from, and their objects
	follows  map[string]string          // objects to what their MTU is computed from
	groups   map[string][]netip.Prefix  // the addresses of a group's ports, by group and VLAN
}

// Resolve turns a valid file into what the host shall be. An object that cannot
// be resolved is left out and becomes a Problem; the others go on. An initiator
// or peer whose secret cannot be read is left out of its target or tunnel: it
// is never served without its proof. Problems are sorted by object.
func Resolve(c *config.Config, h Host) (Desired, []Problem) {
	r := &resolver{host: h, cfg: c, spanned: map[uint32]string{}, networks: map[uint32]vpn.Network{}, clamped: map[string]string{}, follows: map[string]string{}}
	d := Desired{
		VSwitch: r.vswitch(),
		VPN:     r.vpn(),
		LUN:     r.lun(),
		ISCSI:   r.iscsi(),
	}
	d.Schedules = r.schedules(d)
	d.Copies = r.copies(d)
	d.QoS = r.qos(d)
	d.BGP = r.bgp(d.ISCSI)
	if d.BGP.L3 != nil {
		r.clamped[d.BGP.L3.Device()] = vpn.L3Object(d.BGP.L3.VNI)
	}
	if len(r.clamped) > 0 {
		d.VPN.Narrower = r.clamped
	}
	if len(r.follows) > 0 {
		d.Follows = r.follows
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Compare(a.Object, b.Object) })
	return d, r.problems
}

func (r *resolver) problem(object string, err error) {
	r.problems = append(r.problems, Problem{object, err})
}

// path is a file's name on this host.
func (r *resolver) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(r.host.StateDir, name)
}

// byName goes through a map in the order of its keys, so that files are read
// and problems told in one order.
func byName[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func (r *resolver) vswitch() vswitch.State {
	s := vswitch.State{Switches: map[string]vswitch.Switch{}}
	for _, name := range byName(r.cfg.Switches) {
		sw := r.cfg.Switches[name]
		out := vswitch.Switch{
			Dataplane: sw.Dataplane,
			Ports:     map[string]vswitch.Port{},
			Gateways:  r.gateways(name),
		}
		if out.Dataplane == vswitch.Auto {
			out.Dataplane = r.host.Dataplane(name)
		}
		if err := out.Dataplane.Full(len(sw.Ports), len(out.Gateways)); err != nil {
			r.problem("switch/"+name, err)
			continue
		}
		// Said before a switch that works is taken down for one that cannot.
		if err := r.host.Works(out.Dataplane); err != nil {
			r.problem("switch/"+name, err)
			continue
		}
		for _, portName := range byName(sw.Ports) {
			port, err := r.port(sw.Ports[portName])
			if err != nil {
				r.problem("port/"+name+"/"+portName, err)
				continue
			}
			out.Ports[portName] = port
		}
		r.overlays(name, out)
		s.Switches[name] = out
	}
	return s
}

// gateways is what the host serves on one switch.
func (r *resolver) gateways(switchName string) map[string]vswitch.Gateway {
	out := map[string]vswitch.Gateway{}
	for name, v := range r.cfg.VLANs {
		if v.Switch == switchName && len(v.Gateways) > 0 {
			g := vswitch.Gateway{VLAN: v.ID, Addresses: slices.Clone(v.Gateways)}
			if v.Anycast {
				g.MAC = vswitch.AnycastMAC(v.VNI)
			}
			out[name] = g
		}
	}
	return out
}

func (r *resolver) port(p config.Port) (vswitch.Port, error) {
	out := vswitch.Port{
		Kind:       p.Kind,
		Netns:      p.Netns,
		IfName:     p.IfName,
		Addresses:  slices.Clone(p.Addresses),
		MAC:        p.MAC,
		MultiQueue: p.MultiQueue,
		Device:     p.Device,
		PVID:       r.vlanID(cmp.Or(p.VLAN, p.Native)),
		Isolated:   p.Isolated,
		MTU:        p.MTU,
		Down:       p.Down,
		Security:   p.Security,
		Limit:      p.Limit,
	}
	out.Security.AllowedMACs = slices.Clone(p.Security.AllowedMACs)
	out.Security.AllowedIPs = slices.Clone(p.Security.AllowedIPs)
	for _, v := range p.Trunk {
		out.Tagged = append(out.Tagged, r.vlanID(v))
	}
	slices.Sort(out.Tagged)
	filters, err := r.filters(p)
	if err != nil {
		return out, err
	}
	out.Filters = filters
	uid, err := r.uid(p.TapUser)
	out.User = uid
	return out, err
}

// vlanID is a VLAN's id, 0 for no VLAN.
func (r *resolver) vlanID(name string) uint16 { return r.cfg.VLANs[name].ID }

// uid is a user's decimal uid, "" for root.
func (r *resolver) uid(user string) (string, error) {
	uid := user
	if user != "" && !decimal(user) {
		var err error
		if uid, err = r.host.LookupUser(user); err != nil {
			return "", fmt.Errorf("look up tap user %q: %w", user, err)
		}
	}
	if uid == "0" {
		uid = ""
	}
	return uid, nil
}

func decimal(s string) bool {
	for _, c := range s {
		if c < '0' || c > '9' {
			return false
		}
	}
	return true
}

func (r *resolver) lun() lun.State {
	s := lun.State{Pools: map[string]lun.Pool{}, LUNs: map[string]lun.LUN{}}
	for _, name := range byName(r.cfg.Pools) {
		p := r.cfg.Pools[name]
		out := lun.Pool{Kind: lun.Kind(p.Kind), Path: r.path(p.Path), Size: p.Size, Overcommit: p.Overcommit, Direct: p.Direct}
		if other := r.nested(s.Pools, out.Path); other != "" {
			r.problem("pool/"+name, fmt.Errorf("directory %s is, holds or lies in the one of pool %q: give each its own", out.Path, other))
			continue
		}
		if out.Kind == "" {
			var err error
			if out.Kind, err = r.host.PoolKind(out.Path); err != nil {
				r.problem("pool/"+name, fmt.Errorf("tell the kind of the pool: %w: write `kind:` to say it", err))
				continue
			}
		}
		s.Pools[name] = out
	}
	for _, name := range byName(r.cfg.LUNs) {
		l := r.cfg.LUNs[name]
		_, ok := s.Pools[l.Pool]
		if _, other := s.Pools[l.Mirror]; !ok && !other {
			r.problem("lun/"+name, fmt.Errorf("pool %q is out of service: see its own problem", l.Pool))
			continue
		}
		s.LUNs[name] = lun.LUN{Pool: l.Pool, Mirror: l.Mirror, Size: l.Size, Block: l.Block, Thick: l.Thick, Encryption: r.encryption(l)}
	}
	return s
}

// encryption reads the keys of a LUN. A LUN in service goes on without a key that
// cannot be read, and one that is not stays out of service.
func (r *resolver) encryption(l config.LUN) lun.Encryption {
	e := r.cfg.Pools[l.Pool].Encryption
	if l.Encryption != nil {
		e = *l.Encryption
	}
	var out lun.Encryption
	for _, one := range []struct {
		name string
		key  *lun.Key
	}{{e.Key, &out.Key}, {e.Former, &out.Former}} {
		if one.name == "" {
			continue
		}
		path := r.path(one.name)
		text, err := r.host.ReadSecret(path)
		if err == nil {
			if *one.key, err = lun.ParseKey(text); err != nil {
				err = fmt.Errorf("%s: %w", path, err)
			}
		}
		if err != nil {
			return lun.Encryption{Missing: "its key: " + err.Error()}
		}
	}
	if out.Former == out.Key {
		out.Former = lun.Key{}
	}
	return out
}

// schedules is the snapshots that are made by time; those that targets serve stay.
func (r *resolver) schedules(d Desired) lun.Schedules {
	s := lun.Schedules{Of: map[string]lun.Schedule{}}
	for _, name := range byName(r.cfg.LUNs) {
		x := r.cfg.LUNs[name].Snapshots
		if x.Every == 0 {
			continue
		}
		l, ok := d.LUN.LUNs[name]
		if !ok {
			r.problem("schedule/"+name, fmt.Errorf("LUN %q is out of service: see its own problem", name))
			continue
		}
		if d.LUN.Pools[l.Pool].Kind == lun.Raw {
			r.problem("schedule/"+name, fmt.Errorf("pool %s is raw and takes no snapshots: put the LUN into a pool of `kind: thin`", l.Pool))
			continue
		}
		s.Of[name] = lun.Schedule{Every: x.Every, Keep: x.Keep, Held: held(d.ISCSI, name)}
	}
	return s
}

// qos is the promises to LUNs and targets, and the LUNs of the pools in which some
// are made: all of those share what is left.
func (r *resolver) qos(d Desired) lun.QoS {
	q := lun.QoS{LUNs: map[string]lun.Share{}, Targets: map[string]lun.Policy{}}
	through := map[string]string{}
	for _, name := range byName(d.ISCSI.Targets) {
		p := policy(r.cfg.Targets[name].QoS)
		if p == (lun.Policy{}) {
			continue
		}
		q.Targets[name] = p
		for _, ref := range d.ISCSI.Targets[name].LUNs {
			of, _, snapshot := lun.SplitSnapshot(ref)
			if !snapshot {
				of = ref
			}
			through[of] = name
		}
	}
	shares, ranked := map[string]lun.Share{}, map[string]bool{}
	for _, name := range byName(d.LUN.LUNs) {
		s := lun.Share{Policy: policy(r.cfg.LUNs[name].QoS), Pool: d.LUN.LUNs[name].Pool, Target: through[name]}
		shares[name] = s
		ranked[s.Pool] = ranked[s.Pool] || s.Ranked() || q.Targets[s.Target].Ranked()
	}
	for name, s := range shares {
		if ranked[s.Pool] || s.Policy != (lun.Policy{}) || s.Target != "" {
			q.LUNs[name] = s
		}
	}
	return q
}

func policy(q config.QoS) lun.Policy {
	return lun.Policy{Limit: lun.Rate(q.Limit), Burst: q.Burst, Reservation: lun.Rate(q.Reservation), Shares: q.Shares}
}

// held is the snapshots of a LUN that targets serve, sorted.
func held(s iscsi.State, name string) []string {
	var out []string
	for _, t := range s.Targets {
		for _, ref := range t.LUNs {
			if of, snapshot, ok := lun.SplitSnapshot(ref); ok && of == name {
				out = append(out, snapshot)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// nested is a pool whose directory overlaps path, "" when none does. The file's
// parser cannot know it of a relative and an absolute name.
func (r *resolver) nested(pools map[string]lun.Pool, path string) string {
	for _, name := range byName(pools) {
		if inside(path, pools[name].Path) || inside(pools[name].Path, path) {
			return name
		}
	}
	return ""
}

func inside(path, dir string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}
