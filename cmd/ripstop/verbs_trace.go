package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"

	v1 "ripstop/api/v1"
	"ripstop/internal/packet"
	"ripstop/vswitch"
)

// trace tells what a switch would do with a frame, or a target with a login.
func (d *daemon) trace(ctx context.Context, ask v1.NewTrace) (v1.Trace, error) {
	if ask.Target != "" && ask.Initiator != "" {
		return d.traceLogin(ctx, ask)
	}
	if ask.Port == "" {
		return v1.Trace{}, refused(http.StatusUnprocessableEntity, "trace: %v", errAskWhat)
	}
	have, err := d.drivers.vswitch.Observe(ctx)
	if err != nil {
		return v1.Trace{}, err
	}
	fdb, err := d.drivers.vswitch.FDB(ctx)
	if err != nil {
		return v1.Trace{}, err
	}
	tunnels, err := d.drivers.vpn.Observe(ctx)
	if err != nil {
		return v1.Trace{}, err
	}
	if _, ok := tunnels.Tunnels[ask.Port]; ok {
		return d.traceTunnel(ctx, ask, tunnels, sight{have, fdb})
	}
	out, err := d.traceFrame(ctx, ask, sight{have, fdb})
	if err == nil {
		afterGateway(&out, tunnels, sight{have, fdb})
	}
	return out, err
}

// traceFrame tells what a switch would do with a frame.
func (d *daemon) traceFrame(ctx context.Context, ask v1.NewTrace, have sight) (v1.Trace, error) {
	frame, err := frameOf(ask, have)
	if err != nil {
		return v1.Trace{}, refused(http.StatusUnprocessableEntity, "trace at port %s: %v", ask.Port, err)
	}
	t, err := d.drivers.vswitch.Trace(ctx, ask.Port, frame)
	var missing *vswitch.NoPortError
	if errors.As(err, &missing) {
		return v1.Trace{}, refused(http.StatusNotFound, "trace: there is no port %q%s", ask.Port, hintOr(ask.Port, portNames(have.state), "port"))
	}
	if err != nil {
		return v1.Trace{}, err
	}
	out := v1.Trace{
		Reaches: t.Reason == "", Reason: t.Reason, Switch: t.Switch, Dataplane: string(t.Dataplane), Port: t.Port, VLAN: int(t.VLAN),
		Frame: hex.EncodeToString(frame), Decisions: []v1.Decision{}, Egress: []v1.Egress{},
	}
	for _, x := range t.Decisions {
		out.Decisions = append(out.Decisions, v1.Decision{Stage: x.Stage, Result: x.Result, Rule: x.Rule})
	}
	for _, e := range t.Egress {
		out.Egress = append(out.Egress, v1.Egress{Port: e.Port, Tagged: e.Tagged})
	}
	return out, nil
}

func portNames(s vswitch.State) (all []string) {
	for _, sw := range s.Switches {
		all = slices.AppendSeq(slices.AppendSeq(all, maps.Keys(sw.Ports)), maps.Keys(sw.Gateways))
	}
	return all
}

// frameOf is the frame of a question.
func frameOf(ask v1.NewTrace, have sight) ([]byte, error) {
	if ask.Frame == "" {
		p, err := packetOf(ask, have)
		if err != nil {
			return nil, err
		}
		return p.Frame()
	}
	if ask.Src+ask.Dst+ask.Protocol+ask.From+ask.To != "" || ask.FromPort != 0 || ask.ToPort != 0 {
		return nil, errors.New("a frame says all of itself: give the frame, or what to make one of")
	}
	b, err := hex.DecodeString(ask.Frame)
	if err != nil {
		return nil, fmt.Errorf("the frame: %w: give it in hexadecimal digits", err)
	}
	const head = 14
	if len(b) < head {
		return nil, fmt.Errorf("the frame has %d bytes: give %d at least, from the receiver's address on", len(b), head)
	}
	if err := checkVLAN(ask.VLAN); err != nil || ask.VLAN == 0 {
		return b, err
	}
	return slices.Concat(b[:12], []byte{0x81, 0, byte(ask.VLAN >> 8), byte(ask.VLAN)}, b[12:]), nil
}

func checkVLAN(vid int) error {
	if vid < 0 || vid > 4095 {
		return fmt.Errorf("VLAN %d: give an id of 1 to 4095, or 0 for no tag", vid)
	}
	return nil
}

// packetOf makes a packet, and has the sender's addresses be the port's and the
// receiver's those of who has the address.
func packetOf(ask v1.NewTrace, have sight) (packet.Packet, error) {
	p := packet.Packet{VLAN: uint16(ask.VLAN), Protocol: packet.Protocol(cmp.Or(ask.Protocol, string(packet.ICMP)))}
	for _, n := range []int{ask.FromPort, ask.ToPort} {
		if n < 0 || n > math.MaxUint16 {
			return p, fmt.Errorf("port %d: give one of 0 to %d", n, math.MaxUint16)
		}
	}
	p.FromPort, p.ToPort = uint16(cmp.Or(ask.FromPort, 49152)), uint16(ask.ToPort)
	if err := checkVLAN(ask.VLAN); err != nil {
		return p, err
	}
	to, err := netip.ParseAddr(ask.To)
	if err != nil {
		return p, errors.New("to: give the IP address of the receiver, or a frame")
	}
	p.To = to
	sender := have.find(func(name string, _ []netip.Prefix) bool { return name == ask.Port })
	if p.From, err = sender.address(ask.From, to); err != nil {
		return p, err
	}
	if p.Src, err = sender.mac(ask.Src, "src"); err != nil {
		return p, err
	}
	if p.Protocol == packet.ARP && ask.Dst == "" {
		ask.Dst = "ff:ff:ff:ff:ff:ff"
	}
	receiver := have.find(func(_ string, list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(a netip.Prefix) bool { return a.Addr() == to })
	})
	if len(receiver.macs) == 0 && ask.Dst == "" {
		receiver = have.gateway(ask.Port, uint16(ask.VLAN), to)
	}
	p.Dst, err = receiver.mac(ask.Dst, "dst")
	return p, err
}

// sight is what is seen of the switches.
type sight struct {
	state vswitch.State
	fdb   []vswitch.FDBEntry
}

// end is a port or gateway whose addresses are a packet's unless others are asked
// for.
type end struct {
	addresses []netip.Prefix
	macs      []vswitch.MAC // the likeliest first
}

func (s sight) find(is func(name string, addresses []netip.Prefix) bool) end {
	for _, sw := range s.state.Switches {
		for name, p := range sw.Ports {
			if !is(name, p.Addresses) {
				continue
			}
			e := end{slices.Concat(p.Addresses, p.Security.AllowedIPs), nil}
			if p.MAC != (vswitch.MAC{}) {
				e.macs = append(e.macs, p.MAC)
			}
			e.macs = slices.Concat(e.macs, p.Security.AllowedMACs, s.stations(name))
			return e
		}
		for name, g := range sw.Gateways {
			if is(name, g.Addresses) {
				return end{g.Addresses, s.stations(name)}
			}
		}
	}
	return end{}
}

// gateway is the gateway of a port's VLAN, to which goes what is in no network of the VLAN.
func (s sight) gateway(port string, vlan uint16, to netip.Addr) end {
	for _, sw := range s.state.Switches {
		p, ok := sw.Ports[port]
		if !ok {
			continue
		}
		for name, g := range sw.Gateways {
			if g.VLAN == cmp.Or(vlan, p.PVID) && !slices.ContainsFunc(g.Addresses, func(n netip.Prefix) bool { return n.Contains(to) }) {
				return end{g.Addresses, s.stations(name)}
			}
		}
	}
	return end{}
}

// stations is the addresses that the FDB has at a port or gateway.
func (s sight) stations(port string) (all []vswitch.MAC) {
	for _, e := range s.fdb {
		if e.Port == port {
			all = append(all, e.MAC)
		}
	}
	return all
}

// address is an IP address of the kind that to is of.
func (e end) address(ask string, to netip.Addr) (netip.Addr, error) {
	if ask != "" {
		a, err := netip.ParseAddr(ask)
		if err != nil {
			return a, fmt.Errorf("from: %w", err)
		}
		return a, nil
	}
	for _, a := range e.addresses {
		if a.Addr().Is4() == to.Unmap().Is4() && !a.Addr().IsUnspecified() {
			return a.Addr(), nil
		}
	}
	return netip.Addr{}, errors.New("from: no address of the port is known: give the IP address of the sender")
}

func (e end) mac(ask, which string) ([6]byte, error) {
	switch {
	case ask != "":
		m, err := net.ParseMAC(ask)
		if err != nil || len(m) != 6 {
			return [6]byte{}, fmt.Errorf("%s: %q is no Ethernet address: write it as 02:00:00:00:00:01", which, ask)
		}
		return [6]byte(m), nil
	case len(e.macs) > 0:
		return e.macs[0], nil
	}
	return [6]byte{}, fmt.Errorf("%s: the Ethernet address is not known: give it", which)
}
