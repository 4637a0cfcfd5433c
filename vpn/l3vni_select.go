package vpn

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Overlay is what a path of type 5 has besides, the zero value on all others.
type Overlay struct {
	VNI       uint32
	RouterMAC MAC    // of its VTEP, which is the path's next hop; the zero value when it names none
	Unfit     string // why no host can use the path, as it was read; "" for others
}

// order is the paths in the order in which they are chosen from: those of sessions, as the
// speaker prefers them, and after them those of type 5, each of which is a route of its own
// to the speaker (RFC 4271, section 9.1.2.2, and at last the lower VTEP).
func order(paths []Path) []int {
	out := make([]int, len(paths))
	for i := range out {
		out[i] = i
	}
	slices.SortStableFunc(out, func(i, j int) int {
		p, q := paths[i], paths[j]
		if p.VNI == 0 || q.VNI == 0 {
			return cmp.Compare(min(p.VNI, 1), min(q.VNI, 1))
		}
		return p.worse(q)
	})
	return out
}

// worse orders paths of type 5. That MEDs compare only among those of one neighboring AS
// would make no order; so they compare between the ASes, too.
func (p Path) worse(q Path) int {
	external := func(p Path) int {
		if p.External {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(q.LocalPref, p.LocalPref), cmp.Compare(p.ASLength, q.ASLength), cmp.Compare(p.Origin, q.Origin),
		cmp.Compare(p.MED, q.MED), cmp.Compare(external(p), external(q)),
		p.NextHop.Compare(q.NextHop), slices.Compare(p.RouterMAC[:], q.RouterMAC[:]), cmp.Compare(p.Neighbor, q.Neighbor),
	)
}

// overlay is which VTEPs paths of type 5 go to.
type overlay struct {
	routers map[netip.Addr]MAC // of VTEPs
	vteps   map[MAC]netip.Addr
	learned map[netip.Prefix]bool // in the main table, from sessions
}

func newOverlay() overlay {
	return overlay{map[netip.Addr]MAC{}, map[MAC]netip.Addr{}, map[netip.Prefix]bool{}}
}

// admit looks at all paths of type 5 whose VTEP can be sent to, before any of them is
// chosen: which VTEPs there are decides what none of them may cover.
func (j *judge) admit(paths []Path, in []int) {
	for _, i := range in {
		p := paths[i]
		if p.VNI == 0 {
			continue
		}
		if _, why := j.filter(p); why != "" || unroutable(p.Prefix) != "" || j.router(p) != "" {
			continue
		}
		j.overlay.routers[p.NextHop], j.overlay.vteps[p.RouterMAC] = p.RouterMAC, p.NextHop
	}
}

// router says why the host cannot send to a path's VTEP, "" when it can.
func (j *judge) router(p Path) string {
	l, vtep := j.bgp.L3, p.NextHop
	switch {
	case l == nil:
		return "this host has no l3vni"
	case p.Unfit != "":
		return p.Unfit
	case p.VNI != l.VNI:
		return fmt.Sprintf("is in VNI %d, and this host's l3vni is %d", p.VNI, l.VNI)
	case p.RouterMAC == MAC{}:
		return "names no router MAC, without which its VTEP takes nothing"
	case p.RouterMAC[0]&1 != 0:
		return fmt.Sprintf("its router MAC %s is that of many", p.RouterMAC)
	case !vtep.IsValid() || vtep.IsUnspecified() || vtep.IsMulticast() || vtep.IsLoopback() || vtep.IsLinkLocalUnicast():
		return fmt.Sprintf("VTEP %s is no host", vtep)
	case vtep.Is4() != l.VTEP.Is4():
		return fmt.Sprintf("VTEP %s is of the other IP version", vtep)
	case vtep == l.VTEP || j.around.own[vtep]:
		return fmt.Sprintf("VTEP %s is this host", vtep)
	case j.reach(vtep) < 0:
		return fmt.Sprintf("there is no way to the VTEP %s", vtep)
	}
	if mac, ok := j.overlay.routers[vtep]; ok && mac != p.RouterMAC {
		return fmt.Sprintf("VTEP %s has the router MAC %s in another route", vtep, mac)
	}
	if other, ok := j.overlay.vteps[p.RouterMAC]; ok && other != vtep {
		return fmt.Sprintf("its router MAC %s is that of the VTEP %s, too", p.RouterMAC, other)
	}
	return ""
}

// reach is the prefix length of the way to a VTEP that is not itself of type 5, -1 where
// there is none.
func (j *judge) reach(vtep netip.Addr) int {
	for bits := vtep.BitLen(); bits >= 0; bits-- {
		p := netip.PrefixFrom(vtep, bits).Masked()
		if r, ok := j.around.main[p]; ok && len(r.Ways) > 0 || j.overlay.learned[p] {
			return bits
		}
	}
	return -1
}

// covers says whether a prefix of type 5 would be the way to what it needs itself, "" when
// not: what is in VXLAN would go into VXLAN again.
func (j *judge) covers(p netip.Prefix) string {
	if j.bgp.L3 == nil {
		return ""
	}
	in := func(vtep netip.Addr) bool { return p.Contains(vtep) && j.reach(vtep) < p.Bits() }
	for _, vtep := range slices.SortedFunc(maps.Keys(j.overlay.routers), netip.Addr.Compare) {
		if in(vtep) {
			return fmt.Sprintf("would replace the way to the VTEP %s itself", vtep)
		}
	}
	for _, a := range j.around.underlay {
		if in(a) {
			return fmt.Sprintf("would replace the way to %s, over which VXLAN goes", a)
		}
	}
	return ""
}
