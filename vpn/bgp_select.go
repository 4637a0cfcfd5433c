package vpn

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Path is one way to a prefix that a neighbor announced.
type Path struct {
	Prefix    netip.Prefix
	Neighbor  string // its name
	NextHop   netip.Addr
	ASPath    []uint32
	ASLength  int // as RFC 4271 section 9.1.2.2 counts it
	Origin    uint8
	MED       uint32
	LocalPref uint32
	External  bool // learned by eBGP
	Stale     bool // the neighbor restarts and has not announced it again
	Overlay        // of what comes by EVPN
}

// Way is where the kernel sends packets: to a gateway, or where Gateway is not
// valid to whoever has the address on the device's link.
type Way struct {
	Gateway netip.Addr
	Device  string
}

// KernelRoute is one route that the kernel has.
type KernelRoute struct {
	Prefix    netip.Prefix
	Table     uint32
	Local     bool  // the host's own address
	Connected bool  // the kernel made it for a device's address
	Ways      []Way // none where packets are refused
}

// Destination is a prefix in one of the kernel's tables.
type Destination struct {
	Table  uint32
	Prefix netip.Prefix
}

// Verdict is what became of a path.
type Verdict struct {
	Path
	Table    uint32 // of an accepted one
	Accepted bool
	Used     bool   // the kernel sends packets this way
	Ways     []Way  // of an accepted one
	Why      string // why it is not accepted or not used, "" for a used one
}

// Around is what the kernel has besides learned routes, against which paths are held.
type Around struct {
	main   map[netip.Prefix]KernelRoute
	others map[Destination]bool
	own    map[netip.Addr]bool

	underlay []netip.Addr // of which tunnels and other VNIs have need
}

// NewAround takes the routes that are not ripstop's learned ones.
func NewAround(routes []KernelRoute) *Around {
	a := &Around{main: map[netip.Prefix]KernelRoute{}, others: map[Destination]bool{}, own: map[netip.Addr]bool{}}
	for _, r := range routes {
		switch {
		case r.Local && r.Prefix.IsSingleIP():
			a.own[r.Prefix.Addr()] = true
		case !r.Local:
			a.others[Destination{r.Table, r.Prefix}] = true
			if had, twice := a.main[r.Prefix]; r.Table == Main && (!twice || r.Connected && !had.Connected) {
				a.main[r.Prefix] = r
			}
		}
	}
	return a
}

// Under has no route of type 5 be the way to these addresses.
func (a *Around) Under(all []netip.Addr) { a.underlay = append(a.underlay, all...) }

// to is the longest route to an address.
func (a *Around) to(addr netip.Addr) (KernelRoute, bool) {
	addr = addr.WithZone("")
	for bits := addr.BitLen(); bits >= 0; bits-- {
		if r, ok := a.main[netip.PrefixFrom(addr, bits).Masked()]; ok {
			return r, true
		}
	}
	return KernelRoute{}, false
}

// Selection is what is to be in the kernel, and why.
type Selection struct {
	Routes   map[Destination][]Way
	Routers  map[netip.Addr]MAC // of the VTEPs that these need
	Verdicts []Verdict          // on each path
}

// Select decides for each path whether the kernel gets it and, where not, why.
// Paths of one prefix come in the order in which the speaker prefers them; those
// that equal the first accepted one share its traffic. Those of type 5 may come in any
// order, and give way to the others.
func (b BGP) Select(paths []Path, around *Around) Selection {
	j := &judge{bgp: b, around: around, hops: map[hop]resolved{}, overlay: newOverlay()}
	routes, verdicts := map[Destination][]Way{}, make([]Verdict, len(paths))
	routers := map[netip.Addr]MAC{}
	best := map[Destination]Path{}
	admitted := false
	in := order(paths)
	for _, i := range in {
		p := paths[i]
		if p.VNI != 0 && !admitted {
			for d := range routes {
				j.overlay.learned[d.Prefix] = j.overlay.learned[d.Prefix] || d.Table == Main
			}
			j.admit(paths, in)
			admitted = true
		}
		table, ways, why := j.path(p)
		v := Verdict{Path: p, Table: table, Accepted: why == "", Ways: ways, Why: why}
		d := Destination{table, p.Prefix}
		if v.Accepted {
			first, taken := best[d]
			switch {
			case !taken:
				best[d], v.Used = p, true
			case !first.equals(p):
				v.Why = "the way of " + first.whose() + " is better"
			case !slices.ContainsFunc(ways, func(w Way) bool { return !slices.Contains(routes[d], w) }):
				v.Used = true // another neighbor has said so, too
			case len(routes[d])+len(ways) > b.Speaker.Multipath:
				v.Why = fmt.Sprintf("there are %d ways already: raise multipath to have more", len(routes[d]))
			default:
				v.Used = true
			}
		}
		if v.Used && p.VNI != 0 {
			routers[p.NextHop] = p.RouterMAC
		}
		if v.Used {
			for _, w := range ways {
				if !slices.Contains(routes[d], w) {
					routes[d] = append(routes[d], w)
				}
			}
		}
		verdicts[i] = v
	}
	for d := range routes {
		slices.SortFunc(routes[d], Way.Compare)
	}
	return Selection{routes, routers, verdicts}
}

// whose is who has a path, in words.
func (p Path) whose() string {
	if p.VNI != 0 {
		return "VTEP " + p.NextHop.String()
	}
	return p.Neighbor
}

// Compare orders ways.
func (w Way) Compare(o Way) int {
	if c := w.Gateway.Compare(o.Gateway); c != 0 {
		return c
	}
	return strings.Compare(w.Device, o.Device)
}

// equals tells whether two paths share traffic: RFC 4271 section 9.1.2.2 finds no
// difference but who announced them.
func (p Path) equals(q Path) bool {
	same := p.LocalPref == q.LocalPref && p.ASLength == q.ASLength && p.Origin == q.Origin && p.External == q.External
	return same && (p.VNI == 0) == (q.VNI == 0) && (p.MED == q.MED || p.first() != q.first())
}

// first is the neighboring AS, of which alone MEDs compare.
func (p Path) first() uint32 {
	if len(p.ASPath) == 0 {
		return 0
	}
	return p.ASPath[0]
}

// judge holds paths against filters and the kernel.
type judge struct {
	bgp    BGP
	around *Around
	hops   map[hop]resolved

	overlay overlay
}

// hop is a next hop as one neighbor gives it.
type hop struct {
	neighbor string
	addr     netip.Addr
}

type resolved struct {
	ways []Way
	why  string
}

// path is the table that a path goes to and its ways, or why it goes nowhere.
func (j *judge) path(p Path) (table uint32, ways []Way, why string) {
	if why := unroutable(p.Prefix); why != "" {
		return 0, nil, why
	}
	f, why := j.filter(p)
	if why != "" {
		return 0, nil, why
	}
	if p.VNI != 0 {
		return j.routed(p, f.Table)
	}
	h := hop{p.Neighbor, p.NextHop}
	r, known := j.hops[h]
	if !known {
		r.ways, r.why = j.resolve(h)
		j.hops[h] = r
	}
	if r.why != "" {
		return 0, nil, r.why
	}
	if why := j.harm(p.Prefix, f.Table, r.ways); why != "" {
		return 0, nil, why
	}
	return f.Table, r.ways, ""
}

// routed is path for one of type 5 that its filter lets into a table.
func (j *judge) routed(p Path, table uint32) (uint32, []Way, string) {
	if why := j.router(p); why != "" {
		return 0, nil, why
	}
	ways := []Way{{j.bgp.L3.Gateway(p.Prefix, p.NextHop, p.RouterMAC), j.bgp.L3.Device()}}
	why := cmp.Or(j.harm(p.Prefix, table, ways), j.covers(p.Prefix))
	if why != "" {
		return 0, nil, why
	}
	return table, ways, ""
}

// unroutable says why no router has anything to say about a prefix (RFC 6890).
func unroutable(p netip.Prefix) string {
	a := p.Addr()
	first := a.As16()[12]
	switch {
	case p.Bits() == 0:
		return ""
	case a.IsMulticast(), a.IsLoopback(), a.IsLinkLocalUnicast(), a.Is4() && (first == 0 || first == 127 || first >= 224), a.Is4In6():
		return "is no unicast network"
	}
	return ""
}

func (j *judge) filter(p Path) (Filter, string) {
	filters, name := j.bgp.Import, "import"
	if p.VNI != 0 {
		filters, name = j.bgp.L3Import, "l3vni.import"
	}
	for i, f := range filters {
		if !f.matches(p) {
			continue
		}
		if f.Reject {
			return f, fmt.Sprintf("%s[%d] rejects it", name, i)
		}
		return f, ""
	}
	what := "import filter"
	if p.VNI != 0 {
		what += " of l3vni"
	}
	if p.Prefix.Bits() == 0 {
		return Filter{}, "no " + what + " accepts the default route: write default: true into one to have it"
	}
	return Filter{}, "no " + what + " accepts it"
}

func (f Filter) matches(p Path) bool {
	bits := p.Prefix.Bits()
	if bits == 0 && !f.Default && !f.Reject {
		return false
	}
	inside := f.Prefix.Bits() <= bits && bits <= f.Longest && f.Prefix.Contains(p.Prefix.Addr())
	whole := bits == 0 && f.Default && f.Prefix.Addr().Is4() == p.Prefix.Addr().Is4()
	return (inside || whole) && (len(f.From) == 0 || slices.Contains(f.From, p.Neighbor))
}

// resolve is how the host reaches a next hop without learned routes. Only an iBGP
// neighbor or one several hops away may name one beyond a gateway.
func (j *judge) resolve(h hop) ([]Way, string) {
	n, ok := j.bgp.Neighbors[h.neighbor]
	if !ok {
		return nil, "its neighbor is gone"
	}
	near, ok := j.around.to(n.Address)
	switch {
	case !h.addr.IsValid() || h.addr.IsUnspecified() || h.addr.IsMulticast() || h.addr.IsLoopback():
		return nil, fmt.Sprintf("next hop %s is no host", h.addr)
	case h.addr.Is4() != n.Address.Is4():
		return nil, fmt.Sprintf("next hop %s is of the other IP version", h.addr)
	case j.around.own[h.addr.WithZone("")]:
		return nil, fmt.Sprintf("next hop %s is this host", h.addr)
	case !ok || len(near.Ways) == 0:
		return nil, fmt.Sprintf("there is no way to the neighbor %s", n.Address)
	case h.addr.IsLinkLocalUnicast():
		return []Way{{h.addr.WithZone(""), near.Ways[0].Device}}, ""
	}
	far := n.Multihop > 0 || n.ASN == j.bgp.Speaker.ASN
	r, ok := j.around.to(h.addr)
	switch {
	case !ok || len(r.Ways) == 0 || r.Prefix.Bits() == 0:
		return nil, fmt.Sprintf("there is no way to the next hop %s", h.addr)
	case !far && (r.Ways[0].Gateway.IsValid() || r.Ways[0].Device != near.Ways[0].Device):
		return nil, fmt.Sprintf("next hop %s is not on the neighbor's link", h.addr)
	}
	ways := slices.Clone(r.Ways)
	for i := range ways {
		if !ways[i].Gateway.IsValid() {
			ways[i].Gateway = h.addr
		}
	}
	return ways, ""
}

// harm says what a route would take away, "" for nothing.
func (j *judge) harm(p netip.Prefix, table uint32, ways []Way) string {
	if what, ok := j.bgp.Announced[p]; ok {
		return fmt.Sprintf("this host announces it itself (%s)", what)
	}
	if what, ok := j.bgp.Prefixes[p]; ok {
		return fmt.Sprintf("this host announces it itself (%s)", what)
	}
	if p.IsSingleIP() && j.around.own[p.Addr()] {
		return "is an address of this host, too: let one of the two have it"
	}
	if j.around.others[Destination{table, p}] {
		return fmt.Sprintf("the host has another route to it: ip route show %s table %d", p, table)
	}
	for bits := p.Bits(); bits > 0; bits-- {
		r, ok := j.around.main[netip.PrefixFrom(p.Addr(), bits).Masked()]
		if ok && len(r.Ways) > 0 && !r.Ways[0].Gateway.IsValid() && (r.Connected || r.Ways[0].Device != ways[0].Device) {
			return fmt.Sprintf("lies in %s, which is the host's own on %s", r.Prefix, r.Ways[0].Device)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(j.bgp.Neighbors)) {
		n := j.bgp.Neighbors[name]
		if !p.Contains(n.Address) {
			continue
		}
		if r, ok := j.around.to(n.Address); !ok || r.Prefix.Bits() < p.Bits() {
			return fmt.Sprintf("would replace the way to the neighbor %s itself", name)
		}
	}
	return ""
}
