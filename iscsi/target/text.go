package target

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"

	"ripstop/iscsi"
	"ripstop/iscsi/login"
	"ripstop/iscsi/pdu"
)

// maxText is the longest text, in bytes, that an initiator may build up of
// several requests.
const maxText = 8192

// textExchange is a negotiation in full feature phase: text that comes or goes
// in several PDUs.
type textExchange struct {
	in     []byte
	out    []byte
	tag    uint32          // under which the initiator asks for the rest, 0 for none
	itt    uint32          // of all its requests
	seen   map[string]bool // the keys that came
	params login.Params    // what holds when it is through
}

// textRequest answers a Text. A fault ends the negotiation, and nothing of it
// holds.
func (c *conn) textRequest(f *frame) error {
	var m pdu.Text
	if err := c.coder.Decode(f.bhs, &m); err != nil {
		return err
	}
	if ok, err := c.admit(m.CmdSN, m.Immediate); !ok {
		return err
	}
	if m.ITT == pdu.Reserved {
		return c.reject(f, rejectField)
	}
	x := &c.text
	if m.TTT == pdu.Reserved {
		*x = textExchange{itt: m.ITT, seen: map[string]bool{}, params: c.login.Params}
	} else if x.tag == 0 || m.TTT != x.tag || m.ITT != x.itt {
		return c.giveUp(f, rejectField)
	}
	answering := len(x.out) > 0 && len(f.data) > 0 // a new question before the answer is through
	if len(x.in)+len(f.data) > maxText || m.Final && m.Continue || answering {
		return c.giveUp(f, rejectProtocol)
	}
	x.in = append(x.in, f.data...)
	if m.Continue {
		return c.textReply(&m)
	}
	pairs, err := pdu.ParseText(x.in)
	x.in = nil
	if err != nil {
		return c.giveUp(f, rejectProtocol)
	}
	if !c.textKeys(pairs) {
		return c.giveUp(f, rejectProtocol)
	}
	return c.textReply(&m)
}

// giveUp rejects a text request and forgets the negotiation that it is part of.
func (c *conn) giveUp(f *frame, reason uint8) error {
	c.text = textExchange{}
	return c.reject(f, reason)
}

// textKeys answers the keys of a request and tells whether they may come.
func (c *conn) textKeys(pairs []pdu.Pair) bool {
	x := &c.text
	for _, p := range pairs {
		if x.seen[p.Key] {
			return false
		}
		x.seen[p.Key] = true
		if p.Key != "SendTargets" {
			if a := x.params.Text(p.Key, p.Value); a != "" {
				x.out = pdu.AppendText(x.out, p.Key, a)
			}
			continue
		}
		if p.Value == "All" && c.nexus.scsi != nil {
			return false // for discovery sessions only (RFC 7143 appendix C)
		}
		x.out = append(x.out, c.sendTargets(p.Value)...)
	}
	return true
}

// textReply sends as much of the answer as fits into one PDU. With the last one
// what was negotiated holds.
func (c *conn) textReply(m *pdu.Text) error {
	x := &c.text
	c.lock()
	defer c.mu.Unlock()
	n := min(len(x.out), c.maxRecv)
	part := x.out[:n]
	x.out = x.out[n:]
	r := pdu.TextResponse{LUN: m.LUN, TTT: pdu.Reserved, Final: true}
	if len(x.out) > 0 || m.Continue || !m.Final {
		x.tag = c.nextTag()
		r.TTT, r.Final, r.Continue = x.tag, false, len(x.out) > 0
	} else {
		c.login.Params, *x = x.params, textExchange{}
		c.maxRecv = c.login.Params.MaxRecv
	}
	r.ITT = m.ITT
	r.StatSN, r.ExpCmdSN, r.MaxCmdSN = c.stamp()
	return c.out.put(&r, part)
}

// sendTargets lists the targets that what stands for, with the portals under
// which this initiator can reach them: all that are open to it, one by name, or
// with "" the session's own. An initiator that proved itself in discovery is
// shown what this proof opens and what asks none.
func (c *conn) sendTargets(what string) []byte {
	var out []byte
	t := *c.srv.table.Load()
	for _, key := range slices.Sorted(maps.Keys(t)) {
		e, account, err := t.admit(c.login.Initiator, key, c.lis.at, c.origin())
		if err != nil || c.login.Proof != nil && !opens(account, c.login.Proof) {
			continue
		}
		named := what == "All" || what == e.name || what == "" && c.login.Target == key
		if !named || c.nexus.scsi != nil && c.login.Target != key {
			continue
		}
		out = pdu.AppendText(out, "TargetName", e.name)
		for _, p := range e.target.Portals {
			from := c.from
			from.Device = p.Device
			if a, ok := c.sees(p); ok && account.Refuses(from) == "" {
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
