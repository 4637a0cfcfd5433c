package ebpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	"github.com/cilium/ebpf"

	"ripstop/vswitch"
)

// A policy in the kernel is one trie for longest prefixes. The remote address
// leads to a chain of nodes, one for each prefix of some rule that contains it; a
// node leads from protocol and service to the first of its rules. So a packet
// costs two or three steps for each prefix inside a prefix, whatever the number
// of rules.
//
//	10.0.0.0/8  ─► [B, A]       A: any service of rules without a prefix
//	0.0.0.0/0   ─► [A]          B: tcp 22 ─► rule 1,  tcp 80-95 ─► rule 3

// entry is one of the trie.
type entry struct {
	key   filterPolicyKey
	value filterPolicyValue
}

// compiler makes the entries of one policy.
type compiler struct {
	rules   []vswitch.FilterRule
	groups  map[string]uint32
	nodes   uint32
	entries []entry
}

// compile is the entries of a policy.
func compile(p *vswitch.Policy) []entry {
	c := &compiler{rules: p.Rules, groups: map[string]uint32{}, nodes: uint32(filterPolicyTableTABLE_NODES)}
	for i, name := range p.Groups {
		c.groups[name] = uint32(i)
	}
	c.text(strings.Join(p.Groups, ","))
	for _, d := range []vswitch.Direction{vswitch.Out, vswitch.In} {
		for _, six := range []bool{false, true} {
			c.addresses(d, six)
		}
	}
	return c.entries
}

func (c *compiler) add(table uint32, size int, data []byte, words ...uint32) {
	e := entry{key: filterPolicyKey{Bits: uint32(32 + size), Table: filterPolicyTable(table)}}
	copy(e.key.Data[:], data)
	copy(e.value.Words[:], words)
	c.entries = append(c.entries, e)
}

// textPiece is how many bytes of text an entry holds.
const textPiece = 32

// text keeps the names of the groups, so that who finds the trie can tell them.
func (c *compiler) text(s string) {
	for i := 0; i*textPiece < len(s); i++ {
		piece := make([]byte, textPiece)
		copy(piece, s[i*textPiece:])
		words := make([]uint32, textPiece/4)
		for n := range words {
			words[n] = binary.LittleEndian.Uint32(piece[n*4:])
		}
		c.add(uint32(filterPolicyTableTABLE_TEXT), 128, binary.BigEndian.AppendUint32(nil, uint32(i)), words...)
	}
}

// readText is the groups of a policy that is in the kernel.
func readText(m *ebpf.Map) ([]string, error) {
	var all []byte
	for i := uint32(0); ; i++ {
		key := filterPolicyKey{Bits: 32 + 128, Table: filterPolicyTableTABLE_TEXT}
		binary.BigEndian.PutUint32(key.Data[:], i)
		var v filterPolicyValue
		if err := m.Lookup(&key, &v); err != nil {
			if gone(err) == nil {
				break
			}
			return nil, fmt.Errorf("read names of groups: %w", err)
		}
		for _, w := range v.Words {
			all = binary.LittleEndian.AppendUint32(all, w)
		}
	}
	return strings.Split(string(bytes.TrimRight(all, "\x00")), ","), nil
}

// addresses makes the entries of all prefixes of a direction and family, each
// with the chain of those that contain it.
func (c *compiler) addresses(d vswitch.Direction, six bool) {
	everybody := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	table := uint32(filterPolicyTableTABLE_ADDRESS) + uint32(d)*2
	if six {
		everybody, table = netip.PrefixFrom(netip.IPv6Unspecified(), 0), table+1
	}
	own := map[netip.Prefix][]int{everybody: nil}
	for i, r := range c.rules {
		remote := r.Remote
		if !remote.IsValid() {
			remote = everybody
		}
		if r.Direction == d && remote.Addr().Is6() == six {
			own[remote] = append(own[remote], i)
		}
	}
	// What contains a prefix comes before it, and what does not is over.
	type open struct {
		prefix netip.Prefix
		rules  []int
		chain  []uint32
	}
	var stack []open
	for _, p := range slices.SortedFunc(maps.Keys(own), func(a, b netip.Prefix) int {
		if by := a.Addr().Compare(b.Addr()); by != 0 {
			return by
		}
		return a.Bits() - b.Bits()
	}) {
		for len(stack) > 0 && !stack[len(stack)-1].prefix.Contains(p.Addr()) {
			stack = stack[:len(stack)-1]
		}
		here := open{prefix: p, rules: own[p]}
		var above []uint32
		var inherited []int
		if len(stack) > 0 {
			above = stack[len(stack)-1].chain
			for _, s := range stack {
				inherited = append(inherited, s.rules...)
			}
		}
		switch {
		case len(here.rules) == 0:
			here.chain = above
		case len(above) < int(filterFilterLayoutFILTER_DEPTH):
			here.chain = append([]uint32{c.node(here.rules)}, above...)
		default: // one node that knows all of them
			all := append(inherited, here.rules...)
			slices.Sort(all)
			here.chain = []uint32{c.node(slices.Compact(all))}
		}
		c.add(table, p.Bits(), p.Addr().AsSlice(), here.chain...)
		stack = append(stack, here)
	}
}

// node makes the services of some rules and gives it a number.
func (c *compiler) node(rules []int) uint32 {
	c.nodes++
	byProtocol := map[uint8][]int{}
	for _, i := range rules {
		byProtocol[c.rules[i].Protocol] = append(byProtocol[c.rules[i].Protocol], i)
	}
	for _, protocol := range slices.Sorted(maps.Keys(byProtocol)) {
		list := byProtocol[protocol]
		if protocol != vswitch.AnyProtocol {
			list = append(slices.Clone(list), byProtocol[vswitch.AnyProtocol]...)
			slices.Sort(list)
		}
		c.services(c.nodes, protocol, list)
	}
	return c.nodes
}

// services gives each service to the first of the rules that are about it.
func (c *compiler) services(node uint32, protocol uint8, rules []int) {
	cuts := []int{}
	for _, i := range rules {
		cuts = append(cuts, int(c.rules[i].First), int(c.rules[i].Last)+1)
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	const nobody = -1
	owner := slices.Repeat([]int{nobody}, len(cuts)) // of cuts[n] to cuts[n+1]-1
	next := make([]int, len(cuts)+1)                 // the first place from here on without an owner
	for n := range next {
		next[n] = n
	}
	free := func(n int) int {
		for next[n] != n {
			next[n] = next[next[n]]
			n = next[n]
		}
		return n
	}
	for _, i := range rules {
		from, _ := slices.BinarySearch(cuts, int(c.rules[i].First))
		to, _ := slices.BinarySearch(cuts, int(c.rules[i].Last)+1)
		for n := free(from); n < to; n = free(n) {
			owner[n] = i
			next[n] = n + 1
		}
	}
	for n := 0; n+1 < len(cuts); n++ {
		i, first := owner[n], cuts[n]
		for n+2 < len(cuts) && owner[n+1] == i {
			n++
		}
		if i != nobody {
			c.service(node, protocol, uint32(first), uint32(cuts[n+1]-1), i)
		}
	}
}

// service makes the entries of a range, one for each aligned piece.
func (c *compiler) service(node uint32, protocol uint8, first, last uint32, i int) {
	r := c.rules[i]
	for first <= last {
		size := 16
		if first != 0 {
			size = bits.TrailingZeros32(first)
		}
		for first+1<<size-1 > last {
			size--
		}
		c.add(node, 8+16-size, []byte{protocol, byte(first >> 8), byte(first)},
			uint32(i+1), uint32(1-denies(r)), c.groups[r.Group], uint32(r.Place))
		first += 1 << size
	}
}

func denies(r vswitch.FilterRule) int {
	if r.Deny {
		return 1
	}
	return 0
}
