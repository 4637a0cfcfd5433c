package wg

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"ripstop/vpn"
)

// A tunnel with limited peers has a table of its own. Both of its hooks jump to one chain:
//
//	forward, input ─ iifname TUNNEL ─► reach:  saddr FROM daddr TO accept   for each of TO
//	                                           saddr FROM counter drop      for each FROM, longest first
//
// It stays with the kernel when this process ends. Each rule has a comment by which it
// is known; a rule that somebody changed has none, or another one.
const (
	reachChain = "reach"
	reachSep   = " > "
	reachDrop  = "nothing else"

	sockBuffer = 1 << 20 // bytes of a netlink socket's buffers, and for each rule:
	ruleSize   = 2 << 10 // what is sent
	ackSize    = 4 << 10 // what is heard, as the kernel accounts for it

	filterRetry = 30 * time.Second // where nftables is listened to no more
)

// tables is the tables of this host that are ours.
func tables(c *nftables.Conn) ([]*nftables.Table, error) {
	all, err := again(func() ([]*nftables.Table, error) { return c.ListTablesOfFamily(nftables.TableFamilyINet) })
	if unfit(err) {
		return nil, nil // a kernel or a process that has no filters
	}
	if err != nil {
		return nil, fmt.Errorf("list filters of tunnels: %w", err)
	}
	return slices.DeleteFunc(all, func(t *nftables.Table) bool { return !strings.HasPrefix(t.Name, vpn.ReachTable("")) }), nil
}

// reaches is the filters that are there, sorted as a State has them, and what each has
// dropped since it was made. A table in which anything is not as it was made has one
// filter more, which nobody wants.
func reaches() (all []vpn.Reach, drops map[dropper]uint64, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, nil, fmt.Errorf("read filters of tunnels: %w", err)
	}
	ours, err := tables(c)
	if err != nil {
		return nil, nil, err
	}
	if len(ours) == 0 {
		return nil, nil, nil
	}
	chains, err := again(func() ([]*nftables.Chain, error) { return c.ListChainsOfTableFamily(nftables.TableFamilyINet) })
	if err != nil {
		return nil, nil, fmt.Errorf("list filters of tunnels: %w", err)
	}
	drops = map[dropper]uint64{}
	for _, t := range ours {
		tunnel := strings.TrimPrefix(t.Name, vpn.ReachTable(""))
		rules, err := again(func() ([]*nftables.Rule, error) {
			return c.GetRules(t, &nftables.Chain{Name: reachChain, Table: t})
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return nil, nil, fmt.Errorf("read filters of tunnel %s: %w", tunnel, err)
		}
		is, whole := parseReach(tunnel, rules, drops)
		whole = whole && t.Flags == 0 // not dormant
		for _, hook := range hooks {
			whole = whole && slices.ContainsFunc(chains, func(have *nftables.Chain) bool { return have.Table.Name == t.Name && hook.is(have) })
			jumps, err := again(func() ([]*nftables.Rule, error) { return c.GetRules(t, &nftables.Chain{Name: hook.name, Table: t}) })
			if err != nil && !errors.Is(err, unix.ENOENT) {
				return nil, nil, fmt.Errorf("read filters of tunnel %s: %w", tunnel, err)
			}
			whole = whole && len(jumps) == 1 && comment(jumps[0]) == reachChain
		}
		if !whole {
			is = append([]vpn.Reach{{Tunnel: tunnel}}, is...)
		}
		all = append(all, is...)
	}
	return all, drops, nil
}

// dropper is a filter by whose packets it drops.
type dropper struct {
	tunnel string
	from   netip.Prefix
}

// hook is a base chain by where it is called.
type hook struct {
	name string
	hook *nftables.ChainHook
}

var hooks = []hook{{"forward", nftables.ChainHookForward}, {"input", nftables.ChainHookInput}}

// is tells whether a chain is called there.
func (h hook) is(c *nftables.Chain) bool {
	return c.Name == h.name && c.Type == nftables.ChainTypeFilter && c.Hooknum != nil && *c.Hooknum == *h.hook &&
		c.Priority != nil && *c.Priority == *nftables.ChainPriorityFilter
}

func comment(r *nftables.Rule) string {
	s, _ := userdata.GetString(r.UserData, userdata.TypeComment)
	return s
}

// parseReach reads the rules back; whole is false where one is not as it was made.
func parseReach(tunnel string, rules []*nftables.Rule, drops map[dropper]uint64) (out []vpn.Reach, whole bool) {
	var to []netip.Prefix
	for _, r := range rules {
		from, what, ok := strings.Cut(comment(r), reachSep)
		p, err := netip.ParsePrefix(from)
		if !ok || err != nil {
			return out, false
		}
		if what != reachDrop {
			t, err := netip.ParsePrefix(what)
			if err != nil {
				return out, false
			}
			to = append(to, t)
			continue
		}
		out = append(out, vpn.Reach{Tunnel: tunnel, From: p, To: to})
		to = nil
		for _, e := range r.Exprs {
			if n, ok := e.(*expr.Counter); ok {
				drops[dropper{tunnel, p}] = n.Packets
			}
		}
	}
	return out, len(to) == 0 && len(out) > 0
}

// setReach makes the filters of a tunnel these in one transaction: a packet meets all of
// those before or all of these.
func setReach(tunnel string, to []vpn.Reach) error {
	rules := 0
	for _, r := range to {
		rules += len(r.To) + 1
	}
	// All rules are one message, and each is acknowledged.
	c, err := nftables.New(nftables.WithSockOptions(func(c *netlink.Conn) error {
		return errors.Join(c.SetWriteBuffer(sockBuffer+ruleSize*rules), c.SetReadBuffer(sockBuffer+ackSize*rules))
	}))
	if err != nil {
		return fmt.Errorf("filter tunnel %s: %w", tunnel, err)
	}
	ours, err := tables(c)
	if err != nil {
		return err
	}
	t := &nftables.Table{Name: vpn.ReachTable(tunnel), Family: nftables.TableFamilyINet}
	if slices.ContainsFunc(ours, func(o *nftables.Table) bool { return o.Name == t.Name }) {
		c.DelTable(t)
	} else if len(to) == 0 {
		return nil
	}
	if len(to) > 0 {
		addReach(c, t, tunnel, to)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("filter tunnel %s by nftables: %w", tunnel, err)
	}
	return nil
}

func addReach(c *nftables.Conn, t *nftables.Table, tunnel string, to []vpn.Reach) {
	c.AddTable(t)
	reach := c.AddChain(&nftables.Chain{Name: reachChain, Table: t})
	for _, h := range hooks {
		chain := c.AddChain(&nftables.Chain{Name: h.name, Table: t, Type: nftables.ChainTypeFilter, Hooknum: h.hook, Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, UserData: userdata.AppendString(nil, userdata.TypeComment, reachChain), Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: deviceName(tunnel)},
			&expr.Verdict{Kind: expr.VerdictJump, Chain: reachChain},
		}})
	}
	rule := func(what string, exprs ...expr.Any) {
		c.AddRule(&nftables.Rule{Table: t, Chain: reach, Exprs: exprs, UserData: userdata.AppendString(nil, userdata.TypeComment, what)})
	}
	for _, r := range to {
		from := append(family(r.From), match(r.From, false)...)
		for _, p := range r.To {
			rule(r.From.String()+reachSep+p.String(), append(append(slices.Clone(from), match(p, true)...), &expr.Verdict{Kind: expr.VerdictAccept})...)
		}
		rule(r.From.String()+reachSep+reachDrop, append(slices.Clone(from), &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop})...)
	}
}

// family holds IPv4 or IPv6.
func family(p netip.Prefix) []expr.Any {
	f := byte(unix.NFPROTO_IPV4)
	if p.Addr().Is6() {
		f = unix.NFPROTO_IPV6
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{f}}}
}

// match holds a source, or a destination, against a prefix: the offsets are those of
// RFC 791 section 3.1 and RFC 8200 section 3.
func match(p netip.Prefix, destination bool) []expr.Any {
	if p.Bits() == 0 {
		return nil
	}
	offset, length := uint32(12), uint32(4)
	if p.Addr().Is6() {
		offset, length = 8, 16
	}
	if destination {
		offset += length
	}
	mask := make([]byte, 16)
	for i, bits := 0, p.Bits(); bits > 0; i, bits = i+4, bits-32 {
		binary.BigEndian.PutUint32(mask[i:], ^uint32(0)<<(32-min(bits, 32)))
	}
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: length, Mask: mask[:length], Xor: make([]byte, length)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Addr().AsSlice()},
	}
}

// dropReaches removes the filters of all tunnels.
func dropReaches() error {
	all, _, err := reaches()
	done := map[string]bool{}
	for _, r := range all {
		if !done[r.Tunnel] {
			done[r.Tunnel] = true
			err = errors.Join(err, setReach(r.Tunnel, nil))
		}
	}
	return err
}

// ServeFilters calls changed when tables of nftables come or go, by whomever: a
// `flush ruleset` takes those of tunnels with all others. It ends with ctx.
func (d *Driver) ServeFilters(ctx context.Context, ready, changed func()) error {
	ready()
	for {
		if err := watchFilters(ctx, changed); err != nil {
			d.log.Debug("changes of nftables are not heard", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(filterRetry):
			changed() // by what was not heard
		}
	}
}

func watchFilters(ctx context.Context, changed func()) error {
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = c.CloseLasting() })() // the events end
	m := nftables.NewMonitor(nftables.WithMonitorAction(nftables.MonitorActionAny), nftables.WithMonitorObject(nftables.MonitorObjectTables))
	events, err := c.AddGenerationalMonitor(m)
	if err != nil {
		return errors.Join(err, c.CloseLasting())
	}
	for e := range events {
		if len(e.Changes) > 0 {
			changed()
		}
	}
	return c.CloseLasting()
}
