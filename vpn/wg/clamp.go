package wg

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"ripstop/vpn"
)

// One table clamps TCP for all tunnels, which a set names:
//
//	forward ─┬─ oifname in tunnels ─┐
//	         └─ iifname in tunnels ─┴─ SYN ─► maxseg = what the route to and the route back carry
//
// The kernel never makes a segment size larger by this. The table stays when this process
// ends; its rules are known by their comments, as those of reach.go.
const (
	clampChain = "mss"
	clampSet   = "tunnels"
	tcpFlags   = 13 // where the flags of TCP are (RFC 9293 section 3.1)
	tcpSYN     = 2
	maxseg     = 2 // the option's kind, and where the size is in it (RFC 9293 section 3.2)
)

// clampWays is the two rules: which device is looked at, and the comment of each.
var clampWays = []struct {
	key     expr.MetaKey
	comment string
}{{expr.MetaKeyOIFNAME, "into tunnels"}, {expr.MetaKeyIIFNAME, "out of tunnels"}}

// unfit tells whether an error says that this kernel has no filters, or not what is asked of them.
func unfit(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, unix.EPERM)
}

// clampTable is the table with its set; ok is false where there is none, or where anything
// of it is not as it was made.
func clampTable(c *nftables.Conn) (t *nftables.Table, set *nftables.Set, ok bool, err error) {
	all, err := again(func() ([]*nftables.Table, error) { return c.ListTablesOfFamily(nftables.TableFamilyINet) })
	if err != nil {
		return nil, nil, false, fmt.Errorf("list filters: %w", err)
	}
	at := slices.IndexFunc(all, func(t *nftables.Table) bool { return t.Name == vpn.ClampTable })
	if at < 0 {
		return nil, nil, false, nil
	}
	t = all[at]
	rules, err := again(func() ([]*nftables.Rule, error) { return c.GetRules(t, &nftables.Chain{Name: clampChain, Table: t}) })
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return nil, nil, false, fmt.Errorf("read the clamp of TCP: %w", err)
	}
	set, err = c.GetSetByName(t, clampSet)
	if err != nil {
		return t, nil, false, nil
	}
	ok = len(rules) == len(clampWays)
	for i, r := range rules {
		ok = ok && comment(r) == clampWays[i].comment
	}
	return t, set, ok, nil
}

// clamps is the tunnels that are clamped, sorted; why is why none can be.
func (d *Driver) clamps() (names []string, why string, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, "", fmt.Errorf("read the clamp of TCP: %w", err)
	}
	_, set, ok, err := clampTable(c)
	switch {
	case unfit(err):
		return nil, err.Error(), nil
	case err != nil:
		return nil, "", err
	case !ok:
		return nil, d.unclamped, nil
	}
	names, err = clampNames(c, set)
	return names, d.unclamped, err
}

func clampNames(c *nftables.Conn, set *nftables.Set) ([]string, error) {
	elements, err := again(func() ([]nftables.SetElement, error) { return c.GetSetElements(set) })
	if err != nil {
		return nil, fmt.Errorf("read the clamp of TCP: %w", err)
	}
	var out []string
	for _, e := range elements {
		name, _, _ := strings.Cut(string(e.Key), "\x00")
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}

// setClamp begins or ends the clamp of a tunnel. Where the kernel cannot, that is noted,
// and the tunnel stands without.
func (d *Driver) setClamp(s vpn.Clamp) error {
	err := setClamp(s)
	if unfit(err) {
		d.unclamped = err.Error()
		d.log.Warn("TCP is not clamped to what tunnels carry", "error", err)
		return nil
	}
	return err
}

func setClamp(s vpn.Clamp) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("clamp TCP of tunnel %s: %w", s.Tunnel, err)
	}
	t, set, whole, err := clampTable(c)
	if err != nil {
		return err
	}
	var names []string
	if whole {
		if names, err = clampNames(c, set); err != nil {
			return err
		}
	}
	there := slices.Contains(names, s.Tunnel)
	element := []nftables.SetElement{{Key: deviceName(s.Tunnel)}}
	switch {
	case whole && s.Off && there && len(names) > 1:
		err = c.SetDeleteElements(set, element)
	case s.Off && t != nil && len(names) <= 1 && (there || !whole):
		c.DelTable(t)
	case whole && !s.Off && !there:
		err = c.SetAddElements(set, element)
	case !whole && !s.Off:
		if t != nil {
			c.DelTable(t)
		}
		err = addClamp(c, element)
	}
	if err == nil {
		err = c.Flush()
	}
	if err != nil {
		return fmt.Errorf("clamp TCP of tunnel %s by nftables: %w", s.Tunnel, err)
	}
	return nil
}

func addClamp(c *nftables.Conn, elements []nftables.SetElement) error {
	t := c.AddTable(&nftables.Table{Name: vpn.ClampTable, Family: nftables.TableFamilyINet})
	set := &nftables.Set{Table: t, Name: clampSet, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}
	if err := c.AddSet(set, elements); err != nil {
		return err
	}
	chain := c.AddChain(&nftables.Chain{Name: clampChain, Table: t, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityMangle})
	for _, way := range clampWays {
		c.AddRule(&nftables.Rule{Table: t, Chain: chain, UserData: userdata.AppendString(nil, userdata.TypeComment, way.comment), Exprs: []expr.Any{
			&expr.Meta{Key: way.key, Register: 1},
			&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_TCP}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlags, Len: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{tcpSYN}, Xor: []byte{0}},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: []byte{0}},
			&expr.Rt{Register: 1, Key: expr.RtTCPMSS},
			&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 2, Size: 2},
			&expr.Exthdr{SourceRegister: 1, Type: maxseg, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
		}})
	}
	return nil
}

// deviceName is a name as the kernel compares it.
func deviceName(name string) []byte {
	out := make([]byte, unix.IFNAMSIZ)
	copy(out, name)
	return out
}

// dropClamps ends the clamp of all tunnels.
func dropClamps() error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("end the clamp of TCP: %w", err)
	}
	t, _, _, err := clampTable(c)
	if unfit(err) || err == nil && t == nil {
		return nil
	}
	if err == nil {
		c.DelTable(t)
		err = c.Flush()
	}
	return err
}
