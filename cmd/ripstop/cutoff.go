package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"ripstop/controller/config"
	"ripstop/internal/link"
	"ripstop/internal/reconcile"
	"ripstop/vpn"
	"ripstop/vswitch"
)

// mostLost is how many ways a plan tells of by name.
const mostLost = 8

// A way is something by which others reach this host, and which a plan takes from it.
type way struct {
	what   string         // object and what becomes of it
	to     []netip.Prefix // this host's addresses that are reached by it
	behind []netip.Prefix // who is behind it
	tunnel string         // by which peers come, "" for none
	key    vpn.Key        // of the only peer that is meant, zero for all
}

// callers is who reaches this host at a moment.
type callers struct {
	connections []link.Connection
	tunnels     []vpn.TunnelStats
	at          time.Time
}

// callers is who reaches this host now. Who cannot be seen is not told of.
func (d *daemon) callers(ctx context.Context) callers {
	c := callers{at: time.Now()}
	var err error
	if c.connections, err = link.Connections(); err != nil {
		d.log.Debug("connections to this host unknown", "error", err)
	}
	if c.tunnels, err = d.drivers.vpn.Stats(ctx); err != nil {
		d.log.Debug("peers of tunnels unknown", "error", err)
	}
	return c
}

// cutOff warns of what steps take from a host that was as former says, where somebody
// reaches the host by it.
func (c callers) cutOff(steps []reconcile.Step, former *config.Config) []string {
	var out []string
	more := 0
	for _, w := range lost(steps, former) {
		by := c.by(w)
		switch {
		case by == "":
		case len(out) == mostLost:
			more++
		default:
			out = append(out, fmt.Sprintf("%s: %s: if you or others need that way to this host, apply with `--confirm 5m`: without `ripstop confirm` the former configuration comes back", w.what, by))
		}
	}
	if more > 0 {
		out = append(out, fmt.Sprintf("%d more ways to this host go by which it is reached: apply with `--confirm 5m`", more))
	}
	return out
}

// nowPlain warns of files without hosts for what has been a host of a fabric.
func nowPlain(next, former *config.Config) []string {
	if former.Host == "" || next.Host != "" {
		return nil
	}
	return []string{fmt.Sprintf("this was host %s of a fabric, and the files have no hosts: all that they name is made here, and what the fabric had here goes: "+
		"give the fabric's files, unless it is to leave", former.Host)}
}

// by is who comes by a way, "" for nobody.
func (c callers) by(w way) string {
	var words []string
	come := slices.Collect(func(yield func(link.Connection) bool) {
		for _, x := range c.connections {
			if (holds(w.to, x.To.Addr()) || holds(w.behind, x.From.Addr())) && !yield(x) {
				return
			}
		}
	})
	switch n := len(come); n {
	case 0:
	case 1:
		words = append(words, fmt.Sprintf("a connection comes by it from %s to %s", come[0].From, come[0].To))
	default:
		words = append(words, fmt.Sprintf("%d connections come by it, as from %s to %s", n, come[0].From, come[0].To))
	}
	var heard []string
	for _, t := range c.tunnels {
		for _, p := range t.Peers {
			if t.Name == w.tunnel && (w.key == vpn.Key{} || w.key == p.PublicKey) && c.at.Sub(p.LastHandshake) < vpn.Silence {
				heard = append(heard, cmp.Or(p.Name, p.PublicKey.String()))
			}
		}
	}
	if slices.Sort(heard); len(heard) > 0 {
		words = append(words, "peer "+some(heard)+" was heard from in the last 3 minutes")
	}
	return strings.Join(words, ", and ")
}

// some is the first of names, and how many more there are.
func some(names []string) string {
	if len(names) == 1 {
		return names[0]
	}
	return fmt.Sprintf("%s (and %d more)", names[0], len(names)-1)
}

// lost is the ways to a host that steps take from it. What is made again is not lost.
func lost(steps []reconcile.Step, former *config.Config) []way {
	made := map[string]bool{}
	for _, s := range steps {
		switch s.(type) {
		case vswitch.AddGateway, vpn.AddTunnel, vswitch.AddPort:
			made[s.Object()] = true
		}
	}
	var out []way
	for _, s := range steps {
		if w := takes(s, former); w.what != "" && !made[s.Object()] {
			out = append(out, w)
		}
		if s, ok := s.(vswitch.DelSwitch); ok {
			for _, name := range s.Gateways {
				if g := "gateway/" + s.Name + "/" + name; !made[g] {
					out = append(out, way{what: g + " goes", to: single(former.VLANs[name].Gateways)})
				}
			}
		}
	}
	return out
}

// takes is the way that a step takes from a host, the zero value for none.
func takes(s reconcile.Step, former *config.Config) way {
	object := s.Object()
	switch s := s.(type) {
	case vswitch.DelGateway:
		return way{what: object + " goes", to: single(s.Gateway.Addresses)}
	case vswitch.SetGateway:
		return loses(object, less(s.From.Addresses, s.To.Addresses))
	case vswitch.DelPort:
		if s.Port.Kind == vswitch.Device {
			return way{what: object + " goes", to: servedIn(former, s.Switch, vlansOf(s.Port))}
		}
	case vswitch.SetPort:
		switch left := less(vlansOf(s.From), vlansOf(s.To)); {
		case s.From.Kind != vswitch.Device:
		case s.To.Down && !s.From.Down:
			return way{what: object + " is set down", to: servedIn(former, s.Switch, vlansOf(s.From))}
		case len(left) > 0:
			return way{what: fmt.Sprintf("%s leaves VLAN %s", object, vswitch.Ranges(left)[0]), to: servedIn(former, s.Switch, left)}
		}
	case vpn.DelTunnel:
		t := former.Tunnels[s.Name]
		return way{what: object + " goes", to: single(t.Addresses), behind: behind(slices.Collect(maps.Values(t.Peers))...), tunnel: s.Name}
	case vpn.SetTunnel:
		if s.From.PrivateKey.Public() != s.To.PrivateKey.Public() {
			t := former.Tunnels[s.Name]
			return way{what: object + " gets another key", to: single(t.Addresses), behind: behind(slices.Collect(maps.Values(t.Peers))...), tunnel: s.Name}
		}
		return loses(object, less(s.From.Addresses, s.To.Addresses))
	case vpn.DelPeer:
		return way{what: object + " goes", behind: behind(former.Tunnels[s.Tunnel].Peers[s.Name]), tunnel: s.Tunnel, key: s.Key}
	case vpn.SetPeer:
		if w := less(s.From.AllowedIPs, s.To.AllowedIPs); len(w) > 0 {
			return way{what: fmt.Sprintf("%s loses %s", object, some(texts(w))), behind: behind(config.Peer{AllowedIPs: w})}
		}
	}
	return way{}
}

// loses is the way to some addresses of this host.
func loses(object string, to []netip.Prefix) way {
	if len(to) == 0 {
		return way{}
	}
	to = single(to)
	return way{what: fmt.Sprintf("%s loses %s", object, to[0].Addr()), to: to}
}

// behind is where peers are. What has everything behind it has no routes, and says of
// nobody that he comes by it.
func behind(peers ...config.Peer) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range peers {
		out = append(out, p.AllowedIPs...)
	}
	return slices.DeleteFunc(out, func(p netip.Prefix) bool { return p.Bits() == 0 })
}

// servedIn is the addresses that a host has in VLANs of a switch.
func servedIn(c *config.Config, name string, vlans []uint16) []netip.Prefix {
	var out []netip.Prefix
	for _, v := range c.VLANs {
		if v.Switch == name && slices.Contains(vlans, v.ID) {
			out = append(out, single(v.Gateways)...)
		}
	}
	return out
}

func vlansOf(p vswitch.Port) []uint16 { return append([]uint16{p.PVID}, p.Tagged...) }

// single is the addresses alone, without the subnets that they are in.
func single(all []netip.Prefix) []netip.Prefix {
	out := make([]netip.Prefix, len(all))
	for i, p := range all {
		out[i] = netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
	}
	return out
}

// less is what from has and to has not.
func less[T comparable](from, to []T) []T {
	return slices.DeleteFunc(slices.Clone(from), func(x T) bool { return slices.Contains(to, x) })
}
