package vpn

import (
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// BGP is one host's BGP speaker, wanted or observed: who it is, whom it speaks
// with, what it announces, and which of the routes that it learns the kernel gets.
type BGP struct {
	Speaker   *Speaker                // nil is no BGP at all
	Neighbors map[string]Neighbor     // by name
	Announced map[netip.Prefix]string // masked prefix to what it is, as "vlan blue"
	Import    []Filter                // the first that matches decides; what none matches is refused
	Networks  map[uint32]Network      // of which EVPN tells, by VNI

	L3       *L3VNI                  // nil when EVPN tells of no prefixes
	Prefixes map[netip.Prefix]string // what is announced in L3, as Announced
	L3Import []Filter                // as Import, of what comes by L3

	// What only an observed BGP has; DiffBGP does not read it in a wanted one.
	Sessions  map[string]Session  // by neighbor
	Conflicts map[uint32][]string // what hosts of a network disagree about, in words, sorted, by VNI
}

// Speaker is what every neighbor sees of the host.
type Speaker struct {
	ASN       uint32
	RouterID  netip.Addr    // IPv4
	Restart   time.Duration // graceful restart: how long neighbors keep our routes without us, whole seconds up to 4095; 0 is off
	Multipath int           // most ways of equal cost to one prefix, at least 1
	EVPN      bool          // neighbors are asked for EVPN, too
}

// Neighbor is one router that the speaker has a session with. Sessions over IPv4
// carry IPv4 prefixes, those over IPv6 carry IPv6 ones.
type Neighbor struct {
	Address     netip.Addr
	ASN         uint32
	Source      netip.Addr // the session's own address; the zero value leaves it to the kernel
	Password    Password   // TCP MD5 (RFC 2385); "" without
	Hops        uint8      // TTL security (RFC 5082): the most hops away that it may be, 1 for the link; 0 is off
	Multihop    uint8      // TTL of an eBGP session over several hops; 0 is one hop
	Hold        time.Duration
	PrefixLimit uint32        // the session ends when it announces more
	Client      bool          // a client of this route reflector
	BFD         time.Duration // interval of BFD, three lost ones end the session; 0 is off
	Passive     bool          // it connects, and this host waits for it (RFC 4271, 8.1.1)
}

// Password is the secret of TCP MD5. Every way of printing it gives "(secret)".
type Password string

// String hides the password.
func (Password) String() string { return "(secret)" }

// GoString hides the password.
func (Password) GoString() string { return "(secret)" }

// MarshalText hides the password.
func (Password) MarshalText() ([]byte, error) { return []byte("(secret)"), nil }

// LogValue hides the password.
func (Password) LogValue() slog.Value { return slog.StringValue("(secret)") }

// MaxPassword is the most bytes that the kernel takes (TCP_MD5SIG_MAXKEYLEN).
const MaxPassword = 80

// Filter accepts or refuses learned prefixes: those in Prefix whose length is not
// more than Longest.
type Filter struct {
	Reject  bool
	Prefix  netip.Prefix // masked
	Longest int          // bits
	Default bool         // 0.0.0.0/0 and ::/0 too, which no filter accepts otherwise
	Table   uint32       // the kernel's routing table that accepted ones go to
	From    []string     // names of neighbors, sorted; none is any
}

// Main is the number of the kernel's main routing table.
const Main = 254

// BGPRouteProtocol marks the routes that ripstop learned by BGP, as RouteProtocol
// marks those of tunnels.
const BGPRouteProtocol = 115

// BGPMetric is the metric of learned routes, which is higher than that of routes
// by which the host reaches its own networks.
const BGPMetric = 20

// Session is how a neighbor's session stands.
type Session struct {
	State  string    // of RFC 4271 section 8.2.2 in lower case, as "established"
	Since  time.Time // of the state established; the zero value otherwise
	Reason string    // why it is not established, "" when nothing is known yet
}

// Established is the state in which routes are exchanged.
const Established = "established"

// Clone is a copy that shares nothing with b.
func (b BGP) Clone() BGP {
	c := BGP{
		Neighbors: maps.Clone(b.Neighbors), Announced: maps.Clone(b.Announced), Sessions: maps.Clone(b.Sessions),
		Networks: maps.Clone(b.Networks), Conflicts: maps.Clone(b.Conflicts),
		Import: cloneFilters(b.Import), Prefixes: maps.Clone(b.Prefixes), L3Import: cloneFilters(b.L3Import),
	}
	if b.L3 != nil {
		l := *b.L3
		c.L3 = &l
	}
	if b.Speaker != nil {
		s := *b.Speaker
		c.Speaker = &s
	}
	return c
}

func cloneFilters(all []Filter) []Filter {
	out := slices.Clone(all)
	for i := range out {
		out[i].From = slices.Clone(out[i].From)
	}
	return out
}

func (f Filter) equal(g Filter) bool {
	return f.Reject == g.Reject && f.Prefix == g.Prefix && f.Longest == g.Longest && f.Default == g.Default && f.Table == g.Table && slices.Equal(f.From, g.From)
}

// mostConflicts is how many are told in words.
const mostConflicts = 3

// Waiting is why neighbors are without a session, and what somebody has to put right in a
// network, by object.
func (b BGP) Waiting() map[string]string {
	out := map[string]string{}
	for name, s := range b.Sessions {
		if s.State == Established {
			continue
		}
		out[neighborObject(name)] = "no session yet"
		if b.Neighbors[name].Passive {
			out[neighborObject(name)] = "no session yet: it connects to this host, and says why it cannot"
		}
		if s.Reason != "" {
			out[neighborObject(name)] = "no session: " + s.Reason
		}
	}
	for vni, all := range b.Conflicts {
		text := strings.Join(all[:min(len(all), mostConflicts)], "; ")
		if more := len(all) - mostConflicts; more > 0 {
			text += fmt.Sprintf("; and %d more", more)
		}
		out[networkObject(vni)] = text
	}
	return out
}
