package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	v1 "ripstop/api/v1"
	"ripstop/vpn"
)

// The stages of a packet's way through a tunnel.
const (
	stageTunnel = "tunnel" // which peer's it is, by the allowed IPs
	stageReach  = "reach"  // what the filter of the peer says
	stageHost   = "host"   // where the host sends what came out of a tunnel
)

// traceTunnel tells what the host does with a packet that comes out of a tunnel.
func (d *daemon) traceTunnel(ctx context.Context, ask v1.NewTrace, have vpn.State, switches sight) (v1.Trace, error) {
	if ask.Frame != "" || ask.Src+ask.Dst != "" || ask.VLAN != 0 {
		return v1.Trace{}, refused(http.StatusUnprocessableEntity, "trace at tunnel %s: what comes out of a tunnel is a packet without Ethernet: give the sender's and the receiver's IP addresses alone", ask.Port)
	}
	from, err := netip.ParseAddr(ask.From)
	if err != nil {
		return v1.Trace{}, refused(http.StatusUnprocessableEntity, "trace at tunnel %s: from: give the IP address of the sender", ask.Port)
	}
	to, err := netip.ParseAddr(ask.To)
	if err != nil || to.Is4() != from.Is4() {
		return v1.Trace{}, refused(http.StatusUnprocessableEntity, "trace at tunnel %s: to: give the IP address of the receiver, of the sender's IP version", ask.Port)
	}
	w, t := walk{}, have.Tunnels[ask.Port]
	out := v1.Trace{Port: ask.Port, Decisions: []v1.Decision{}, Egress: []v1.Egress{}}
	if w.tunnel(ask.Port, t, from) != nil {
		w.reach(ask.Port, t, have.Reach, from, to)
	}
	if w.reason == "" {
		rest, err := d.behindHost(ctx, &w, ask, to, have, switches)
		if err != nil {
			return v1.Trace{}, err
		}
		w.decisions, w.reason = append(w.decisions, rest.Decisions...), cmp.Or(w.reason, rest.Reason)
		out.Switch, out.Dataplane, out.VLAN, out.Frame, out.Egress = rest.Switch, rest.Dataplane, rest.VLAN, rest.Frame, rest.Egress
	}
	out.Reaches, out.Reason, out.Decisions = w.reason == "", w.reason, w.decisions
	return out, nil
}

// reach is what the host's filter of a tunnel, as it is, does with a packet out of it.
func (w *walk) reach(tunnel string, t vpn.Tunnel, filters []vpn.Reach, from, to netip.Addr) {
	rule := reachRule(tunnel, t, from)
	switch allowed, limited := reaches(filters, tunnel, from); {
	case !limited:
		w.say(stageReach, "no filter limits it", "")
	case holds(allowed, to):
		w.say(stageReach, fmt.Sprintf("%s may send to %s", from, to), rule)
	default:
		w.refuse(stageReach, fmt.Sprintf("what %s sends to %s is dropped, it reaches %s", from, to, alone(allowed)), rule)
	}
}

// answers tells of a packet that leaves by a tunnel whose peer may not answer it.
func (w *walk) answers(tunnel string, t vpn.Tunnel, filters []vpn.Reach, from, to netip.Addr) {
	if allowed, limited := reaches(filters, tunnel, to); limited && !holds(allowed, from) {
		w.say(stageReach, fmt.Sprintf("it gets there, and answers are dropped: what %s sends to %s is, it reaches %s", to, from, alone(allowed)), reachRule(tunnel, t, to))
	}
}

// reaches is what an address behind a tunnel reaches by the tunnel's filters, the longest
// prefix first; limited is false where none is about it.
func reaches(filters []vpn.Reach, tunnel string, from netip.Addr) (to []netip.Prefix, limited bool) {
	at := slices.IndexFunc(filters, func(r vpn.Reach) bool { return r.Tunnel == tunnel && r.From.Contains(from) })
	if at < 0 {
		return nil, false
	}
	return filters[at].To, true
}

func holds(all []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Contains(a) })
}

func alone(to []netip.Prefix) string {
	if len(to) == 0 {
		return "nothing"
	}
	return strings.Join(texts(to), ", ") + " alone"
}

func reachRule(tunnel string, t vpn.Tunnel, a netip.Addr) string {
	key, _ := peerOf(t, a)
	return "tunnels." + tunnel + ".peers." + cmp.Or(t.Peers[key].Name, key.String()) + ".reach"
}

// behindHost is where a packet goes that came out of a tunnel: to the host itself, into a
// VLAN by its gateway, or into a tunnel.
func (d *daemon) behindHost(ctx context.Context, w *walk, ask v1.NewTrace, to netip.Addr, have vpn.State, switches sight) (v1.Trace, error) {
	none := v1.Trace{Egress: []v1.Egress{}}
	on := func(all []netip.Prefix) bool {
		return slices.ContainsFunc(all, func(p netip.Prefix) bool { return p.Addr() == to })
	}
	here := func(name string) (v1.Trace, error) {
		w.say(stageHost, fmt.Sprintf("%s is the host's own address at %s", to, name), "")
		none.Egress = []v1.Egress{{Port: name}}
		return none, nil
	}
	for name, t := range have.Tunnels {
		if on(t.Addresses) {
			return here(name)
		}
	}
	for _, sw := range switches.state.Switches {
		for name, g := range sw.Gateways {
			if on(g.Addresses) {
				return here(name)
			}
		}
	}
	for _, sw := range switches.state.Switches {
		for name, g := range sw.Gateways {
			if !slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Contains(to) }) {
				continue
			}
			w.say(stageHost, fmt.Sprintf("%s is in the network of gateway %s", to, name), "vlans."+name+".gateway")
			inside := ask
			inside.Port = name
			t, err := d.traceFrame(ctx, inside, switches)
			if err != nil { // its Ethernet address is not known, so that the gateway would ask for it
				w.say(stageHost, fmt.Sprintf("the way in the VLAN is not known: %v", err), "")
				none.Egress = []v1.Egress{{Port: name}}
				return none, nil
			}
			return t, nil
		}
	}
	if name := tunnelOf(have, to); name != "" {
		key, _ := peerOf(have.Tunnels[name], to)
		w.say(stageTunnel, fmt.Sprintf("%s is behind peer %s of tunnel %s", to, cmp.Or(have.Tunnels[name].Peers[key].Name, key.String()), name),
			"tunnels."+name+".peers."+cmp.Or(have.Tunnels[name].Peers[key].Name, key.String())+".allowed-ips")
		from, err := netip.ParseAddr(ask.From)
		if err == nil {
			w.answers(name, have.Tunnels[name], have.Reach, from, to)
		}
		none.Egress = []v1.Egress{{Port: name}}
		return none, nil
	}
	w.say(stageHost, fmt.Sprintf("%s is in no network of a gateway or tunnel: the host's other routes decide (ip route get %s)", to, to), "")
	none.Egress = []v1.Egress{{Port: "the host"}}
	return none, nil
}

// afterGateway adds to a trace what becomes of a packet that a gateway gets and that is for
// somebody behind a tunnel.
func afterGateway(t *v1.Trace, have vpn.State, switches sight) {
	from, to, ok := addressesOf(t.Frame)
	if !ok || !slices.ContainsFunc(t.Egress, func(e v1.Egress) bool {
		g, is := switches.state.Switches[t.Switch].Gateways[e.Port]
		return is && !slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Contains(to) })
	}) {
		return
	}
	name := tunnelOf(have, to)
	if name == "" {
		return
	}
	w, tunnel := walk{decisions: t.Decisions}, have.Tunnels[name]
	key, _ := peerOf(tunnel, to)
	peer := cmp.Or(tunnel.Peers[key].Name, key.String())
	w.say(stageTunnel, fmt.Sprintf("%s is behind peer %s of tunnel %s, where the host forwards", to, peer, name), "tunnels."+name+".peers."+peer+".allowed-ips")
	w.answers(name, tunnel, have.Reach, from, to)
	t.Decisions = w.decisions
}

// addressesOf is the IP addresses of a frame, which may have tags (IEEE 802.1Q); ok is false
// where it carries no IP.
func addressesOf(digits string) (from, to netip.Addr, ok bool) {
	b, err := hex.DecodeString(digits)
	if err != nil || len(b) < 14 {
		return from, to, false
	}
	for b = b[12:]; len(b) >= 6 && (binary.BigEndian.Uint16(b) == 0x8100 || binary.BigEndian.Uint16(b) == 0x88a8); {
		b = b[4:]
	}
	switch kind := binary.BigEndian.Uint16(b); {
	case kind == 0x0800 && len(b) >= 2+20:
		return netip.AddrFrom4([4]byte(b[2+12:])), netip.AddrFrom4([4]byte(b[2+16:])), true
	case kind == 0x86dd && len(b) >= 2+40:
		return netip.AddrFrom16([16]byte(b[2+8:])), netip.AddrFrom16([16]byte(b[2+24:])), true
	}
	return from, to, false
}
