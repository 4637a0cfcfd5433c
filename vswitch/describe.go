package vswitch

import (
	"cmp"
	"fmt"
	"strings"
)

// Describe is one line for each switch, port and gateway, by the name that its
// steps give as Object. What a wanted state leaves open (a MAC) is not in it, so
// that lines of a wanted and an observed state that agree are the same.
func (s State) Describe() map[string]string {
	out := map[string]string{}
	for name, sw := range s.Canonical().Switches {
		out["switch/"+name] = fmt.Sprintf("%s, %s, %s", sw.Dataplane, count(len(sw.Ports), "port"), count(len(sw.Gateways), "gateway"))
		for n, p := range sw.Ports {
			out["port/"+name+"/"+n] = p.describe()
		}
		for n, g := range sw.Gateways {
			out["gateway/"+name+"/"+n] = g.describe()
		}
	}
	return out
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func (p Port) describe() string {
	words := []string{cmp.Or(string(p.Kind), "damaged")}
	switch p.Kind {
	case Veth:
		words = append(words, p.Netns+":"+p.IfName)
	case Tap:
		if p.User != "" {
			words = append(words, "user "+p.User)
		}
		if p.MultiQueue {
			words = append(words, "of several queues")
		}
	case Device:
		words = append(words, p.Device)
	case VXLAN:
		words = append(words, p.Overlay.String())
	}
	for _, a := range p.Addresses {
		words = append(words, a.String())
	}
	words = append(words, p.membership())
	if s := p.Security.String(); s != "" && p.PVID != NotAttached {
		words = append(words, s)
	}
	if g := p.groups(); g != "" && p.PVID != NotAttached {
		words = append(words, g)
	}
	if l := p.Limit.String(); l != "" && p.PVID != NotAttached {
		words = append(words, l)
	}
	if p.MTU != 0 {
		words = append(words, fmt.Sprintf("mtu %d", p.MTU))
	}
	if p.Down {
		words = append(words, "down")
	}
	return strings.Join(words, " ")
}

// String is the VNI and the VTEPs.
func (o Overlay) String() string {
	words := []string{fmt.Sprintf("vni %d from %s", o.VNI, o.Local)}
	if o.Port != 0 {
		words = append(words, fmt.Sprintf("port %d", o.Port))
	}
	switch {
	case o.Told:
		words = append(words, "told by EVPN")
	case len(o.Peers) == 0:
		words = append(words, "to nobody")
	default:
		words = append(words, "to "+join(o.Peers))
	}
	return strings.Join(words, " ")
}

func (g Gateway) describe() string {
	if g.VLAN == 0 {
		return "damaged"
	}
	words := []string{fmt.Sprintf("vlan %d", g.VLAN)}
	for _, a := range g.Addresses {
		words = append(words, a.String())
	}
	switch g.MTU {
	case 0:
	case Damaged:
		words = append(words, "damaged")
	default:
		words = append(words, fmt.Sprintf("mtu %d", g.MTU))
	}
	return strings.Join(words, " ")
}
