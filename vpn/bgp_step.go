package vpn

import (
	"fmt"
	"net/netip"
	"strings"
)

// BGPStep is one change of the speaker. The set is closed: AddSpeaker, SetSpeaker,
// DelSpeaker, AddNeighbor, SetNeighbor, DelNeighbor, AddNetwork, DelNetwork, Announce,
// Withdraw, SetImport, AddL3VNI, SetL3VNI, DelL3VNI, AnnouncePrefix, WithdrawPrefix and
// SetL3Import. String is written in the words of gobgp(8), passwords hidden.
type BGPStep interface {
	fmt.Stringer
	// Object is "bgp/speaker", "bgp/import", "neighbor/NAME", "network/VNI",
	// "announcement/PREFIX", "l3vni/VNI", "l3vni/import" or "prefix/PREFIX".
	Object() string
	// Removes tells whether the step takes something away.
	Removes() bool
	// Disturbs says which sessions and routes the step interrupts, empty when none.
	Disturbs() string

	applyBGP(b *BGP)
}

// AddSpeaker starts to listen for neighbors.
type AddSpeaker struct{ Speaker Speaker }

// SetSpeaker changes who the host is for its neighbors.
type SetSpeaker struct{ From, To Speaker }

// DelSpeaker ends every session and removes every learned route.
type DelSpeaker struct{}

// AddNeighbor begins to speak with a neighbor.
type AddNeighbor struct {
	Name     string
	Neighbor Neighbor
}

// SetNeighbor changes a neighbor, and no other.
type SetNeighbor struct {
	Name     string
	From, To Neighbor
}

// DelNeighbor ends a neighbor's session.
type DelNeighbor struct {
	Name    string
	Address netip.Addr
}

// Announce tells all neighbors of a prefix.
type Announce struct {
	Prefix netip.Prefix
	What   string
}

// Withdraw takes an announcement back.
type Withdraw struct {
	Prefix netip.Prefix
	What   string
}

// SetImport changes which learned routes the kernel gets.
type SetImport struct{ From, To []Filter }

// AddNetwork has EVPN tell of a VNI and its stations, and the switches learn of those
// of other hosts.
type AddNetwork struct {
	VNI     uint32
	Network Network
}

// DelNetwork takes that back.
type DelNetwork struct {
	VNI     uint32
	Network Network
}

// Object is "network/VNI".
func (s AddNetwork) Object() string { return networkObject(s.VNI) }

// Object is "network/VNI".
func (s DelNetwork) Object() string { return networkObject(s.VNI) }

// Removes is false.
func (AddNetwork) Removes() bool { return false }

// Removes is true.
func (DelNetwork) Removes() bool { return true }

// Disturbs is empty.
func (AddNetwork) Disturbs() string { return "" }

// Disturbs says that the VNI ends at this host.
func (s DelNetwork) Disturbs() string {
	return fmt.Sprintf("cuts VNI %d off from other hosts", s.VNI)
}

func (s AddNetwork) applyBGP(b *BGP) {
	if b.Networks == nil {
		b.Networks = map[uint32]Network{}
	}
	b.Networks[s.VNI] = s.Network
}

func (s DelNetwork) applyBGP(b *BGP) { delete(b.Networks, s.VNI) }

// String is the gobgp command of the route that has others send to this host.
func (s AddNetwork) String() string { return "gobgp global rib add" + s.Network.words(s.VNI) }

// String is the gobgp command.
func (s DelNetwork) String() string { return "gobgp global rib del" + s.Network.words(s.VNI) }

func (n Network) words(vni uint32) string {
	return fmt.Sprintf(" -a evpn multicast %s etag 0 rd ROUTER-ID:%d rt ASN:%d encap vxlan # VNI %d", n.VTEP, n.VLAN, vni, vni)
}

const (
	speakerObject = "bgp/speaker"
	importObject  = "bgp/import"
)

func neighborObject(name string) string             { return "neighbor/" + name }
func networkObject(vni uint32) string               { return fmt.Sprintf("network/%d", vni) }
func announcementObject(prefix netip.Prefix) string { return "announcement/" + prefix.String() }

// Object is "bgp/speaker".
func (AddSpeaker) Object() string { return speakerObject }

// Object is "bgp/speaker".
func (SetSpeaker) Object() string { return speakerObject }

// Object is "bgp/speaker".
func (DelSpeaker) Object() string { return speakerObject }

// Object is "neighbor/NAME".
func (s AddNeighbor) Object() string { return neighborObject(s.Name) }

// Object is "neighbor/NAME".
func (s SetNeighbor) Object() string { return neighborObject(s.Name) }

// Object is "neighbor/NAME".
func (s DelNeighbor) Object() string { return neighborObject(s.Name) }

// Object is "announcement/PREFIX".
func (s Announce) Object() string { return announcementObject(s.Prefix) }

// Object is "announcement/PREFIX".
func (s Withdraw) Object() string { return announcementObject(s.Prefix) }

// Object is "bgp/import".
func (SetImport) Object() string { return importObject }

// Removes is false.
func (AddSpeaker) Removes() bool { return false }

// Removes is false.
func (SetSpeaker) Removes() bool { return false }

// Removes is true.
func (DelSpeaker) Removes() bool { return true }

// Removes is false.
func (AddNeighbor) Removes() bool { return false }

// Removes is false.
func (SetNeighbor) Removes() bool { return false }

// Removes is true.
func (DelNeighbor) Removes() bool { return true }

// Removes is false.
func (Announce) Removes() bool { return false }

// Removes is true.
func (Withdraw) Removes() bool { return true }

// Removes is false.
func (SetImport) Removes() bool { return false }

// Disturbs is empty.
func (AddSpeaker) Disturbs() string { return "" }

// Disturbs says that every session is reset.
func (SetSpeaker) Disturbs() string { return "resets the sessions with all BGP neighbors" }

// Disturbs says that everything that was learned goes.
func (DelSpeaker) Disturbs() string {
	return "ends the sessions with all BGP neighbors and removes the routes learned from them"
}

// Disturbs is empty.
func (AddNeighbor) Disturbs() string { return "" }

// Disturbs says whether the session is reset.
func (s SetNeighbor) Disturbs() string {
	if s.From.Live(s.To) {
		return ""
	}
	return "resets the BGP session with " + s.Name
}

// Disturbs says that the session ends.
func (s DelNeighbor) Disturbs() string { return "ends the BGP session with " + s.Name }

// Disturbs is empty.
func (Announce) Disturbs() string { return "" }

// Disturbs says that nobody sends to the prefix any more.
func (s Withdraw) Disturbs() string {
	return fmt.Sprintf("neighbors send packets to %s here no more", s.Prefix)
}

// Disturbs is empty: which routes go depends on what neighbors announce.
func (SetImport) Disturbs() string { return "" }

// Live tells whether n can become to without a reset of the session.
func (n Neighbor) Live(to Neighbor) bool {
	n.PrefixLimit = to.PrefixLimit
	return n == to
}

func (s AddSpeaker) applyBGP(b *BGP) { b.Speaker = &s.Speaker }
func (s SetSpeaker) applyBGP(b *BGP) { b.Speaker = &s.To }
func (DelSpeaker) applyBGP(b *BGP)   { *b = BGP{} }

func (s AddNeighbor) applyBGP(b *BGP) { b.put(s.Name, s.Neighbor) }
func (s SetNeighbor) applyBGP(b *BGP) { b.put(s.Name, s.To) }
func (s DelNeighbor) applyBGP(b *BGP) { delete(b.Neighbors, s.Name) }

// put sets a neighbor. Another one with its address goes: there is one session
// with an address.
func (b *BGP) put(name string, n Neighbor) {
	if b.Neighbors == nil {
		b.Neighbors = map[string]Neighbor{}
	}
	for other, o := range b.Neighbors {
		if o.Address == n.Address {
			delete(b.Neighbors, other)
		}
	}
	b.Neighbors[name] = n
}

func (s Announce) applyBGP(b *BGP) {
	if b.Announced == nil {
		b.Announced = map[netip.Prefix]string{}
	}
	b.Announced[s.Prefix] = s.What
}

func (s Withdraw) applyBGP(b *BGP)  { delete(b.Announced, s.Prefix) }
func (s SetImport) applyBGP(b *BGP) { b.Import = cloneFilters(s.To) }

// Apply is b after a step.
func (b BGP) Apply(s BGPStep) BGP {
	c := b.Clone()
	s.applyBGP(&c)
	return c
}

// String is the gobgp command.
func (s AddSpeaker) String() string { return "gobgp global " + s.Speaker.words() }

// String is the gobgp commands.
func (s SetSpeaker) String() string { return "gobgp global del all\ngobgp global " + s.To.words() }

// String is the gobgp command.
func (DelSpeaker) String() string { return "gobgp global del all" }

func (s Speaker) words() string {
	out := fmt.Sprintf("as %d router-id %s", s.ASN, s.RouterID)
	if s.Multipath > 1 {
		out += " use-multipath"
	}
	out += s.restart()
	if s.EVPN {
		out += ", with EVPN"
	}
	return out
}

// restart is said behind the command: gobgp has no words for it.
func (s Speaker) restart() string {
	if s.Restart == 0 {
		return " # no graceful restart"
	}
	return " # graceful restart " + s.Restart.String()
}

// String is the gobgp command.
func (s AddNeighbor) String() string { return "gobgp neighbor add " + s.Neighbor.words() }

// String is the gobgp command.
func (s SetNeighbor) String() string {
	if s.From.Address != s.To.Address {
		return fmt.Sprintf("gobgp neighbor del %s\ngobgp neighbor add %s", s.From.Address, s.To.words())
	}
	return "gobgp neighbor update " + s.To.words()
}

// String is the gobgp command.
func (s DelNeighbor) String() string { return fmt.Sprintf("gobgp neighbor del %s", s.Address) }

// words is what gobgp neighbor add needs, and behind it what it has no words for.
func (n Neighbor) words() string {
	out := fmt.Sprintf("%s as %d", n.Address, n.ASN)
	if n.Password != "" {
		out += " auth-password " + n.Password.String()
	}
	if n.Multihop != 0 {
		out += fmt.Sprintf(" multihop-ttl %d", n.Multihop)
	}
	if n.Client {
		out += " route-reflector-client"
	}
	more := []string{fmt.Sprintf("hold time %s", n.Hold), fmt.Sprintf("at most %d prefixes", n.PrefixLimit)}
	if n.Source.IsValid() {
		more = append(more, fmt.Sprintf("from %s", n.Source))
	}
	if n.Hops != 0 {
		more = append(more, fmt.Sprintf("at most %d hops away", n.Hops))
	}
	if n.BFD != 0 {
		more = append(more, "BFD each "+n.BFD.String())
	}
	if n.Passive {
		more = append(more, "which connects to this host")
	}
	return out + " # " + strings.Join(more, ", ")
}

// String is the gobgp command.
func (s Announce) String() string {
	return "gobgp global rib add " + s.Prefix.String() + family(s.Prefix)
}

// String is the gobgp command.
func (s Withdraw) String() string {
	return "gobgp global rib del " + s.Prefix.String() + family(s.Prefix)
}

func family(p netip.Prefix) string {
	if p.Addr().Is6() {
		return " -a ipv6"
	}
	return ""
}

// String is a comment: which routes go to the kernel is ripstop's own matter.
func (s SetImport) String() string { return "# import" + filterWords(s.To) }

func filterWords(all []Filter) string {
	words := make([]string, len(all))
	for i, f := range all {
		words[i] = f.String()
	}
	if len(words) == 0 {
		return " nothing"
	}
	return ": " + strings.Join(words, "; ")
}

// String is the filter in the file's words: accept 10.0.0.0/8 up to /24 into table 100 from tor1.
func (f Filter) String() string {
	word := "accept"
	if f.Reject {
		word = "reject"
	}
	out := fmt.Sprintf("%s %s", word, f.Prefix)
	if f.Longest != f.Prefix.Bits() {
		out += fmt.Sprintf(" up to /%d", f.Longest)
	}
	if f.Default {
		out += " and the default route"
	}
	if !f.Reject && f.Table != Main {
		out += fmt.Sprintf(" into table %d", f.Table)
	}
	if len(f.From) > 0 {
		out += " from " + strings.Join(f.From, " ")
	}
	return out
}

// Describe is one line for each object.
func (b BGP) Describe() map[string]string {
	out := map[string]string{}
	if b.Speaker != nil {
		out[speakerObject] = b.Speaker.words()
	}
	if len(b.Import) > 0 {
		out[importObject] = SetImport{To: b.Import}.String()[len("# import: "):]
	}
	b.describeL3(out)
	for name, n := range b.Neighbors {
		out[neighborObject(name)] = n.words()
	}
	for vni, n := range b.Networks {
		out[networkObject(vni)] = fmt.Sprintf("VLAN %d from %s", n.VLAN, n.VTEP)
	}
	for p, what := range b.Announced {
		out[announcementObject(p)] = what
	}
	return out
}
