package vswitch

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// Policy is what the security groups of a port say in one VLAN. What no rule
// allows is dropped, in both directions; what belongs to a connection that a rule
// allowed passes. A deny beats every allow, so that the order of groups and rules
// has no meaning. Nobody changes a Policy once it is made: ports share one.
type Policy struct {
	Groups []string     // names, sorted
	Log    bool         // drops are told
	Rules  []FilterRule // denying ones first; nil of a policy that was observed
	ID     uint64       // made of the rest: equal ones are the same policy
}

// Direction is the way of a connection's first packet, as the port sees it.
type Direction uint8

// The directions.
const (
	Out Direction = iota // from the port
	In                   // to the port
)

// String is the word of the file.
func (d Direction) String() string {
	if d == Out {
		return "out"
	}
	return "in"
}

// AnyProtocol in a FilterRule is every protocol; IANA reserves the number.
const AnyProtocol = 255

// FilterRule is which connections may begin, or may not.
type FilterRule struct {
	Deny      bool
	Direction Direction
	Remote    netip.Prefix // the other side, masked; the zero value is everybody
	Protocol  uint8        // IANA's number, or AnyProtocol
	// First and Last bound the port of the receiver (TCP, UDP, SCTP, UDP-Lite,
	// DCCP), or 256 times the type of ICMP plus its code. Of other protocols and
	// of AnyProtocol they are 0 and 65535.
	First, Last uint16
	Group       string // where the rule stands
	Place       int    // counted from 0
}

// NewPolicy takes the rules of some groups for its own.
func NewPolicy(groups []string, log bool, rules []FilterRule) *Policy {
	p := &Policy{Groups: slices.Clone(groups), Log: log, Rules: rules}
	slices.Sort(p.Groups)
	slices.SortStableFunc(p.Rules, func(a, b FilterRule) int {
		return cmp.Or(boolean(b.Deny)-boolean(a.Deny), strings.Compare(a.Group, b.Group), cmp.Compare(a.Place, b.Place))
	})
	h := sha256.New()
	fmt.Fprintf(h, "%q %t\n", p.Groups, log)
	for _, r := range p.Rules {
		fmt.Fprintf(h, "%+v\n", r)
	}
	p.ID = binary.LittleEndian.Uint64(h.Sum(nil))
	return p
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Matches tells whether a rule is about a connection that begins so.
func (r FilterRule) Matches(d Direction, remote netip.Addr, protocol uint8, service uint16) bool {
	return r.Direction == d && (!r.Remote.IsValid() || r.Remote.Contains(remote)) &&
		(r.Protocol == AnyProtocol || r.Protocol == protocol) && r.First <= service && service <= r.Last
}

// Covers tells whether r is about everything that o is about.
func (r FilterRule) Covers(o FilterRule) bool {
	return r.Direction == o.Direction && r.First <= o.First && o.Last <= r.Last &&
		(r.Protocol == AnyProtocol || r.Protocol == o.Protocol) &&
		(!r.Remote.IsValid() || o.Remote.IsValid() && r.Remote.Bits() <= o.Remote.Bits() && r.Remote.Contains(o.Remote.Addr()))
}

// sameFilters compares the policies of two ports.
func sameFilters(a, b map[uint16]*Policy) bool {
	return maps.EqualFunc(a, b, func(p, q *Policy) bool { return p.ID == q.ID })
}

// groups is a port's groups in words, empty without one.
func (p Port) groups() string {
	var words []string
	vlans := map[uint64][]uint16{}
	for _, vid := range slices.Sorted(maps.Keys(p.Filters)) {
		vlans[p.Filters[vid].ID] = append(vlans[p.Filters[vid].ID], vid)
	}
	for _, vid := range slices.Sorted(maps.Keys(p.Filters)) {
		f := p.Filters[vid]
		if all := vlans[f.ID]; all[0] == vid {
			words = append(words, fmt.Sprintf("groups %s in VLAN %s (%08x)", strings.Join(f.Groups, ","), joinRanges(all), f.ID>>32))
		}
	}
	return strings.Join(words, " ")
}

// filters says what of a port's traffic a change may drop.
func (s SetPort) filters() []string {
	if len(s.To.Filters) == 0 || sameFilters(s.From.Filters, s.To.Filters) {
		return nil
	}
	return []string{"drops what the groups of " + s.Name + " do not allow"}
}
