package vpn

import (
	"fmt"
	"iter"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A station that moves to and fro more often than moveLimit within moveWindow is on two
// hosts, or in a loop: this host leaves it alone until the window is over (RFC 7432,
// 15.1, with its default values).
const (
	moveLimit  = 5
	moveWindow = 180 * time.Second
)

// Roster is all stations that this host and others say they have, and who has them. It
// is changed piece by piece, and decides anew about what a change concerns alone. A path
// is known by its ID. The zero value is empty.
type Roster[ID comparable] struct {
	networks map[uint32]Network
	local    map[StationKey]Station
	routes   map[ID]route
	paths    map[StationKey][]path[ID]
	seq      map[StationKey]uint32 // of those that this host claims
	moves    map[StationKey]movement
	claims   map[StationKey][]Claim
	voices   map[StationKey]voice
	bearers  map[AddressKey][]bearer
	told     Told
	due      map[StationKey]bool
	flooded  bool // told.Floods is right

	conflicts map[Conflict]bool
	disputes  uint64 // how often conflicts came or went
}

// Conflict is a station or an address that is claimed in two places, which no host can
// put right.
type Conflict struct {
	StationKey            // of an address the VNI alone
	IP         netip.Addr // not valid where it is about the station
	Restless   bool       // it moves to and fro, and is left alone; else each of two hosts says that it is nowhere else
}

// route is what an ID stands for: one of both.
type route struct {
	key   StationKey
	flood Flood
}

type path[ID comparable] struct {
	id ID
	StationPath
}

type movement struct {
	since time.Time
	count int
}

// voice is the addresses that a station has, by who has the station.
type voice struct {
	own bool
	ips []netip.Addr // sorted
}

// bearer is a station with an address.
type bearer struct {
	mac MAC
	own bool
}

func (r *Roster[ID]) init() {
	if r.due != nil {
		return
	}
	r.local, r.routes, r.paths = map[StationKey]Station{}, map[ID]route{}, map[StationKey][]path[ID]{}
	r.seq, r.moves, r.claims = map[StationKey]uint32{}, map[StationKey]movement{}, map[StationKey][]Claim{}
	r.voices, r.bearers = map[StationKey]voice{}, map[AddressKey][]bearer{}
	r.told, r.due, r.conflicts = NewTold(), map[StationKey]bool{}, map[Conflict]bool{}
}

// Serve has the roster be about these networks. What is said of others' waits for them.
func (r *Roster[ID]) Serve(networks map[uint32]Network) {
	r.init()
	if maps.Equal(networks, r.networks) {
		return
	}
	was := r.networks
	r.networks, r.flooded = maps.Clone(networks), false
	concerns := func(key StationKey) {
		if was[key.VNI] != networks[key.VNI] {
			r.due[key] = true
		}
	}
	for key := range r.local {
		concerns(key)
	}
	for key := range r.paths {
		concerns(key)
	}
}

// House has these be the stations on this host.
func (r *Roster[ID]) House(all []Station) {
	r.init()
	next := make(map[StationKey]Station, len(all))
	for _, s := range all {
		next[s.StationKey] = s
		if was, ok := r.local[s.StationKey]; !ok || was.Fixed != s.Fixed || !slices.Equal(was.IPs, s.IPs) {
			r.due[s.StationKey] = true
		}
	}
	for key := range r.local {
		if _, ok := next[key]; !ok {
			r.due[key] = true
		}
	}
	r.local = next
}

// Say is told what another host says of a station, in place of what it said by the same
// ID.
func (r *Roster[ID]) Say(id ID, p StationPath) {
	r.init()
	if had, ok := r.routes[id]; ok && had.key == p.StationKey {
		list := r.paths[p.StationKey]
		i := slices.IndexFunc(list, func(h path[ID]) bool { return h.id == id })
		if list[i].StationPath == p {
			return
		}
		list[i].StationPath = p
		r.due[p.StationKey] = true
		return
	}
	r.Retract(id)
	r.routes[id] = route{key: p.StationKey}
	r.paths[p.StationKey] = append(r.paths[p.StationKey], path[ID]{id, p})
	r.due[p.StationKey] = true
}

// SayFlood is told that another host wants what is for all.
func (r *Roster[ID]) SayFlood(id ID, f Flood) {
	r.init()
	if had, ok := r.routes[id]; ok && had == (route{flood: f}) {
		return
	}
	r.Retract(id)
	r.routes[id], r.flooded = route{flood: f}, false
}

// Retract forgets what was said by an ID.
func (r *Roster[ID]) Retract(id ID) {
	had, ok := r.routes[id]
	if !ok {
		return
	}
	delete(r.routes, id)
	if had.flood != (Flood{}) {
		r.flooded = false
		return
	}
	r.due[had.key] = true
	r.paths[had.key] = slices.DeleteFunc(r.paths[had.key], func(h path[ID]) bool { return h.id == id })
	if len(r.paths[had.key]) == 0 {
		delete(r.paths, had.key)
	}
}

// Keep retracts all but some IDs.
func (r *Roster[ID]) Keep(said func(ID) bool) {
	for id := range r.routes {
		if !said(id) {
			r.Retract(id)
		}
	}
}

// Settle decides which stations are this host's and which another's, by RFC 7432,
// section 15: who says the higher sequence number has the station, and of two the one
// with the lower VTEP. A station that is seen here, and that another host claims, has
// moved here, unless this host has claimed it before the other did. It says about which
// stations and addresses it has decided: all others are as they were.
func (r *Roster[ID]) Settle(now time.Time) (stations map[StationKey]bool, addresses map[AddressKey]bool) {
	r.init()
	stations, addresses = r.due, map[AddressKey]bool{}
	r.due = map[StationKey]bool{}
	for key := range stations {
		if r.settle(key, now, addresses) {
			r.due[key] = true
		}
	}
	for a := range addresses {
		// An address that two stations say is theirs, here or there, has moved, or one of
		// them lies: the question goes to all, and who has it answers.
		if b := r.bearers[a]; len(b) == 1 && !b[0].own {
			r.told.Addresses[a] = b[0].mac
		} else {
			delete(r.told.Addresses, a)
		}
		r.dispute(Conflict{StationKey: StationKey{VNI: a.VNI}, IP: a.IP}, len(r.bearers[a]) > 1)
	}
	if !r.flooded {
		r.flooded = true
		clear(r.told.Floods)
		for _, had := range r.routes {
			if f := had.flood; r.foreign(f.VNI, f.VTEP) {
				r.told.Floods[f] = true
			}
		}
	}
	for key, m := range r.moves {
		over := now.Sub(m.since) > moveWindow
		if over {
			delete(r.moves, key)
		}
		_, served := r.networks[key.VNI]
		r.dispute(Conflict{StationKey: key, Restless: true}, !over && served && m.count > moveLimit)
	}
	return stations, addresses
}

// dispute has a conflict be there, or not.
func (r *Roster[ID]) dispute(c Conflict, there bool) {
	if r.conflicts[c] == there {
		return
	}
	r.disputes++
	if delete(r.conflicts, c); there {
		r.conflicts[c] = true
	}
}

// settle decides about one station, and tells whether to do so again though nothing is
// said of it meanwhile: it is seen here still and is not claimed.
func (r *Roster[ID]) settle(key StationKey, now time.Time, addresses map[AddressKey]bool) (again bool) {
	n, served := r.networks[key.VNI]
	s, here := r.local[key]
	best, contested := r.best(key)
	seq, claimed := r.seq[key]
	own := false
	switch {
	case !here || !served:
	case s.Fixed:
		own = true
	case contested && best.Fixed:
	case contested && claimed && beats(best, seq, n.VTEP):
		again = true // it has gone there, until it is seen here after the switches know
	case contested && !claimed:
		if best.Seq == math.MaxUint32 || r.restless(key, now) { // nothing beats the highest
			again = true
			break
		}
		seq, own = best.Seq+1, true
	default:
		own = true
	}
	delete(r.seq, key)
	delete(r.claims, key)
	delete(r.told.Stations, key)
	v := voice{own: own}
	switch {
	case own:
		r.seq[key] = seq
		claims := []Claim{{StationKey: key, Seq: seq, Fixed: s.Fixed}}
		for _, ip := range s.IPs {
			claims = append(claims, Claim{StationKey: key, IP: ip, Seq: seq, Fixed: s.Fixed})
		}
		r.claims[key], v.ips = claims, s.IPs
	case contested:
		r.told.Stations[key] = best.VTEP
		for _, p := range r.paths[key] {
			if p.VTEP == best.VTEP && p.IP.IsValid() {
				v.ips = append(v.ips, p.IP)
			}
		}
		slices.SortFunc(v.ips, netip.Addr.Compare)
		v.ips = slices.Compact(v.ips)
	}
	r.hear(key, v, addresses)
	r.dispute(Conflict{StationKey: key}, len(r.fixed(key)) > 1)
	return again
}

// fixed is who says that a station is nowhere else; of this host that is its own VTEP.
func (r *Roster[ID]) fixed(key StationKey) (out []netip.Addr) {
	if n, served := r.networks[key.VNI]; served && r.local[key].Fixed {
		out = append(out, n.VTEP)
	}
	for _, p := range r.paths[key] {
		if p.Fixed && r.foreign(key.VNI, p.VTEP) && !slices.Contains(out, p.VTEP) {
			out = append(out, p.VTEP)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// hear has a station's addresses be these, and adds to out what that changes.
func (r *Roster[ID]) hear(key StationKey, v voice, out map[AddressKey]bool) {
	was := r.voices[key]
	if was.own == v.own && slices.Equal(was.ips, v.ips) {
		return
	}
	for _, ip := range was.ips {
		a := AddressKey{key.VNI, ip}
		out[a] = true
		r.bearers[a] = slices.DeleteFunc(r.bearers[a], func(b bearer) bool { return b.mac == key.MAC })
		if len(r.bearers[a]) == 0 {
			delete(r.bearers, a)
		}
	}
	for _, ip := range v.ips {
		a := AddressKey{key.VNI, ip}
		out[a] = true
		r.bearers[a] = append(r.bearers[a], bearer{key.MAC, v.own})
	}
	if delete(r.voices, key); len(v.ips) > 0 {
		r.voices[key] = v
	}
}

// Outbid is told that a claim cannot be said, because another host has as high a number:
// the next one is higher. It tells whether there is such a claim, and such a number.
func (r *Roster[ID]) Outbid(key StationKey) bool {
	seq, claimed := r.seq[key]
	if !claimed {
		return false
	}
	for _, p := range r.paths[key] {
		if p.Seq == math.MaxUint32 {
			return false
		}
		seq = max(seq, p.Seq+1)
	}
	r.seq[key], r.due[key] = seq, true
	return true
}

// Claims is what this host says of a station, nothing of one that it has not.
func (r *Roster[ID]) Claims(key StationKey) []Claim { return r.claims[key] }

// Claimed is all stations of which this host says something.
func (r *Roster[ID]) Claimed() iter.Seq[StationKey] { return maps.Keys(r.claims) }

// Here tells whether a station is one of those on this host.
func (r *Roster[ID]) Here(key StationKey) bool {
	_, ok := r.local[key]
	return ok
}

// Open tells whether there is something to decide.
func (r *Roster[ID]) Open() bool { return len(r.due) > 0 }

// Told is what switches have to know of other hosts. It is the roster's own, and changes
// with it.
func (r *Roster[ID]) Told() Told {
	r.init()
	return r.told
}

// best is the path of a station that counts. What no host can be is left out.
func (r *Roster[ID]) best(key StationKey) (best StationPath, ok bool) {
	for _, p := range r.paths[key] {
		if !r.foreign(key.VNI, p.VTEP) {
			continue
		}
		if !ok || p.Fixed && !best.Fixed || p.Fixed == best.Fixed && beats(p.StationPath, best.Seq, best.VTEP) {
			best, ok = p.StationPath, true
		}
	}
	return best, ok
}

// beats tells whether a path counts more than a claim.
func beats(p StationPath, seq uint32, vtep netip.Addr) bool {
	return p.Seq > seq || p.Seq == seq && p.VTEP.Less(vtep)
}

// foreign tells whether a VTEP can be another host's of one of the networks.
func (r *Roster[ID]) foreign(vni uint32, vtep netip.Addr) bool {
	n, ok := r.networks[vni]
	return ok && vtep.IsValid() && vtep != n.VTEP && vtep.Is4() == n.VTEP.Is4() &&
		!vtep.IsUnspecified() && !vtep.IsMulticast() && !vtep.IsLoopback() && !vtep.IsLinkLocalUnicast()
}

// restless counts a station's move to this host, and tells whether it was one too many.
func (r *Roster[ID]) restless(key StationKey, now time.Time) bool {
	m := r.moves[key]
	if now.Sub(m.since) > moveWindow {
		m = movement{since: now}
	}
	m.count = min(m.count+1, moveLimit+1)
	r.moves[key] = m
	return m.count > moveLimit
}

// Disputes is another number when Conflicts may be others than before.
func (r *Roster[ID]) Disputes() uint64 { return r.disputes }

// Conflicts is what each is, in words.
func (r *Roster[ID]) Conflicts() map[Conflict]string {
	out := make(map[Conflict]string, len(r.conflicts))
	for c := range r.conflicts {
		switch {
		case c.Restless:
			out[c] = fmt.Sprintf("station %s moved here more than %d times in %s, and is left %s until that time is over: it is on two hosts, or in a loop: take one away",
				c.MAC, moveLimit, moveWindow, r.place(c.StationKey))
		case c.IP.IsValid():
			var all []string
			for _, b := range r.bearers[AddressKey{c.VNI, c.IP}] {
				all = append(all, fmt.Sprintf("%s %s", b.mac, r.place(StationKey{c.VNI, b.mac})))
			}
			slices.Sort(all)
			out[c] = fmt.Sprintf("address %s is announced as that of %s: give all but one another", c.IP, strings.Join(all, " and of "))
		default:
			var all []string
			for _, vtep := range r.fixed(c.StationKey) {
				all = append(all, vtep.String())
			}
			out[c] = fmt.Sprintf("station %s is announced as one that never moves by %s: give all but one another mac", c.MAC, strings.Join(all, " and "))
		}
	}
	return out
}

// place is where a station is.
func (r *Roster[ID]) place(key StationKey) string {
	if vtep, ok := r.told.Stations[key]; ok {
		return "at " + vtep.String()
	}
	return "here"
}
