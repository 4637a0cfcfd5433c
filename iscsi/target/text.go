package target

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"ripstop/iscsi"
	"ripstop/iscsi/pdu"
)

// maxText is the longest text, in bytes, that an initiator may build up of
// several requests.
const maxText = 8192

// textExchange is a negotiation in full feature phase: text that comes or goes
// in several PDUs.
type textExchange struct {
	in  []byte
	out []byte
	tag uint32 // under which the initiator asks for the rest, 0 for none
}

// textRequest answers a Text. The only key with a meaning here is SendTargets.
func (c *conn) textRequest(f *frame) error {
	var m pdu.Text
	if err := c.coder.Decode(f.bhs, &m); err != nil {
		return err
	}
	if ok, err := c.admit(m.CmdSN, m.Immediate); !ok {
		return err
	}
	x := &c.text
	if m.TTT == pdu.Reserved {
		*x = textExchange{}
	} else if m.TTT != x.tag {
		return c.reject(f, rejectField)
	}
	answering := len(x.out) > 0 && len(f.data) > 0 // a new question before the answer is through
	if len(x.in)+len(f.data) > maxText || m.Final && m.Continue || answering {
		return c.reject(f, rejectProtocol)
	}
	x.in = append(x.in, f.data...)
	if m.Continue {
		return c.textReply(&m)
	}
	pairs, err := pdu.ParseText(x.in)
	x.in = nil
	if err != nil {
		return c.reject(f, rejectProtocol)
	}
	for n, p := range pairs {
		if slices.ContainsFunc(pairs[:n], func(q pdu.Pair) bool { return q.Key == p.Key }) {
			return c.reject(f, rejectProtocol)
		}
		if p.Key != "SendTargets" {
			x.out = pdu.AppendText(x.out, p.Key, "NotUnderstood")
			continue
		}
		if p.Value == "All" && c.scsi != nil {
			return c.reject(f, rejectProtocol) // for discovery sessions only (RFC 7143 appendix C)
		}
		x.out = append(x.out, c.sendTargets(p.Value)...)
	}
	return c.textReply(&m)
}

// textReply sends as much of the answer as fits into one PDU.
func (c *conn) textReply(m *pdu.Text) error {
	x := &c.text
	n := min(len(x.out), c.login.Params.MaxRecv)
	part := x.out[:n]
	x.out = x.out[n:]
	r := pdu.TextResponse{LUN: m.LUN, TTT: pdu.Reserved, Final: true}
	if len(x.out) > 0 || m.Continue || !m.Final {
		x.tag = c.nextTag()
		r.TTT, r.Final, r.Continue = x.tag, false, len(x.out) > 0
	}
	r.ITT = m.ITT
	r.StatSN, r.ExpCmdSN, r.MaxCmdSN = c.stamp()
	return c.out.put(&r, part)
}

// sendTargets lists the targets that what stands for, with the portals under
// which this initiator can reach them: all that are open to it, with proof or
// without, one by name, or with "" the session's own.
func (c *conn) sendTargets(what string) []byte {
	var out []byte
	t := *c.srv.table.Load()
	for _, key := range slices.Sorted(maps.Keys(t)) {
		e, _, err := t.admit(c.login.Initiator, key, c.lis.at)
		if err != nil {
			continue
		}
		named := what == "All" || what == e.name || what == "" && c.login.Target == key
		if !named || c.scsi != nil && c.login.Target != key {
			continue
		}
		out = pdu.AppendText(out, "TargetName", e.name)
		for _, p := range e.target.Portals {
			if a, ok := c.sees(p); ok {
				out = pdu.AppendText(out, "TargetAddress", a.String()+","+strconv.Itoa(portalGroup))
			}
		}
	}
	return out
}

// sees is the address under which the initiator at the other end of this
// connection reaches a portal: not one behind another interface, and no
// loopback address unless it came over one.
func (c *conn) sees(p iscsi.Portal) (netip.AddrPort, bool) {
	a := p.Address
	if p.Device != "" && p.Device != c.lis.at.device {
		return a, false
	}
	if a.Addr().IsUnspecified() {
		if a.Addr().Is4() != c.local.Addr().Is4() {
			return a, false
		}
		a = netip.AddrPortFrom(c.local.Addr(), a.Port())
	}
	if a.Addr().IsLoopback() && !c.local.Addr().IsLoopback() {
		return a, false
	}
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port()), true
}
