package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	v1 "ripstop/api/v1"
	"ripstop/iscsi"
	"ripstop/vpn"
)

// traceLogin tells whether an initiator may log in to a target from an address.
func (d *daemon) traceLogin(ctx context.Context, ask v1.NewTrace) (v1.Trace, error) {
	from, err := netip.ParseAddr(ask.From)
	if err != nil {
		return v1.Trace{}, refused(http.StatusUnprocessableEntity, "trace to target %s: from: give the IP address of the initiator", ask.Target)
	}
	tunnels, err := d.drivers.vpn.Observe(ctx)
	if err != nil {
		return v1.Trace{}, err
	}
	switches, err := d.drivers.vswitch.Observe(ctx)
	if err != nil {
		return v1.Trace{}, err
	}
	serving, err := d.drivers.iscsi.Observe(ctx)
	if err != nil {
		return v1.Trace{}, err
	}
	name := strings.ToLower(ask.Target)
	t, ok := serving.Targets[name]
	if !ok {
		return v1.Trace{}, refused(http.StatusNotFound, "trace: there is no target %q%s", ask.Target, hintOr(ask.Target, slices.Collect(maps.Keys(serving.Targets)), "target"))
	}
	w := walk{key: "targets." + name}
	o := iscsi.Origin{Device: ask.Through, Address: from}
	if o.Device == "" {
		if o.Device = tunnelOf(tunnels, from); o.Device == "" {
			for _, sw := range switches.Switches {
				for vlan, g := range sw.Gateways {
					if slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Contains(from) }) {
						o.Device = vlan
					}
				}
			}
		}
	}
	if tunnel, ok := tunnels.Tunnels[o.Device]; ok {
		o.Key = w.tunnel(o.Device, tunnel, from)
	}
	w.login(t, strings.ToLower(ask.Initiator), o)
	return v1.Trace{Reaches: w.reason == "", Reason: w.reason, Decisions: w.decisions, Egress: []v1.Egress{}}, nil
}

// tunnelOf is the tunnel one of whose peers may send from an address, by the
// longest allowed IP that has it, "" for none.
func tunnelOf(s vpn.State, a netip.Addr) string {
	best, bits := "", 0 // a way to everything is no sign of anybody
	for _, name := range slices.Sorted(maps.Keys(s.Tunnels)) {
		if _, n := peerOf(s.Tunnels[name], a); n > bits {
			best, bits = name, n
		}
	}
	return best
}

// peerOf is the peer of a tunnel whose packets an address has, and the length of
// its allowed IP, -1 for none.
func peerOf(t vpn.Tunnel, a netip.Addr) (key vpn.Key, bits int) {
	bits = -1
	for k, p := range t.Peers {
		for _, ip := range p.AllowedIPs {
			if ip.Contains(a) && ip.Bits() > bits {
				key, bits = k, ip.Bits()
			}
		}
	}
	return key, bits
}

// walk is the decisions on the way to a target; the first that says no is the last.
type walk struct {
	key       string // of the target in the file
	decisions []v1.Decision
	reason    string
}

func (w *walk) say(stage, result, rule string) {
	w.decisions = append(w.decisions, v1.Decision{Stage: stage, Result: result, Rule: rule})
}

func (w *walk) refuse(stage, why, rule string) {
	w.say(stage, "refused: "+why, rule)
	w.reason = why
}

// tunnel tells by which key packets of the address come.
func (w *walk) tunnel(name string, t vpn.Tunnel, from netip.Addr) *[32]byte {
	key, bits := peerOf(t, from)
	if bits < 0 {
		w.refuse("tunnel", fmt.Sprintf("no peer of tunnel %s may send from %s", name, from), "tunnels."+name+".peers")
		return nil
	}
	peer := cmp.Or(t.Peers[key].Name, key.String())
	w.say("tunnel", fmt.Sprintf("%s comes out of tunnel %s from peer %s alone, whose key is %s", from, name, peer, key),
		"tunnels."+name+".peers."+peer+".allowed-ips")
	out := [32]byte(key)
	return &out
}

// login is what the target does with an initiator from o.
func (w *walk) login(t iscsi.Target, initiator string, o iscsi.Origin) {
	if w.reason != "" {
		return
	}
	at := slices.IndexFunc(t.Portals, func(p iscsi.Portal) bool { return p.Device == o.Device })
	if at < 0 {
		at = slices.IndexFunc(t.Portals, func(p iscsi.Portal) bool { return p.Device == "" })
	}
	if at < 0 {
		w.refuse("portal", "the target has no portal that is reached through "+cmp.Or(o.Device, "an address of the host"), w.key+".portals")
		return
	}
	portal := t.Portals[at]
	o.Device = portal.Device
	w.say("portal", fmt.Sprintf("%s (%s)", portal, portal.Via), fmt.Sprintf("%s.portals", w.key))
	i, ok := t.Admit(initiator)
	rule := w.key + ".initiators." + initiator
	if _, named := t.Initiators[initiator]; !named {
		rule = w.key + ".initiators.any"
	}
	if !ok {
		w.refuse("initiator", "the target is not open to this initiator", w.key+".initiators")
		return
	}
	w.say("initiator", "the target is open to "+initiator, rule)
	if why := i.Refuses(o); why != "" {
		w.refuse("origin", why, rule)
		return
	}
	w.say("origin", "it may come from there", rule)
	if i.CHAP == nil {
		w.say("chap", "no proof is asked", rule)
	} else {
		w.say("chap", "proof is asked of user "+i.CHAP.User, rule+".chap")
	}
	var luns []string
	seen := t.Visible(i)
	for _, n := range slices.Sorted(maps.Keys(seen)) {
		luns = append(luns, fmt.Sprintf("%d:%s", n, seen[n]))
	}
	if len(luns) == 0 {
		w.refuse("luns", "it sees no LUN", w.key+".luns")
		return
	}
	w.say("luns", "it sees "+strings.Join(luns, " "), w.key+".luns")
}

var errAskWhat = errors.New("say what to trace: --port for a frame, or --initiator and --target for a login")
